"""The texture classifier: one pass, then fitted; its scores, checkpoint and map."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.prediction.predict import MapSettings, map_scenes
from torchgeo_msssl.tasks import TextureClassifier

BANDS = ['B02', 'B03', 'B04', 'B08']


def make_chips(count: int, size: int = 48, classes: int = 2) -> list[dict[str, Tensor]]:
    """Chips of noise; the right part is class 1 and has stripes of the same mean, one corner is unlabelled."""
    generator = torch.Generator().manual_seed(0)
    chips = []
    for _ in range(count):
        image = torch.randint(800, 1200, (4, size, size), generator=generator)
        edge = int(torch.randint(size // 4, 3 * size // 4, (), generator=generator))
        mask = torch.zeros(size, size, dtype=torch.uint8)
        image[:, :, edge:] += (400 * torch.sin(torch.arange(size))[:, None]).long()
        mask[:, edge:] = classes - 1
        mask[:4, :4] = 255
        valid = torch.ones(1, size, size, dtype=torch.bool)
        valid[..., -1] = False
        constants = {'scale': torch.full((4,), 1e-4), 'offset': torch.zeros(4)}
        chips.append({'image': image.to(torch.uint16), 'mask': mask, 'valid': valid, **constants})
    return chips


class Chips(LightningDataModule):
    """A ``contract.LabelledData``."""

    bands, mean, std, wavelengths = BANDS, [0.1] * 4, [0.02] * 4, [490.0, 560.0, 665.0, 842.0]
    scale, offset, sensor_name, in_channels = [1e-4] * 4, [0.0] * 4, 'sentinel2_l2a', 4
    rgb_index, chip_size, batch_size, ignore_index = (2, 1, 0), 48, 2, 255

    def __init__(self, class_names: tuple[str, ...] = ('background', 'vine'), classes: int = 2) -> None:
        super().__init__()
        self.class_names = list(class_names)
        self.chips = make_chips(6, classes=classes)

    def train_dataloader(self) -> Any:
        return DataLoader(self.chips[:4], 2)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        return DataLoader(self.chips[4:], 2)  # type: ignore[arg-type]

    test_dataloader = val_dataloader

    def region_loader(self, part: str, context: int = 0) -> Any:
        return self.train_dataloader()

    def describe_chips(self, batch: Any) -> list[str]:
        return ['chips of a test']

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


def make_trainer(folder: Path, **options: Any) -> Trainer:
    save = ModelCheckpoint(folder, filename='best', monitor='val_mean_iou', mode='max', enable_version_counter=False)
    quiet: dict[str, Any] = {'logger': False, 'enable_progress_bar': False, 'enable_model_summary': False}
    return Trainer(default_root_dir=folder, accelerator='cpu', max_epochs=1, callbacks=[save], **quiet, **options)


def fit(folder: Path, data: Chips | None = None, **options: Any) -> tuple[TextureClassifier, Trainer]:
    seed_everything(0)
    data = data or Chips()
    task = TextureClassifier(in_channels=4, num_classes=len(data.class_names), max_pixels=2000, **options)
    trainer = make_trainer(folder)
    trainer.fit(task, datamodule=data)
    return task, trainer


def logits(task: TextureClassifier) -> Tensor:
    batch = next(iter(Chips().val_dataloader()))
    with torch.no_grad():
        return task.eval()(*(batch[key] for key in ('image', 'valid', 'scale', 'offset')))


@pytest.mark.slow
@pytest.mark.parametrize('classifier', ['logistic', 'forest'])
def test_a_fit_is_validated_saved_and_tested(classifier: Any, tmp_path: Path) -> None:
    task, trainer = fit(tmp_path, classifier=classifier)
    assert trainer.callback_metrics['val_mean_iou'] > 0.85  # the epoch is validated after the fit
    assert trainer.callback_metrics['val_iou_vine'] > 0.85
    assert trainer.callback_metrics['train_loss'] < 0.2
    assert trainer.global_step == 1
    loaded = TextureClassifier.load_from_checkpoint(tmp_path / 'best.ckpt', weights_only=True)
    assert (loaded.bands, loaded.class_names) == (BANDS, ['background', 'vine'])
    assert torch.equal(logits(loaded), logits(task))
    torch.testing.assert_close(logits(task).exp().sum(dim=1), torch.ones(2, 48, 48))
    tested = TextureClassifier(in_channels=4, classifier=classifier)
    trainer = make_trainer(tmp_path)
    trainer.test(tested, datamodule=Chips(), ckpt_path=str(tmp_path / 'best.ckpt'), verbose=False, weights_only=True)
    assert trainer.callback_metrics['test_iou_vine'] > 0.85
    assert torch.equal(logits(tested), logits(task))


def test_pixels_alone_cannot_tell_stripes_from_noise(tmp_path: Path) -> None:
    _, trainer = fit(tmp_path, features='spectral')
    assert trainer.callback_metrics['val_mean_iou'] < 0.7


def test_a_fit_depends_on_the_seed_alone(tmp_path: Path) -> None:
    first, second = (fit(tmp_path / name)[0] for name in 'ab')
    assert torch.equal(logits(first), logits(second))


def test_classes_without_pixels_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ('background', 'meadow', 'vine')
    with caplog.at_level(logging.WARNING):
        task, trainer = fit(tmp_path, Chips(names, classes=3))
    assert 'no labelled pixel of meadow; no map will show it' in caplog.text
    assert (logits(task).argmax(dim=1) != 1).all()
    assert torch.isfinite(trainer.callback_metrics['val_loss'])
    with pytest.raises(ConfigurationError, match='labelled pixels of background only, and a classifier needs two'):
        fit(tmp_path / 'one', Chips(classes=1))


def test_options_are_checked(tmp_path: Path) -> None:
    for options, message in (
        ({'features': 'colour'}, "features: expected one of spectral, texture, got 'colour'"),
        ({'classifier': 'svm'}, "classifier: expected one of logistic, forest, got 'svm'"),
        ({'inverse_regularization': 0}, 'inverse_regularization: expected a positive number, got 0'),
        ({'max_pixels': 1}, 'max_pixels: expected 2 or more, got 1'),
        ({'class_names': ['vine']}, 'class_names: expected 2 different names'),
    ):
        with pytest.raises(ConfigurationError, match=message):
            TextureClassifier(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize('classifier', ['logistic', 'forest'])
def test_a_map_equals_features_of_the_whole_scene(
    classifier: Any, tmp_path: Path, make_scene: Callable[..., str]
) -> None:
    """Small windows give the map of the whole scene, mirrored at its edges; nodata stays without influence."""
    task, _ = fit(tmp_path, classifier=classifier)
    image = np.random.default_rng(0).integers(600, 1400, (4, 70, 80)).astype(np.uint16)
    image[:, 30:50, 20:60] = 0
    scene = make_scene('T31TFJ_20210601.tif', image, names=BANDS, nodata=0)
    settings = MapSettings(str(tmp_path / 'maps'), window=96, probabilities='float32')
    (result,) = map_scenes(task, scene, tmp_path / 'best.ckpt', settings)
    assert result.probabilities is not None
    with rasterio.open(result.probabilities) as dataset:
        found = dataset.read()
    padded = torch.from_numpy(np.pad(image.astype(np.float32), ((0, 0), (40, 40), (40, 40)), mode='reflect'))[None]
    with torch.no_grad():
        whole = task.cpu()(padded, (padded > 0).all(dim=1, keepdim=True), torch.full((1, 4), 1e-4), torch.zeros(1, 4))
    expected = whole.softmax(dim=1)[0, :, 40:-40, 40:-40].numpy()
    holes = np.isnan(found[0])
    assert holes.sum() == 800
    np.testing.assert_allclose(found[:, ~holes], expected[:, ~holes], atol=1e-5)
