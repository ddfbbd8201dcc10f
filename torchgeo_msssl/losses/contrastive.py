"""Contrastive losses: views of one chip attract each other, views of different chips repel.

NT-Xent of SimCLR (https://arxiv.org/abs/2002.05709), InfoNCE with a queue of MoCo
(https://arxiv.org/abs/1911.05722, https://arxiv.org/abs/2003.04297), and the loss of MoCo v3
(https://arxiv.org/abs/2104.02057). NT-Xent of a pair is lightly's. Its memory bank is not used: it is not saved with a
checkpoint, so a resumed run would lose its negatives.
"""

from itertools import permutations

import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from lightly.utils import dist
from torch import Tensor, nn

from torchgeo_msssl.losses.pairs import check_pair, check_views, mean_over_pairs
from torchgeo_msssl.validation import check_at_least, check_positive


def nt_xent_loss(projections: Tensor, temperature: float = 0.5) -> Tensor:
    """Normalized temperature-scaled cross entropy of finding each view's partner among all other views.

    On several ranks, with batches of one size, the negatives are those of the global batch; the mean over ranks of
    loss and gradients is that of one process on the global batch.

    Args:
        projections: Projections of this rank (view, batch, features).
        temperature: Temperature τ by which cosines are divided, above 0.

    Returns:
        Mean over all pairs of views: a scalar, float32 or (for float64 input) float64.

    Raises:
        ConfigurationError: If there are fewer than two views or two samples.
    """
    return mean_over_pairs(NTXentLoss(temperature, gather_distributed=True), check_views(projections))


def info_nce_loss(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float = 0.2) -> Tensor:
    """Cross entropy of finding a query's key among that key and a queue of others.

    ``L = mean over i≠j of −log(e^{q_i·k_j/τ} / (e^{q_i·k_j/τ} + Σ_n e^{q_i·n/τ}))``, with queries and keys of length 1.
    MoCo's own loss is one term, the first view's query with the second view's key. Gradients reach the queries only.

    Args:
        queries: Queries q (view, batch, features).
        keys: Keys k (view, batch, features).
        queue: Negatives n of length 1 (negative, features).
        temperature: Temperature τ.

    Returns:
        Loss, a scalar, float32 or (for float64 input) float64.

    Raises:
        ConfigurationError: If there are fewer than two views or two samples, or the shapes differ.
    """
    queries, keys = _unit_vectors(queries, keys)
    with torch.autocast(queries.device.type, enabled=False):
        negatives = (queries @ queue.to(queries.dtype).T / temperature).logsumexp(dim=-1)  # (view, batch)
        terms = []
        for i, j in permutations(range(len(queries)), 2):
            positives = (queries[i] * keys[j]).sum(dim=-1) / temperature  # (batch,)
            terms.append(torch.logaddexp(positives, negatives[i]) - positives)
        return torch.stack(terms).mean()


class QueueLoss(nn.Module):
    """:func:`info_nce_loss` with a first-in-first-out queue of keys, which is saved with a checkpoint.

    The keys of all ranks enter in the order of the ranks, so that each rank has the same queue.

    Attributes:
        queue: Keys of length 1 (memory_bank_size, features); random ones until enough have entered.
        queue_pointer: Index of the oldest key, which the next one replaces, an integer scalar.
    """

    queue: Tensor
    queue_pointer: Tensor

    def __init__(self, memory_bank_size: int, features: int, temperature: float = 0.2) -> None:
        """Fill the queue with random directions.

        Args:
            memory_bank_size: Number of keys in the queue.
            features: Features of a key.
            temperature: Temperature τ.

        Raises:
            ConfigurationError: If the size is below 1 or the temperature is not positive.
        """
        super().__init__()
        check_at_least(1, memory_bank_size=memory_bank_size)
        check_positive(temperature=temperature)
        self.temperature = temperature
        self.register_buffer('queue', F.normalize(torch.randn(memory_bank_size, features), dim=-1))
        self.register_buffer('queue_pointer', torch.zeros((), dtype=torch.long))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Compute the loss of queries and keys of this rank (view, batch, features), then enqueue the keys."""
        # a copy, since backward needs the queue as it was
        loss = info_nce_loss(queries, keys, self.queue.clone(), self.temperature)
        self.enqueue(gather_keys(keys).flatten(0, 1))
        return loss

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Replace the oldest keys.

        Args:
            keys: Keys of any length (n, features); if they exceed the size of the queue, the last ones stay.
        """
        size, start = len(self.queue), self.queue_pointer + max(len(keys) - len(self.queue), 0)
        newest = F.normalize(keys[-size:].to(self.queue.dtype), dim=-1)
        indices = (start + torch.arange(len(newest), device=keys.device)) % size
        self.queue[indices] = newest
        self.queue_pointer.copy_((self.queue_pointer + len(keys)) % size)


def moco_v3_loss(queries: Tensor, keys: Tensor, temperature: float = 0.2) -> Tensor:
    """Contrast queries with the keys of the global batch, in both directions.

    ``L = 2τ · (ctr(q_1, k_2) + ctr(q_2, k_1))`` for two views, where ``ctr`` is the cross entropy of finding a
    query's own key among the keys of all ranks of that view. The factor 2τ makes the size of the gradients independent
    of τ. Gradients reach the queries only. On several ranks, with batches of one size, the mean over ranks of loss
    and gradients is that of one process on the global batch.

    Args:
        queries: Predictions q of this rank (view, batch, features).
        keys: Keys k of this rank (view, batch, features).
        temperature: Temperature τ, above 0.

    Returns:
        Mean over all pairs of views: a scalar, float32 or (for float64 input) float64.

    Raises:
        ConfigurationError: If there are fewer than two views or two samples, or the shapes differ.
    """
    queries, keys = _unit_vectors(queries, keys)
    batch = queries.shape[1]
    own = torch.arange(batch, device=queries.device) + batch * dist.rank()
    gathered = gather_keys(keys)  # (view, rank × batch, features)
    with torch.autocast(queries.device.type, enabled=False):
        terms = [
            F.cross_entropy(queries[i] @ gathered[j].T / temperature, own)
            for i, j in permutations(range(len(queries)), 2)
        ]
        return 2 * (2 * temperature) * torch.stack(terms).mean()


def gather_keys(keys: Tensor) -> Tensor:
    """Collect the keys of all ranks, without gradient.

    Args:
        keys: Keys of this rank (view, batch, features), of one shape on all ranks.

    Returns:
        Keys of the global batch (view, rank × batch, features), rank after rank, the same on each.
    """
    keys = keys.detach()
    return torch.cat(dist.gather(keys.contiguous()), dim=1) if dist.world_size() > 1 else keys


def _unit_vectors(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of length 1, the latter without gradient, in float32 or float64."""
    queries, keys = check_pair(queries, keys, 'queries and keys')
    return F.normalize(queries, dim=-1), F.normalize(keys, dim=-1)
