"""Processes of a trainer share scenes without communicating."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.prediction.ranks import run_on_ranks
from torchgeo_msssl.shards import Shard

LAUNCHED = {'LOCAL_RANK': '1', 'NODE_RANK': '0', 'WORLD_SIZE': '3'}
TORCHRUN = {
    **{'TORCHELASTIC_RUN_ID': 'x', 'LOCAL_RANK': '0', 'RANK': '2', 'GROUP_RANK': '1'},
    **{'WORLD_SIZE': '4', 'LOCAL_WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': '29500'},
}
SLURM = {
    **{'SLURM_NTASKS': '4', 'SLURM_NTASKS_PER_NODE': '2', 'SLURM_NNODES': '2', 'SLURM_JOB_NAME': 'predict'},
    **{'SLURM_JOB_ID': '1', 'SLURM_PROCID': '3', 'SLURM_LOCALID': '1', 'SLURM_NODEID': '1'},
}

type MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTrainer:
    for name in {*LAUNCHED, *TORCHRUN, *SLURM, 'OMP_NUM_THREADS'}:
        monkeypatch.setenv(name, '1')  # restored after the test, also where Lightning sets it
        monkeypatch.delenv(name)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setattr(rank_zero_only, 'rank', 0, raising=False)

    def make(environment: dict[str, str], **options: Any) -> Trainer:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        silent = {'logger': False, 'enable_progress_bar': False, 'enable_checkpointing': False}
        return Trainer(accelerator='cpu', default_root_dir=tmp_path, **silent, **options)

    return make


@pytest.mark.parametrize(
    ('environment', 'nodes', 'devices', 'expected'),
    [
        ({}, 1, 1, Shard(1, 1)),
        (LAUNCHED, 1, 3, Shard(2, 3)),
        (TORCHRUN, 2, 2, Shard(3, 4)),
        (SLURM, 2, 2, Shard(4, 4)),
    ],
    ids=['one process', 'Lightning', 'torchrun', 'srun'],
)
def test_each_process_has_its_part(
    make_trainer: MakeTrainer, environment: dict[str, str], nodes: int, devices: int, expected: Shard
) -> None:
    strategy = 'auto' if expected.count == 1 else 'ddp'
    trainer = make_trainer(environment, num_nodes=nodes, devices=devices, strategy=strategy)
    parts: list[Shard] = []
    run_on_ranks(trainer, parts.append)
    assert parts == [expected]


def test_other_ways_to_start_processes_are_refused(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer({}, devices=2, strategy='ddp_spawn')
    with pytest.raises(ConfigurationError, match=r'with ddp, got DDPStrategy with _MultiProcessingLauncher; set'):
        run_on_ranks(trainer, print)
