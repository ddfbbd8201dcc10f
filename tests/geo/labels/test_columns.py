"""Geometries without a class are refused, or unlabelled ground."""

import logging

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.labels.classes import ClassNames
from torchgeo_msssl.geo.labels.open import open_labels

GRID = PixelGrid(CRS.from_epsg(32631), Affine(1, 0, 600_000, 0, -1, 5_000_000), 4, 40)


@pytest.fixture
def drawn(tmp_path: object) -> str:
    """Four strips of 10 × 4 pixels: vine, no class, an empty class, and a class of another name."""
    boxes = [shapely.box(600_000 + 10 * i, 4_999_996, 600_010 + 10 * i, 5_000_000) for i in range(4)]
    frame = gpd.GeoDataFrame({'crop': ['vine', None, ' ', 'wheat']}, geometry=boxes, crs='EPSG:32631')
    frame.to_file(f'{tmp_path}/drawn.gpkg')
    return f'{tmp_path}/drawn.gpkg'


@pytest.mark.parametrize(
    ('names', 'background', 'expected'),
    [
        (['background', 'vine', 'wheat'], None, [1, 255, 255, 2]),
        ({'vine': 'vine'}, None, [0, 255, 255, 255]),
        # a class that is left out is background, and a missing one is still unlabelled
        ({'vine': 'vine'}, True, [1, 255, 255, 0]),
    ],
)
def test_geometries_without_a_class_are_unlabelled(
    drawn: str, names: ClassNames, background: bool | None, expected: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        labels = open_labels(drawn, names, column='crop', background=background, missing_class='unlabelled')
    assert '2 of 4 geometries have no class and are unlabelled ground' in caplog.text
    np.testing.assert_array_equal(labels.burn(GRID, GRID.window)[0, ::10], expected)


def test_they_are_refused_by_default(drawn: str) -> None:
    with pytest.raises(ConfigurationError, match=r'2 of 4 geometries have no class; .*set missing_class to unlabelled'):
        open_labels(drawn, ['background', 'vine', 'wheat'], column='crop')


def test_a_column_without_any_class_is_refused(drawn: str, tmp_path: object) -> None:
    frame = gpd.read_file(drawn).assign(crop=None)
    frame.to_file(f'{tmp_path}/empty.gpkg')
    with pytest.raises(ConfigurationError, match='4 of 4 geometries have no class; choose another column'):
        open_labels(f'{tmp_path}/empty.gpkg', ['background', 'vine'], column='crop', missing_class='unlabelled')


def test_numbers_that_mean_unlabelled(drawn: str, tmp_path: object) -> None:
    frame = gpd.read_file(drawn).assign(crop=[1, -1, 0, 9])
    frame.to_file(f'{tmp_path}/numbers.gpkg')
    labels = open_labels(
        f'{tmp_path}/numbers.gpkg', column='crop', ignore_index=[-1, 9]
    )  # masks have the first that uint8 holds
    assert labels.class_names == ('background', 'class_1')
    np.testing.assert_array_equal(labels.burn(GRID, GRID.window)[0, ::10], [1, 9, 0, 9])
