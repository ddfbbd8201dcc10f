"""BYOL as a task: its loss on the views it makes, and a resumed run; test_momentum.py has its target network."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.marks import first_fast
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.tasks import BYOL

SMALL = {'hidden_dim': 16, 'output_dim': 8}


def make_batch(bands: int = 4) -> dict[str, Tensor]:
    image = torch.randint(1, 4000, (4, bands, 32, 32), generator=torch.Generator().manual_seed(0))
    return {'image': image.to(torch.uint16)}


@pytest.mark.parametrize('bands', first_fast([5, 4, 12]))
@pytest.mark.parametrize(
    'name', ['resnet18', 'convnext_atto', pytest.param('vit_tiny_patch16_224', marks=pytest.mark.slow)]
)
def test_every_backbone_learns_from_any_number_of_bands(name: str, bands: int) -> None:
    task = BYOL(model=name, in_channels=bands, **SMALL)
    loss, features, embedding = task.compute_loss(make_batch(bands))
    loss.backward()
    assert 0 <= loss.item() <= 8
    assert len(features) == 8
    assert embedding.shape == (4, 8)
    assert next(task.model.parameters()).grad.abs().sum() > 0


@pytest.mark.parametrize('views', [2, 3])
def test_loss_is_the_papers_on_the_views_the_task_makes(views: int) -> None:
    """Algorithm 1 of https://arxiv.org/abs/2006.07733 for each pair of views, with a target that is another network."""
    task, batch = BYOL(model='resnet18', in_channels=4, views=views, **SMALL), make_batch()
    with torch.no_grad():
        for parameter in task.momentum_encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    torch.manual_seed(5)
    loss, _, embedding = task.compute_loss(batch)
    torch.manual_seed(5)
    images, valid = task.make_views(batch)
    x = task.normalize.standardize(images.flatten(0, 1), valid.flatten(0, 1))
    z = task.projection_head(task.model(x))
    target = task.momentum_encoder(x).unflatten(0, (views, 4)).double()
    q = task.prediction_head(z).unflatten(0, (views, 4)).double()
    terms = []
    for i in range(views):
        for j in range(i):
            forth = (q[i] / q[i].norm(dim=1, keepdim=True) - target[j] / target[j].norm(dim=1, keepdim=True)) ** 2
            back = (q[j] / q[j].norm(dim=1, keepdim=True) - target[i] / target[i].norm(dim=1, keepdim=True)) ** 2
            terms.append((forth.sum(1) + back.sum(1)).mean())
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), abs=1e-5)
    torch.testing.assert_close(embedding, z[:4])


def test_hyperparameters_make_the_same_task() -> None:
    task = BYOL(model='resnet18', in_channels=4, encoder_momentum=0.9, views=3, **SMALL)
    again = BYOL(**pickle.loads(pickle.dumps(dict(task.hparams))))
    assert dict(again.hparams) == dict(task.hparams)
    assert again.momentum_encoder.momentum_at(0, 10) == pytest.approx(0.9)
    keys = {key.removeprefix('model.') for key in task.state_dict() if 'model.' in key}
    assert keys == set(task.model.state_dict())


def test_options_out_of_range_are_named() -> None:
    for options, named in (({'views': 1}, 'views'), ({'hidden_dim': 0}, 'hidden')):
        with pytest.raises(ConfigurationError, match=named):
            BYOL(model='resnet18', in_channels=4, **(SMALL | options))


@pytest.mark.slow
def test_resumed_run_is_the_uninterrupted_one(tmp_path: Path, check_resume: Callable[..., Any]) -> None:
    middle, end = check_resume(
        lambda: BYOL(model='test_resnet', in_channels=4, encoder_momentum=0.9, **SMALL), tmp_path
    )
    for key in (
        'momentum_encoder.encoder.conv1.0.weight',
        'momentum_encoder.encoder.bn1.running_mean',
        'prediction_head.layers.0.weight',
    ):
        assert not torch.equal(middle['state_dict'][key], end['state_dict'][key]), key
