"""Bootstrap intervals of scores.

Chips of one block of ground, on whatever date, resemble each other; drawing them one by one takes each for a new
piece of evidence, and the interval comes out too narrow. Whole blocks are therefore drawn where blocks are known
(cluster bootstrap; Davison and Hinkley 1997, chapter 3.8, https://doi.org/10.1017/CBO9780511802843).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError

#: Resamples that are scored at once hold about so many weights.
_AT_ONCE = 2_000_000

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
        """The value with its interval, as tables have it."""
        return f'{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]'


def resample_weights(groups: NDArray[np.integer], resamples: int, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """Draw as many groups as there are, with replacement, again and again.

    Args:
        groups: Group of each chip, shape (chip,); ``np.arange(chips)`` draws chips one by one.
        resamples: How often to draw.
        seed: Same seed, same draws, so that differences of two scores are paired.

    Yields:
        How often each chip was drawn, shape (some resamples, chip).
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
    """Find the percentile interval of a score (Efron 1979, https://doi.org/10.1214/aos/1176344552).

    Where no chip is wrong, none is in any resample, and the interval has no width: it then says nothing about the
    errors that more chips would show.

    Args:
        statistic: From weights (resample, chip) to values (resample,), see :func:`.scores.score`.
        groups: Group of each chip, shape (chip,), two groups or more.
        resamples: How often to draw.
        level: Share of the resamples inside the interval.
        seed: Of the draws.

    Returns:
        Score and interval.

    Raises:
        ConfigurationError: If there are fewer than two groups, no resamples, or the level is no share.
    """
    count = len(np.unique(groups))
    if count < 2 or resamples < 1 or not 0 < level < 1:
        msg = (
            f'interval: expected 2 groups of chips or more, 1 resample or more and a level between 0 and 1, got {count}'
            f', {resamples} and {level}; use smaller blocks, or interval: chip.'
        )
        raise ConfigurationError(msg)
    values = np.concatenate([statistic(weights) for weights in resample_weights(groups, resamples, seed)])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(np.ones((1, len(groups))))[0]), float(low), float(high))
