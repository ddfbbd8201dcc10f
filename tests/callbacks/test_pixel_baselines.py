"""Classifiers of pixels next to a tested task."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from torchgeo_msssl.callbacks import PixelBaselines
from torchgeo_msssl.evaluation.baseline_names import BASELINES, baseline_of
from torchgeo_msssl.evaluation.pixel_baselines import BaselineLimits, pixel_baselines
from torchgeo_msssl.tasks import TextureClassifier


def make_chips(count: int, labelled: bool = True) -> list[dict[str, Tensor]]:
    """Noise above and stripes of the same mean below, unlabelled in between."""
    generator = torch.Generator().manual_seed(count)
    stripes = (400 * torch.sin(torch.arange(64))).expand(2, 30, 64)
    mask = torch.full((64, 64), 255, dtype=torch.uint8)
    mask[:28], mask[32:] = 0, int(labelled)
    chips = []
    for _ in range(count):
        image = torch.randint(800, 1200, (2, 64, 64), generator=generator)
        image[:, 34:] += stripes.long()
        chips.append({'image': image.to(torch.uint16), 'mask': mask})
    return chips


class Chips(LightningDataModule):
    """A ``contract.LabelledData``."""

    bands, mean, std, wavelengths, in_channels = ['red', 'nir'], [1000.0] * 2, [200.0] * 2, [665.0, 842.0], 2
    scale, offset, sensor_name, class_names = [1.0] * 2, [0.0] * 2, None, ['soil', 'vine']
    rgb_index, chip_size, batch_size, ignore_index = (0, 0, 0), 64, 2, 255

    def __init__(self, labelled: bool = True) -> None:
        super().__init__()
        self.parts = {'train': make_chips(4, labelled), 'test': make_chips(2)}

    def region_loader(self, part: str, context: int = 0) -> Any:
        return DataLoader(self.parts[part], 2)  # type: ignore[arg-type]

    def train_dataloader(self) -> Any:
        return self.region_loader('train')

    def test_dataloader(self) -> Any:
        return self.region_loader('test')

    def describe_chips(self, batch: Any) -> list[str]:
        return []


def fitted(folder: Path) -> tuple[TextureClassifier, Trainer]:
    seed_everything(0)
    task = TextureClassifier(in_channels=2, max_pixels=2000)
    quiet: dict[str, Any] = {'enable_progress_bar': False, 'enable_model_summary': False, 'enable_checkpointing': False}
    logger = CSVLogger(folder, 'test')
    trainer = Trainer(logger=logger, accelerator='cpu', max_epochs=1, callbacks=[PixelBaselines()], **quiet)
    trainer.fit(task, datamodule=Chips())
    return task, trainer


def test_baselines_are_printed_logged_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, trainer = fitted(tmp_path)
    trainer.test(task, datamodule=Chips(), verbose=False)
    folder = Path(trainer.loggers[0].log_dir or '')
    report = json.loads((folder / 'metrics_test.json').read_text())
    found = {key: one['classes']['vine']['iou'] for key, one in report['baselines'].items()}
    assert list(found) == list(BASELINES)
    # texture tells stripes from noise; single pixels tell the extremes of stripes only
    assert found['logistic_texture'] == pytest.approx(report['classes']['vine']['iou'], abs=0.03)
    assert min(found['logistic_texture'], found['forest_texture']) > 0.9
    assert max(found['logistic_spectral'], found['forest_spectral']) < 0.8
    assert all(one['pixels'] == report['pixels'] == 2 * 60 * 64 for one in report['baselines'].values())
    shown = capsys.readouterr().out
    for name, value in (('network', report['mean_iou']), ('random forest on texture', None)):
        (line,) = (line for line in shown.splitlines() if line.strip().startswith(name))
        assert value is None or line.endswith(f'{value:.3f}')
    assert 'test_iou_vine/forest_texture' in (folder / 'metrics.csv').read_text()


@pytest.mark.slow
def test_costs_are_bounded(tmp_path: Path) -> None:
    task, trainer = fitted(tmp_path)
    trainer.test(task, datamodule=Chips(), verbose=False)
    every = task.baselines['logistic_texture']
    limits = BaselineLimits(max_chips=2, max_pixels=500, max_test_pixels=2000)
    few = pixel_baselines(task, Chips(), limits)['logistic_texture']  # type: ignore[arg-type]
    assert 1800 < few.sum() < 2200
    torch.testing.assert_close(few / few.sum(), every / every.sum(), atol=0.03, rtol=0)


def test_a_test_succeeds_without_baselines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task, trainer = fitted(tmp_path)
    with caplog.at_level(logging.WARNING):
        trainer.test(task, datamodule=Chips(labelled=False), verbose=False)
    assert 'labelled pixels of soil only' in caplog.text
    assert task.baselines == {}


def test_metrics_of_baselines_are_told_from_others() -> None:
    assert baseline_of('forest_texture_iou_vine') == ('random forest on texture', 'test_iou_vine')
    assert baseline_of('logistic_spectral_mean_iou') == ('logistic regression on bands', 'test_mean_iou')
    assert baseline_of('test_iou_vine') is None
    assert baseline_of('baseline_iou_vine') is None
