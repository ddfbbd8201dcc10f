"""Checks of arguments: what they let through, and messages that name argument, range and value."""

import math
from typing import Literal

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.transforms.views import Augmentation
from torchgeo_msssl.validation import (
    check_at_least,
    check_choice,
    check_interval,
    check_positive,
    check_probability,
)


def test_values_in_range_pass() -> None:
    check_choice('loss', 'ce', Literal['ce', 'dice'])
    check_choice('version', 2, (2, 3))
    check_at_least(0, lr=0, momentum=0.9)
    check_positive(temperature=1e-9)
    assert check_probability('p', 1) == 1.0
    assert check_interval('scale', [0, 1], 0, 1) == (0.0, 1.0)
    assert check_interval('scale', (0.5, 0.5), 0, 1, above=True) == (0.5, 0.5)


def test_values_out_of_range_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"^loss: expected one of ce, dice, got 'l1'\.$"):
        check_choice('loss', 'l1', Literal['ce', 'dice'])
    for value in (-1, math.inf, math.nan):
        with pytest.raises(ConfigurationError, match=r'^lr: expected 0 or more, got '):
            check_at_least(0, lr=value)
    for value in (0, -1, math.inf, math.nan):
        with pytest.raises(ConfigurationError, match=r'^temperature: expected a positive number, got '):
            check_positive(temperature=value)
    for value, below_one in ((-0.1, False), (1.1, False), (1, True), (math.nan, False)):
        with pytest.raises(ConfigurationError, match=r'^p: expected a number from 0 to .*1, got '):
            check_probability('p', value, below_one)


@pytest.mark.parametrize('interval', [(0.5, 0.2), (-0.1, 1.0), (0.0, 1.1), (0.1,), (0.0, 0.1, 0.2), (0.0, 1.0)])
def test_intervals_out_of_range_are_named(interval: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r'^scale: expected two numbers above 0 to 1, the smaller one first'):
        check_interval('scale', interval, 0, 1, above=True)
    with pytest.raises(ConfigurationError, match='scale'):
        check_interval('scale', (0.0, math.inf), 0)


def test_unknown_names_in_a_mapping() -> None:
    with pytest.raises(ConfigurationError, match=r'augmentation: there is no option `blurr`; did you mean `blur`\?'):
        Augmentation.options({'blurr': 0.5})
