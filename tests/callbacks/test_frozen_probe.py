"""The frozen probe: honest ground, a fixed baseline, and no failure of a run that is over."""

import csv
import itertools
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import shapely
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from torchgeo_msssl.callbacks import FrozenProbe
from torchgeo_msssl.datamodules import PretrainingDataModule
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError, ScenesNotFoundError
from torchgeo_msssl.evaluation.features import split_labelled_chips
from torchgeo_msssl.geo.labels.raster import RasterLabels
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
    task = FastSiam(model='test_resnet', in_channels=2, hidden_dim=8, output_dim=8, bottleneck_dim=4)
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
    assert set(found[0]) == {'pretrained', 'random initialisation', 'band statistics', 'random convolutions'}
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
    with pytest.raises(ConfigurationError, match='every_n_epochs'):
        FrozenProbe(every_n_epochs=0)


# While it learns.


def train(tiles: tuple[list[str], str], folder: Path, probe: FrozenProbe | None) -> Trainer:
    """Five epochs of two steps, with best.ckpt by the probe where there is one."""
    seed_everything(3)
    data = PretrainingDataModule(tiles[0], chip_size=16, chips_per_epoch=8, batch_size=4, labels=tiles[1])
    best = ModelCheckpoint(folder, 'best', 'knn_accuracy', mode='max', every_n_epochs=2, enable_version_counter=False)
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=5,
        accelerator='cpu',
        enable_progress_bar=False,
        log_every_n_steps=1,
        enable_model_summary=False,
        logger=TensorBoardLogger(folder, 'x', 0),
        callbacks=[probe, best] if probe else [],
    )
    task = FastSiam(model='test_resnet', in_channels=2, hidden_dim=8, output_dim=8, bottleneck_dim=4, views=2)
    trainer.fit(task, datamodule=data)
    return trainer


@pytest.mark.slow
def test_the_best_checkpoint_is_that_of_the_best_probe(
    tiles: tuple[list[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe changes nothing in the training, and its values stand in the epochs it was made in alone."""
    found: list[float] = []
    score, invented = FrozenProbe._score, iter([0.9, 0.4])

    def spy(self: FrozenProbe, *options: Any) -> Any:
        result = score(self, *options)
        if len(found) < 2:
            found.append(result.accuracy)
            result = replace(result, accuracy=next(invented))
        return result

    plain = train(tiles, tmp_path / 'plain', None).lightning_module.state_dict()
    monkeypatch.setattr(FrozenProbe, '_score', spy)
    probe = FrozenProbe(chip_size=16, block_size=32, every_n_epochs=2)
    probed = train(tiles, tmp_path / 'probed', probe).lightning_module.state_dict()
    assert all(torch.equal(probed[key], value) for key, value in plain.items())
    assert len(found) == 2

    with (tmp_path / 'probed' / 'x' / 'version_0' / 'metrics.csv').open(newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['train_loss_epoch']]
    assert [row['knn_accuracy'] for row in rows] == ['', '0.8999999761581421', '', '0.4000000059604645', '']
    best = torch.load(tmp_path / 'probed' / 'best.ckpt', weights_only=True)
    assert best['epoch'] == 1  # the second value, 0.4, is worse
    assert (tmp_path / 'probed' / 'x' / 'version_0' / 'knn.json').is_file()


def test_a_checkpoint_is_chosen_without_the_chips_of_the_test(
    tiles: tuple[list[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, task, logged = trainer_of(Scenes(tiles[0]), tiles[1], tmp_path), make_task().train(), {}
    trainer.current_epoch, trainer.callback_metrics = 0, {}
    task.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign, assignment]
    scored: list[tuple[set[Any], set[Any], float]] = []
    score = FrozenProbe._score

    def spy(self: FrozenProbe, embed: Any, task: Any, scenes: Any, train: Any, test: Any) -> Any:
        result = score(self, embed, task, scenes, train, test)
        scored.append((set(train.queries), set(test.queries), result.accuracy))
        return result

    monkeypatch.setattr(FrozenProbe, '_score', spy)
    probe = FrozenProbe(chip_size=16, block_size=32, every_n_epochs=1)
    probe.on_train_epoch_end(trainer, task)
    probe.on_fit_end(trainer, task)
    (learn, choose, accuracy), (train, test, final), *_ = scored
    assert logged == {'knn_accuracy': accuracy}
    written = json.loads((tmp_path / 'x' / 'version_0' / 'knn.json').read_text())
    assert written['pretrained']['accuracy'] == final
    expected = split_labelled_chips(trainer.datamodule.scenes, RasterLabels(tiles[1]), 16, 0.7, 32)
    assert [train, test] == [set(part.queries) for part in expected]
    assert learn
    assert choose
    ground = [
        shapely.union_all([shapely.box(x.start, y.start, x.stop, y.stop) for x, y, _ in part])
        for part in (learn, choose, test)
    ]
    for one, other in itertools.combinations(ground, 2):
        assert one.intersection(other).area == 0
    assert (learn | choose) <= train
    assert task.model.training


@pytest.mark.parametrize('value', [0.7, None])
def test_another_rank_uses_the_broadcast_value(value: float | None, tmp_path: Path) -> None:
    """It reads nothing (there are no scenes here), logs what rank 0 found, and stops asking when rank 0 does."""
    trainer, task, logged = trainer_of(None, 'labels.tif', tmp_path), make_task(), {}
    trainer.is_global_zero, trainer.current_epoch, asked = False, 0, []
    trainer.strategy = SimpleNamespace(broadcast=lambda own: asked.append(own) or value)
    task.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign, assignment]
    probe = FrozenProbe(every_n_epochs=1)
    for _ in range(2):
        probe.on_train_epoch_end(trainer, task)
    assert asked == ([None, None] if value else [None])
    assert logged == ({'knn_accuracy': value} if value else {})


def test_a_probe_that_cannot_be_done_while_learning_is_told_once(
    tiles: tuple[list[str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_of(Scenes(tiles[0]), tiles[1], tmp_path)
    trainer.current_epoch = 0
    probe = FrozenProbe(chip_size=16, block_size=32, k=5000, every_n_epochs=1)
    with caplog.at_level(logging.WARNING, logger='torchgeo_msssl'):
        for _ in range(3):
            probe.on_train_epoch_end(trainer, make_task())
    assert caplog.text.count('not probed') == 1
