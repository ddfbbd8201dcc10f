"""Multi-crop: local views are compared with global ones only, and are never a target."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from torchgeo_msssl import tasks
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.vicreg import VICRegLoss

SMALL: dict[str, Any] = {'model': 'test_resnet', 'in_channels': 4, 'hidden_dim': 16, 'output_dim': 8, 'views': 2}
LOCAL = {'local_crops_number': 3, 'local_crops_size': 32, 'augmentation': {'size': 40}}
METHODS = ['BYOL', 'DINO', 'FastSiam', 'SimSiam', 'VICReg', 'VICRegL']


@pytest.fixture
def batch(tiny_data: Any) -> dict[str, Tensor]:
    return next(iter(tiny_data().train_dataloader()))


def make_task(method: str, **options: Any) -> Any:
    """A tiny task with views of two sizes; the cells of VICRegL need larger ones."""
    if method == 'VICRegL':
        options = {'augmentation': {'size': 64}, 'local_crops_size': 64} | options
    return getattr(tasks, method)(**(SMALL | LOCAL | options))


def apart(one: Tensor, other: Tensor) -> Tensor:
    """Negative cosine of rows."""
    return -(one * other).sum(dim=1) / one.norm(dim=1) / other.norm(dim=1)


@pytest.mark.parametrize('method', ['BYOL', 'FastSiam', 'VICReg'])
def test_loss_is_the_transcription_on_the_views_the_task_makes(method: str, batch: dict[str, Tensor]) -> None:
    task = make_task(method)
    if method == 'BYOL':
        for parameter in task.momentum_encoder.parameters():
            parameter.mul_(1.1)  # another network than the online one
    torch.manual_seed(5)
    loss, features, embedding = task.compute_loss(batch)
    torch.manual_seed(5)
    large, small = task.view_inputs(batch), task.view_inputs(batch, task.local_multiview)
    assert (large.shape, small.shape) == ((8, 4, 40, 40), (12, 4, 32, 32))
    z, local_z = (task.projection_head(task.model(x)) for x in (large, small))
    torch.testing.assert_close(embedding, z[:4], rtol=1e-4, atol=1e-5)
    assert len(features) == 8
    if method == 'VICReg':
        invariance = [
            (one - other).square().mean()
            for i, one in enumerate(z.reshape(2, 4, 8))
            for j, other in enumerate((*z.reshape(2, 4, 8), *local_z.reshape(3, 4, 8)))
            if i != j
        ]
        spread = [VICRegLoss(0)(torch.stack([v, v])) for v in (*z.reshape(2, 4, 8), *local_z.reshape(3, 4, 8))]
        expected = 25 * torch.stack(invariance).mean() + torch.stack(spread).mean()
    else:
        p = [*task.prediction_head(z).reshape(2, 4, 8), *task.prediction_head(local_z).reshape(3, 4, 8)]
        targets = (task.momentum_encoder(large) if method == 'BYOL' else z.detach()).reshape(2, 4, 8)
        if method == 'BYOL':
            terms = [4 + 4 * apart(p[i], targets[j]).mean() for i in range(5) for j in range(2) if i != j]
        else:
            mean = targets.mean(dim=0)
            terms = [apart(p[i], mean if i > 1 else targets[1 - i]).mean() for i in range(5)]
        expected = torch.stack(terms).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize('method', METHODS)
def test_gradients_reach_the_encoder_through_local_views_alone(method: str, batch: dict[str, Tensor]) -> None:
    """Of the two passes of the encoder, the one of local views has a gradient; a target network has one pass."""
    task, passes, target_passes = make_task(method), [], []
    task.model.layer4.register_forward_hook(lambda _, inputs, output: passes.append(output) or output.retain_grad())
    if hasattr(task, 'momentum_encoder'):
        task.momentum_encoder.encoder.register_forward_hook(lambda *parts: target_passes.append(parts[1][0].shape))
    task.compute_loss(batch)[0].backward()
    assert [len(output) for output in passes] == [8, 12]
    assert passes[1].grad.abs().sum() > 0
    assert [shape[0] for shape in target_passes] == ([8] if hasattr(task, 'momentum_encoder') else [])


@pytest.mark.parametrize('method', ['BYOL', 'SimSiam'])
def test_a_resumed_run_is_the_uninterrupted_one(method: str, check_resume: Callable[..., Any], tmp_path: Path) -> None:
    check_resume(lambda: make_task(method), tmp_path)


def test_without_local_views_nothing_changes(batch: dict[str, Tensor]) -> None:
    for method in METHODS[2:]:
        task = make_task(method, local_crops_number=0, augmentation={'size': 64})
        assert task.local_multiview is None
        assert task.project_local_views(batch) is None
        assert len(task.shown_views(batch)) == 2


def test_refusals(tiny_data: Any, tmp_path: Path) -> None:
    trainer = Trainer(default_root_dir=tmp_path, max_steps=1, logger=False, enable_checkpointing=False)
    with pytest.raises(ConfigurationError, match=r'local_crops_size: local views of 48 px are larger'):
        trainer.fit(make_task('SimSiam', local_crops_size=48), datamodule=tiny_data())
    with pytest.raises(ConfigurationError, match=r'^local_crops_size: the feature map of views of 32 px has one cell'):
        trainer.fit(make_task('VICRegL', local_crops_size=32), datamodule=tiny_data())
    with pytest.raises(TypeError, match='local_crops_number'):
        make_task('SimCLR')  # compares all views with each other
