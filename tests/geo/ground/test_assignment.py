"""Blocks are assigned with a balance that no single change improves, and by their place alone where that will do."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_msssl.geo.ground.assignment import assign


@given(st.integers(0, 10_000), st.integers(4, 60), st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_the_assignment_is_balanced(seed: int, blocks: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    totals = rng.exponential(size=(blocks, classes))
    shares = np.array([0.6, 0.2, 0.2])
    parts = assign(totals, shares, rng.random(blocks).tolist())
    assert set(parts) == {0, 1, 2}
    weights = totals / totals.sum(axis=0)

    def excess(found: Any) -> Any:
        return np.array([weights[found == part].sum(axis=0) for part in range(3)]) - shares[:, None]

    def squares(found: Any) -> float:
        return float(np.square(excess(found)).sum())

    reached = squares(parts)
    if np.abs(excess(parts)).max() > 0.01:  # near enough otherwise
        assert reached <= min(map(squares, neighbours(parts))) + 1e-9
    draws = rng.choice(3, size=(200, blocks), p=shares)
    by_chance = [squares(draw) for draw in draws if len(set(draw)) == 3]
    assert reached <= np.median(by_chance)


def neighbours(parts: Any) -> Iterator[Any]:
    """Every assignment without empty parts that differs by one block's part, or by an exchange of two blocks."""
    for block, part in itertools.product(range(len(parts)), range(3)):
        moved = parts.copy()
        moved[block] = part
        if len(set(moved)) == 3:
            yield moved
    for first, second in itertools.combinations(range(len(parts)), 2):
        exchanged = parts.copy()
        exchanged[[first, second]] = parts[[second, first]]
        yield exchanged


def test_initial_parts_are_kept_where_they_are_balanced() -> None:
    chances = (np.arange(1000) + 0.5) / 1000
    parts = assign(np.ones((1000, 1)), np.array([0.7, 0.15, 0.15]), chances.tolist())
    np.testing.assert_array_equal(parts, np.repeat([0, 1, 2], [700, 150, 150]))


def test_rare_classes_are_balanced_too() -> None:
    rng = np.random.default_rng(0)
    totals = np.column_stack([np.full(60, 100.0), np.where(np.arange(60) % 10 == 0, 5.0, 0)])
    for seed in range(5):
        parts = assign(totals, np.array([0.5, 0.5]), rng.random(60).tolist())
        assert totals[parts == 0, 1].sum() == 15, seed
