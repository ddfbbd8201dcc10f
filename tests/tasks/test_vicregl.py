"""VICRegL as a task: where its cells lie, its loss, its gradients, what is saved, and resuming."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.vicregl import VICRegLLoss
from torchgeo_msssl.tasks import VICReg, VICRegL

HEADS = {'hidden_dim': 32, 'output_dim': 16, 'local_hidden_dim': 12, 'local_output_dim': 8}
SMALL: dict[str, Any] = {'model': 'test_resnet', 'in_channels': 4, 'augmentation': {'size': 64}, **HEADS}


@pytest.fixture
def batch(tiny_data: Any) -> dict[str, Tensor]:
    return next(iter(tiny_data().train_dataloader()))


def test_loss_is_that_of_the_views_the_task_makes(batch: dict[str, Tensor]) -> None:
    """Feature maps by hand: the head of each cell alone, and its place by the cells' corners on the chip."""
    task = VICRegL(**SMALL, alpha=0.6).eval()  # batch norm as a fixed affine map, so that cells can be taken one by one
    seen: list[Any] = []
    task.criterion.register_forward_pre_hook(lambda _, parts: seen.extend(parts))
    torch.manual_seed(5)
    loss, features, embedding = task.compute_loss(batch)
    torch.manual_seed(5)
    views, valid, geometry = task.locate_views(batch)
    x = task.normalize.standardize(views.flatten(0, 1), valid.flatten(0, 1))
    torch.testing.assert_close(features, task.model(x))
    z = task.projection_head(task.model(x)).reshape(2, 4, 16)
    torch.testing.assert_close(seen[0], z)
    torch.testing.assert_close(embedding, z[0])
    maps = task.model.forward_features(x).reshape(2, 4, 96, 2, 2)
    for view, (vectors, centers, with_data) in enumerate((p.vectors, p.centers, p.valid) for p in seen[1]):
        for cell, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            expected = task.local_projection_head(maps[view, :, :, row, column])
            torch.testing.assert_close(vectors[:, cell], expected)
            torch.testing.assert_close(centers[:, cell], geometry.cell_centers(2)[view, :, row, column])
            part = valid[view, :, 0, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            assert torch.equal(with_data[:, cell], part.float().mean(dim=(1, 2)) >= 0.5)
    assert loss.item() == pytest.approx(VICRegLLoss(alpha=0.6)(*seen).item(), rel=1e-6)


def test_gradients_reach_encoder_and_both_heads(batch: dict[str, Tensor]) -> None:
    found = {}
    for alpha in (0.0, 0.5, 1.0):
        torch.manual_seed(5)
        task = VICRegL(**SMALL, alpha=alpha)
        task.compute_loss(batch)[0].backward()
        found[alpha] = {
            name: sum(float(parameter.grad.abs().sum()) for parameter in module.parameters()) > 0
            for name, module in task.named_children()
            if any(True for _ in module.parameters())
        }
    assert found[0.5] == {'model': True, 'projection_head': True, 'local_projection_head': True}
    assert found[0.0] == found[0.5] | {'projection_head': False}
    assert found[1.0] == found[0.5] | {'local_projection_head': False}


def test_with_alpha_one_it_is_vicreg(batch: dict[str, Tensor]) -> None:
    """With twice the weight of the covariance, which VICRegL's authors average over two views instead of adding."""
    losses = []
    for make, weight in ((VICRegL, 2.0), (VICReg, 1.0)):
        torch.manual_seed(5)
        options = SMALL if make is VICRegL else {k: v for k, v in SMALL.items() if not k.startswith('local_')}
        task = make(**options, covariance_weight=weight, **({'alpha': 1.0} if make is VICRegL else {}))
        torch.manual_seed(6)
        losses.append(task.compute_loss(batch)[0].item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_hyperparameters_make_the_same_task() -> None:
    task = VICRegL(**SMALL, alpha=0.9, match_fraction=0.25, invariance_weight=10.0)
    again = VICRegL(**pickle.loads(pickle.dumps(dict(task.hparams))))
    assert again.hparams == task.hparams
    assert (again.criterion.alpha, again.criterion.match_fraction, again.criterion.weights[0]) == (0.9, 0.25, 10)
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in task.state_dict().items()
    }


def test_a_resumed_run_is_the_uninterrupted_one(check_resume: Callable[..., Any], tmp_path: Path) -> None:
    middle, end = check_resume(lambda: VICRegL(**SMALL), tmp_path)
    head = 'local_projection_head.layers.0.weight'
    assert not torch.equal(middle['state_dict'][head], end['state_dict'][head])


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'alpha': 1.5}, '^alpha'),
        ({'match_fraction': 0.0}, '^match_fraction'),
        ({'local_output_dim': 0}, '^local_output_dim'),
        ({'covariance_weight': -1.0}, '^covariance_weight'),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        VICRegL(**(SMALL | options))


def test_networks_and_data_that_do_not_fit_are_refused(
    batch: dict[str, Tensor], tiny_data: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r'augmentation\.size: the feature map of views of 32 px has one cell'):
        VICRegL(**(SMALL | {'augmentation': None})).compute_loss(batch)
    with pytest.raises(ConfigurationError, match=r'expected a convolutional network, .* VisionTransformer'):
        VICRegL(**(SMALL | {'model': 'test_vit'})).compute_loss(batch)
    data = tiny_data()
    data.positives = 'nearby'
    trainer = Trainer(default_root_dir=tmp_path, max_steps=1, logger=False, enable_checkpointing=False)
    with pytest.raises(ConfigurationError, match=r"^positives: VICRegL compares views by place, got 'nearby'"):
        trainer.fit(VICRegL(**SMALL), datamodule=data)
