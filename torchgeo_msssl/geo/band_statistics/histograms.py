"""How the values of each band are distributed, counted in a stream.

Integers of at most 16 bits are counted value by value, once. Anything wider is counted twice by the bits of its
float32 number, whose order is that of the numbers once negative ones are mirrored: first the upper 16 bits, then
the lower 16 of those few upper halves in which a wanted percentile lies. Either way memory does not grow with the
scenes, and percentiles are those of all pixels: exactly for integers of at most 16 bits and for float32 that stands
for itself, to the rounding to float32 (a relative error of at most 2⁻²⁴) for what has more bits or is scaled.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Percentiles that are reported.
PERCENTILES = (1, 2, 5, 25, 50, 75, 95, 98, 99)

#: Every value of uint8, int8, uint16 and int16 has its place in one table, from this one on.
LEAST_VALUE = -(2**15)
TABLE_SIZE = 2**16 - LEAST_VALUE

#: Number of the upper, and of the lower halves of 32 bits.
HALF = 2**16

_SIGN = np.uint32(2**31)


def is_narrow(dtype: np.dtype[np.generic]) -> bool:
    """Whether a dtype's values can be counted one by one: integers of at most 16 bits."""
    return dtype.kind in 'iu' and dtype.itemsize <= 2


def count_values(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count how often each value occurs.

    Args:
        values: Integers of at most 16 bits, any shape.

    Returns:
        Shape (TABLE_SIZE,): the count of ``LEAST_VALUE + i`` at ``i``.
    """
    return np.bincount(values.ravel().astype(np.int64) - LEAST_VALUE, minlength=TABLE_SIZE)


def ordered_keys(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Map float32 numbers to integers of the same order.

    Args:
        values: Numbers, no NaN.

    Returns:
        Keys of the same shape; -0 comes right before 0.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def values_of(keys: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The numbers of keys, see :func:`ordered_keys`."""
    keys = np.asarray(keys, dtype=np.uint32)
    return np.where(keys & _SIGN, keys & ~_SIGN, ~keys).astype(np.uint32).view(np.float32).astype(np.float64)


@dataclass(frozen=True)
class SortedValues:
    """Distinct values in rising order, each with how often it occurs.

    Attributes:
        values: Shape (n,), float64.
        counts: Shape (n,), positive.
    """

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @staticmethod
    def of_tables(tables: Sequence[tuple[NDArray[np.int64], float, float]]) -> 'SortedValues':
        """Gather tables of digital numbers in reflectance.

        Args:
            tables: ``(counts, scale, offset)`` each, counts as :func:`count_values` gives them.

        Returns:
            All values ``(DN + offset) * scale``; those of several tables may occur twice.
        """
        found = [np.flatnonzero(counts) for counts, _, _ in tables]
        values = np.concatenate(
            [(at + LEAST_VALUE + offset) * scale for at, (_, scale, offset) in zip(found, tables, strict=True)]
        )
        counts = np.concatenate([counts[at] for at, (counts, _, _) in zip(found, tables, strict=True)])
        order = np.argsort(values, kind='stable')
        return SortedValues(values[order].astype(np.float64), counts[order])

    def at(self, rank: int) -> float:
        """The value with so many values below it in the sorted whole."""
        return float(self.values[np.searchsorted(np.cumsum(self.counts), rank, side='right')])


def ranks_of(count: int, percentiles: Sequence[float]) -> list[int]:
    """Ranks of the values that percentiles lie between, sorted, each once.

    Args:
        count: Values in all, at least 1.
        percentiles: 0 to 100.

    Returns:
        Ranks from 0.
    """
    places = [(count - 1) * (q / 100) for q in percentiles]
    below = {math.floor(place) for place in places}
    return sorted(below | {min(rank + 1, count - 1) for rank in below})


def interpolate(count: int, percentile: float, at: Callable[[int], float]) -> float:
    """A percentile as :func:`numpy.percentile` computes it, from the two values that it lies between.

    Args:
        count: Values in all, at least 1.
        percentile: 0 to 100.
        at: Gives the value of a rank.

    Returns:
        The percentile.
    """
    place = (count - 1) * (percentile / 100)
    rank = math.floor(place)
    low, high, share = at(rank), at(min(rank + 1, count - 1)), place - rank
    # NumPy's own way round, so that the last digit is the same too
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


@dataclass(frozen=True)
class Halves:
    """Where the values of some ranks lie among the upper halves of keys.

    Attributes:
        halves: Upper halves in which they lie, rising, shape (n,).
        ranks: For each rank: position in ``halves``, and rank among the values there.
    """

    halves: NDArray[np.int64]
    ranks: dict[int, tuple[int, int]]

    @staticmethod
    def find(counts: NDArray[np.int64], ranks: Sequence[int]) -> 'Halves':
        """Find them from the counts of all upper halves, shape (HALF,)."""
        ends = np.cumsum(counts)
        where = np.searchsorted(ends, ranks, side='right')
        halves, position = np.unique(where, return_inverse=True)
        inside = [int(rank - (ends[half] - counts[half])) for rank, half in zip(ranks, where, strict=True)]
        return Halves(halves, {rank: (int(p), r) for rank, p, r in zip(ranks, position, inside, strict=True)})

    def count_lower(self, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Count the lower halves of those keys whose upper half is one of these; shape (n, HALF)."""
        slots = np.full(HALF, -1, dtype=np.int32)
        slots[self.halves] = np.arange(len(self.halves))
        slot = slots[keys >> np.uint32(16)]
        wanted = slot >= 0
        places = slot[wanted].astype(np.int64) * HALF + (keys[wanted] & np.uint32(HALF - 1))
        return np.bincount(places, minlength=len(self.halves) * HALF).reshape(-1, HALF)

    def at(self, rank: int, lower: NDArray[np.int64]) -> float:
        """The value of a rank, from the counts of all lower halves, shape (n, HALF)."""
        slot, inside = self.ranks[rank]
        low = int(np.searchsorted(np.cumsum(lower[slot]), inside, side='right'))
        return float(values_of(np.array(int(self.halves[slot]) * HALF + low, dtype=np.uint32)))


def bin_edges(
    least: float, low: float, high: float, most: float, bins: int, step: float | None = None
) -> NDArray[np.float64]:
    """Edges of a histogram that a few far values do not squeeze.

    Args:
        least: Smallest value.
        low: A low percentile.
        high: A high percentile.
        most: Largest value.
        bins: Bins at most.
        step: Distance of neighbouring values where they lie on a lattice; each bin then holds as many of them, without
            which histograms of integers look like combs.

    Returns:
        Rising edges, two or more, that hold what lies between the percentiles, and a tenth of that beyond.
    """
    margin = 0.1 * (high - low)
    start, stop = max(least, low - margin), min(most, high + margin)
    if step is None:
        return np.linspace(start, stop if stop > start else start + 1, bins + 1)
    start = least + math.floor((start - least) / step + 1e-6) * step
    values = math.ceil((stop - start) / step - 1e-6) + 1
    width = math.ceil(values / bins)
    return np.asarray(start + (np.arange(math.ceil(values / width) + 1) * width - 0.5) * step, dtype=np.float64)
