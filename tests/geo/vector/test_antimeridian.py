"""Polygons across 180° cover the ground that they were drawn on, and nothing else."""

import json
import logging
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform

from tests.geo.drawings import save
from torchgeo_msssl.errors import ConfigurationError, SceneReadError
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.ground.area import Ground, outline
from torchgeo_msssl.geo.ground.file import read_split, write_split
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.labels.open import open_labels
from torchgeo_msssl.geo.vector.antimeridian import cut_at_antimeridian
from torchgeo_msssl.geo.vector.burn import GeometryIndex
from torchgeo_msssl.geo.vector.geometries import buffer_metres, utm_zone
from torchgeo_msssl.geo.warp import warp_scene

#: Around 180° at 17° south (Fiji), in pixels of 500 m: longitudes from about 179.5 to −179.5.
UTM = PixelGrid(CRS.from_epsg(32760), Affine(500, 0, 765_000, 0, -500, 8_130_000), 100, 200)
#: The same place in degrees, which continue beyond 180.
DEGREES = PixelGrid(CRS.from_epsg(4326), Affine(0.01, 0, 179.5, 0, -0.01, -16.8), 60, 100)
WEB = CRS.from_epsg(3857)

WEST, EAST, SOUTH, NORTH = 179.7, -179.8, -17.2, -17.0
#: One field across 180°: as drawn, continued beyond 180, and in two parts as RFC 7946 has it.
DRAWINGS = {
    'jump': shapely.Polygon([(WEST, SOUTH), (EAST, SOUTH), (EAST, NORTH), (WEST, NORTH)]),
    'continued': shapely.box(WEST, SOUTH, EAST + 360, NORTH),
    'other side': shapely.box(WEST - 360, SOUTH, EAST, NORTH),
    'split': shapely.MultiPolygon([shapely.box(WEST, SOUTH, 180, NORTH), shapely.box(-180, SOUTH, EAST, NORTH)]),
}


def inside(grid: PixelGrid) -> np.ndarray:
    """Return which pixel centres lie in the field, by longitude and latitude."""
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.transform @ (cols.ravel(), rows.ravel())
    longitude, latitude = np.array(transform(grid.crs, 'EPSG:4326', x, y))
    past = longitude % 360
    found = (past > WEST) & (past < EAST + 360) & (latitude > SOUTH) & (latitude < NORTH)
    return found.reshape(grid.height, grid.width)


@pytest.mark.parametrize('grid', [UTM, DEGREES], ids=['utm', 'degrees'])
@pytest.mark.parametrize('drawn', DRAWINGS)
def test_labels_cover_the_field_and_not_the_rest_of_the_world(tmp_path: Path, grid: PixelGrid, drawn: str) -> None:
    labels = open_labels(save(tmp_path / 'field.gpkg', [DRAWINGS[drawn]], crs='EPSG:4326'))
    assert labels.touches(grid)
    mask = labels.burn(grid, grid.window)
    want = inside(grid)
    assert 100 < want.sum() < 5000
    np.testing.assert_array_equal(mask == 1, want)


@pytest.mark.parametrize('drawn', ['jump', 'continued', 'other side'])
def test_extent_across_180_degrees(tmp_path: Path, drawn: str, caplog: pytest.LogCaptureFixture) -> None:
    extent = save(tmp_path / 'extent.gpkg', [DRAWINGS[drawn]], crs='EPSG:4326')
    field = save(tmp_path / 'field.gpkg', [shapely.box(179, -18, 180, -16)], crs='EPSG:4326')
    mask = open_labels(field, extent=extent).burn(UTM, UTM.window)
    np.testing.assert_array_equal(mask != 255, inside(UTM))
    assert '1 of 1 geometries cross 180° of longitude and were cut there' in caplog.text


def test_labels_in_metres_on_a_scene_in_degrees_or_of_a_web_map() -> None:
    left, bottom, right, top = UTM.bounds
    field = shapely.box(left + 5e3, bottom + 5e3, right - 5e3, top - 5e3)
    index = GeometryIndex(np.array([field]), np.ones(1, dtype=np.uint8), UTM.crs)
    share = index.burn(DEGREES, DEGREES.window).mean()
    assert 0.2 < share < 0.8  # as the complement it would be 1
    web = PixelGrid(WEB, Affine(1000, 0, -20_037_508.34, 0, -1000, -1_900_000), 100, 20_037)
    assert index.burn(web, web.window)[:, 100:].sum() == 0
    assert index.burn(web, web.window).any()


