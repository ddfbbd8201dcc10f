"""Barlow Twins' loss against golden values, the authors' algorithm, lightly's loss, and one process on all data."""

from itertools import combinations

import pytest
import torch
from lightly.loss import BarlowTwinsLoss as LightlyLoss
from torch import Tensor

from tests.losses.two_ranks import RANKS, mean_over_ranks, run_two_ranks
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.barlow_twins import barlow_twins_loss

H = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
COPIES = H[:, :1].expand(-1, 3)
CONSTANT = torch.full_like(H, 0.7)


def draw(views: int = 2, batch: int = 8, features: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(batch, features, generator=generator, dtype=torch.float64)
    return shared + 0.5 * torch.randn(views, batch, features, generator=generator, dtype=torch.float64)


def of_pair(one: Tensor, other: Tensor) -> float:
    return barlow_twins_loss(torch.stack([one, other])).item()


def authors_loss(z1: Tensor, z2: Tensor, lambd: float = 5e-3) -> Tensor:
    """``BarlowTwins.forward`` of https://github.com/facebookresearch/barlowtwins/blob/main/main.py."""

    def bn(z: Tensor) -> Tensor:
        return torch.nn.BatchNorm1d(z.shape[1], affine=False, dtype=z.dtype)(z)

    c = bn(z1).T @ bn(z2) / len(z1)
    on_diag = torch.diagonal(c).add(-1).pow(2).sum()
    off_diag = c.flatten()[:-1].view(len(c) - 1, len(c) + 1)[:, 1:].pow(2).sum()
    return on_diag + lambd * off_diag


@pytest.mark.parametrize(
    ('one', 'other', 'expected', 'tolerance'),
    [
        (H, H, 0.0, 1e-9),
        (H, -H, 11.99988, 1e-7),
        (COPIES, COPIES, 0.0299994, 1e-8),
        (CONSTANT, CONSTANT, 3.0, 1e-12),
    ],
    ids=['same', 'opposite', 'copies', 'constant'],
)
def test_golden_values(one: Tensor, other: Tensor, expected: float, tolerance: float) -> None:
    assert of_pair(one, other) == pytest.approx(expected, abs=tolerance)


def test_loss_and_gradient_are_the_authors() -> None:
    z = draw().requires_grad_()
    losses = barlow_twins_loss(z), authors_loss(*z)
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-12)
    gradients = [torch.autograd.grad(loss, z)[0] for loss in losses]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize('weight', [0.0, 5e-3, 1.0])
def test_loss_is_lightlys_on_one_rank(weight: float) -> None:
    z = draw()
    assert barlow_twins_loss(z, weight).item() == pytest.approx(LightlyLoss(weight)(*z).item(), abs=1e-12)


def test_several_views_are_all_pairs() -> None:
    z = draw(views=4)
    pairs = [authors_loss(one, other).item() for one, other in combinations(z, 2)]
    assert len(set(pairs)) == 6
    assert barlow_twins_loss(z).item() == pytest.approx(sum(pairs) / 6, abs=1e-12)


def test_what_the_loss_does_not_see() -> None:
    x, y = draw()
    loss = of_pair(x, y)
    # but for the constant that is added to the variance
    assert of_pair(x, 2 * x + 4) == pytest.approx(of_pair(x, x), abs=1e-6)
    assert of_pair(3 * x - 1, y / 2) == pytest.approx(loss, abs=1e-4)
    assert of_pair(y, x) == pytest.approx(loss, abs=1e-12)
    samples, features = torch.randperm(len(x)), torch.randperm(x.shape[1])
    assert of_pair(x[samples][:, features], y[samples][:, features]) == pytest.approx(loss, abs=1e-12)
    assert of_pair(x, y[samples]) != pytest.approx(loss, abs=1e-3)


def test_a_constant_feature_has_finite_gradients() -> None:
    z = torch.ones(2, 6, 3, requires_grad=True)
    barlow_twins_loss(z).backward()
    assert torch.isfinite(z.grad).all()


def test_half_precision_is_computed_in_float32() -> None:
    z = draw(batch=64, features=32).bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        loss = barlow_twins_loss(z)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(barlow_twins_loss(z.double()).item(), rel=1e-5)


def test_nan_stays_nan() -> None:
    z = draw()
    z[0, 0, 0] = torch.nan
    assert barlow_twins_loss(z).isnan()


def loss_on_rank(rank: int, inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and gradient of a linear layer before it as DDP takes it, of this rank's share of the batch."""
    weight = weight.clone().requires_grad_()
    loss = barlow_twins_loss(inputs.chunk(RANKS, dim=1)[rank] @ weight)
    loss.backward()
    return mean_over_ranks(loss), mean_over_ranks(weight.grad)


@pytest.mark.slow
def test_two_ranks_are_one_process_on_the_whole_batch() -> None:
    inputs = draw(views=3) + torch.arange(8.0).view(1, -1, 1)  # ranks of different means
    weight = torch.eye(5, dtype=torch.float64).add(0.3).requires_grad_()
    loss = barlow_twins_loss(inputs @ weight)
    loss.backward()
    results = run_two_ranks(loss_on_rank, inputs, weight.detach())
    for ranks_loss, ranks_gradient in results:
        torch.testing.assert_close(ranks_loss, loss.detach(), rtol=1e-10, atol=0)
        torch.testing.assert_close(ranks_gradient, weight.grad, rtol=1e-8, atol=1e-10)
    # halves by themselves are something else
    halves = [barlow_twins_loss(half @ weight).item() for half in inputs.chunk(RANKS, dim=1)]
    assert sum(halves) / RANKS != pytest.approx(loss.item(), rel=0.01)


def test_refusals() -> None:
    for bad in (draw()[:1], draw()[0], draw(batch=1)):
        with pytest.raises(ConfigurationError, match='2 views and 2 samples or more'):
            barlow_twins_loss(bad)
