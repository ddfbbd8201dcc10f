"""FastSiam as a task: the encoder's place in it, its loss, and what it refuses."""

import pickle

import pytest
import torch
from lightning.pytorch import seed_everything

from tests.marks import first_fast
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses import fastsiam_loss
from torchgeo_msssl.tasks import Augmentation, FastSiam, SimSiam

SMALL = {'hidden_dim': 32, 'output_dim': 32, 'bottleneck_dim': 8}


def make_batch(bands: int, size: int = 32, batch: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        'image': torch.randint(1, 4000, (batch, bands, size, size), generator=generator).to(torch.uint16),
        'valid': torch.ones(batch, 1, size, size, dtype=torch.bool),
        'scale': torch.full((batch, bands), 1e-4),
        'offset': torch.zeros(batch, bands),
    }


@pytest.mark.parametrize('bands', first_fast([5, 4, 12]))
@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('resnet18', 32),
        pytest.param('resnet50', 32, marks=pytest.mark.slow),
        ('convnext_atto', 32),
        pytest.param('swin_tiny_patch4_window7_224', 64, marks=pytest.mark.slow),
        pytest.param('vit_small_patch16_224', 64, marks=pytest.mark.slow),
    ],
)
def test_every_backbone_learns_from_any_number_of_bands(name: str, size: int, bands: int) -> None:
    task = FastSiam(model=name, in_channels=bands, views=2, **SMALL)
    loss, features, embedding = task.compute_loss(make_batch(bands, size, batch=2))
    loss.backward()
    assert torch.isfinite(loss)
    assert -1 <= loss.item() <= 1
    assert embedding.shape == (2, 32)
    width = features.shape[1]
    assert features.shape == (4, width)
    assert task(make_batch(bands, size)['image']).shape == (4, width)
    first = next(task.model.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0


def test_loss_is_the_papers_on_the_views_the_task_makes() -> None:
    task = FastSiam(model='resnet18', in_channels=4, views=3, **SMALL)
    batch = make_batch(4)
    torch.manual_seed(5)
    loss, _, _ = task.compute_loss(batch)
    torch.manual_seed(5)
    views, valid = task.make_views(batch)
    x = task.normalize.standardize(views.flatten(0, 1), valid.flatten(0, 1))
    z = task.projection_head(task.model(x))
    p = task.prediction_head(z)
    # transcription: each prediction against the mean of the other projections
    z, p = z.detach().reshape(3, 4, -1), p.reshape(3, 4, -1)
    terms = []
    for i in range(3):
        target = torch.stack([z[j] for j in range(3) if j != i]).mean(0)
        cosine = (p[i] * target).sum(-1) / (p[i].norm(dim=-1) * target.norm(dim=-1))
        terms.append(-cosine.mean())
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), abs=1e-6)


def test_simsiam_is_fastsiam_with_two_views() -> None:
    losses = []
    for task_class in (SimSiam, FastSiam):
        seed_everything(1)
        task = task_class(model='resnet18', in_channels=4, views=2, **SMALL)
        torch.manual_seed(2)
        losses.append(task.compute_loss(make_batch(4))[0])
    assert torch.equal(losses[0], losses[1])


def test_simsiam_keeps_the_predictors_rate_constant() -> None:
    simsiam = SimSiam(model='resnet18', in_channels=4, **SMALL)
    constant = {id(p) for group in simsiam.parameter_groups() if group['constant_lr'] for p in group['params']}
    assert constant == {id(p) for p in simsiam.prediction_head.parameters()}
    fastsiam = FastSiam(model='resnet18', in_channels=4, **SMALL)
    assert not any(group['constant_lr'] for group in fastsiam.parameter_groups())


def test_no_gradient_reaches_the_projections_as_targets() -> None:
    z = torch.randn(3, 4, 8, dtype=torch.float64, requires_grad=True)
    p = torch.randn(3, 4, 8, dtype=torch.float64, requires_grad=True)
    fastsiam_loss(p, z).backward()
    assert z.grad is None
    assert p.grad is not None


def test_only_the_encoder_is_called_model() -> None:
    """TorchGeo's loader keeps every key with ``model.`` in it, wherever it stands."""
    task = FastSiam(model='resnet18', in_channels=4, **SMALL)
    keys = [key for key in task.state_dict() if 'model.' in key]
    assert {key.removeprefix('model.') for key in keys} == set(task.model.state_dict())
    assert len(keys) < len(task.state_dict())


@pytest.mark.parametrize('given', [None, Augmentation(blur=0.25), {'blur': 0.25}])
def test_hyperparameters_are_plain(given: object) -> None:
    task = FastSiam(model='resnet18', in_channels=4, augmentation=given, **SMALL)
    assert task.hparams['model'] == 'resnet18'
    assert task.multiview.augmentation.blur == (0.5 if given is None else 0.25)
    modules = {type(value).__module__ for value in task.hparams.values()}
    assert modules == {'builtins'}
    assert 'weights' not in task.hparams
    again = FastSiam(**pickle.loads(pickle.dumps(dict(task.hparams))))
    assert again.multiview.augmentation.blur == task.multiview.augmentation.blur


def test_a_step_draws_the_same_after_a_restart() -> None:
    task = FastSiam(model='resnet18', in_channels=4, **SMALL)

    def draw(batch: int) -> torch.Tensor:
        torch.rand(7)  # whatever happened before
        task.seed_step(batch)
        return torch.rand(3)

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


def test_forward_normalises() -> None:
    task = FastSiam(model='resnet18', in_channels=4, **SMALL).eval()
    x = make_batch(4)['image']
    assert torch.equal(task(x), task.model(x.float()))  # the identity before statistics are known
    task.normalize.set_statistics([0.1] * 4, [0.05] * 4, [1e-4] * 4, [-1000] * 4)
    expected = task.model(((x.float() - 1000) * 1e-4 - 0.1) / 0.05)
    torch.testing.assert_close(task(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'views': 1}, 'views'),
        ({'target': 'median'}, 'target'),
        ({'warmup_epochs': -1}, 'warmup_epochs'),
        ({'projection_head': 'conv'}, 'kind'),
        ({'augmentation': {'crop_scale': (0.0, 2.0)}}, 'crop_scale'),
        ({'model': 'resnet19'}, 'resnet'),
        ({'in_channels': 0}, 'in_channels'),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        FastSiam(**({'model': 'resnet18', 'in_channels': 4} | SMALL | options))
