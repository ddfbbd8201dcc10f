"""Reconstruction as a task: what counts, what it hands on, and to whom."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchgeo.tasks import SemanticSegmentation

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models import load_encoder
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.segmentation import create_network
from torchgeo_msssl.models.weights import load_network
from torchgeo_msssl.tasks import Reconstruction

CORRUPTIONS = ['coarse_cutout', 'patch_mask', 'crappify']


def make_batch(bands: int = 4, height: int = 64, width: int = 64, batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        'image': torch.randint(1, 4000, (batch, bands, height, width), generator=generator).to(torch.uint16),
        'valid': torch.ones(batch, 1, height, width, dtype=torch.bool),
        'scale': torch.full((batch, bands), 1e-4),
        'offset': torch.zeros(batch, bands),
    }


@pytest.fixture
def trained(tiny_data: Any, tmp_path: Path) -> Callable[..., tuple[Reconstruction, str]]:
    """A task after two steps, and its checkpoint."""

    def train(**options: Any) -> tuple[Reconstruction, str]:
        task = Reconstruction(in_channels=4, **options)
        trainer = Trainer(
            default_root_dir=tmp_path,
            max_steps=2,
            logger=False,
            accelerator='cpu',
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(task, datamodule=tiny_data())
        trainer.save_checkpoint(tmp_path / 'reconstruction.ckpt')
        return task, str(tmp_path / 'reconstruction.ckpt')

    return train


@pytest.mark.parametrize('bands', [1, 5, 12])
@pytest.mark.parametrize('corruption', [*CORRUPTIONS, CORRUPTIONS])
def test_everything_learns(corruption: Any, bands: int) -> None:
    task = Reconstruction(model='test_resnet', in_channels=bands, corruption=corruption)
    batch = make_batch(bands)
    loss, features, embedding = task.compute_loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert features.shape == embedding.shape == (3, 96)
    assert all(p.grad is not None for p in task.parameters())
    assert task(batch['image']).shape == (3, 96)


@pytest.mark.parametrize('loss', ['l1', 'mse'])
@pytest.mark.parametrize('loss_on', ['hidden', 'all'])
def test_the_loss_is_of_the_pixels_that_count(loss: str, loss_on: str) -> None:
    task = Reconstruction(in_channels=4, loss=loss, loss_on=loss_on)
    image, restored = torch.randn(2, 3, 4, 64, 64)
    valid = torch.ones(3, 1, 64, 64, dtype=torch.bool)
    valid[..., :20, :] = False
    _, hidden = task.corrupt(image, valid)
    counted = (valid & hidden if loss_on == 'hidden' else valid).expand_as(image)
    difference = (restored - image)[counted]
    expected = difference.abs().mean() if loss == 'l1' else difference.square().mean()
    assert task.loss_of(restored, image, valid, hidden).item() == pytest.approx(expected.item(), rel=1e-6)


def test_values_without_data_change_nothing() -> None:
    task = Reconstruction(in_channels=4, corruption=CORRUPTIONS).eval()
    batch = make_batch()
    batch['valid'][..., 20:40, 10:30] = False
    losses = []
    for value in (0, 60000):
        batch['image'] = torch.where(batch['valid'], batch['image'].int(), value).to(torch.uint16)
        torch.manual_seed(0)
        losses.append(task.compute_loss(batch)[0].item())
    assert losses[0] == losses[1]


def test_chips_of_any_size() -> None:
    """They are padded inside the network alone."""
    task = Reconstruction(in_channels=4).eval()
    corrupted = torch.randn(2, 4, 50, 70)
    with torch.no_grad():
        found, _ = task.predict_hidden(corrupted, torch.ones(2, 1, 50, 70, dtype=torch.bool))
        padded, _ = task.predict_hidden(
            torch.nn.functional.pad(corrupted, (0, 26, 0, 14)), torch.ones(2, 1, 64, 96, dtype=torch.bool)
        )
    assert found.shape == corrupted.shape
    torch.testing.assert_close(found, padded[..., :50, :70])


def test_chips_and_valid_pixels_turn_together() -> None:
    task = Reconstruction(in_channels=1)
    batch = make_batch(1, batch=30)
    batch['valid'][..., 5:9, 11:40] = False
    torch.manual_seed(0)
    image, valid = task.augmented(batch)
    assert torch.equal(image != 0, valid)
    assert len({tuple((~one).nonzero()[0].tolist()) for one in valid}) > 3
    still = Reconstruction(in_channels=1, flips=False, quarter_turns=False)
    assert torch.equal(still.augmented(batch)[1], batch['valid'])


# What it hands on.


def test_only_the_encoder_is_called_model() -> None:
    for name in ('resnet18', 'convnext_atto'):
        task = Reconstruction(model=name, in_channels=4)
        keys = [key for key in task.state_dict() if 'model.' in key]
        assert {key.removeprefix('model.') for key in keys} == set(create_encoder(name, 4).state_dict())
        parts = {key.partition('.')[0] for key in task.state_dict()}
        assert parts == {'model', 'decoder', 'restoration_head', 'normalize'}


def test_a_task_is_made_again_from_its_hyperparameters() -> None:
    task = Reconstruction(in_channels=4, corruption=['patch_mask', 'crappify'], noise=0.3, architecture='fpn')
    assert {type(value).__module__ for value in task.hparams.values()} == {'builtins'}
    again = Reconstruction(**dict(task.hparams))
    assert again.corruption.corruptions[1].noise == 0.3
    assert again.state_dict().keys() == task.state_dict().keys()


@pytest.mark.slow
def test_the_encoder_starts_stock_and_own_tasks(
    trained: Callable[..., tuple[Reconstruction, str]], tiny_data: Any
) -> None:
    task, path = trained()
    encoder = task.model.state_dict()
    stock = SemanticSegmentation('unet', 'resnet18', weights=path, in_channels=4, num_classes=2).model.encoder
    assert all(torch.equal(encoder[key], tensor) for key, tensor in stock.state_dict().items())
    again = create_encoder('resnet18', 4)
    assert not load_encoder(again, path, bands=tiny_data.bands).missing
    assert all(torch.equal(encoder[key], tensor) for key, tensor in again.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet18', 'convnext_atto'])
def test_the_whole_network_starts_a_segmentation(
    trained: Callable[..., tuple[Reconstruction, str]], tiny_data: Any, name: str
) -> None:
    task, path = trained(model=name)
    network = create_network('unet', name, 4, 3)
    report = load_network(network, path, bands=tiny_data.bands)
    assert {key.partition('.')[0] for key in report.missing} == {'segmentation_head'}
    own = task.decoder.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in network.decoder.state_dict().items())
    image = torch.randn(2, 4, 32, 32)
    network.segmentation_head = task.restoration_head
    with torch.no_grad():
        restored = task.eval().predict_hidden(image, torch.ones(2, 1, 32, 32, dtype=torch.bool))[0]
        torch.testing.assert_close(network.eval()(image), restored)


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(check_resume: Callable[..., Any], tmp_path: Path) -> None:
    middle, end = check_resume(lambda: Reconstruction(in_channels=4, corruption=CORRUPTIONS), tmp_path)
    for name in ('model.bn1.running_mean', 'decoder.blocks.0.conv1.1.running_var', 'restoration_head.0.weight'):
        assert not torch.equal(middle['state_dict'][name], end['state_dict'][name])


def test_tiles_are_chips_and_windows_whole_tiles() -> None:
    task = Reconstruction(in_channels=4)
    assert task.tile_and_window(64) == (64, 256)
    assert task.tile_and_window(100) == (100, 200)
    assert task.tile_and_window(512) == (512, 1024)
    assert task.note == ''


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'corruption': 'blur'}, 'corruption'),
        ({'loss': 'huber'}, 'loss'),
        ({'loss_on': 'visible'}, 'loss_on'),
        ({'architecture': 'deeplabv3+'}, 'architecture'),
        ({'model': 'vit_tiny_patch16_224'}, 'does not go with'),
        ({'factor': 0}, 'factor'),
        ({'warmup_epochs': -1}, 'warmup_epochs'),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Reconstruction(**({'in_channels': 4} | options))
