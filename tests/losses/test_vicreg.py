"""VICReg's loss against golden values, the authors' algorithm, and one process on all data."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from tests.losses.two_ranks import RANKS, mean_over_ranks, run_two_ranks
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.vicreg import VICRegLoss

H = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
COPIES = H[:, :1].expand(-1, 3)
CONSTANT = torch.full_like(H, 0.7)


def draw(views: int = 2, batch: int = 8, features: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(batch, features, generator=generator, dtype=torch.float64)
    return 0.6 * (shared + 0.5 * torch.randn(views, batch, features, generator=generator, dtype=torch.float64))


def authors_loss(x: Tensor, y: Tensor, weights: tuple[float, float, float] = (25, 25, 1)) -> Tensor:
    """``VICReg.forward`` of https://github.com/facebookresearch/vicreg/blob/main/main_vicreg.py."""
    batch_size, num_features = x.shape

    def off_diagonal(c: Tensor) -> Tensor:
        return c.flatten()[:-1].view(num_features - 1, num_features + 1)[:, 1:].flatten()

    repr_loss = (x - y).square().mean()
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    std_x, std_y = torch.sqrt(x.var(dim=0) + 0.0001), torch.sqrt(y.var(dim=0) + 0.0001)
    std_loss = torch.mean(torch.relu(1 - std_x)) / 2 + torch.mean(torch.relu(1 - std_y)) / 2
    cov_x, cov_y = x.T @ x / (batch_size - 1), y.T @ y / (batch_size - 1)
    cov_loss = off_diagonal(cov_x).pow(2).sum() / num_features + off_diagonal(cov_y).pow(2).sum() / num_features
    sim_coeff, std_coeff, cov_coeff = weights
    return sim_coeff * repr_loss + std_coeff * std_loss + cov_coeff * cov_loss


@pytest.mark.parametrize(
    ('one', 'other', 'expected'),
    [
        (CONSTANT, CONSTANT, 24.75),
        (H, H, 0.0),
        (COPIES, COPIES, 64 / 9),
        (H, H + 0.3, 2.25),
        (H / 2, H / 2, 10.564078),
    ],
    ids=['constant', 'same', 'copies', 'shifted', 'narrow'],
)
def test_golden_values(one: Tensor, other: Tensor, expected: float) -> None:
    assert VICRegLoss()(torch.stack([one, other])).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize('weights', [(25.0, 25.0, 1.0), (1.0, 2.0, 3.0)])
def test_loss_and_gradient_are_the_authors(weights: tuple[float, float, float]) -> None:
    z = draw().requires_grad_()
    losses = VICRegLoss(*weights)(z), authors_loss(*z, weights)
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-12)
    gradients = [torch.autograd.grad(loss, z)[0] for loss in losses]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-12)


def test_several_views_are_all_pairs() -> None:
    z = draw(views=4)
    pairs = [authors_loss(one, other).item() for one, other in combinations(z, 2)]
    assert len(set(pairs)) == 6
    assert VICRegLoss()(z).item() == pytest.approx(sum(pairs) / 6, abs=1e-12)


def test_half_precision_is_computed_in_float32() -> None:
    z = draw(batch=64, features=32).bfloat16()
    with torch.autocast('cpu', torch.bfloat16):
        loss = VICRegLoss()(z)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(VICRegLoss()(z.double()).item(), rel=1e-5)


def test_nan_stays_nan() -> None:
    z = draw()
    z[0, 0, 0] = torch.nan
    assert VICRegLoss()(z).isnan()


def loss_on_rank(rank: int, inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and gradient of a linear layer before it as DDP takes it, of this rank's share of the batch."""
    weight = weight.clone().requires_grad_()
    loss = VICRegLoss()(inputs.chunk(RANKS, dim=1)[rank] @ weight)
    loss.backward()
    return mean_over_ranks(loss), mean_over_ranks(weight.grad)


@pytest.mark.slow
def test_two_ranks_are_one_process_on_the_whole_batch() -> None:
    inputs = draw(views=3) + torch.arange(8.0).view(1, -1, 1) / 8  # ranks of different means
    weight = torch.eye(5, dtype=torch.float64).mul(0.5).add(0.1).requires_grad_()
    loss = VICRegLoss()(inputs @ weight)
    loss.backward()
    for ranks_loss, ranks_gradient in run_two_ranks(loss_on_rank, inputs, weight.detach()):
        torch.testing.assert_close(ranks_loss, loss.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(ranks_gradient, weight.grad, rtol=1e-10, atol=1e-12)
    # halves by themselves are something else
    halves = [VICRegLoss()(half @ weight).item() for half in inputs.chunk(RANKS, dim=1)]
    assert sum(halves) / RANKS != pytest.approx(loss.item(), rel=0.01)


def test_refusals() -> None:
    for bad in (draw()[:1], draw()[0], draw(batch=1)):
        with pytest.raises(ConfigurationError, match='2 views and 2 samples or more'):
            VICRegLoss()(bad)
    for name in ('invariance_weight', 'variance_weight', 'covariance_weight'):
        with pytest.raises(ConfigurationError, match=f'^{name}'):
            VICRegLoss(**{name: -1.0})
