"""Intervals, against scipy's own and in a simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from torchgeo_msssl.evaluation.study.statistics import mean_interval


def test_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(0).normal(size=7)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean_interval(values.tolist())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.mean, found.count) == (pytest.approx(values.mean()), 7)


def test_intervals_of_five_seeds_hold_the_true_mean_as_often_as_they_say() -> None:
    draws = np.random.default_rng(1).normal(3.0, 0.5, (2000, 5))
    held = [found.low <= 3.0 <= found.high for found in map(mean_interval, draws.tolist())]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_a_single_value_has_no_interval() -> None:
    found = mean_interval([0.5])
    assert math.isnan(found.low)
    assert str(found) == '0.500'
    assert str(mean_interval([0.5, 0.5])) == '0.500 ± 0.000'
