"""Order of blocks in which the first ones hold every class."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from torchgeo_msssl.geo.ground.class_cover import holding, order_by_classes

tables = st.tuples(st.integers(1, 7), st.integers(1, 5)).flatmap(lambda shape: arrays(bool, shape))


def fewest(holds: np.ndarray) -> int:
    """Number of rows that are needed for every class, by trying all sets."""
    wanted = holds.any(axis=0)
    return next(
        size
        for size in range(len(holds) + 1)
        for rows in itertools.combinations(range(len(holds)), size)
        if (holds[list(rows)].any(axis=0) == wanted).all()
    )


@given(tables)
def test_the_first_blocks_hold_every_class_with_as_few_as_possible(holds: np.ndarray) -> None:
    order, needed = order_by_classes(holds)
    assert sorted(order) == list(range(len(holds)))
    assert needed == fewest(holds)
    assert (holds[order[:needed]].any(axis=0) == holds.any(axis=0)).all()
    assert sorted(order[needed:]) == list(order[needed:])  # the others keep the given order


def test_richest_block_first_and_early_ones_before_late_ones() -> None:
    holds = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0], [0, 0, 0, 1]], dtype=bool)
    order, needed = order_by_classes(holds)
    assert (order.tolist(), needed) == ([2, 1, 0, 3], 2)
    assert order_by_classes(np.zeros((3, 2), dtype=bool))[0].tolist() == [0, 1, 2]


def test_stray_pixels_are_no_class() -> None:
    fractions = np.array([[0.5, 0.0], [0.5, 0.3], [0.01, 0.001]])
    assert holding(fractions).tolist() == [[True, False], [True, True], [False, False]]


@given(arrays(float, (5, 3), elements=st.floats(0, 1)))
def test_every_class_is_held_by_a_block(fractions: np.ndarray) -> None:
    assert (holding(fractions).any(axis=0) == (fractions > 0).any(axis=0)).all()
