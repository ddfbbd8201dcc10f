"""Windows cover a grid exactly, and lie on the ground where rasterio puts them."""

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import windows
from rasterio.crs import CRS

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid, Window, covering_offsets, covering_windows

UTM = CRS.from_epsg(32631)
GRID = PixelGrid(UTM, Affine(10, 0, 600000, 0, -10, 5000000), 100, 140)

any_window = st.builds(Window, st.integers(-300, 300), st.integers(-300, 300), st.integers(1, 400), st.integers(1, 400))
sizes = st.integers(1, 40)
north_up = st.builds(
    lambda x, y, left, top, height, width: PixelGrid(UTM, Affine(x, 0, left, 0, -y, top), height, width),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
    st.floats(-1e6, 1e6),
    st.floats(-1e7, 1e7),
    st.integers(1, 5000),
    st.integers(1, 5000),
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), sizes, sizes, st.data())
def test_windows_cover_every_pixel_within_the_grid_and_are_the_fewest(height, width, rows, cols, data) -> None:
    overlap = data.draw(st.integers(0, min(rows, cols) - 1))
    grid = PixelGrid(UTM, GRID.transform, height, width)
    found = list(covering_windows(grid, (rows, cols), overlap))
    seen = np.zeros((max(height, rows), max(width, cols)), dtype=int)
    for window in found:
        assert (window.height, window.width) == (rows, cols)
        assert 0 <= window.row <= max(height - rows, 0)
        assert 0 <= window.col <= max(width - cols, 0)
        seen[window.row : window.row + rows, window.col : window.col + cols] += 1
    assert (seen[:height, :width] > 0).all()
    assert found == sorted(found)

    def fewest(extent: int, size: int) -> int:
        return 1 if extent <= size else 1 + math.ceil((extent - size) / (size - overlap))

    assert len(found) == fewest(height, rows) * fewest(width, cols)
    for extent, size in ((height, rows), (width, cols)):
        steps = np.diff(covering_offsets(extent, size, size - overlap))
        assert (steps > 0).all()
        assert (steps <= size - overlap).all()


def test_the_last_window_ends_at_the_border() -> None:
    assert covering_offsets(10, 4, 4) == [0, 4, 6]
    assert covering_offsets(10, 4, 3) == [0, 3, 6]
    assert covering_offsets(8, 4, 4) == [0, 4]
    assert covering_offsets(3, 4, 4) == [0]


@pytest.mark.parametrize('overlap', [-1, 8, 20])
def test_an_overlap_that_cannot_be(overlap: int) -> None:
    with pytest.raises(ConfigurationError, match=rf'overlap: expected 0 to 7 pixels .* got {overlap}'):
        list(covering_windows(GRID, (8, 16), overlap))


@pytest.mark.parametrize('stride', [0, 5])
def test_a_stride_that_leaves_gaps(stride: int) -> None:
    with pytest.raises(ConfigurationError, match=f'expected 1 to the window size 4, got {stride}'):
        covering_offsets(10, 4, stride)


@settings(deadline=None)
@given(north_up, any_window)
def test_ground_of_windows_is_that_of_rasterio(grid: PixelGrid, window: Window) -> None:
    theirs = windows.Window(window.col, window.row, window.width, window.height)
    assert window.to_rasterio() == theirs
    np.testing.assert_allclose(grid.window_bounds(window), windows.bounds(theirs, grid.transform), rtol=1e-12)
    assert grid.window_transform(window).almost_equals(windows.transform(theirs, grid.transform), precision=1e-6)


@settings(deadline=None)
@given(north_up, any_window)
def test_bounds_and_windows_go_round(grid: PixelGrid, window: Window) -> None:
    left, bottom, right, top = grid.window_bounds(window)
    back = [*(~grid.transform @ (left, top)), *(~grid.transform @ (right, bottom))]
    there = [window.col, window.row, window.col + window.width, window.row + window.height]
    np.testing.assert_allclose(back, there, atol=1e-6)


@given(any_window, any_window)
def test_intersections_are_those_of_sets_of_pixels(one: Window, other: Window) -> None:
    def pixels(window: Window) -> tuple[set[int], set[int]]:
        return set(range(window.row, window.row + window.height)), set(range(window.col, window.col + window.width))

    rows, cols = (a & b for a, b in zip(pixels(one), pixels(other), strict=True))
    shared = one.intersection(other)
    assert shared == other.intersection(one)
    if not rows or not cols:
        assert shared is None
    else:
        assert shared is not None
        assert pixels(shared) == (rows, cols)
        assert shared.area == len(rows) * len(cols)


def test_grids_that_are_not_north_up() -> None:
    turned = PixelGrid(UTM, Affine.translation(600000, 5000000) @ Affine.rotation(30) @ Affine.scale(3, -4), 50, 60)
    south_up = PixelGrid(UTM, Affine(10, 0, 600000, 0, 10, 5000000), 50, 60)
    assert GRID.is_north_up
    assert not turned.is_north_up
    assert not south_up.is_north_up
    assert turned.res == pytest.approx((3, 4))
    assert south_up.bounds == (600000, 5000000, 600600, 5000500)
    corners = [turned.transform @ corner for corner in ((0, 0), (60, 0), (0, 50), (60, 50))]
    xs, ys = zip(*corners, strict=True)
    assert turned.bounds == (min(xs), min(ys), max(xs), max(ys))


def test_a_window_reads_well_in_messages() -> None:
    assert str(Window(2, 3, 10, 20)) == 'rows 2:12, columns 3:23'
