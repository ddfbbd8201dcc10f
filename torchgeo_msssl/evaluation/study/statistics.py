"""Means with confidence intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval.

    Attributes:
        mean: Mean.
        low: Lower end, NaN for a single value.
        high: Upper end, NaN for a single value.
        count: Number of values.
        error: Standard error of the mean, NaN for a single value.
    """

    mean: float
    low: float
    high: float
    count: int
    error: float = math.nan

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return self.high - self.mean

    def __str__(self) -> str:
        """``0.830 ± 0.021``, without an interval for a single value."""
        return f'{self.mean:.3f}' if math.isnan(self.half) else f'{self.mean:.3f} ± {self.half:.3f}'


def mean_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Estimate a mean with Student's interval, which also holds for three to five seeds.

    A bootstrap of so few values is too narrow (Student 1908, https://doi.org/10.2307/2331554).

    Args:
        values: Independent values, at least one.
        level: Confidence level, for normally distributed values.

    Returns:
        Mean and interval.
    """
    array = np.asarray(values, dtype=np.float64)
    mean, count = float(array.mean()), len(array)
    if count < 2:
        return Estimate(mean, math.nan, math.nan, count)
    error = float(array.std(ddof=1) / math.sqrt(count))
    half = float(student.ppf((1 + level) / 2, count - 1) * error)
    return Estimate(mean, mean - half, mean + half, count, error)
