"""Barlow Twins as a task: its head, its loss, what is saved, and resuming."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.barlow_twins import barlow_twins_loss
from torchgeo_msssl.tasks import BarlowTwins

SMALL = {'model': 'test_resnet', 'in_channels': 4, 'hidden_dim': 32, 'output_dim': 16}


@pytest.fixture
def batch(tiny_data: Any) -> dict[str, Tensor]:
    return next(iter(tiny_data().train_dataloader()))


@pytest.mark.parametrize('views', [2, 3])
def test_loss_is_that_of_the_views_the_task_makes(batch: dict[str, Tensor], views: int) -> None:
    task = BarlowTwins(**SMALL, views=views, redundancy_weight=0.1)
    torch.manual_seed(5)
    loss, features, embedding = task.compute_loss(batch)
    torch.manual_seed(5)
    made, valid = task.make_views(batch)
    x = task.normalize.standardize(made.flatten(0, 1), valid.flatten(0, 1))
    z = task.projection_head(task.model(x)).reshape(views, 4, 16)
    assert loss.item() == pytest.approx(barlow_twins_loss(z, 0.1).item(), rel=1e-5)
    assert features.shape == (views * 4, 96)
    torch.testing.assert_close(embedding, z[0], rtol=1e-4, atol=1e-5)
    loss.backward()
    assert all(parameter.grad is not None for parameter in task.parameters())
    assert next(task.model.parameters()).grad.abs().sum() > 0


def test_the_projector_is_the_papers() -> None:
    layers = BarlowTwins(model='resnet18', in_channels=4).projection_head.layers
    assert [type(layer) for layer in layers] == [
        nn.Linear,
        nn.BatchNorm1d,
        nn.ReLU,
        nn.Linear,
        nn.BatchNorm1d,
        nn.ReLU,
        nn.Linear,
    ]
    assert isinstance(BarlowTwins(**SMALL, projection_head='linear').projection_head, nn.Linear)


def test_hyperparameters_make_the_same_task() -> None:
    task = BarlowTwins(**SMALL, views=3, redundancy_weight=0.1, augmentation={'blur': 0.25})
    again = BarlowTwins(**pickle.loads(pickle.dumps(dict(task.hparams))))
    assert again.hparams == task.hparams
    assert again.criterion.keywords == {'redundancy_weight': 0.1}
    assert again.views == 3
    assert {type(value).__module__ for value in task.hparams.values()} == {'builtins'}


def test_only_the_encoder_is_called_model() -> None:
    task = BarlowTwins(**SMALL)
    keys = {key for key in task.state_dict() if 'model.' in key}
    assert keys == {f'model.{key}' for key in task.model.state_dict()}
    assert len(keys) < len(task.state_dict())


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(check_resume: Callable[..., Any], tmp_path: Path) -> None:
    check_resume(lambda: BarlowTwins(**SMALL), tmp_path)


@pytest.mark.parametrize(
    ('options', 'named'),
    [({'views': 1}, 'views'), ({'redundancy_weight': -1.0}, 'redundancy_weight'), ({'hidden_dim': 0}, 'hidden')],
)
def test_options_out_of_range_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        BarlowTwins(**(SMALL | options))
