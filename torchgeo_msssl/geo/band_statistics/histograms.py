"""Exact percentiles and histograms of values that are counted in a stream.

Integers of at most 16 bits are counted value by value, in one pass. Other types are counted in two passes by the bits
of their float32 value, which sort like the values once those of negative values are mirrored: first the upper 16 bits,
then the lower 16 bits of the few upper halves that contain a percentile. Memory does not grow with the scenes, and the
percentiles are those of all pixels: exact for integers of at most 16 bits and for unscaled float32, rounded to float32
(a relative error of at most 2⁻²⁴) for wider or scaled values.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Percentiles that are reported.
PERCENTILES = (1, 2, 5, 25, 50, 75, 95, 98, 99)

#: Smallest value and size of the table of all values of uint8, int8, uint16 and int16.
LEAST_VALUE = -(2**15)
TABLE_SIZE = 2**16 - LEAST_VALUE

#: Number of different upper halves of 32 bits, and of lower ones.
HALF = 2**16

_SIGN = np.uint32(2**31)


def is_narrow(dtype: np.dtype[np.generic]) -> bool:
    """Whether a dtype's values can be counted one by one: integers of at most 16 bits."""
    return dtype.kind in 'iu' and dtype.itemsize <= 2


def count_values(values: NDArray[np.integer]) -> NDArray[np.int64]:
    """Count the occurrences of each value.

    Args:
        values: Integers of at most 16 bits, any shape.

    Returns:
        Counts of ``LEAST_VALUE + i``, shape (TABLE_SIZE,).
    """
    return np.bincount(values.ravel().astype(np.int64) - LEAST_VALUE, minlength=TABLE_SIZE)


def ordered_keys(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Map float32 numbers other than NaN to integers of the same order; -0 comes right before 0."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def values_of(keys: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return the numbers of keys, the inverse of :func:`ordered_keys`."""
    keys = np.asarray(keys, dtype=np.uint32)
    return np.where(keys & _SIGN, keys & ~_SIGN, ~keys).astype(np.uint32).view(np.float32).astype(np.float64)


@dataclass(frozen=True)
class SortedValues:
    """Values in rising order with their counts.

    Attributes:
        values: Values in float64, shape (n,).
        counts: Positive counts, shape (n,).
    """

    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @staticmethod
    def of_tables(tables: Sequence[tuple[NDArray[np.int64], float, float]]) -> 'SortedValues':
        """Merge tables of digital numbers as reflectance ``(DN + offset) * scale``.

        Args:
            tables: ``(counts, scale, offset)`` of each table, with counts from :func:`count_values`.

        Returns:
            All values. A value of several tables may occur twice.
        """
        found = [np.flatnonzero(counts) for counts, _, _ in tables]
        values = np.concatenate(
            [(at + LEAST_VALUE + offset) * scale for at, (_, scale, offset) in zip(found, tables, strict=True)]
        )
        counts = np.concatenate([counts[at] for at, (counts, _, _) in zip(found, tables, strict=True)])
        order = np.argsort(values, kind='stable')
        return SortedValues(values[order].astype(np.float64), counts[order])

    def at(self, rank: int) -> float:
        """Return the value of a rank, from 0, among all sorted values."""
        return float(self.values[np.searchsorted(np.cumsum(self.counts), rank, side='right')])


def ranks_of(count: int, percentiles: Sequence[float]) -> list[int]:
    """Return the sorted ranks of the values between which percentiles lie.

    Args:
        count: Number of values, at least 1.
        percentiles: Percentiles from 0 to 100.

    Returns:
        Distinct ranks, from 0.
    """
    places = [(count - 1) * (q / 100) for q in percentiles]
    below = {math.floor(place) for place in places}
    return sorted(below | {min(rank + 1, count - 1) for rank in below})


def interpolate(count: int, percentile: float, at: Callable[[int], float]) -> float:
    """Compute a percentile like :func:`numpy.percentile`, from the two values between which it lies.

    Args:
        count: Number of values, at least 1.
        percentile: Percentile from 0 to 100.
        at: Returns the value of a rank.
    """
    place = (count - 1) * (percentile / 100)
    rank = math.floor(place)
    low, high, share = at(rank), at(min(rank + 1, count - 1)), place - rank
    # the order of NumPy's own computation, so that the last digit is the same
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


@dataclass(frozen=True)
class Halves:
    """Upper halves of keys that contain the values of some ranks.

    Attributes:
        halves: Upper halves in rising order, shape (n,).
        ranks: Position in ``halves`` and rank among the values there, by rank.
    """

    halves: NDArray[np.int64]
    ranks: dict[int, tuple[int, int]]

    @staticmethod
    def find(counts: NDArray[np.int64], ranks: Sequence[int]) -> 'Halves':
        """Find the upper halves of some ranks from the counts of all upper halves, shape (HALF,)."""
        ends = np.cumsum(counts)
        where = np.searchsorted(ends, ranks, side='right')
        halves, position = np.unique(where, return_inverse=True)
        inside = [int(rank - (ends[half] - counts[half])) for rank, half in zip(ranks, where, strict=True)]
        return Halves(halves, {rank: (int(p), r) for rank, p, r in zip(ranks, position, inside, strict=True)})

    def count_lower(self, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Count the lower halves of the keys with one of these upper halves, shape (n, HALF)."""
        slots = np.full(HALF, -1, dtype=np.int32)
        slots[self.halves] = np.arange(len(self.halves))
        slot = slots[keys >> np.uint32(16)]
        wanted = slot >= 0
        places = slot[wanted].astype(np.int64) * HALF + (keys[wanted] & np.uint32(HALF - 1))
        return np.bincount(places, minlength=len(self.halves) * HALF).reshape(-1, HALF)

    def at(self, rank: int, lower: NDArray[np.int64]) -> float:
        """Return the value of a rank from the counts of lower halves, shape (n, HALF)."""
        slot, inside = self.ranks[rank]
        low = int(np.searchsorted(np.cumsum(lower[slot]), inside, side='right'))
        return float(values_of(np.array(int(self.halves[slot]) * HALF + low, dtype=np.uint32)))


def bin_edges(
    least: float, low: float, high: float, most: float, bins: int, step: float | None = None
) -> NDArray[np.float64]:
    """Return bin edges of a histogram that outliers do not compress.

    Args:
        least: Smallest value.
        low: A low percentile.
        high: A high percentile.
        most: Largest value.
        bins: Largest number of bins.
        step: Distance of neighbouring values on a lattice, such as scaled integers. Each bin then covers the same
            number of lattice points; otherwise the histogram would look like a comb.

    Returns:
        Two or more rising edges, which cover the range between the percentiles and a tenth of it to each side.
    """
    margin = 0.1 * (high - low)
    start, stop = max(least, low - margin), min(most, high + margin)
    if step is None:
        return np.linspace(start, stop if stop > start else start + 1, bins + 1)
    start = least + math.floor((start - least) / step + 1e-6) * step
    values = math.ceil((stop - start) / step - 1e-6) + 1
    width = math.ceil(values / bins)
    return np.asarray(start + (np.arange(math.ceil(values / width) + 1) * width - 0.5) * step, dtype=np.float64)
