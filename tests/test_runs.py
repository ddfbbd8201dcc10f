"""The folder of a run is the one in which Lightning keeps its checkpoints."""

import os
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from torchgeo_msssl.errors import NonFiniteLossError
from torchgeo_msssl.runs import new_run_folder, run_folder, weights_of_run


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


def new_run(folder: Path, version: int = 0) -> Trainer:
    return Trainer(logger=TensorBoardLogger(folder, name='x', version=version), accelerator='cpu')


def fail(trainer: Trainer, error: BaseException, *files: Path, steps: int = 0, events: bool = False) -> None:
    """Run until an error after some steps and files."""
    with new_run_folder(trainer):
        for path in files:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        if events:
            trainer.logger.experiment.add_scalar('loss', 1.0)  # type: ignore[union-attr]
        trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = steps
        raise error


def test_a_run_that_fails_before_its_first_step_leaves_no_folder(tmp_path: Path) -> None:
    folder = tmp_path / 'x' / 'version_0'
    with pytest.raises(KeyboardInterrupt):
        fail(new_run(tmp_path), KeyboardInterrupt(), folder / 'config.yaml', folder / 'views.png', events=True)
    assert not folder.exists()


@pytest.mark.parametrize(
    'file', ['notes.txt', 'checkpoints/last.ckpt', 'a/config.yaml', 'events.out.tfevents.1.host.1.0']
)
def test_other_files_keep_the_folder(file: str, tmp_path: Path) -> None:
    path = tmp_path / 'x' / 'version_0' / file
    with pytest.raises(ValueError, match='failed'):
        fail(new_run(tmp_path), ValueError('failed'), path)
    assert path.is_file()


def test_folders_that_existed_started_or_show_a_bad_loss_stay(tmp_path: Path) -> None:
    (tmp_path / 'x' / 'version_0').mkdir(parents=True)
    for version, error in enumerate((ValueError('failed'), NonFiniteLossError('failed'), ValueError('failed'))):
        with pytest.raises(type(error)):
            fail(new_run(tmp_path, version), error, steps=int(version == 2))
        assert (tmp_path / 'x' / f'version_{version}').is_dir()
    with new_run_folder(new_run(tmp_path, 3)):
        pass
    assert (tmp_path / 'x' / 'version_3').is_dir()


def test_weights_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = ('a/version_0/encoder.safetensors', 'a/few/checkpoints/last.ckpt', 'b/version_0/checkpoints/best.ckpt')
    for age, file in enumerate((*files, 'a/version_0/checkpoints/last.ckpt')):
        path = Path('runs', file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1e9 + age, 1e9 + age))
    expected = {'a': files[1], 'a/version_0': files[0], 'b': files[2]}
    assert {name: weights_of_run(name) for name in expected} == {k: Path('runs', v) for k, v in expected.items()}
    for name in ('c', 'a/version_1', 'imagenet', f'runs/{files[0]}'):
        assert weights_of_run(name) is None
