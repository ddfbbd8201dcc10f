"""Bootstrap intervals of scores.

Chips of one ground block resemble each other on every date. Resampling them one by one treats each as independent
evidence, which makes intervals too narrow. Whole blocks are therefore resampled (cluster bootstrap; Davison and Hinkley
1997, chapter 3.8, https://doi.org/10.1017/CBO9780511802843).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError

#: Approximate number of weights that are scored at once.
_AT_ONCE = 2_000_000

#: Function from weights (resample, chip) to values (resample,), or (draw, resample) for several draws of labels.
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Interval:
    """A value with its interval.

    Attributes:
        value: The score of all chips.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """``0.830 [0.809, 0.851]``."""
        return f'{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]'


def resample_weights(groups: NDArray[np.integer], resamples: int, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """Resample groups with replacement.

    Args:
        groups: Group of each chip, shape (chip,); ``np.arange(chips)`` resamples chips.
        resamples: Number of resamples.
        seed: Seed; the same seed gives the same resamples, so that differences of two scores are paired.

    Yields:
        Number of times that each chip is in some resamples, shape (resample, chip).
    """
    names, member = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // max(len(member), 1))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=rows)
        yield drawn[:, member].astype(np.float64)


def bootstrap_interval(
    statistic: Statistic,
    groups: NDArray[np.integer],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compute the percentile interval of a score (Efron 1979, https://doi.org/10.1214/aos/1176344552).

    If every chip is correct, so is every resample, and the interval has no width: it then says nothing about the errors
    that more chips would show.

    Where the statistic has several draws of labels, each resample also draws among them with replacement, so that the
    interval includes their spread. The value is the mean over all draws.

    Args:
        statistic: See :data:`Statistic` and :func:`.scores.score`.
        groups: Group of each chip, shape (chip,), at least two groups.
        resamples: Number of resamples.
        level: Fraction of the resamples inside the interval.
        seed: Seed of the resamples.

    Returns:
        Score and interval.

    Raises:
        ConfigurationError: If there are fewer than two groups, no resamples, or the level is out of range.
    """
    count = len(np.unique(groups))
    if count < 2 or resamples < 1 or not 0 < level < 1:
        msg = (
            f'interval: expected at least 2 groups of chips, 1 resample and a level between 0 and 1, got {count}'
            f', {resamples} and {level}; use smaller blocks, or interval: chip.'
        )
        raise ConfigurationError(msg)
    values = np.concatenate(
        [np.atleast_2d(statistic(weights)) for weights in resample_weights(groups, resamples, seed)], axis=1
    )
    low, high = np.quantile(_over_draws(values, seed), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean(statistic(np.ones((1, len(groups)))))), float(low), float(high))


def _over_draws(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Mean over draws that are drawn with replacement for each resample: (draw, resample) to (resample,)."""
    draws, resamples = values.shape
    times = np.random.default_rng([seed, 1]).multinomial(draws, np.full(draws, 1 / draws), size=resamples)
    mean: NDArray[np.float64] = (values * times.T).sum(axis=0) / draws
    return mean
