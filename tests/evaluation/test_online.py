"""The frozen probe: honest ground, a fixed baseline, and no failure of a run that is over."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError, ScenesNotFoundError
from torchgeo_msssl.evaluation import FrozenProbe
from torchgeo_msssl.tasks import FastSiam

Make = Callable[..., str]


def trainer_of(scenes: Scenes | None, labels: Any, folder: Path) -> SimpleNamespace:
    return SimpleNamespace(
        datamodule=SimpleNamespace(scenes=scenes, labels=labels),
        is_global_zero=True,
        fast_dev_run=False,
        loggers=[TensorBoardLogger(folder, 'x', 0)],
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )


def make_task() -> FastSiam:
    task = FastSiam('resnet18', 2, hidden_dim=8, output_dim=8, bottleneck_dim=4)
    task.normalize.set_statistics([0.1] * 2, [0.05] * 2, [1e-4] * 2, [0.0] * 2)
    return task


def test_scores_are_printed_and_written(
    tiles: tuple[list[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes that differ in brightness: band statistics find them, whatever the global generator is at."""
    probe = FrozenProbe(chip_size=16, block_size=32)
    task = make_task().train()
    task.model.layer1.eval()  # a frozen part stays frozen
    before = {key: value.clone() for key, value in task.state_dict().items()}
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        probe.on_fit_end(trainer_of(Scenes(tiles[0]), tiles[1], tmp_path), task)
        assert torch.equal(torch.get_rng_state(), state)
        found.append(json.loads((tmp_path / 'x' / 'version_0' / 'knn.json').read_text()))
    assert found[0] == found[1]
    assert found[0]['band statistics']['accuracy'] == 1.0
    assert set(found[0]) == {'pretrained', 'random initialisation', 'band statistics'}
    assert 'random initialisation' in capsys.readouterr().out
    assert task.model.training
    assert not task.model.layer1.training
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())


def test_without_labels_nothing_is_probed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger='torchgeo_msssl'):
        FrozenProbe().on_fit_start(trainer_of(None, None, tmp_path), make_task())
        FrozenProbe().on_fit_end(trainer_of(None, None, tmp_path), make_task())
    assert 'data.labels' in caplog.text


@pytest.mark.parametrize('options', [{'k': 5000}, {'block_size': 5000}])
def test_a_probe_that_cannot_be_done_is_told(
    tiles: tuple[list[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, int]
) -> None:
    probe = FrozenProbe(**({'chip_size': 16, 'block_size': 32} | options))
    with caplog.at_level(logging.WARNING, logger='torchgeo_msssl'):
        probe.on_fit_end(trainer_of(Scenes(tiles[0]), tiles[1], tmp_path), make_task())
    assert 'not probed' in caplog.text
    assert not list(tmp_path.rglob('knn.json'))


def test_labels_that_are_not_there_are_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(ScenesNotFoundError, match='nowhere'):
        FrozenProbe().on_fit_start(trainer_of(None, str(tmp_path / 'nowhere.tif'), tmp_path), make_task())


def test_blocks_hold_a_chip() -> None:
    with pytest.raises(ConfigurationError, match='block_size'):
        FrozenProbe(chip_size=64, block_size=32)
