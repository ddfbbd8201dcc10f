"""SimCLR as a task: its loss on the views it makes, its head, and a resumed run."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.marks import first_fast
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses import nt_xent_loss
from torchgeo_msssl.tasks import SimCLR
from torchgeo_msssl.tasks.optimizers import create_optimizer

SMALL = {'hidden_dim': 16, 'output_dim': 8}


def make_batch(bands: int = 4, size: int = 32, batch: int = 4) -> dict[str, torch.Tensor]:
    image = torch.randint(1, 4000, (batch, bands, size, size), generator=torch.Generator().manual_seed(0))
    return {'image': image.to(torch.uint16)}


@pytest.mark.parametrize('bands', first_fast([5, 4, 12]))
@pytest.mark.parametrize(
    ('name', 'size'),
    [('resnet18', 32), ('convnext_atto', 32), pytest.param('vit_tiny_patch16_224', 32, marks=pytest.mark.slow)],
)
def test_every_backbone_learns_from_any_number_of_bands(name: str, size: int, bands: int) -> None:
    task = SimCLR(model=name, in_channels=bands)
    loss, features, embedding = task.compute_loss(make_batch(bands, size))
    loss.backward()
    assert torch.isfinite(loss)
    assert embedding.shape == (4, 128)
    assert len(features) == 8
    for parameter_name, parameter in task.named_parameters():
        assert parameter.grad is not None, parameter_name
    assert next(task.model.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize('views', [2, 3])
def test_loss_is_the_papers_on_the_views_the_task_makes(views: int) -> None:
    torch.manual_seed(0)
    task, batch = SimCLR(model='resnet18', in_channels=4, views=views, temperature=0.3, **SMALL), make_batch()
    torch.manual_seed(5)
    loss, features, embedding = task.compute_loss(batch)
    torch.manual_seed(5)
    images, valid = task.make_views(batch)
    h = task.model(task.normalize.standardize(images.flatten(0, 1), valid.flatten(0, 1)))
    z = task.projection_head(h)
    torch.testing.assert_close(features, h)
    torch.testing.assert_close(embedding, z[:4])
    # transcription, in which the views of chip c are the rows c, c + 4, …; test_contrastive.py has the loss itself
    stacked = torch.stack([z[4 * i : 4 * i + 4] for i in range(views)])
    assert loss.item() == pytest.approx(nt_xent_loss(stacked.double(), 0.3).item(), abs=1e-5)
    assert abs(loss - nt_xent_loss(stacked, 0.5)) > 1e-2


@pytest.mark.slow
def test_steps_bring_the_views_of_a_chip_together() -> None:
    torch.manual_seed(0)
    task, batch = SimCLR(model='resnet18', in_channels=4), make_batch(batch=8)
    optimizer = create_optimizer('adam', task.parameter_groups(), 1e-3)
    losses = []
    for _ in range(10):
        torch.manual_seed(1)  # the same views each time
        loss, _, _ = task.compute_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(('kind', 'features'), [('mlp', 8), ('linear', 8), ('none', 512)])
def test_projection_heads(kind: Any, features: int) -> None:
    task = SimCLR(model='resnet18', in_channels=4, projection_head=kind, **SMALL)
    assert task.compute_loss(make_batch())[2].shape == (4, features)
    assert (
        sum(isinstance(layer, torch.nn.Linear) for layer in task.projection_head.modules())
        == {'mlp': 2, 'linear': 1, 'none': 0}[kind]
    )


def test_defaults_and_hyperparameters() -> None:
    task = SimCLR(model='resnet18', in_channels=4, views=3, temperature=0.2)
    expected = {'views': 3, 'temperature': 0.2, 'optimizer': 'adam', 'lr': 1e-3, 'hidden_dim': 256, 'output_dim': 128}
    assert {key: task.hparams[key] for key in expected} == expected
    again = SimCLR(**pickle.loads(pickle.dumps(dict(task.hparams))))
    assert dict(again.hparams) == dict(task.hparams)
    assert again.criterion.keywords == {'temperature': 0.2}
    assert again.multiview.views == 3
    keys = {key.removeprefix('model.') for key in task.state_dict() if 'model.' in key}
    assert keys == set(task.model.state_dict())


@pytest.mark.parametrize(
    ('options', 'named'),
    [({'temperature': 0.0}, 'temperature'), ({'views': 1}, 'views'), ({'hidden_dim': 0}, 'hidden')],
)
def test_options_out_of_range_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        SimCLR(model='resnet18', in_channels=4, **(SMALL | options))


@pytest.mark.slow
def test_resumed_run_is_the_uninterrupted_one(tmp_path: Path, check_resume: Callable[..., Any]) -> None:
    check_resume(lambda: SimCLR(model='test_resnet', in_channels=4, warmup_epochs=0.5, **SMALL), tmp_path)
