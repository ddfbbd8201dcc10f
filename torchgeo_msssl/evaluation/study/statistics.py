"""Means with intervals, over seeds and over pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval.

    Attributes:
        mean: Mean.
        low: Lower end, NaN for a single value.
        high: Upper end, NaN for a single value.
        count: Number of values.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return self.high - self.mean

    def __str__(self) -> str:
        """``0.830 ± 0.021``, without an interval for a single value."""
        return f'{self.mean:.3f}' if math.isnan(self.half) else f'{self.mean:.3f} ± {self.half:.3f}'


def mean_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Estimate a mean with Student's interval, which is honest for as few as three to five seeds.

    A bootstrap of so few values is too narrow (Student 1908, https://doi.org/10.2307/2331554).

    Args:
        values: Independent values, at least one.
        level: Share of the intervals that hold the true mean, if the values are normal.

    Returns:
        Mean and interval.
    """
    array = np.asarray(values, dtype=np.float64)
    mean, count = float(array.mean()), len(array)
    if count < 2:
        return Estimate(mean, math.nan, math.nan, count)
    half = float(student.ppf((1 + level) / 2, count - 1) * array.std(ddof=1) / math.sqrt(count))
    return Estimate(mean, mean - half, mean + half, count)
