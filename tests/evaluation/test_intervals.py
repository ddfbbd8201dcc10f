"""Bootstrap intervals by what they promise: how often they hold the truth."""

from functools import partial

import numpy as np
import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.intervals import bootstrap_interval, resample_weights
from torchgeo_msssl.evaluation.scores import Classified, score


def accuracy_of(right: np.ndarray) -> Classified:
    return Classified(np.zeros(len(right), np.int64), np.stack([right, ~right], axis=1).astype(float))


def coverage(rights: list[np.ndarray], groups: np.ndarray, truth: float) -> float:
    """Share of simulated tests whose interval holds the truth."""
    found = [
        bootstrap_interval(partial(score, accuracy_of(right), 'accuracy'), groups, resamples=300, seed=i)
        for i, right in enumerate(rights)
    ]
    return float(np.mean([interval.low <= truth <= interval.high for interval in found]))


@pytest.mark.slow
def test_intervals_hold_the_truth_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    rights = [rng.random(150) < 0.7 for _ in range(500)]
    # 0.95 ± four standard errors of 500 trials, and the percentile interval's own undercoverage of about 0.01
    assert 0.91 < coverage(rights, np.arange(150), 0.7) < 0.985


@pytest.mark.slow
def test_blocks_are_needed_where_neighbours_resemble_each_other() -> None:
    """50 blocks of 8 chips, whose difficulty is the block's: chips drawn one by one promise far too much."""
    rng = np.random.default_rng(1)
    ease = rng.beta(1.4, 0.6, (250, 50)).repeat(8, axis=1)  # mean 0.7
    rights = list(rng.random(ease.shape) < ease)
    by_block, by_chip = (coverage(rights, groups, 0.7) for groups in (np.arange(400) // 8, np.arange(400)))
    assert 0.89 < by_block < 0.99
    assert by_chip < 0.8


def test_draws_of_labels_widen_the_interval() -> None:
    """Draws that differ by more than chips do decide the width; equal draws change nothing."""
    right = np.random.default_rng(2).random(400) < 0.7
    one = partial(score, accuracy_of(right), 'accuracy')

    def drawn(weights: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        return one(weights) + shifts[:, None]

    groups = np.arange(400)
    alone = bootstrap_interval(one, groups)
    assert bootstrap_interval(lambda weights: drawn(weights, np.zeros(1)), groups) == alone
    equal = bootstrap_interval(lambda weights: drawn(weights, np.zeros(4)), groups)
    assert (equal.low, equal.high) == pytest.approx((alone.low, alone.high))
    shifts = np.array([-0.2, -0.1, 0.1, 0.2])
    wide = bootstrap_interval(lambda weights: drawn(weights, shifts), groups, resamples=4000)
    assert wide.value == pytest.approx(alone.value)
    # variance of the mean of four draws with replacement, plus that of the chips
    spread = np.sqrt(shifts.var() / 4 + 0.7 * 0.3 / 400)
    assert (wide.high - wide.low) / (2 * 1.96) == pytest.approx(spread, rel=0.1)


def test_weights_draw_whole_groups() -> None:
    groups = np.array([3, 3, 9, 9, 9, 5])
    weights = np.concatenate(list(resample_weights(groups, 40)))
    assert weights.shape == (40, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    np.testing.assert_array_equal(weights[:, [0, 2, 5]].sum(axis=1), 3)  # three groups, three draws
    np.testing.assert_array_equal(weights, np.concatenate(list(resample_weights(groups, 40))))


def test_many_chips_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.arange(50)
    whole = np.concatenate(list(resample_weights(groups, 30)))
    monkeypatch.setattr('torchgeo_msssl.evaluation.intervals._AT_ONCE', 300)
    parts = list(resample_weights(groups, 30))
    assert [len(part) for part in parts] == [6] * 5
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_value_is_that_of_all_chips_and_lies_inside() -> None:
    right = np.random.default_rng(2).random(80) < 0.6
    found = bootstrap_interval(lambda w: score(accuracy_of(right), 'accuracy', w), np.arange(80))
    assert found.value == right.mean()
    assert 0 < found.low < found.value < found.high < 1
    # the normal approximation, as good as it is
    half = 1.96 * np.sqrt(found.value * (1 - found.value) / 80)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
    assert str(found) == f'{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]'


@pytest.mark.parametrize('options', [{'groups': np.zeros(5, int)}, {'resamples': 0}, {'level': 1.0}])
def test_what_gives_no_interval_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match='at least 2 groups of chips'):
        bootstrap_interval(lambda w: w.sum(axis=1), **({'groups': np.arange(5)} | options))  # type: ignore[arg-type]
