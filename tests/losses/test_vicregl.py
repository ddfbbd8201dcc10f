"""VICRegL's loss against golden values, the authors' algorithm, lightly's, and one process on all data."""

from itertools import product
from typing import Any

import pytest
import torch
from lightly.loss import VICRegLLoss as LightlyLoss
from torch import Tensor

from tests.losses.two_ranks import RANKS, mean_over_ranks, run_two_ranks
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.vicregl import LocalVectors, VICRegLLoss, nearest_matches

BATCH, SIDE, FEATURES = 6, 3, 4


def draw(views: int = 2, side: int = SIDE, batch: int = BATCH, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Pooled projections (view, batch, 5), local ones (view, batch, cell, features), and centers, in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((views, batch, 5), (views, batch, side * side, FEATURES), (views, batch, side * side, 2))
    z, maps, centers = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return 0.6 * z, 0.7 * maps, 20 * centers


def cells(maps: Tensor, centers: Tensor, valid: Tensor | None = None) -> list[LocalVectors]:
    seen = [None] * len(maps) if valid is None else valid
    return [LocalVectors(*parts) for parts in zip(maps, centers, seen, strict=True)]


def authors_vicreg(x: Tensor, y: Tensor) -> Tensor:
    """``VICRegL._vicreg_loss`` of https://github.com/facebookresearch/VICRegL, chip by chip and match by match."""
    batch, matches, channels = x.shape
    total = 25 * sum((x[b, m, c] - y[b, m, c]) ** 2 for b, m, c in product(*map(range, x.shape))) / x.numel()
    for vectors in (x, y):
        for m in range(matches):
            v = vectors[:, m] - vectors[:, m].mean(dim=0)
            std = torch.sqrt(v.square().sum(dim=0) / (batch - 1) + 0.0001)
            total = total + 25 * (1 - std).clamp_min(0).mean() / matches / 2
            cov = v.T @ v / (batch - 1)
            off = cov - torch.diag(cov.diag())
            total = total + off.square().sum() / channels / matches / 2
    return total


def authors_matches(maps: Tensor, candidates: Tensor, distances: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``neirest_neighbores``, with sorted lists instead of masks: pairs of smallest distance, in the order of cells."""
    ours, theirs = [], []
    for b, table in enumerate(distances.tolist()):
        nearest = [min((value, j) for j, value in enumerate(row)) for row in table]
        kept = sorted(sorted(range(len(nearest)), key=lambda i: nearest[i][0])[:count])
        ours.append(torch.stack([maps[b, i] for i in kept]))
        theirs.append(torch.stack([candidates[b, nearest[i][1]] for i in kept]))
    return torch.stack(ours), torch.stack(theirs)


def authors_loss(
    projections: list[Tensor], maps: list[Tensor], centers: list[Tensor], alpha: float, counts: list[int]
) -> Tensor:
    """``VICRegL.forward`` for two global views and any number of local ones after them, without its classifier.

    ``counts`` are the numbers of matches of each view's cells. The authors' ``--l2_all_matches`` is off, as in the
    paper.
    """
    ordered = [(i, j) for i in range(2) for j in range(len(maps)) if i != j]
    invariance = 25 * torch.stack([(projections[i] - projections[j]).square().mean() for i, j in ordered]).mean()
    spread = []
    for z in projections:
        v = z - z.mean(dim=0)
        cov = v.T @ v / (len(v) - 1)
        std = torch.sqrt(v.var(dim=0) + 0.0001)
        off = cov - torch.diag(cov.diag())
        spread.append(25 * (1 - std).clamp_min(0).mean() + off.square().sum() / z.shape[1])
    local = torch.zeros((), dtype=torch.float64)
    for i, j in ordered:
        for one, other in ((i, j), (j, i)):
            for by in (maps, centers):
                distances = (by[one][:, :, None] - by[other][:, None]).square().sum(dim=-1).sqrt()
                pairs = authors_matches(maps[one], maps[other], distances, counts[one])
                local = local + authors_vicreg(*pairs) / 2
    return alpha * (invariance + torch.stack(spread).mean()) + (1 - alpha) * local / len(ordered)


@pytest.mark.parametrize(('alpha', 'count'), [(0.75, 4), (0.0, 9), (1.0, 1)])
def test_loss_and_gradient_are_the_authors(alpha: float, count: int) -> None:
    z, maps, centers = draw()
    z.requires_grad_(), maps.requires_grad_()
    ours = VICRegLLoss(alpha=alpha, match_fraction=count / 9)(z, cells(maps, centers))
    theirs = authors_loss(list(z), list(maps), list(centers), alpha, [count, count])
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-11)
    for one, other in zip(*(torch.autograd.grad(loss, (z, maps)) for loss in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_local_views_are_the_authors_multi_crop() -> None:
    (z, maps, centers), (small_z, small_maps, small_centers) = draw(), draw(views=3, side=2, seed=1)
    criterion = VICRegLLoss(alpha=0.6, match_fraction=0.5)
    ours = criterion(z, cells(maps, centers), small_z, cells(small_maps, small_centers))
    expected = authors_loss(
        [*z, *small_z], [*maps, *small_maps], [*centers, *small_centers], 0.6, counts=[4, 4, 2, 2, 2]
    )
    assert ours.item() == pytest.approx(expected.item(), abs=1e-11)


def test_invariance_is_lightlys() -> None:
    """Without variance and covariance the order of the matches does not matter."""
    z, maps, centers = draw()
    lightly = LightlyLoss(25, 0, 0, alpha=0.3, num_matches=(4, 4))
    square = [part.unflatten(2, (SIDE, SIDE)) for part in (maps, centers)]
    expected = lightly(list(zip(z, square[0], strict=True)), list(square[1]))
    ours = VICRegLLoss(25, 0, 0, alpha=0.3, match_fraction=4 / 9)(z, cells(maps, centers))
    assert ours.item() == pytest.approx(expected.item(), abs=1e-11)


def test_golden_values() -> None:
    """One feature map that is the other one flipped: cells find each other at no distance, by place and by feature."""
    _, maps, centers = draw(views=1)
    z = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64).sqrt().nan_to_num(-1)
    z = torch.stack([z, z])  # of variance 4/3, without covariance
    order = torch.arange(9).flip(0)
    maps, centers = 4 * maps[:, :4], centers[:, :4]
    pair = cells(torch.cat([maps, maps[:, :, order]]), torch.cat([centers, centers[:, :, order]]))
    assert VICRegLLoss(25, 0, 0, match_fraction=1.0)(z, pair).item() == 0
    assert VICRegLLoss(25, 25, 1, alpha=1.0)(z, pair).item() == 0
    # all alike: two local criteria with a variance term of 25 · (1 − 0.01), and the global one at zero
    alike = cells(torch.ones_like(torch.cat([maps, maps])), torch.cat([centers, centers]))
    assert VICRegLLoss(alpha=0.75)(z, alike).item() == pytest.approx(0.25 * 2 * 24.75, abs=1e-9)


def test_matches_are_the_nearest_and_the_closest_pairs() -> None:
    distances = torch.tensor([[[5.0, 1.0], [0.2, 9.0], [3.0, 4.0], [0.5, 0.4]]])
    assert [part.tolist() for part in nearest_matches(distances, 2)] == [[[1, 3]], [[0, 1]]]
    assert [part.tolist() for part in nearest_matches(distances, 4)] == [[[0, 1, 2, 3]], [[1, 0, 0, 1]]]


def test_cells_without_data_have_no_effect_while_others_suffice() -> None:
    z, maps, centers = draw()
    valid = torch.ones(maps.shape[:3], dtype=torch.bool)
    valid[:, :, 5:] = False
    criterion = VICRegLLoss(match_fraction=4 / 9)
    expected = criterion(z, cells(maps, centers, valid))
    assert expected.item() != pytest.approx(criterion(z, cells(maps, centers)).item(), rel=1e-3)
    maps[:, :, 5:], centers[:, :, 5:] = 7.0, 3.0
    assert criterion(z, cells(maps, centers, valid)).item() == expected.item()


def test_half_precision_is_computed_in_float32() -> None:
    z, maps, centers = (part.bfloat16() for part in draw())
    with torch.autocast('cpu', torch.bfloat16):
        loss = VICRegLLoss()(z, cells(maps, centers))
    assert loss.dtype == torch.float32
    exact = VICRegLLoss()(z.double(), cells(maps.double(), centers.double()))
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


def loss_on_rank(rank: int, weight: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor]:
    """Loss, and gradient of a linear layer before it as DDP takes it, of this rank's share of the batch."""
    z, maps, centers = (part.chunk(RANKS, dim=1)[rank] for part in parts)
    weight = weight.clone().requires_grad_()
    loss = VICRegLLoss()(z @ weight, cells(maps @ weight[:4, :4], centers))
    loss.backward()
    return mean_over_ranks(loss), mean_over_ranks(weight.grad)


def test_two_ranks_are_one_process_on_the_whole_batch() -> None:
    z, maps, centers = draw()
    weight = torch.eye(5, dtype=torch.float64).mul(0.5).add(0.1).requires_grad_()
    loss: Any = VICRegLLoss()(z @ weight, cells(maps @ weight[:4, :4], centers))
    loss.backward()
    for ranks_loss, ranks_gradient in run_two_ranks(loss_on_rank, weight.detach(), z, maps, centers):
        torch.testing.assert_close(ranks_loss, loss.detach(), rtol=1e-12, atol=0)
        torch.testing.assert_close(ranks_gradient, weight.grad, rtol=1e-10, atol=1e-12)


def test_refusals() -> None:
    z, maps, centers = draw()
    for options, named in (({'alpha': 1.1}, 'alpha'), ({'match_fraction': 0.0}, 'match_fraction')):
        with pytest.raises(ConfigurationError, match=f'^{named}'):
            VICRegLLoss(**options)
    with pytest.raises(ConfigurationError, match='2 views and 2 samples or more'):
        VICRegLLoss()(z[:1], cells(maps[:1], centers[:1]))
    with pytest.raises(ConfigurationError, match='one feature map per view, got 1 of 2 views'):
        VICRegLLoss()(z, cells(maps[:1], centers[:1]))
    with pytest.raises(ConfigurationError, match='of the same chips'):
        VICRegLLoss()(z, cells(maps, centers), z[:, :3])
