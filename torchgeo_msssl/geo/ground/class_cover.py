"""Order of blocks or chips in which the first ones hold every class."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

#: Fraction of a class's mean share that a block needs to hold it, so that a few stray pixels do not count.
_SHARE = 0.1


def holding(fractions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Decide which blocks hold which classes.

    Args:
        fractions: Fraction of each block that is labelled with a class, shape (block, class).

    Returns:
        Whether a block has at least a tenth of the mean over the blocks, shape (block, class). Each class that any
        block has is held by one.
    """
    return (fractions > 0) & (fractions >= _SHARE * fractions.mean(axis=0))


def order_by_classes(holds: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Order blocks so that as few as possible hold every class, without another order than the given one otherwise.

    The order does not depend on how many blocks are used, so that fewer blocks lie within more.

    Args:
        holds: Whether a block holds a class, shape (block, class), in the order to choose from.

    Returns:
        Positions of all blocks, shape (block,), and the number of the first ones that hold every class that any block
        holds.
    """
    needed = np.flatnonzero(holds.any(axis=0))
    if not len(needed):
        return np.arange(len(holds)), 0
    # of blocks with the same classes only the first one can be of use
    _, first = np.unique(holds[:, needed], axis=0, return_index=True)
    candidates = np.sort(first)
    chosen = candidates[_smallest_cover(holds[candidates][:, needed])]
    chosen = _richest_first(chosen, holds[:, needed])
    rest = np.setdiff1d(np.arange(len(holds)), chosen)
    return np.concatenate([chosen, rest]), len(chosen)


def _smallest_cover(holds: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Fewest rows that have every column; of several such sets one of early rows."""
    count = len(holds)
    costs = 1 + np.arange(count) / count**2  # the second part is below 1 in sum: it decides ties only
    cover = LinearConstraint(holds.T.astype(np.float64), lb=1)
    found = milp(costs, constraints=cover, integrality=np.ones(count), bounds=Bounds(0, 1), options={'mip_rel_gap': 0})
    return np.flatnonzero(found.x > 0.5)


def _richest_first(chosen: NDArray[np.int64], holds: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Order blocks by the number of classes that each adds to those before it, equal ones as they were."""
    left, order, seen = list(chosen), [], np.zeros(holds.shape[1], dtype=np.bool_)
    while left:
        best = max(left, key=lambda block: int((holds[block] & ~seen).sum()))
        left.remove(best)
        order.append(best)
        seen |= holds[best]
    return np.array(order, dtype=np.int64)
