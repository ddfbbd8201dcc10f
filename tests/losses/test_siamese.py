"""FastSiam's loss against published values and an independent transcription of SimSiam's."""

import math

import pytest
import torch

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses import fastsiam_loss
from torchgeo_msssl.losses.siamese import mean_of_others

VIEWS = 4


def draw(views: int, batch: int = 6, features: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(2, views, batch, features, generator=generator, dtype=torch.float64)
    return numbers[0], numbers[1]


def simsiam(p1: torch.Tensor, p2: torch.Tensor, z1: torch.Tensor, z2: torch.Tensor) -> torch.Tensor:
    """Algorithm 1 of https://arxiv.org/abs/2011.10566, line by line."""

    def d(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        z = z.detach()
        p = p / p.norm(dim=1, keepdim=True)
        z = z / z.norm(dim=1, keepdim=True)
        return -(p * z).sum(dim=1).mean()

    return d(p1, z2) / 2 + d(p2, z1) / 2


@pytest.mark.parametrize(
    ('mixing', 'expected'),
    [
        (torch.eye(VIEWS).roll(1, dims=1), -1 / math.sqrt(3)),
        (torch.eye(VIEWS), 0.0),
        (1 - torch.eye(VIEWS), -1.0),
    ],
)
@pytest.mark.parametrize('target', ['mean', 'normalized_mean'])
def test_four_orthogonal_views(mixing: torch.Tensor, expected: float, target: str) -> None:
    """z_j = e_j with p_i = e_{i+1}, e_i and Σ_{j≠i} e_j."""
    projections = torch.eye(VIEWS, dtype=torch.float64)[:, None, :]
    predictions = mixing.double()[:, None, :]
    assert fastsiam_loss(predictions, projections, target).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('target', ['mean', 'normalized_mean'])
def test_two_views_are_simsiam(target: str) -> None:
    p, z = draw(2)
    p.requires_grad_()
    loss, reference = fastsiam_loss(p, z, target), simsiam(p[0], p[1], z[0], z[1])
    assert loss.item() == pytest.approx(reference.item(), abs=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(loss, p)[0], torch.autograd.grad(reference, p)[0], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize('views', [3, 5])
def test_against_a_transcription(views: int) -> None:
    p, z = draw(views)
    terms = []
    for i in range(views):
        others = torch.stack([z[j] for j in range(views) if j != i]).mean(0)
        terms.append(-torch.cosine_similarity(p[i], others, dim=1).mean())
    assert fastsiam_loss(p, z).item() == pytest.approx(torch.stack(terms).mean().item(), abs=1e-12)


@pytest.mark.parametrize('target', ['mean', 'normalized_mean'])
def test_local_views_predict_the_mean_of_all_views(target: str) -> None:
    p, z = draw(5)
    aims = z[:2] / z[:2].norm(dim=-1, keepdim=True) if target == 'normalized_mean' else z[:2]
    terms = [
        *(-torch.cosine_similarity(p[i], aims[1 - i], dim=1).mean() for i in range(2)),
        *(-torch.cosine_similarity(local, aims.mean(dim=0), dim=1).mean() for local in p[2:]),
    ]
    loss = fastsiam_loss(p[:2], z[:2], target, local=p[2:])
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), abs=1e-12)


def test_mean_of_others() -> None:
    """The cosine does not see the length of a mean, so it is checked by itself."""
    z = torch.tensor([1.0, 10.0, 100.0])[:, None, None]
    assert mean_of_others(z).flatten().tolist() == [55.0, 50.5, 5.5]


def test_targets_differ_when_one_projection_is_long() -> None:
    p, z = draw(3)
    z[0] *= 100
    raw, normalised = fastsiam_loss(p, z, 'mean'), fastsiam_loss(p, z, 'normalized_mean')
    assert abs(raw - normalised) > 1e-3
    scaled = z * torch.tensor([1.0, 7.0, 0.1], dtype=torch.float64).view(-1, 1, 1)
    assert fastsiam_loss(p, scaled, 'normalized_mean').item() == pytest.approx(normalised.item(), abs=1e-12)


def test_ends_of_the_range() -> None:
    z = draw(2)[1][:1].expand(VIEWS, -1, -1)
    assert fastsiam_loss(z, z).item() == pytest.approx(-1, abs=1e-12)
    assert fastsiam_loss(-3 * z, z).item() == pytest.approx(1, abs=1e-12)


def test_gradient_reaches_predictions_only() -> None:
    p, z = (part.requires_grad_() for part in draw(3))
    (fastsiam_loss(p, z) + 0 * z.sum()).backward()
    assert torch.count_nonzero(z.grad) == 0
    assert torch.count_nonzero(p.grad) == p.numel()


@pytest.mark.parametrize('target', ['mean', 'normalized_mean'])
def test_zero_vectors_have_finite_gradients(target: str) -> None:
    p = torch.zeros(2, 3, 5, requires_grad=True)
    loss = fastsiam_loss(p, torch.zeros(2, 3, 5), target)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(p.grad).all()


def test_half_precision_is_computed_in_float32() -> None:
    p, z = draw(4)
    loss = fastsiam_loss(p.bfloat16(), z.bfloat16())
    assert loss.dtype == torch.float32
    expected = fastsiam_loss(p.bfloat16().double(), z.bfloat16().double())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_nan_stays_nan() -> None:
    p, z = draw(3)
    z[0, 0, 0] = torch.nan
    assert fastsiam_loss(p, z).isnan()


def test_refusals() -> None:
    p, z = draw(3)
    with pytest.raises(ConfigurationError, match='median'):
        fastsiam_loss(p, z, 'median')  # type: ignore[arg-type]
    for bad_p, bad_z in ((p[:1], z[:1]), (p, z[:2]), (p[0], z[0])):
        with pytest.raises(ConfigurationError, match='2 views or more'):
            fastsiam_loss(bad_p, bad_z)
