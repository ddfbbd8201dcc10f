"""Counted percentiles are NumPy's over all values at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_msssl.geo.band_statistics.histograms import (
    HALF,
    LEAST_VALUE,
    PERCENTILES,
    Halves,
    SortedValues,
    bin_edges,
    count_values,
    interpolate,
    is_narrow,
    ordered_keys,
    ranks_of,
    values_of,
)

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(floats, min_size=1, max_size=50))
def test_keys_have_the_order_of_the_numbers_and_lead_back(numbers: list[float]) -> None:
    values = np.array(numbers, dtype=np.float32)
    keys = ordered_keys(values)
    np.testing.assert_array_equal(values_of(keys), values)
    np.testing.assert_array_equal(np.sort(values), values[np.argsort(keys, kind='stable')])


@pytest.mark.parametrize('dtype', ['uint8', 'int8', 'uint16', 'int16'])
def test_every_narrow_value_has_its_place(dtype: str) -> None:
    info = np.iinfo(dtype)
    values = np.array([info.min, info.max, info.max], dtype=dtype)
    counts = count_values(values)
    assert is_narrow(np.dtype(dtype))
    assert counts.sum() == 3
    assert (counts[info.min - LEAST_VALUE], counts[info.max - LEAST_VALUE]) == (1, 2)


@pytest.mark.parametrize('dtype', ['int32', 'float32', 'float16', 'uint64'])
def test_others_are_wide(dtype: str) -> None:
    assert not is_narrow(np.dtype(dtype))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-300, 300), min_size=1, max_size=60), st.sampled_from([1.0, 1e-4, 1 / 255, -2.0]))
def test_percentiles_of_tables_are_numpys_to_the_last_bit(numbers: list[int], scale: float) -> None:
    values = np.array(numbers, dtype=np.int16)
    column = SortedValues.of_tables([(count_values(values), scale, -100.0)])
    reflectance = (values + -100.0) * scale
    for q in (*PERCENTILES, 0, 100, 0.1):
        assert interpolate(len(values), q, column.at) == np.percentile(reflectance, q)


def test_tables_of_two_offsets_make_one_whole() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.integers(0, 4000, 500).astype('uint16'), rng.integers(1000, 5000, 300).astype('uint16')
    column = SortedValues.of_tables([(count_values(old), 1e-4, 0.0), (count_values(new), 1e-4, -1000.0)])
    whole = np.concatenate([(old + 0.0) * 1e-4, (new + -1000.0) * 1e-4])
    for q in PERCENTILES:
        assert interpolate(800, q, column.at) == np.percentile(whole, q)


@settings(max_examples=40, deadline=None)
@given(st.lists(floats, min_size=1, max_size=80))
def test_percentiles_by_halves_are_numpys(numbers: list[float]) -> None:
    values = np.array(numbers, dtype=np.float32)
    keys = ordered_keys(values)
    counts = np.bincount(keys >> np.uint32(16), minlength=HALF)
    halves = Halves.find(counts, ranks_of(len(values), PERCENTILES))
    lower = sum(halves.count_lower(part) for part in np.array_split(keys, 3))
    for q in PERCENTILES:
        found = interpolate(len(values), q, lambda rank: halves.at(rank, lower))
        assert found == np.percentile(values.astype(np.float64), q)


def test_bins_of_integers_hold_as_many_values_each() -> None:
    edges = bin_edges(0, 10, 990, 5000, 100, step=1)
    widths = np.diff(edges)
    assert len(widths) <= 100
    assert widths[0] % 1 == 0
    np.testing.assert_array_equal(widths, widths[0])
    assert edges[0] % 1 == 0.5
    assert edges[0] < 10
    assert 990 < edges[-1] < 1200  # the far 5000 does not squeeze the rest


def test_bins_of_one_value() -> None:
    assert len(bin_edges(7, 7, 7, 7, 256, step=1)) == 2
    edges = bin_edges(0.5, 0.5, 0.5, 0.5, 4)
    assert (np.diff(edges) > 0).all()
