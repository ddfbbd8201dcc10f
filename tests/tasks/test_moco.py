"""MoCo as a task: both versions' losses, the queue, its warning, and a resumed run."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn

from tests.marks import first_fast
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses import info_nce_loss, moco_v3_loss
from torchgeo_msssl.tasks import MoCo

SMALL = {'hidden_dim': 16, 'output_dim': 8}


def small(version: Any = 2, **options: Any) -> MoCo:
    queue = {'memory_bank_size': 16} if version == 2 else {}
    return MoCo(**({'model': 'test_resnet', 'in_channels': 4, 'version': version} | SMALL | queue | options))


def make_batch(bands: int = 4, size: int = 32) -> dict[str, Tensor]:
    image = torch.randint(1, 4000, (4, bands, size, size), generator=torch.Generator().manual_seed(0))
    return {'image': image.to(torch.uint16)}


def perturb(*modules: nn.Module) -> None:
    """Make copies another network than what they follow."""
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize('bands', first_fast([12, 4]))
@pytest.mark.parametrize('version', [2, 3])
@pytest.mark.parametrize(
    'name', ['resnet18', 'convnext_atto', pytest.param('vit_tiny_patch16_224', marks=pytest.mark.slow)]
)
def test_every_backbone_learns_from_any_number_of_bands(name: str, version: int, bands: int) -> None:
    task = small(version, model=name, in_channels=bands)
    loss, features, embedding = task.compute_loss(make_batch(bands))
    loss.backward()
    assert torch.isfinite(loss)
    assert len(features) == 8
    assert embedding.shape == (4, 8)
    assert next(task.model.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize('views', [2, 3])
@pytest.mark.parametrize('version', [2, 3])
def test_loss_is_the_papers_on_the_views_the_task_makes(version: int, views: int) -> None:
    task, batch = small(version, views=views, temperature=0.3), make_batch()
    perturb(task.momentum_encoder)
    state = {key: value.clone() for key, value in task.state_dict().items()}
    torch.manual_seed(5)
    loss, _, _ = task.compute_loss(batch)
    torch.manual_seed(5)
    images, valid = task.make_views(batch)
    x = task.normalize.standardize(images.flatten(0, 1), valid.flatten(0, 1))
    q = task.projection_head(task.model(x))
    k = task.momentum_encoder(x).unflatten(0, (views, 4))
    # test_contrastive.py has the losses themselves
    if version == 2:
        expected = info_nce_loss(q.unflatten(0, (views, 4)), k, state['criterion.queue'], 0.3)
        keys = k.flatten(0, 1)[-16:]
        torch.testing.assert_close(task.criterion.queue[: len(keys)], keys / keys.norm(dim=-1, keepdim=True))
    else:
        expected = moco_v3_loss(task.prediction_head(q).unflatten(0, (views, 4)), k, 0.3)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_defaults_are_those_of_the_version() -> None:
    names = ('memory_bank_size', 'encoder_momentum', 'output_dim', 'weight_decay')
    two, three = MoCo(model='resnet18', in_channels=4), MoCo(model='resnet18', in_channels=4, version=3)
    assert [two.hparams[name] for name in names] == [4096, 0.999, 128, 1e-4]
    assert [three.hparams[name] for name in names] == [None, 0.99, 256, 0.1]
    assert two.hparams['temperature'] == three.hparams['temperature'] == 0.2
    assert two.criterion.queue.shape == (4096, 128)
    assert (three.optimizer, three.lr) == ('adamw', 1e-3)  # 9.6 is for LARS; with it AdamW only makes noise
    assert MoCo(model='resnet18', in_channels=4, version=3, weight_decay=0.0).weight_decay == 0


@pytest.mark.parametrize('version', [2, 3])
def test_hyperparameters_make_the_same_task(version: int) -> None:
    task = small(version, views=3, temperature=0.1)
    again = MoCo(**pickle.loads(pickle.dumps(dict(task.hparams))))
    assert dict(again.hparams) == dict(task.hparams)
    assert again.hparams['temperature'] == 0.1
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (task, again)]
    assert shapes[0] == shapes[1]
    keys = {key.removeprefix('model.') for key in task.state_dict() if 'model.' in key}
    assert keys == set(task.model.state_dict())


def test_a_queue_longer_than_there_are_chips_is_warned_of(
    tmp_path: Path, tiny_data: type[LightningDataModule], caplog: pytest.LogCaptureFixture
) -> None:
    for size in (24, 25):
        caplog.clear()
        task = small(memory_bank_size=size)
        task.trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator='cpu', max_steps=1)
        task.trainer.datamodule = tiny_data()  # type: ignore[attr-defined]
        task.setup('fit')
        assert ('25 keys, more than the 24 views of the 12 chips' in caplog.text) == (size == 25)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'version': 1}, 'version'),
        ({'version': 3, 'memory_bank_size': 8}, 'memory_bank_size'),
        ({'memory_bank_size': 0}, 'memory_bank_size'),
        ({'temperature': -1.0}, 'temperature'),
        ({'version': 3, 'temperature': 0.0}, 'temperature'),
        ({'views': 1}, 'views'),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        small(**options)


@pytest.mark.slow
@pytest.mark.parametrize('version', [2, 3])
def test_resumed_run_is_the_uninterrupted_one(version: int, tmp_path: Path, check_resume: Callable[..., Any]) -> None:
    # 8 keys a step into 18 places: the queue wraps after the resumption
    options = {'memory_bank_size': 18, 'encoder_momentum': 0.9} if version == 2 else {'encoder_momentum': 0.9}
    middle, end = check_resume(lambda: small(version, **options), tmp_path)
    changing = ['momentum_encoder.encoder.conv1.0.weight', 'momentum_encoder.encoder.bn1.running_mean']
    changing += ['criterion.queue', 'criterion.queue_pointer'] if version == 2 else ['prediction_head.layers.0.weight']
    for key in changing:
        assert not torch.equal(middle['state_dict'][key], end['state_dict'][key]), key
    if version == 2:
        assert (middle['state_dict'][key], end['state_dict'][key]) == (16, 32 % 18)
