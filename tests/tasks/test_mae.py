"""MAE as a task: golden values, the authors' loss written out, pixels without data, and the encoder's place in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchgeo.tasks import Classification

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models import load_encoder
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.mae import patchify
from torchgeo_msssl.tasks import MAE

NAME = 'vit_tiny_patch16_224'
SMALL: dict[str, Any] = {'model': NAME, 'decoder_dim': 32, 'decoder_depth': 1, 'decoder_heads': 2}


def make_batch(bands: int = 4, height: int = 64, width: int = 64, batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        'image': torch.randint(1, 4000, (batch, bands, height, width), generator=generator).to(torch.uint16),
        'valid': torch.ones(batch, 1, height, width, dtype=torch.bool),
        'scale': torch.full((batch, bands), 1e-4),
        'offset': torch.zeros(batch, bands),
    }


def every(image: Tensor) -> Tensor:
    return torch.ones(len(image), 1, *image.shape[-2:], dtype=torch.bool)


def test_predicting_nothing_costs_767_of_768() -> None:
    task = MAE(in_channels=3, **SMALL)
    image = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    _, hidden = task.corrupt(image, every(image))
    assert hidden.sum(dim=(1, 2, 3)).tolist() == [(196 - 49) * 256] * 2
    loss = task.loss_of(torch.zeros(2, 196, 768, dtype=torch.float64), image, every(image), hidden)
    assert loss.item() == pytest.approx(767 / 768, abs=2e-6)  # 1e-6 is added to each variance


@pytest.mark.parametrize('norm_target', [True, False])
def test_loss_is_the_authors(norm_target: bool) -> None:
    task = MAE(in_channels=5, norm_target=norm_target, **SMALL)
    image = torch.randn(2, 5, 64, 96, dtype=torch.float64)
    _, hidden = task.corrupt(image, every(image))
    pred = torch.randn(2, 24, 1280, dtype=torch.float64)
    found = task.loss_of(pred, image, every(image), hidden)
    mask = hidden[:, 0, ::16, ::16].flatten(1).double()
    assert mask.sum(dim=1).tolist() == [18, 18]
    # forward_loss of https://github.com/facebookresearch/mae
    target = patchify(image, (16, 16))
    if norm_target:
        mean = target.mean(dim=-1, keepdim=True)
        var = target.var(dim=-1, keepdim=True)
        target = (target - mean) / (var + 1.0e-6) ** 0.5
    loss = (pred - target) ** 2
    loss = loss.mean(dim=-1)
    loss = (loss * mask).sum() / mask.sum()
    assert found.item() == pytest.approx(loss.item(), abs=1e-12)


@pytest.mark.parametrize('norm_target', [True, False])
def test_pixels_without_data_do_not_count(norm_target: bool) -> None:
    task = MAE(in_channels=4, norm_target=norm_target, **SMALL)
    image = torch.randn(2, 4, 64, 64)
    valid = every(image)
    valid[..., 10:37, 5:50] = False
    _, hidden = task.corrupt(image, valid)
    prediction = torch.randn(2, 16, 1024, requires_grad=True)
    losses = []
    for value in (0.0, 100.0):
        loss = task.loss_of(prediction, torch.where(valid, image, value), valid, hidden)
        losses.append(loss)
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    losses[0].backward()
    counted = patchify((valid & hidden).expand(2, 4, 64, 64), (16, 16))
    assert torch.equal(prediction.grad != 0, counted)


def test_hidden_pixels_do_not_change_the_prediction() -> None:
    task = MAE(in_channels=4, **SMALL).eval()
    image = torch.randn(2, 4, 64, 96)
    corrupted, hidden = task.corrupt(image, every(image))
    assert (corrupted[hidden.expand_as(image)] == 0).all()
    prediction, features = task.predict_hidden(corrupted, hidden)
    again = task.predict_hidden(torch.where(hidden, torch.randn_like(image), image), hidden)
    torch.testing.assert_close((prediction, features), again, rtol=0, atol=0)
    assert features.shape == (2, 192)


@pytest.mark.parametrize('norm_target', [True, False])
def test_a_perfect_prediction_is_the_original(norm_target: bool) -> None:
    task = MAE(in_channels=4, norm_target=norm_target, **SMALL)
    image = torch.randn(2, 4, 32, 48)
    target = patchify(image, (16, 16))
    if norm_target:
        target = (target - target.mean(-1, keepdim=True)) / target.std(-1, keepdim=True)
    torch.testing.assert_close(task.image_of(target, image, every(image)), image, atol=1e-4, rtol=0)
    assert bool(task.note) == norm_target


@pytest.mark.parametrize('bands', [1, 5, 12])
def test_everything_learns(bands: int) -> None:
    task = MAE(in_channels=bands, **SMALL)
    batch = make_batch(bands)
    loss, features, embedding = task.compute_loss(batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert features.shape == embedding.shape == (3, 192)
    learning = [name for name, p in task.named_parameters() if p.requires_grad]
    assert all(task.get_parameter(name).grad is not None for name in learning)
    assert len(learning) > 150
    assert task(batch['image']).shape == (3, 192)


def test_layers_of_the_pooling_stay_as_they_are() -> None:
    """They are behind the tokens, which is all that the decoder sees; in DDP each parameter that learns must."""
    task = MAE(model='test_vit2', in_channels=4, decoder_dim=32, decoder_depth=1, decoder_heads=2)
    task.compute_loss(make_batch())[0].backward()
    frozen = [name for name, p in task.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(name.startswith('model.fc_norm') for name in frozen)
    assert all((p.grad is not None) == p.requires_grad for p in task.parameters())


def test_crops_lie_within_the_chip_and_are_upright() -> None:
    """A ramp tells for each pixel of a crop where it comes from."""
    task = MAE(in_channels=2, crop_scale=(0.3, 0.6), flips=False, quarter_turns=False, **SMALL)
    ramp = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing='ij'))
    batch = {'image': ramp.expand(20, 2, 64, 64).clone()}
    batch['image'][..., :8, :] = torch.nan
    torch.manual_seed(0)
    image, valid = task.augmented(batch)
    assert image.shape == (20, 2, 64, 64)
    assert (image[~valid.expand_as(image)] == 0).all()
    assert torch.isfinite(image).all()
    rows = image[:, 0].diff(dim=1)[(valid[:, 0, 1:] & valid[:, 0, :-1])]
    assert rows.min() >= 0
    assert rows.max() < 1
    assert torch.allclose(image[:, 0][valid[:, 0]].min(), torch.tensor(8.0), atol=1.5)
    whole, _ = MAE(in_channels=2, crop_scale=(1.0, 1.0), flips=False, quarter_turns=False, **SMALL).augmented(batch)
    assert torch.equal(whole[..., 8:, :], batch['image'][..., 8:, :])


def test_only_the_encoder_is_called_model() -> None:
    task = MAE(in_channels=4, **SMALL)
    keys = [key for key in task.state_dict() if 'model.' in key]
    assert {key.removeprefix('model.') for key in keys} == set(create_encoder(NAME, 4).state_dict())


def test_a_task_is_made_again_from_its_hyperparameters() -> None:
    task = MAE(in_channels=4, mask_ratio=0.5, crop_scale=(0.5, 1.0), **SMALL)
    assert {type(value).__module__ for value in task.hparams.values()} == {'builtins'}
    again = MAE(**dict(task.hparams))
    assert again.mask_ratio == 0.5
    assert again.state_dict().keys() == task.state_dict().keys()
    assert MAE.betas == (0.9, 0.95)


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(check_resume: Callable[..., Any], tmp_path: Path) -> None:
    middle, end = check_resume(lambda: MAE(in_channels=4, warmup_epochs=0.5, **SMALL), tmp_path)
    name = 'decoder.mask_token'
    assert not torch.equal(middle['state_dict'][name], end['state_dict'][name])
    assert end['optimizer_states'][0]['param_groups'][0]['betas'] == (0.9, 0.95)


def test_the_checkpoint_starts_other_tasks(tiny_data: Any, tmp_path: Path) -> None:
    task = MAE(in_channels=4, **SMALL)
    trainer = Trainer(
        default_root_dir=tmp_path,
        max_steps=1,
        logger=False,
        accelerator='cpu',
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(task, datamodule=tiny_data())
    path = tmp_path / 'mae.ckpt'
    trainer.save_checkpoint(path)
    trained = task.model.state_dict()
    stock = Classification(NAME, weights=str(path), in_channels=4, num_classes=3).model.state_dict()
    assert all(torch.equal(stock[key], tensor) for key, tensor in trained.items())
    encoder = create_encoder(NAME, 4)
    assert not load_encoder(encoder, str(path), bands=tiny_data.bands).missing
    assert all(torch.equal(encoder.state_dict()[key], tensor) for key, tensor in trained.items())


@pytest.mark.parametrize(
    ('chip', 'ratio', 'expected'),
    [
        (64, 0.75, (32, 64)),
        (96, 0.75, (48, 96)),
        (80, 0.75, (80, 80)),
        (32, 0.75, (32, 32)),
        (32, 0.5, (32, 32)),
        (64, 0.9, (64, 64)),
    ],
)
def test_tiles_of_a_scene_keep_visible_patches(chip: int, ratio: float, expected: tuple[int, int]) -> None:
    assert MAE(in_channels=4, mask_ratio=ratio, **SMALL).tile_and_window(chip) == expected


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'mask_ratio': 1.0}, 'mask_ratio'),
        ({'crop_scale': (0.0, 1.0)}, 'crop_scale'),
        ({'crop_scale': (0.5, 2.0)}, 'crop_scale'),
        ({'decoder_heads': 3}, 'decoder_dim'),
        ({'decoder_depth': 0}, 'decoder_depth'),
        ({'model': 'resnet18'}, 'model: MAE hides patches'),
        ({'warmup_epochs': -1}, 'warmup_epochs'),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        MAE(**(SMALL | {'in_channels': 4} | options))


def test_chips_that_are_no_multiple_of_the_patch_are_refused(tiny_data: Any, tmp_path: Path) -> None:
    data = tiny_data()
    data.chip_size = 40
    trainer = Trainer(
        default_root_dir=tmp_path, max_steps=1, logger=False, accelerator='cpu', enable_checkpointing=False
    )
    with pytest.raises(ConfigurationError, match='choose 32 or 48 px'):
        trainer.fit(MAE(in_channels=4, **SMALL), datamodule=data)
