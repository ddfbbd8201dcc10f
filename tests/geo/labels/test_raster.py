"""Mask rasters on other grids; how data sets use them is in tests/datasets/test_labels.py."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.labels.open import open_labels
from torchgeo_msssl.geo.labels.source import bounds_in
from torchgeo_msssl.geo.open_datasets import close_datasets

type MakeScene = Callable[..., str]

X, Y = 600_000.0, 5_000_000.0
NAMES = ['ground', 'vine', 'tree']
CLASSES = np.random.default_rng(1).integers(0, 3, (40, 50)).astype(np.uint8)
GRID = PixelGrid(CRS.from_user_input('EPSG:32631'), Affine(10, 0, X, 0, -10, Y), 40, 50)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_datasets()


def test_windows_are_cut_out_and_padded(make_scene: MakeScene) -> None:
    masks = open_labels(make_scene('mask.tif', CLASSES), NAMES)
    padded = np.pad(CLASSES, 7, constant_values=255)
    np.testing.assert_array_equal(masks.burn(GRID, Window(-7, -7, 54, 64)), padded)
    finer = PixelGrid(GRID.crs, GRID.transform @ Affine.scale(0.5), 80, 100)
    np.testing.assert_array_equal(masks.burn(finer, finer.window), CLASSES.repeat(2, 0).repeat(2, 1))
    assert masks.touches(finer)
    assert not masks.touches(PixelGrid(GRID.crs, GRID.transform @ Affine.translation(50, 0), 40, 50))


def test_later_masks_lie_over_earlier_ones(make_scene: MakeScene) -> None:
    hole = np.where(np.arange(50) < 25, 255, 2).astype(np.uint8) + np.zeros((40, 1), dtype=np.uint8)
    paths = [make_scene('a.tif', CLASSES), make_scene('b.tif', hole)]
    want = np.where(np.arange(50) < 25, CLASSES, 2)
    np.testing.assert_array_equal(open_labels(paths, NAMES).burn(GRID, GRID.window), want)


def test_bounds_are_those_of_all_rasters(make_scene: MakeScene) -> None:
    east = GRID.transform @ Affine.translation(60, 0)
    masks = open_labels([make_scene('a.tif', CLASSES), make_scene('b.tif', CLASSES, transform=east)], NAMES)
    assert masks.bounds(GRID.crs) == (X, Y - 400, X + 1100, Y)
    degrees = CRS.from_epsg(4326)
    assert bounds_in(GRID, GRID.window, degrees) == transform_bounds(GRID.crs, degrees, *GRID.bounds)


@pytest.mark.parametrize('strange', [3, 250])
def test_values_that_are_no_classes_are_named(make_scene: MakeScene, strange: int) -> None:
    values: Any = np.where(CLASSES == 2, strange, CLASSES).astype(np.uint8)
    masks = open_labels(make_scene('mask.tif', values), NAMES)
    with pytest.raises(ConfigurationError, match=rf'mask\.tif: holds the value\(s\) {strange}, and the classes'):
        masks.burn(GRID, GRID.window)
    with pytest.raises(ConfigurationError, match='has 2 bands, and a mask has one'):
        open_labels(make_scene('two.tif', np.stack([CLASSES, CLASSES])), NAMES)


def test_a_mapping_picks_values_of_another_numbering(make_scene: MakeScene) -> None:
    vines = np.where(CLASSES == 1, 255, 0).astype(np.uint8)
    path = make_scene('vines.tif', vines)
    found = open_labels(path, {'vine': 255}, background=True)
    assert found.class_names == ('background', 'vine')
    np.testing.assert_array_equal(found.burn(GRID, GRID.window), CLASSES == 1)
    sparse = open_labels(path, {'vine': 255}).burn(GRID, GRID.window)
    np.testing.assert_array_equal(sparse, np.where(CLASSES == 1, 0, 255))
    named = open_labels(path, {'background': 0, 'vine': 255}).burn(GRID, GRID.window)
    np.testing.assert_array_equal(named, CLASSES == 1)


def test_a_mapping_merges_values(make_scene: MakeScene, caplog: pytest.LogCaptureFixture) -> None:
    path = make_scene('cover.tif', (100 * CLASSES).astype(np.uint16), nodata=0)
    masks = open_labels(path, {'green': [100, 200], 'bare': 0})
    assert "declares nodata 0, which would be class 'bare'" in caplog.text
    np.testing.assert_array_equal(masks.burn(GRID, GRID.window), np.where(CLASSES > 0, 0, 255))
