"""Assignment of blocks of ground to the parts of a split.

Each block has an initial part, drawn from its place and the seed alone. Blocks change their part only as far as
balance requires: the change that brings the shares of all quantities nearest to the fractions comes first, until they
are near enough. Another scene elsewhere therefore changes the part of few blocks.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError

#: Shares that differ by less than this from the fractions are near enough.
_NEAR_ENOUGH = 0.01
#: A change of the sum of squares that is rounding.
_NO_GAIN = 1e-12
#: Largest number of blocks for which exchanges of two blocks are tried.
_MOST_EXCHANGED = 500

type Parts = NDArray[np.int64]


def check_fractions(fractions: Sequence[float]) -> None:
    """Check that fractions are shares of a whole.

    Args:
        fractions: One for each part.

    Raises:
        ConfigurationError: If one is not positive, or their sum is not 1.
    """
    if len(fractions) == 0 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigurationError(f'fractions: expected positive numbers with a sum of 1, got {tuple(fractions)}.')


def assign(totals: NDArray[np.float64], fractions: Sequence[float], chances: Sequence[float]) -> Parts:
    """Assign blocks so that each part has about its fraction of every quantity.

    Args:
        totals: Quantities in each block (area, pixels of each class), shape (block, quantity).
        fractions: Fraction of each part, with a sum of 1.
        chances: A number from 0 to 1 for each block, which decides its initial part and ties.

    Returns:
        Part of each block, shape (block,). Blocks without anything keep their initial part. No part is without a
        block that has something where there are as many such blocks as parts.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    total = totals.sum(axis=0)
    weights = totals[:, total > 0] / total[total > 0]
    full = np.flatnonzero(weights.any(axis=1))
    full = full[np.argsort(np.asarray(chances)[full], kind='stable')]
    parts = np.minimum(np.searchsorted(np.cumsum(shares), chances, side='right'), len(shares) - 1)
    parts[full] = _balanced(weights[full], shares, parts[full])
    return parts


def _balanced(weights: NDArray[np.float64], shares: NDArray[np.float64], parts: Parts) -> Parts:
    """Change parts until the shares are near enough in the sense of least squares, or no change helps."""
    for _ in range(4 * len(parts)):
        excess = np.array([weights[parts == part].sum(axis=0) for part in range(len(shares))]) - shares[:, None]
        counts = np.bincount(parts, minlength=len(shares))
        if np.abs(excess).max(initial=0) <= _NEAR_ENOUGH and counts.all():
            break
        pull = weights @ excess.T
        gain, block, part = _best_move(weights, pull, parts, counts)
        if gain > -_NO_GAIN and counts.all():
            gain, first, second = _best_exchange(weights, pull, parts)
            if gain > -_NO_GAIN:
                break
            parts[first], parts[second] = parts[second], parts[first]
        else:
            parts[block] = part
    return parts


def _best_move(
    weights: NDArray[np.float64], pull: NDArray[np.float64], parts: Parts, counts: Parts
) -> tuple[float, int, int]:
    """Change of the sum of squares, block and new part of the best move; empty parts are filled first."""
    here = np.arange(len(parts))
    change = 2 * (weights**2).sum(axis=1)[:, None] + 2 * (pull - pull[here, parts][:, None])
    change[here, parts] = np.inf
    change[counts[parts] == 1] = np.inf  # the last block of a part stays
    if not counts.all():
        change[:, counts > 0] = np.inf
    block, part = np.unravel_index(np.argmin(change), change.shape)
    return float(change[block, part]), int(block), int(part)


def _best_exchange(weights: NDArray[np.float64], pull: NDArray[np.float64], parts: Parts) -> tuple[float, int, int]:
    """Change of the sum of squares and the two blocks of the best exchange; many blocks need none."""
    if not 2 <= len(parts) <= _MOST_EXCHANGED:
        return 0.0, 0, 0
    square, product = (weights**2).sum(axis=1), weights @ weights.T
    own, other = pull[np.arange(len(parts)), parts], pull[:, parts]
    change = 2 * (square[:, None] + square[None] - 2 * product) + 2 * (other + other.T - own[:, None] - own[None])
    first, second = np.unravel_index(np.argmin(change), change.shape)
    return float(change[first, second]), int(first), int(second)
