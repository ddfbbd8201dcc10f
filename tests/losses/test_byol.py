"""BYOL's loss against its ends, and a transcription of the paper's."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from tests.losses.two_ranks import mean_over_ranks, run_two_ranks
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses import byol_loss

EXACT = {'rtol': 0, 'atol': 1e-12}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def byol(q: Tensor, q_other: Tensor, z: Tensor, z_other: Tensor) -> Tensor:
    """Equation 2 of https://arxiv.org/abs/2006.07733 for both orders of the views, sample by sample."""

    def regression(q: Tensor, z: Tensor) -> Tensor:
        return ((q / q.norm() - z / z.norm()) ** 2).sum()

    samples = zip(q, q_other, z, z_other, strict=True)
    return torch.stack([regression(a, d.detach()) + regression(b, c.detach()) for a, b, c, d in samples]).mean()


@pytest.mark.parametrize(('second', 'expected'), [([2.0, 0.0], 0), ([0.0, 3.0], 4), ([-1.0, 0.0], 8)])
def test_aligned_orthogonal_and_opposite(second: list[float], expected: float) -> None:
    predictions = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(2, 3, 2)
    targets = torch.tensor(second, dtype=torch.float64).expand(2, 3, 2)
    assert byol_loss(predictions, targets).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('views', [2, 3])
def test_against_the_paper(views: int) -> None:
    p, z = draw(views, 5, 6).requires_grad_(), draw(views, 5, 6, seed=1).requires_grad_()
    loss = byol_loss(p, z)
    pairs = list(combinations(range(views), 2))
    reference = sum(byol(p[i], p[j], z[i], z[j]) for i, j in pairs) / len(pairs)
    torch.testing.assert_close(loss, reference, **EXACT)
    gradients = [torch.autograd.grad(value, p)[0] for value in (loss, reference)]
    torch.testing.assert_close(*gradients, **EXACT)
    byol_loss(p, z).backward()
    assert z.grad is None


def test_local_views_are_compared_with_every_target() -> None:
    p, z, local = draw(2, 5, 6), draw(2, 5, 6, seed=1), draw(3, 5, 6, seed=2).requires_grad_()
    loss = byol_loss(p, z, local)
    pairs = [(p[0], z[1]), (p[1], z[0]), *((small, target) for small in local for target in z)]
    # both orders of a pair that is the same twice are twice the distance
    reference = torch.stack([byol(one, one, other, other) for one, other in pairs]).mean()
    torch.testing.assert_close(loss, reference, **EXACT)
    gradients = [torch.autograd.grad(value, local)[0] for value in (loss, reference)]
    torch.testing.assert_close(*gradients, **EXACT)


def test_views_are_not_compared_with_themselves() -> None:
    axes = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 2, 4)
    assert byol_loss(axes, axes).item() == pytest.approx(4, abs=1e-12)
    assert byol_loss(axes[:2], axes[:2].flip(0)).item() == pytest.approx(0, abs=1e-12)


def loss_and_gradient(weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    weight = weight.clone().requires_grad_()
    loss = byol_loss(x @ weight, (x @ weight.flip(0)).tanh())
    return loss.detach(), torch.autograd.grad(loss, weight)[0]


def on_a_rank(rank: int, weight: Tensor, x: Tensor) -> list[Tensor]:
    return [mean_over_ranks(part) for part in loss_and_gradient(weight, x.chunk(2, dim=1)[rank])]


@pytest.mark.slow
def test_two_ranks_are_one_process_on_the_whole_batch() -> None:
    weight, x = draw(4, 6), draw(3, 6, 4, seed=1)
    expected = list(loss_and_gradient(weight, x))
    for rank in run_two_ranks(on_a_rank, weight, x):
        torch.testing.assert_close(rank, expected, **EXACT)


def test_zero_vectors_and_half_precision() -> None:
    p = torch.zeros(2, 3, 5, requires_grad=True)
    loss = byol_loss(p, torch.zeros(2, 3, 5))
    loss.backward()
    assert loss.item() == 4
    assert torch.isfinite(p.grad).all()
    half, other = draw(2, 3, 5).bfloat16(), draw(2, 3, 5, seed=1).bfloat16()
    assert byol_loss(half, other).dtype == torch.float32
    assert byol_loss(half, other).item() == pytest.approx(byol_loss(half.double(), other.double()).item(), abs=1e-5)


def test_refusals() -> None:
    p = draw(2, 4, 6)
    with pytest.raises(ConfigurationError, match='same views'):
        byol_loss(p, p[:, :3])
    with pytest.raises(ConfigurationError, match=r'local views must be .* of the same chips'):
        byol_loss(p, p, p[:, :3])
    for bad in (p[:1], p[:, :1], p[0]):
        with pytest.raises(ConfigurationError, match='2 views and 2 samples'):
            byol_loss(bad, bad)
