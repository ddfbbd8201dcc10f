"""The threshold on an index against brute force and against indices by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_msssl.errors import BandError
from torchgeo_msssl.evaluation.vegetation_index import STEPS, best_threshold, find_bands, vegetation_index


def test_indices_by_hand() -> None:
    image = torch.tensor([0.2, 0.3, 0.1, 0.6])[None, :, None, None]  # red, green, blue, nir
    assert vegetation_index(image, 'NDVI', (0, 3)).item() == pytest.approx(0.4 / 0.8)
    assert vegetation_index(image, 'ExG', (0, 1, 2)).item() == pytest.approx(0.3 / 0.6)
    assert vegetation_index(torch.zeros(1, 2, 3, 3), 'NDVI', (0, 1)).abs().max() == 0


@pytest.mark.parametrize(
    ('bands', 'wavelengths', 'expected'),
    [
        (['blue', 'green', 'red', 'rededge', 'nir'], [475, 560, 668, 717, 842], ('NDVI', (2, 4))),
        (['B08', 'B04'], [842, 665], ('NDVI', (1, 0))),
        (['red', 'green', 'blue'], [650, 550, 450], ('ExG', (0, 1, 2))),
        (['blue', 'red', 'green'], [None] * 3, ('ExG', (1, 2, 0))),
    ],
)
def test_the_index_that_the_bands_allow(bands: list[str], wavelengths: list[Any], expected: Any) -> None:
    assert find_bands(bands, wavelengths) == expected


def test_bands_that_allow_none() -> None:
    with pytest.raises(BandError, match='B11, B12'):
        find_bands(['B11', 'B12'], [1610.0, 2190.0])


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_threshold_is_the_best_of_all(data: Any) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    counts = np.zeros((2, STEPS), np.int64)
    steps = rng.integers(0, STEPS, 12)
    counts[:, steps] = rng.integers(0, 9, (2, 12))
    counts[1, steps[0]] += 1
    found = best_threshold(counts)

    def iou(edge: int, above: bool) -> float:
        low, high = counts[:, :edge].sum(1), counts[:, edge:].sum(1)
        others, hit = high if above else low
        return float(hit / (counts[1].sum() + others))

    every = max(iou(edge, above) for edge in range(STEPS + 1) for above in (True, False))
    edge = round((found.value + 2) / 4 * STEPS)
    assert iou(edge, found.above) == pytest.approx(every)
