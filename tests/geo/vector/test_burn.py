"""Burned windows are the burned whole, and what GDAL burns."""

import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.features import rasterize
from shapely.geometry import (
    LineString,
    Polygon,
    box,
)

from tests.geo.drawings import GRID, UTM, X, Y, save, scattered, square
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid, Window, covering_windows
from torchgeo_msssl.geo.vector.burn import GeometryIndex, burn


@pytest.mark.parametrize('all_touched', [False, True])
@pytest.mark.parametrize('seed', range(5))
def test_the_whole_grid_is_what_rasterio_burns(seed: int, all_touched: bool) -> None:
    shapes, values = scattered(seed)
    want = rasterize(
        zip(shapes, values.tolist(), strict=True),
        out_shape=(GRID.height, GRID.width),
        fill=7,
        transform=GRID.transform,
        all_touched=all_touched,
        dtype='uint8',
    )
    got = GeometryIndex(shapes, values, UTM).burn(GRID, GRID.window, 7, all_touched)
    np.testing.assert_array_equal(got, want)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(7, 40),
    width=st.integers(7, 40),
    all_touched=st.booleans(),
    turned=st.booleans(),
)
def test_windows_are_cut_from_the_whole(seed: int, height: int, width: int, all_touched: bool, turned: bool) -> None:
    shapes, values = scattered(seed, 15)
    turn = Affine.rotation(20) if turned else Affine.identity()
    grid = PixelGrid(GRID.crs, GRID.transform @ turn, 60, 80)
    index = GeometryIndex(shapes, values, UTM)
    whole = index.burn(grid, grid.window, 0, all_touched)
    assume(whole.any())
    for window in covering_windows(grid, (height, width)):
        inside = window.intersection(grid.window)
        assert inside is not None
        part = index.burn(grid, window, 0, all_touched)[: inside.height, : inside.width]
        rows = slice(inside.row, inside.row + inside.height)
        np.testing.assert_array_equal(part, whole[rows, inside.col : inside.col + inside.width])


@pytest.mark.parametrize('kind', [Polygon, LineString])
@pytest.mark.parametrize('where', [0.0, 0.5])
def test_edges_through_pixel_centres_and_corners_fall_the_same_way_in_every_window(where: float, kind: Any) -> None:
    # Their coordinates are no round numbers here, and which side they round to depends on the origin: with the
    # transform of each window, rasterio burns thousands of these pixels of lines otherwise than on the whole grid.
    grid = PixelGrid(GRID.crs, Affine(0.3, 0, 698_400.1, 0, -0.3, 4_858_500.7), 200, 300)
    points = np.random.default_rng(0).integers((0, 0), (300, 200), (250, 3, 2)) + where
    shapes = [kind([grid.transform @ (col, row) for col, row in three]) for three in points]
    index = GeometryIndex(np.array(shapes, dtype=object), np.arange(1, 251, dtype=np.uint8), UTM)
    whole = index.burn(grid, grid.window)
    for window in covering_windows(grid, (37, 41)):
        rows, cols = slice(window.row, window.row + 37), slice(window.col, window.col + 41)
        np.testing.assert_array_equal(index.burn(grid, window), whole[rows, cols])


def test_a_window_outside_the_grid_is_burned_too() -> None:
    mask = burn(
        np.array([square(-5, -5, 10)], dtype=object), np.array([3], dtype=np.uint8), GRID, Window(-10, -10, 20, 20)
    )
    assert (mask == 3).all()


@pytest.mark.skipif(shutil.which('gdal_rasterize') is None, reason='gdal_rasterize is not installed')
def test_gdal_rasterize_burns_the_same(tmp_path: Path) -> None:
    shapes, values = scattered(3)
    source = save(tmp_path / 'a.gpkg', list(shapes), value=values.astype(int))
    left, bottom, right, top = GRID.bounds
    out = tmp_path / 'a.tif'
    subprocess.run(
        [
            'gdal_rasterize',
            '-a',
            'value',
            '-ot',
            'Byte',
            '-te',
            *map(str, (left, bottom, right, top)),
            '-tr',
            '0.5',
            '0.5',
            source,
            str(out),
        ],
        check=True,
        capture_output=True,
    )
    with rasterio.open(out) as dataset:
        np.testing.assert_array_equal(GeometryIndex(shapes, values, UTM).burn(GRID, GRID.window), dataset.read(1))


def test_edges_of_another_crs_lie_where_they_were_drawn() -> None:
    # two degrees along a parallel, which in UTM is a bow 300 m high
    index = GeometryIndex(np.array([box(2, 44, 4, 46)], dtype=object), np.ones(1, dtype=np.uint8), 'EPSG:4326')
    x, y = Transformer.from_crs('EPSG:4326', UTM, always_xy=True).transform(3, 44)
    grid = PixelGrid(GRID.crs, Affine(10, 0, x - 5, 0, -10, y + 1000), 200, 1)
    _, latitudes = Transformer.from_crs(UTM, 'EPSG:4326', always_xy=True).transform(
        np.full(200, x), y + 1000 - 10 * (np.arange(200) + 0.5)
    )
    np.testing.assert_array_equal(index.burn(grid, grid.window)[:, 0], latitudes > 44)


def test_what_has_no_place_in_another_crs_is_told(caplog: pytest.LogCaptureFixture) -> None:
    shapes = np.array([box(3, 44, 3.1, 44.1), box(93, -0.1, 93.1, 0.1)], dtype=object)
    index = GeometryIndex(shapes, np.ones(2, dtype=np.uint8), 'EPSG:4326')
    assert not index.touches(GRID)
    assert '1 of 2 geometries lie outside the area of WGS 84 / UTM zone 31N' in caplog.text
    site = GeometryIndex(shapes, np.ones(2, dtype=np.uint8), 'LOCAL_CS["site",UNIT["metre",1]]')
    with pytest.raises(ConfigurationError, match=r"leads from 'site' to 'WGS 84 / UTM zone 31N'"):
        site.touches(GRID)


def test_an_index_goes_through_pickle() -> None:
    shapes, values = scattered(2)
    index = GeometryIndex(shapes, values, UTM)
    want = index.burn(GRID, GRID.window)
    copy = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(copy.burn(GRID, GRID.window), want)
    assert copy.touches(GRID)
    assert not copy.touches(PixelGrid(GRID.crs, Affine(0.5, 0, X + 1e5, 0, -0.5, Y), 10, 10))
