"""Windows, weights and sums, against sums over the whole image."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.prediction.stitch import (
    Axis,
    RowBandAccumulator,
    Stitching,
    Tiling,
    crop_axis,
    hann_axis,
    reflect_indices,
)


def sums_in_order(axis: Axis) -> NDArray[np.float32]:
    """Weights of every pixel, added one window after the other."""
    total = np.zeros(axis.extent, dtype=np.float32)
    for index, start in enumerate(axis.starts):
        for offset, weight in enumerate(axis.weights[index], start=start + axis.lead):
            if 0 <= offset < axis.extent:
                total[offset] += weight
    return total


@given(extent=st.integers(1, 500), size=st.integers(2, 96), data=st.data())
@settings(max_examples=60, deadline=None)
def test_hann_weights_sum_to_exactly_one(extent: int, size: int, data: Any) -> None:
    stride = data.draw(st.integers(max(1, size // 5), size))
    axis = hann_axis(extent, size, stride)
    np.testing.assert_array_equal(sums_in_order(axis), np.ones(extent, dtype=np.float32))
    assert (axis.weights >= 0).all()


@given(
    extent=st.integers(1, 500),
    stride=st.sampled_from([1, 2, 4, 32]),
    cores=st.integers(1, 4),
    margin=st.integers(0, 70),
)
@settings(max_examples=60, deadline=None)
def test_crop_gives_every_pixel_to_one_window_with_full_context(
    extent: int, stride: int, cores: int, margin: int
) -> None:
    rounded = -(-margin // stride) * stride
    axis = Stitching('crop', cores * stride + 2 * rounded, margin, stride).tiling(extent, 1).rows
    np.testing.assert_array_equal(sums_in_order(axis), np.ones(extent, dtype=np.float32))
    assert axis.lead >= margin
    assert axis.size - axis.lead - axis.span >= margin
    assert all(start % stride == 0 for start in axis.starts)
    assert axis.starts[-1] + axis.lead < extent, 'the last window counts somewhere'


def test_outermost_ring_has_weight() -> None:
    """Windows that are 0 at their ends leave a frame of nodata round the map."""
    for extent in (1, 2, 63, 64, 65, 1000):
        axis = hann_axis(extent, 64, 32)
        assert axis.weights[:, [0, -1]].min() > 0
        assert sums_in_order(axis)[[0, -1]].tolist() == [1, 1]


def test_weights_have_no_epsilon() -> None:
    """``w + 1e-8`` in a divisor takes half the value where weights are small; ours are exact at the borders too."""
    axis = hann_axis(100, 64, 64)  # no overlap: each pixel has one window, whose weight is tiny at its ends
    np.testing.assert_array_equal(axis.weights, np.ones_like(axis.weights))


def test_pixels_at_the_edge_have_as_many_windows_as_others() -> None:
    axis = hann_axis(200, 64, 32)
    seen = np.zeros(200, dtype=int)
    for index in range(len(axis.starts)):
        first, end = axis.counted(index)
        seen[first:end] += 1
    assert set(seen) == {2}


@given(start=st.integers(-300, 300), size=st.integers(1, 200), extent=st.integers(1, 80))
@example(start=-5, size=11, extent=1)
def test_mirrored_indexes_are_numpys(start: int, size: int, extent: int) -> None:
    before, after = max(-start, 0), max(start + size - extent, 0)
    padded = np.pad(np.arange(extent), (before, after), mode='reflect')
    np.testing.assert_array_equal(reflect_indices(start, size, extent), padded[start + before :][:size])


def full_frame(tiling: Tiling, windows: dict[tuple[int, int], NDArray[np.float32]], classes: int) -> NDArray[Any]:
    """The same sum over the whole image, padded so that no window is cut."""
    rows, cols = tiling.rows, tiling.cols
    top, left = -min(rows.starts[0], 0), -min(cols.starts[0], 0)
    frame = np.zeros((classes, rows.starts[-1] + rows.size + top, cols.starts[-1] + cols.size + left), dtype=np.float32)
    for (row, col), window in sorted(windows.items()):
        y, x = rows.starts[row] + rows.lead + top, cols.starts[col] + cols.lead + left
        part = window[:, rows.lead : rows.lead + rows.span, cols.lead : cols.lead + cols.span]
        weights = np.outer(rows.weights[row], cols.weights[col])
        frame[:, y : y + rows.span, x : x + cols.span] += part * weights
    return frame[:, top : top + rows.extent, left : left + cols.extent]


def in_bands(tiling: Tiling, windows: dict[tuple[int, int], NDArray[np.float32]], classes: int) -> NDArray[Any]:
    accumulator = RowBandAccumulator(tiling, classes)
    shape = tiling.rows.size, tiling.cols.size
    rows, following = [], 0
    for row in range(len(tiling.rows.starts)):
        for col in range(len(tiling.cols.starts)):
            accumulator.add(col, windows.get((row, col)), np.full(shape, (row, col) in windows))
        finished = accumulator.finished()
        assert finished.first == following
        following += len(finished.valid)
        rows.append(finished.values.copy())
        accumulator.shift()
    assert following == tiling.rows.extent
    return np.concatenate(rows, axis=1)


STITCHINGS = [
    Stitching('hann', 32),
    Stitching('hann', 30, overlap=7),
    Stitching('hann', 24, overlap=17),
    Stitching('hann', 16, overlap=0),
    Stitching('crop', 40, margin=5, stride=4),
    Stitching('crop', 16, margin=0, stride=1),
]


@pytest.mark.parametrize('stitching', STITCHINGS, ids=lambda s: f'{s.blend}-{s.window}-{s.overlap}')
@given(height=st.integers(1, 120), width=st.integers(1, 90), missing=st.floats(0, 0.7), seed=st.integers(0, 9))
@example(height=1, width=1, missing=0, seed=0)
@example(height=17, width=100, missing=0.5, seed=0)
@settings(max_examples=15, deadline=None)
def test_row_band_equals_full_frame_bit_for_bit(
    stitching: Stitching, height: int, width: int, missing: float, seed: int
) -> None:
    tiling = stitching.tiling(height, width)
    rng = np.random.default_rng(seed)
    windows = {
        (row, col): rng.random((3, tiling.rows.size, tiling.cols.size), dtype=np.float32)
        for row in range(len(tiling.rows.starts))
        for col in range(len(tiling.cols.starts))
        if rng.random() >= missing  # a skipped window must not shift the sums
    }
    expected, got = full_frame(tiling, windows, 3), in_bands(tiling, windows, 3)
    assert got.tobytes() == expected.tobytes()


def test_sums_do_not_grow_with_the_height() -> None:
    sizes = {
        height: RowBandAccumulator(Stitching('hann', 32).tiling(height, 50), 2)._sums.nbytes for height in (100, 10_000)
    }
    assert len(set(sizes.values())) == 1


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'blend': 'mean', 'window': 64}, "expected 'crop' or 'hann', got 'mean'"),
        ({'blend': 'crop', 'window': 64, 'margin': 32}, 'nothing between two margins of 32'),
        ({'blend': 'crop', 'window': 60, 'stride': 32}, 'multiple of .* 32, got 60'),
        ({'blend': 'hann', 'window': 64, 'overlap': 64}, 'overlap: expected 0 to 63'),
        ({'blend': 'crop', 'window': 64, 'margin': -1}, 'margin: expected 0'),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Stitching(**options)


def test_small_images_get_small_windows_with_crop() -> None:
    rows = crop_axis(10, 512, 8)
    assert rows.size == 512
    tiling = Stitching('crop', 512, 8, 4).tiling(10, 600)
    assert (tiling.rows.size, tiling.cols.size) == (28, 512)
