"""Contrastive losses against published values, transcriptions of the papers' algorithms, and lightly's."""

import math
from itertools import combinations, permutations

import lightly.loss
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.losses.two_ranks import mean_over_ranks, run_two_ranks
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses import QueueLoss, info_nce_loss, moco_v3_loss, nt_xent_loss

EXACT = {'rtol': 0, 'atol': 1e-12}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(tensor: Tensor) -> Tensor:
    return tensor / tensor.norm(dim=-1, keepdim=True)


# NT-Xent.


def simclr(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Algorithm 1 of https://arxiv.org/abs/2002.05709, line by line; views 2k−1 and 2k are neighbours."""
    z = torch.stack([one, other], dim=1).flatten(0, 1)
    n = len(one)
    s = torch.stack([torch.stack([a @ b / (a.norm() * b.norm()) for b in z]) for a in z])

    def loss(i: int, j: int) -> Tensor:
        denominator = sum(torch.exp(s[i, k] / temperature) for k in range(2 * n) if k != i)
        return -torch.log(torch.exp(s[i, j] / temperature) / denominator)

    return sum(loss(2 * k, 2 * k + 1) + loss(2 * k + 1, 2 * k) for k in range(n)) / (2 * n)


def test_nt_xent_of_identical_projections() -> None:
    z = draw(1, 1, 7).expand(2, 4, 7)
    assert nt_xent_loss(z).item() == pytest.approx(1.945910149, abs=1e-9)
    assert nt_xent_loss(z).item() == pytest.approx(math.log(7), abs=1e-12)


@pytest.mark.parametrize(('temperature', 'expected'), [(0.1, 0.000272362), (0.5, 0.594437664), (1.0, 1.165422180)])
def test_nt_xent_of_perfect_positives_that_are_orthogonal(temperature: float, expected: float) -> None:
    z = torch.eye(4, 6, dtype=torch.float64).expand(2, 4, 6)
    loss = nt_xent_loss(z, temperature).item()
    assert loss == pytest.approx(expected, abs=1e-9)
    assert loss == pytest.approx(math.log(1 + 6 * math.exp(-1 / temperature)), abs=1e-12)


@pytest.mark.parametrize('views', [2, 3, 4])
def test_nt_xent_is_the_papers_and_lightlys(views: int) -> None:
    z = draw(views, 5, 6).requires_grad_()
    loss = nt_xent_loss(z, 0.3)
    pairs = list(combinations(range(views), 2))
    reference = sum(simclr(z[i], z[j], 0.3) for i, j in pairs) / len(pairs)
    theirs = sum(lightly.loss.NTXentLoss(0.3)(z[i], z[j]) for i, j in pairs) / len(pairs)
    torch.testing.assert_close(loss, reference, **EXACT)
    torch.testing.assert_close(loss, theirs, **EXACT)
    gradients = [torch.autograd.grad(value, z)[0] for value in (loss, reference)]
    torch.testing.assert_close(*gradients, **EXACT)


def test_nt_xent_does_not_see_scale_or_order() -> None:
    z = draw(3, 5, 6)
    loss = nt_xent_loss(z)
    order = torch.tensor([3, 0, 4, 2, 1])
    for same in (z.flip(0), z[:, order], z * torch.tensor([0.1, 3.0, 50.0]).double().view(3, 1, 1)):
        torch.testing.assert_close(nt_xent_loss(same), loss, **EXACT)
    assert abs(nt_xent_loss(torch.stack([z[0], z[1], z[2, order]])) - loss) > 1e-4  # partners do matter


# InfoNCE with a queue.


def moco(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Algorithm 1 of https://arxiv.org/abs/1911.05722, line by line; the queue is (C, K) there."""
    q, k = unit(q), unit(k.detach())
    n, c = q.shape
    l_pos = torch.bmm(q.view(n, 1, c), k.view(n, c, 1)).squeeze(-1)
    l_neg = torch.mm(q.view(n, c), queue.T)
    logits = torch.cat([l_pos, l_neg], dim=1)
    return F.cross_entropy(logits / temperature, torch.zeros(n, dtype=torch.long))


def test_info_nce_of_identical_vectors() -> None:
    v = draw(1, 1, 8).expand(2, 3, 8)
    loss = info_nce_loss(v, v, unit(v[0, :1]).expand(16, 8)).item()
    assert loss == pytest.approx(2.833213344, abs=1e-9)
    assert loss == pytest.approx(math.log(17), abs=1e-12)


def test_info_nce_of_an_orthogonal_queue() -> None:
    axes = torch.eye(17, dtype=torch.float64)
    v = axes[:1].expand(2, 3, 17)
    loss = info_nce_loss(v, 5 * v, axes[1:], 0.2).item()
    assert loss == pytest.approx(0.1023825, abs=1e-7)
    assert loss == pytest.approx(math.log(1 + 16 * math.exp(-5)), abs=1e-12)


@pytest.mark.parametrize('views', [2, 3])
def test_info_nce_is_the_papers(views: int) -> None:
    q, k, queue = draw(views, 5, 6).requires_grad_(), draw(views, 5, 6, seed=1), unit(draw(9, 6, seed=2))
    loss = info_nce_loss(q, k, queue, 0.2)
    terms = [moco(q[i], k[j], queue, 0.2) for i, j in permutations(range(views), 2)]
    reference = torch.stack(terms).mean()
    torch.testing.assert_close(loss, reference, **EXACT)
    gradients = [torch.autograd.grad(value, q)[0] for value in (loss, reference)]
    torch.testing.assert_close(*gradients, **EXACT)


def test_queue_is_first_in_first_out_and_wraps() -> None:
    loss = QueueLoss(7, 3).double()
    first = loss.queue.clone()
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(7).double())
    keys = unit(draw(12, 3))
    loss.enqueue(4 * keys[:4])
    assert loss.queue_pointer == 4
    torch.testing.assert_close(loss.queue, torch.cat([keys[:4], first[4:]]))
    loss.enqueue(keys[4:9])  # the places 4, 5, 6, 0 and 1
    assert loss.queue_pointer == 2
    torch.testing.assert_close(loss.queue, keys[[7, 8, 2, 3, 4, 5, 6]])
    loss.enqueue(keys[9:12])
    torch.testing.assert_close(loss.queue, keys[[7, 8, 9, 10, 11, 5, 6]])
    # more keys than places: as if they had come one by one
    many, single = (QueueLoss(7, 3).double() for _ in range(2))
    for queue in (many, single):
        queue.enqueue(keys[:3])
    many.enqueue(keys)
    for key in keys:
        single.enqueue(key[None])
    assert many.queue_pointer == single.queue_pointer
    torch.testing.assert_close(many.queue, single.queue, **EXACT)


def test_keys_are_negatives_from_the_next_step_on() -> None:
    module = QueueLoss(8, 6, temperature=0.2).double()
    q, k, before = draw(2, 3, 6), draw(2, 3, 6, seed=1), module.queue.clone()
    torch.testing.assert_close(module(q, k), info_nce_loss(q, k, before, 0.2), **EXACT)
    torch.testing.assert_close(module.queue, torch.cat([unit(k.flatten(0, 1)), before[6:]]))
    after = module.queue.clone()
    torch.testing.assert_close(module(q, k), info_nce_loss(q, k, after, 0.2), **EXACT)


def test_gradients_reach_queries_only_and_the_queue_is_saved() -> None:
    module = QueueLoss(8, 6)
    q, k = (draw(2, 3, 6, seed=seed).float().requires_grad_() for seed in range(2))
    one, two = module(q, k), module(q, k)  # the second step must not change what the first one's gradient needs
    (one + two).backward()
    assert torch.count_nonzero(q.grad) == q.numel()
    assert k.grad is None
    assert not module.queue.requires_grad
    assert not list(module.parameters())
    other = QueueLoss(8, 6)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.queue, module.queue)
    assert other.queue_pointer == module.queue_pointer == 4


