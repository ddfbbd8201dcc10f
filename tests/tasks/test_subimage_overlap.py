"""Subimage overlap prediction as a task: its loss, its scores, and its checkpoint."""

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

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.segmentation import create_network
from torchgeo_msssl.models.weights import load_network
from torchgeo_msssl.tasks import Acceleration, SubimageOverlap

#: A network of a few thousand parameters.
TINY: dict[str, Any] = {'model': 'test_resnet', 'in_channels': 4, 'matching_dim': 8}
EXACT: dict[str, Any] = {'common_gain': (1.0, 1.0), 'band_gain': (1.0, 1.0)}


def make_batch(bands: int = 4, side: int = 32, batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        'image': torch.randint(1, 60000, (batch, bands, side, side), generator=generator).to(torch.uint16),
        'valid': torch.ones(batch, 1, side, side, dtype=torch.bool),
        'scale': torch.full((batch, bands), 1e-4),
        'offset': torch.zeros(batch, bands),
    }


def match_pixels(image: Tensor, subimage: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """A network that finds a sub-image by comparing pixels."""
    logits = []
    for one, part, known in zip(image, subimage, valid, strict=True):
        pixels = part[:, known[0]].T
        inside = (one.flatten(1).T[:, None] == pixels[None]).all(dim=-1).any(dim=-1).reshape(one.shape[1:])
        logits.append(torch.stack([torch.where(inside, -20.0, 20.0), torch.where(inside, 20.0, -20.0)]))
    return torch.stack(logits), image.mean(dim=(-2, -1))


def validated(data_class: type[Any]) -> Any:
    """The tiny data, with the same chips for validation, in two batches."""

    class Validated(data_class):  # type: ignore[misc]
        def val_dataloader(self) -> DataLoader[Any]:
            return DataLoader(self.batches.dataset, batch_size=6)

    return Validated()


@pytest.mark.parametrize('bands', [1, 5])
def test_everything_learns(bands: int) -> None:
    task = SubimageOverlap(**(TINY | {'in_channels': bands}))
    batch = make_batch(bands)
    loss, features, embedding = task.compute_loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert features.shape == embedding.shape == task(batch['image']).shape
    assert all(p.grad is not None for p in task.parameters() if p.requires_grad)


# Loss.


def test_a_network_that_compares_pixels_has_no_loss() -> None:
    """So image, sub-image and target belong together, through flips, turns and standardization."""
    task = SubimageOverlap(**TINY, **EXACT)
    task.predict_overlap = match_pixels  # type: ignore[method-assign]
    batch = make_batch()
    batch['valid'][..., :10, :] = False
    assert task.compute_loss(batch)[0].item() < 1e-6
    other = SubimageOverlap(**TINY)  # gains of the sub-image
    other.predict_overlap = match_pixels  # type: ignore[method-assign]
    assert other.compute_loss(batch)[0].item() > 1


def test_golden_values_of_the_loss() -> None:
    """Logits of 0 are probabilities of one half: ln 2, and Dice of areas."""
    target = torch.zeros(1, 8, 8, dtype=torch.int64)
    target[:, :2, :4] = 1
    target[:, 6:] = 255  # 48 pixels are labelled, 8 of them inside
    for loss, expected in (
        ('ce', math.log(2)),
        ('dice', 1 - (40 / (24 + 40) + 8 / (24 + 8)) / 2),
        ('ce+dice', 1.255647180559945),
    ):
        task = SubimageOverlap(**TINY, loss=loss)
        assert task.loss_of(torch.zeros(1, 2, 8, 8), target).item() == pytest.approx(expected, abs=1e-6)


def test_two_ranks_are_one_process_on_the_whole_batch() -> None:
    """Each chip counts the same, so the mean over equal parts of a batch is that of the batch."""
    task = SubimageOverlap(**TINY).double()
    batch = make_batch(batch=4)
    batch['valid'][2:, :, :20] = False  # the second rank has far fewer valid pixels
    target = task.make_example(batch).target
    logits = torch.randn(4, 2, 32, 32, dtype=torch.float64, requires_grad=True)
    (whole,) = torch.autograd.grad(task.loss_of(logits, target), logits)
    halves = torch.stack([task.loss_of(logits[part], target[part]) for part in (slice(2), slice(2, 4))])
    assert halves.mean().item() == pytest.approx(task.loss_of(logits, target).item(), abs=1e-12)
    torch.testing.assert_close(torch.autograd.grad(halves.mean(), logits)[0], whole)


def test_values_without_data_change_nothing() -> None:
    task = SubimageOverlap(**TINY).eval()
    batch = make_batch()
    batch['valid'][..., 10:20, 5:15] = False
    losses = []
    for value in (0, 60000):
        batch['image'] = torch.where(batch['valid'], batch['image'].int(), value).to(torch.uint16)
        torch.manual_seed(0)
        losses.append(task.compute_loss(batch)[0].item())
    assert losses[0] == losses[1]
    target = task.make_example(batch, augment=False).target
    assert torch.equal(target == 255, ~batch['valid'][:, 0])


def test_chips_of_any_size() -> None:
    """They are padded inside the network alone."""
    task = SubimageOverlap(**TINY).eval()
    example = task.make_example(make_batch(side=50))
    assert example.subimage.shape[-1] == 25
    with torch.no_grad():
        found, _ = task.predict_overlap(example.image, example.subimage, example.subimage_valid)
        padded, _ = task.predict_overlap(
            torch.nn.functional.pad(example.image, (0, 14, 0, 14)), example.subimage, example.subimage_valid
        )
    torch.testing.assert_close(found, padded[..., :50, :50])


def test_the_prediction_depends_on_the_sub_image() -> None:
    task = SubimageOverlap(**TINY).eval()
    example = task.make_example(make_batch())
    with torch.no_grad():
        found, other = (
            task.predict_overlap(example.image, *parts)[0]
            for parts in (
                (example.subimage, example.subimage_valid),
                (example.subimage.roll(1, 0), example.subimage_valid.roll(1, 0)),
            )
        )
    assert not torch.allclose(found, other)


# Validation.


def test_scores_are_those_of_the_validation_chips(tiny_data: Any, fit: Callable[..., Trainer], tmp_path: Path) -> None:
    task, data = SubimageOverlap(**TINY), validated(tiny_data)
    trainer = fit(task, data, tmp_path)
    task.eval()
    inside, either, labelled, known = 0, 0, 0, 0
    with torch.no_grad():
        for index, batch in enumerate(data.val_dataloader()):
            task.seed_step(index)
            example = task.make_example(batch, augment=False)
            logits, _ = task.predict_overlap(example.image, example.subimage, example.subimage_valid)
            valid = example.target != 255
            predicted, truth = valid & (logits[:, 1] > logits[:, 0]), example.target == 1
            inside += int((predicted & truth).sum())
            either += int((predicted | truth).sum())
            labelled, known = labelled + int(truth.sum()), known + int(valid.sum())
    assert float(trainer.callback_metrics['val_iou']) == pytest.approx(inside / either, abs=1e-6)
    assert float(trainer.callback_metrics['val_iou_everywhere']) == pytest.approx(labelled / known, abs=1e-6)
    with (tmp_path / 'run' / 'version_0' / 'curves.csv').open(newline='') as file:
        rows = [row for row in csv.DictReader(file) if row['train_loss_epoch']]
    # every validation cuts the same sub-images
    assert rows[0]['val_iou_everywhere'] == rows[1]['val_iou_everywhere']
    folder = tmp_path / 'run' / 'version_0'
    assert (folder / 'encoder.safetensors').is_file()
    assert imread(folder / 'overlaps.png').shape[1] == 4 * 160 + 3 * 2  # chip, sub-image, place, prediction
    assert imread(folder / 'views.png').shape[1] == 4 * 160 + 3 * 2  # the chip as it is, then the first three


@pytest.mark.slow
def test_a_network_that_compares_pixels_has_an_iou_of_1(
    tiny_data: Any, fit: Callable[..., Trainer], tmp_path: Path
) -> None:
    task = SubimageOverlap(**TINY, **EXACT)

    def find(image: Tensor, subimage: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        logits, features = match_pixels(image, subimage, valid)
        return logits + 0 * task.overlap_head[0].bias.sum(), features

    task.predict_overlap = find  # type: ignore[method-assign]
    trainer = fit(task, validated(tiny_data), tmp_path, epochs=1)
    # two pixels of a chip may have the same values
    assert float(trainer.callback_metrics['val_iou']) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_validation_does_not_change_the_training(tiny_data: Any, fit: Callable[..., Trainer], tmp_path: Path) -> None:
    weights = []
    for number, data in enumerate((tiny_data(), validated(tiny_data))):
        torch.manual_seed(3)
        task = SubimageOverlap(**TINY)
        fit(task, data, tmp_path / str(number), epochs=1)
        weights.append(task.state_dict())
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


# Checkpoints.


@pytest.mark.slow
def test_the_whole_network_starts_a_segmentation(tiny_data: Any, fit: Callable[..., Trainer], tmp_path: Path) -> None:
    task = SubimageOverlap(**TINY)
    trainer = fit(task, tiny_data(), tmp_path, epochs=1)
    trainer.save_checkpoint(tmp_path / 'last.ckpt')
    network: Any = create_network('unet', 'test_resnet', 4, 3)
    report = load_network(network, tmp_path / 'last.ckpt', bands=tiny_data.bands)
    assert {key.partition('.')[0] for key in report.missing} == {'segmentation_head'}
    own: Any = task.decoder
    assert all(torch.equal(own.state_dict()[key], tensor) for key, tensor in network.decoder.state_dict().items())
    # without the evidence of a sub-image the two networks compute the same
    task.matching.levels = []
    task.matching.projections = task.matching.evidence = torch.nn.ModuleList()
    network.segmentation_head = task.overlap_head
    image = torch.randn(2, 4, 32, 32)
    with torch.no_grad():
        expected, _ = task.eval().predict_overlap(image, image, torch.ones(2, 1, 32, 32, dtype=torch.bool))
        torch.testing.assert_close(network.eval()(image), expected)


def test_a_task_is_built_from_its_hyperparameters() -> None:
    task = SubimageOverlap(**TINY, subimage_size=(0.3, 0.4), architecture='fpn', loss='dice')
    assert {type(value).__module__ for value in task.hparams.values()} == {'builtins'}
    again = SubimageOverlap(**dict(task.hparams))
    assert again.random_subimage.size == (0.3, 0.4)
    assert again.state_dict().keys() == task.state_dict().keys()


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(check_resume: Callable[..., Any], tmp_path: Path) -> None:
    middle, end = check_resume(lambda: SubimageOverlap(**TINY), tmp_path)
    for name in ('model.bn1.running_mean', 'matching.evidence.0.weight', 'overlap_head.0.weight'):
        assert not torch.equal(middle['state_dict'][name], end['state_dict'][name])


def test_compilation_is_refused(tiny_data: Any, tmp_path: Path) -> None:
    trainer = Trainer(
        default_root_dir=tmp_path,
        max_steps=1,
        logger=False,
        accelerator='cpu',
        enable_checkpointing=False,
        callbacks=[Acceleration(compile=True)],
    )
    with pytest.raises(ConfigurationError, match='SubimageOverlap calls parts of its encoder'):
        trainer.fit(SubimageOverlap(**TINY), datamodule=tiny_data())


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'subimage_size': (0.5, 1.5)}, 'subimage_size'),
        ({'loss': 'mse'}, 'loss'),
        ({'architecture': 'dpt'}, 'architecture'),
        ({'temperature': 0}, 'temperature'),
        ({'matching_dim': 0}, 'matching_dim'),
        ({'warmup_epochs': -1}, 'warmup_epochs'),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        SubimageOverlap(**(TINY | options))
