"""Marks for parametrized tests."""

from collections.abc import Iterable
from typing import Any

import pytest


def first_fast(cases: Iterable[Any], count: int = 1, *, unpack: bool = True) -> list[Any]:
    """Mark all cases but the first ``count`` as slow.

    Args:
        cases: Values of one argument, or tuples of the values of several.
        count: Number of cases of the fast loop.
        unpack: Whether a tuple is the values of several arguments.
    """

    def slow(case: Any) -> Any:
        values = case if unpack and isinstance(case, tuple) else (case,)
        return pytest.param(*values, marks=pytest.mark.slow)

    return [case if number < count else slow(case) for number, case in enumerate(cases)]
