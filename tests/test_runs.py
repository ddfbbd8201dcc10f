"""The folder of a run is the one in which Lightning keeps its checkpoints."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from torchgeo_msssl.runs import run_folder


class Elsewhere(Logger):
    """Logger that keeps its records on a server and names no folder of a run."""

    save_dir = None
    name = 'experiment'
    version = 3

    def log_hyperparams(self, *args: object, **kwargs: object) -> None: ...

    def log_metrics(self, *args: object, **kwargs: object) -> None: ...


@pytest.mark.parametrize('kind', [CSVLogger, TensorBoardLogger])
def test_the_folder_is_the_loggers(kind: type[Logger], tmp_path: Path) -> None:
    trainer = Trainer(logger=kind(tmp_path, name='experiment', version=2), accelerator='cpu')  # type: ignore[call-arg]
    assert run_folder(trainer) == tmp_path / 'experiment' / 'version_2'


def test_other_loggers_have_a_folder_per_run(tmp_path: Path) -> None:
    trainer = Trainer(logger=Elsewhere(), default_root_dir=tmp_path, accelerator='cpu')
    assert run_folder(trainer) == tmp_path / 'experiment' / 'version_3'


@pytest.mark.parametrize('options', [{'logger': False}, {'fast_dev_run': True}])
def test_runs_that_write_nothing_have_none(options: dict[str, bool], tmp_path: Path) -> None:
    assert run_folder(Trainer(default_root_dir=tmp_path, accelerator='cpu', **options)) is None
    assert run_folder(None) is None