# MoCo v3.


def moco_v3(q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, temperature: float) -> Tensor:
    """``contrastive_loss`` and the end of ``forward`` of https://github.com/facebookresearch/moco-v3."""

    def contrastive_loss(q: Tensor, k: Tensor) -> Tensor:
        q, k = unit(q), unit(k.detach())
        logits = torch.einsum('nc,mc->nm', [q, k]) / temperature
        return F.cross_entropy(logits, torch.arange(len(logits))) * (2 * temperature)

    return contrastive_loss(q1, k2) + contrastive_loss(q2, k1)


@pytest.mark.parametrize('views', [2, 3])
def test_moco_v3_is_the_authors(views: int) -> None:
    q, k = draw(views, 5, 6).requires_grad_(), draw(views, 5, 6, seed=1).requires_grad_()
    loss = moco_v3_loss(q, k, 0.3)
    pairs = list(combinations(range(views), 2))
    reference = sum(moco_v3(q[i], q[j], k[i], k[j], 0.3) for i, j in pairs) / len(pairs)
    torch.testing.assert_close(loss, reference, **EXACT)
    gradients = [torch.autograd.grad(value, q)[0] for value in (loss, reference)]
    torch.testing.assert_close(*gradients, **EXACT)
    moco_v3_loss(q, k).backward()
    assert k.grad is None