@settings(max_examples=30, deadline=None)
@given(west=st.floats(-179.9, 179.9), width=st.floats(0.1, 170), south=st.floats(-80, 70), height=st.floats(0.1, 9))
def test_cutting_keeps_area_and_stays_within_180_degrees(
    west: float, width: float, south: float, height: float
) -> None:
    box = shapely.box(west, south, west + width, south + height)
    hole = shapely.box(west + 0.4 * width, south + 0.4 * height, west + 0.6 * width, south + 0.6 * height)
    ring = box - hole
    wrapped = shapely.transform(ring, lambda xy: np.column_stack([(xy[:, 0] + 180) % 360 - 180, xy[:, 1]]))
    for drawn in (ring, wrapped):
        (cut,), _ = cut_at_antimeridian(np.array([drawn]), 'EPSG:4326')
        assert cut.is_valid
        assert cut.area == pytest.approx(ring.area, rel=1e-6)
        assert cut.bounds[0] >= -180
        assert cut.bounds[2] <= 180


def test_maps_of_the_world_and_ordinary_geometries_stay_as_they_are() -> None:
    world = [shapely.box(-180, -90, 180, 90), shapely.box(-170, -10, 0, 10), DRAWINGS['split'], None, shapely.Point()]
    shapes = np.array(world, dtype=object)
    assert cut_at_antimeridian(shapes, 'EPSG:4326') == (shapes, 0)
    assert cut_at_antimeridian(shapes, UTM.crs) == (shapes, 0)
    line = np.array([shapely.LineString([(179, 0), (-179, 1)])], dtype=object)
    (cut,), _ = cut_at_antimeridian(line, 'EPSG:4326')
    assert cut.length == pytest.approx(np.hypot(2, 1))


def test_polygon_around_a_pole_is_refused(tmp_path: Path) -> None:
    around = shapely.Polygon([(x, -75) for x in range(-180, 180, 30)])
    with pytest.raises(ConfigurationError, match='crs: a polygon encloses a pole'):
        open_labels(save(tmp_path / 'ice.gpkg', [around], crs='EPSG:4326'))


def test_buffers_are_metres_on_both_sides_of_180_degrees() -> None:
    points = np.array([shapely.Point(179.99, -17), shapely.Point(-179.99, -17)], dtype=object)
    series = gpd.GeoSeries(points, crs='EPSG:4326')
    assert utm_zone(series).to_epsg() in (32701, 32760)
    zone = gpd.GeoSeries(buffer_metres(points, 'EPSG:4326', 100), crs='EPSG:4326').to_crs('EPSG:32760')
    np.testing.assert_allclose(zone.area, np.pi * 100**2, rtol=0.02)


def test_split_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    place = outline(UTM, UTM.crs, 'a.tif')
    ground = Ground(UTM.crs, UTM.res, np.array([place]), ('a.tif',))
    left, bottom, right, top = place.bounds
    middle = bottom + (top - bottom) / 2
    regions = {'train': shapely.box(left, bottom, right, middle), 'test': shapely.box(left, middle, right, top)}
    write_split(tmp_path / 'split.geojson', regions, UTM.crs)
    for feature in json.loads((tmp_path / 'split.geojson').read_text())['features']:
        assert feature['geometry']['type'] == 'MultiPolygon'
        assert shapely.geometry.shape(feature['geometry']).area < 1
    again = read_split(tmp_path / 'split.geojson', ground, ['train', 'test'])
    for name, region in regions.items():
        # edges along a parallel or meridian bend by metres in UTM
        assert again[name].symmetric_difference(region).area < 0.01 * region.area


def test_scene_is_not_warped_to_degrees_around_the_world(tmp_path: Path, make_scene) -> None:
    path = make_scene(tmp_path / 'a.tif', np.ones((1, 100, 200), dtype=np.uint8), crs=UTM.crs, transform=UTM.transform)
    (scene,) = find_scenes(path)
    with pytest.raises(SceneReadError, match=r'it crosses 180° of longitude.*choose a CRS that covers'):
        warp_scene(scene, DEGREES.crs, None)
    with pytest.raises(ConfigurationError, match='cannot be placed in EPSG:4326'):
        outline(UTM, DEGREES.crs, path)


def test_mask_in_degrees_is_found_for_a_scene_across_180_degrees(tmp_path: Path, make_scene, caplog) -> None:
    caplog.set_level(logging.INFO)
    mask = inside(DEGREES)[None].astype(np.uint8)
    path = make_scene(tmp_path / 'mask.tif', mask, crs=DEGREES.crs, transform=DEGREES.transform)
    labels = open_labels(path, ['background', 'field'])
    assert labels.touches(UTM)
    # half of it lies beyond 180, where GDAL looks at −180
    got, want = labels.burn(UTM, UTM.window) == 1, inside(UTM)
    assert (got != want).sum() < 0.1 * want.sum()  # pixels along the outline
