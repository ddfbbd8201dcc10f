"""Validation of tasks that restore images: scores in reflectance, the same pixels each time, and a picture of them."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from matplotlib.image import imread
from torch import Tensor
from torch.utils.data import DataLoader

from tests.marks import first_fast
from torchgeo_msssl.losses.reconstruction import error_sums, psnr_and_ssim
from torchgeo_msssl.tasks import MAE, Reconstruction
from torchgeo_msssl.tasks.restoration import RestorationTask


def make(name: str) -> RestorationTask:
    if name == 'mae':
        return MAE(model='test_vit', in_channels=4, decoder_dim=32, decoder_depth=1, decoder_heads=2)
    return Reconstruction(model='test_resnet', in_channels=4)


def validated(data_class: type[Any]) -> Any:
    """The tiny data, with the same chips for validation, in two batches."""

    class Validated(data_class):  # type: ignore[misc]
        def val_dataloader(self) -> DataLoader[Any]:
            return DataLoader(self.batches.dataset, batch_size=6)

    return Validated()


@pytest.mark.parametrize('name', first_fast(['reconstruction', 'mae']))
def test_scores_are_of_reflectance(name: str, tiny_data: Any, fit: Callable[..., Trainer], tmp_path: Path) -> None:
    task, data = make(name), validated(tiny_data)
    trainer = fit(task, data, tmp_path)
    logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
    task.eval()
    total, nothing = torch.zeros(2, 3, 4)
    with torch.no_grad():
        for index, batch in enumerate(data.val_dataloader()):
            task.seed_step(index)
            reflectance = batch['image'].float() * 1e-4
            image = torch.where(batch['valid'], (reflectance - 0.08) / 0.05, 0.0)
            corrupted, hidden = task.corrupt(image, batch['valid'])
            restored = task.restore(image, batch['valid'], corrupted, hidden) * 0.05 + 0.08
            mask = hidden & batch['valid']
            total += error_sums(restored, image * 0.05 + 0.08, mask, torch.full((4,), 4 * 0.05))
            nothing += error_sums(corrupted * 0.05 + 0.08, image * 0.05 + 0.08, mask, torch.full((4,), 4 * 0.05))
    psnr, ssim = psnr_and_ssim(total)
    assert logged['val_psnr_given'] == pytest.approx(psnr_and_ssim(nothing)[0].mean().item(), abs=1e-3)
    assert logged['val_ssim_given'] == pytest.approx(psnr_and_ssim(nothing)[1].mean().item(), abs=1e-4)
    for index, band in enumerate(tiny_data.bands):
        assert logged[f'val_psnr_{band}'] == pytest.approx(psnr[index].item(), abs=1e-3)
        assert logged[f'val_ssim_{band}'] == pytest.approx(ssim[index].item(), abs=1e-4)
    assert logged['val_psnr'] == pytest.approx(psnr.mean().item(), abs=1e-3)
    assert logged['val_ssim'] == pytest.approx(ssim.mean().item(), abs=1e-4)
    assert math.isfinite(logged['val_loss'])


def test_a_constant_error_has_the_psnr_of_its_size() -> None:
    """An error of a tenth of the data range is 20 dB."""
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    data_range = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)
    mask = torch.rand(2, 1, 16, 16) < 0.5
    psnr, _ = psnr_and_ssim(error_sums(image + data_range[:, None, None] / 10, image, mask, data_range))
    assert psnr.tolist() == pytest.approx([20.0] * 3)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['mae', 'reconstruction'])
def test_each_validation_hides_the_same(name: str, tiny_data: Any, fit: Callable[..., Trainer], tmp_path: Path) -> None:
    task = make(name)
    seen: list[Tensor] = []

    def corrupt(image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        corrupted, hidden = type(task).corrupt(task, image, valid)
        if not task.training:
            seen.append(hidden)
        return corrupted, hidden

    task.corrupt = corrupt  # type: ignore[method-assign]
    fit(task, validated(tiny_data), tmp_path)
    assert len(seen) == 6  # the sanity check's two batches and two epochs
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[2], seen[4])
    assert torch.equal(seen[3], seen[5])
    assert not torch.equal(seen[2], seen[3])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['mae', 'reconstruction'])
def test_the_run_folder_has_pictures_and_curves(
    name: str, tiny_data: Any, fit: Callable[..., Trainer], tmp_path: Path
) -> None:
    fit(make(name), validated(tiny_data), tmp_path)
    folder = tmp_path / 'run' / 'version_0'
    for file in ('views.png', 'reconstructions.png', 'curves.png', 'encoder.safetensors'):
        assert (folder / file).is_file(), file
    height, width, _ = imread(folder / 'reconstructions.png').shape
    assert width == 4 * 160 + 3 * 2  # four pictures of chips
    assert height > 6 * 160
    with (folder / 'curves.csv').open(newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['train_loss_epoch']]
    assert [bool(row['val_psnr']) for row in rows] == [True, True]


@pytest.mark.slow
def test_validation_does_not_change_the_training(tiny_data: Any, fit: Callable[..., Trainer], tmp_path: Path) -> None:
    weights = []
    for number, data in enumerate((tiny_data(), validated(tiny_data))):
        torch.manual_seed(3)
        task = make('reconstruction')
        fit(task, data, tmp_path / str(number))
        weights.append(task.state_dict())
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())