def test_moco_v3_of_identical_vectors() -> None:
    v = draw(1, 1, 8).expand(2, 5, 8)
    assert moco_v3_loss(v, v, 0.2).item() == pytest.approx(2 * 0.4 * math.log(5), abs=1e-12)


# What all have in common.


def three_steps(name: str, weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradient of the third step of a linear network on some chips x (step, view, batch, bands)."""
    torch.manual_seed(3)
    queue = QueueLoss(17, 6).double()
    loss_of = {'nt_xent': nt_xent_loss, 'queue': queue, 'moco_v3': moco_v3_loss}[name]
    weight = weight.clone().requires_grad_()
    for step in x:
        queries, keys = step @ weight, (step @ weight.detach().flip(0)).tanh()
        loss = loss_of(queries) if name == 'nt_xent' else loss_of(queries, keys)
    (gradient,) = torch.autograd.grad(loss, weight)
    return loss.detach(), gradient, queue.queue


def on_a_rank(rank: int, name: str, weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    loss, gradient, queue = three_steps(name, weight, x.chunk(2, dim=2)[rank])
    return mean_over_ranks(loss), mean_over_ranks(gradient), queue


@pytest.mark.parametrize('name', ['nt_xent', 'queue', 'moco_v3'])
@pytest.mark.parametrize('views', [2, 3])
def test_two_ranks_are_one_process_on_the_whole_batch(name: str, views: int) -> None:
    weight, x = draw(4, 6), draw(3, views, 6, 4, seed=1)
    loss, gradient, queue = three_steps(name, weight, x)
    for rank in run_two_ranks(on_a_rank, name, weight, x):
        torch.testing.assert_close(rank, (loss, gradient, queue), **EXACT)
    if name != 'queue':  # whose negatives are the same, however small the batch
        assert abs(three_steps(name, weight, x[:, :, :3])[0] - loss) > 1e-2


@pytest.mark.parametrize('name', ['nt_xent', 'queue', 'moco_v3'])
def test_half_precision_is_computed_in_float32(name: str) -> None:
    z, queue = draw(2, 8, 16).bfloat16(), QueueLoss(8, 16)
    loss_of = {'nt_xent': nt_xent_loss, 'queue': queue, 'moco_v3': moco_v3_loss}[name]
    inputs = [z] if name == 'nt_xent' else [z, z.roll(1, dims=-1)]
    start = {key: value.clone() for key, value in queue.state_dict().items()}
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = loss_of(*inputs)
    queue.load_state_dict(start)
    queue.double()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_of(*(part.double() for part in inputs)).item(), abs=1e-5)


def test_refusals() -> None:
    z = draw(2, 4, 6)
    for loss_of, inputs in ((nt_xent_loss, 1), (QueueLoss(8, 6), 2), (moco_v3_loss, 2)):
        for bad in (z[:1], z[:, :1], z[0]):
            with pytest.raises(ConfigurationError, match='2 views and 2 samples'):
                loss_of(*[bad] * inputs)
    for loss_of in (QueueLoss(8, 6), moco_v3_loss):
        with pytest.raises(ConfigurationError, match='same views'):
            loss_of(z, z[:, :3])
    with pytest.raises(ConfigurationError, match='temperature'):
        QueueLoss(8, 6, 0.0)
    with pytest.raises(ConfigurationError, match='memory_bank_size'):
        QueueLoss(0, 6)
