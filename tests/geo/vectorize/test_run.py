"""Polygons of a map become the map again, and planted rows come back with their gaps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from scipy import ndimage

from tests.geo.drawings import UTM, vector_labels
from torchgeo_msssl.errors import ConfigurationError, MissingCRSError, SceneReadError
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.rasterize import write_mask
from torchgeo_msssl.geo.sample.vineyard import make_vineyard
from torchgeo_msssl.geo.vectorize.options import VectorizeOptions
from torchgeo_msssl.geo.vectorize.run import vectorize

type MakeScene = Callable[..., str]


def class_map(smooth: float = 2.0) -> NDArray[np.uint8]:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(120, 140)), smooth)
    classes = np.digitize(noise, np.quantile(noise, [0.3, 0.5, 0.8])).astype(np.uint8)
    classes[:20, :30] = 255
    return classes


def tagged(*names: str) -> dict[str, str]:
    return {'CLASS_NAMES': json.dumps(names)}


@pytest.mark.parametrize('block', [32, 512])
def test_polygons_burn_to_the_map_again(make_scene: MakeScene, tmp_path: Path, block: int) -> None:
    array = class_map()
    transform = Affine(0.25, 0, 422_772, 0, -0.25, 4_621_047.5)
    names = tagged('ground', 'vine', 'grass', 'tree')
    path = make_scene('map.tif', array, nodata=255, transform=transform, tags=names)
    told = vectorize(path, tmp_path / 'map.gpkg', block=block, progress=False)
    got = gpd.read_file(tmp_path / 'map.gpkg')
    burned = rasterize(
        zip(got.geometry, got['class'], strict=True), array.shape, fill=255, transform=transform, dtype='uint8'
    )
    np.testing.assert_array_equal(burned, array)
    assert list(got.columns) == ['class', 'name', 'area_m2', 'geometry']
    assert told.polygons == got['name'].value_counts().to_dict()
    for value, name in enumerate(('ground', 'vine', 'grass', 'tree')):
        assert told.areas[name] == pytest.approx((array == value).sum() / 16)
    assert told.left_out == []  # class 0 has a name


def test_what_is_background_is_left_out_and_said(make_scene: MakeScene, tmp_path: Path) -> None:
    array = class_map()
    bare = make_scene('bare.tif', array, nodata=255)
    named = make_scene('named.tif', array, nodata=255, tags=tagged('Background', 'vine', '', 'other'))
    told = vectorize(bare, tmp_path / 'a.gpkg', progress=False)
    assert (set(told.polygons), told.left_out) == ({'1', '2', '3'}, ['0'])
    told = vectorize(named, tmp_path / 'a.gpkg', progress=False)
    assert (set(told.polygons), told.left_out) == ({'vine', '2'}, ['0 (Background)', '3 (other)'])
    told = vectorize(named, tmp_path / 'a.gpkg', VectorizeOptions({'soil': 0, 'vines': 1}), progress=False)
    assert (set(told.polygons), told.left_out) == ({'soil', 'vines'}, [])
    assert vectorize(named, tmp_path / 'a.gpkg', VectorizeOptions({'hops': 9}), progress=False).polygons == {}
    assert len(gpd.read_file(tmp_path / 'a.gpkg')) == 0


def test_simplified_polygons_share_their_edges(make_scene: MakeScene, tmp_path: Path) -> None:
    array = class_map(4.0)
    path = make_scene('map.tif', array, nodata=255, res=2.0, tags=tagged('a', 'b', 'c', 'd'))
    plain = vectorize(path, tmp_path / 'plain.gpkg', block=50, progress=False)
    told = vectorize(path, tmp_path / 'map.gpkg', VectorizeOptions(simplify=3.0), block=50, progress=False)
    got = gpd.read_file(tmp_path / 'map.gpkg').geometry.to_numpy()
    assert shapely.coverage_is_valid(got)
    assert shapely.union_all(got).area == pytest.approx(shapely.area(got).sum(), rel=1e-9)
    assert sum(told.areas.values()) == pytest.approx((array != 255).sum() * 4, rel=0.005)
    before = gpd.read_file(tmp_path / 'plain.gpkg').geometry.to_numpy()
    assert shapely.get_num_coordinates(got).sum() < 0.5 * shapely.get_num_coordinates(before).sum()
    assert plain.corner == pytest.approx(2 / np.sqrt(2))
    assert plain.polygons == told.polygons


def test_small_areas_are_left_out_in_square_metres(make_scene: MakeScene, tmp_path: Path) -> None:
    array = np.zeros((40, 40), dtype=np.uint8)
    array[5:7, 5:7] = array[20, 20] = 1
    degrees = Affine(1e-4, 0, 13, 0, -1e-4, 60)  # 11.1 m by 5.6 m
    path = make_scene('map.tif', array, crs='EPSG:4326', transform=degrees)
    told = vectorize(path, tmp_path / 'map.gpkg', VectorizeOptions(min_area=100), progress=False)
    assert (told.polygons, told.small) == ({'1': 1}, 1)
    frame = gpd.read_file(tmp_path / 'map.gpkg')
    assert frame['area_m2'][0] == pytest.approx(frame.to_crs('EPSG:32633').area[0], rel=2e-3)
    mercator = make_scene('mercator.tif', array, crs='EPSG:3857', transform=Affine(10, 0, 1.4e6, 0, -10, 8.4e6))
    told = vectorize(mercator, tmp_path / 'map.gpkg', progress=False)
    frame = gpd.read_file(tmp_path / 'map.gpkg')
    assert frame.area.sum() == pytest.approx(500)  # of its own plane, which is stretched at 60°
    assert told.areas['1'] == pytest.approx(frame.to_crs('EPSG:32633').area.sum(), rel=2e-3)


@pytest.fixture(scope='module')
def vineyard() -> tuple[PixelGrid, gpd.GeoDataFrame]:
    grid = PixelGrid(CRS.from_user_input(UTM), Affine(0.1, 0, 698_400, 0, -0.1, 4_858_500), 800, 900)
    return grid, make_vineyard(np.random.default_rng(2), grid, 'v').rows


def planted(rows: gpd.GeoDataFrame) -> NDArray[np.float64]:
    """Metres, gaps and metres of gaps of each row: pieces projected on the line through all of them."""
    found = []
    for _, pieces in rows.groupby(['parcel', 'row']):
        corners = np.array(shapely.oriented_envelope(pieces.union_all()).exterior.coords)
        along = max(np.diff(corners[:3], axis=0), key=lambda side: float(np.hypot(*side)))
        spans = [shapely.get_coordinates(shape) @ (along / np.hypot(*along)) for shape in pieces.geometry]
        low, high = np.array(sorted((span.min(), span.max()) for span in spans)).T
        found.append(((high - low).sum(), len(low) - 1, (low[1:] - high[:-1]).sum()))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize('crs', [UTM, 'EPSG:4326'])
def test_planted_rows_come_back(vineyard: tuple[PixelGrid, gpd.GeoDataFrame], tmp_path: Path, crs: str) -> None:
    grid, rows = vineyard
    if crs != UTM:
        left, bottom, right, top = rows.to_crs(crs).total_bounds
        size = Affine((right - left) / 900, 0, left, 0, -(top - bottom) / 800, top)
        grid = PixelGrid(CRS.from_user_input(crs), size, 800, 900)
    rows.to_file(tmp_path / 'rows.gpkg')
    write_mask(vector_labels(tmp_path / 'rows.gpkg'), grid, tmp_path / 'mask.tif', progress=False)
    told = vectorize(tmp_path / 'mask.tif', tmp_path / 'out.gpkg', VectorizeOptions(centrelines=True), progress=False)
    want = planted(rows)
    assert len(want) > 20
    got = gpd.read_file(tmp_path / 'out.gpkg', layer='centrelines')
    assert got.columns.tolist() == ['row', 'class', 'name', 'pieces', 'length_m', 'gaps', 'gap_length_m', 'geometry']
    assert got['row'].tolist() == list(range(1, len(got) + 1))
    assert told.rows == pytest.approx((len(got), got['length_m'].sum(), got['gaps'].sum(), got['gap_length_m'].sum()))
    assert len(got) == pytest.approx(len(want), abs=2)  # slivers at the edge of the flight
    assert got['length_m'].sum() == pytest.approx(want[:, 0].sum(), rel=0.015)
    assert got['gaps'].sum() == pytest.approx(want[:, 1].sum(), abs=2)
    # a pixel to each side that is burned when its centre is covered makes gaps a little shorter
    assert got['gap_length_m'].sum() == pytest.approx(want[:, 2].sum(), abs=0.12 * want[:, 1].sum())
    # the lines run where the plants stand
    metres = got.to_crs(UTM)
    canopy = rows.union_all().buffer(0.1)
    assert metres.intersection(canopy).length.sum() == pytest.approx(metres.length.sum(), rel=0.01)


def test_parcels_are_no_rows(make_scene: MakeScene, tmp_path: Path) -> None:
    array = np.zeros((100, 100), dtype=np.uint8)
    array[10:60, 10:60] = 1
    path = make_scene('map.tif', array, res=1.0)
    told = vectorize(path, tmp_path / 'map.gpkg', VectorizeOptions(centrelines=True), progress=False)
    assert told.rows == (0, 0, 0, 0)
    assert len(gpd.read_file(tmp_path / 'map.gpkg', layer='centrelines')) == 0


def test_clear_errors(make_scene: MakeScene, tmp_path: Path) -> None:
    array = np.ones((5, 5), dtype=np.uint8)
    bad: list[tuple[str, type[Exception], str]] = [
        (make_scene('a.tif', array, crs=None), MissingCRSError, 'its polygons cannot be placed'),
        (make_scene('b.tif', np.stack([array, array])), ConfigurationError, 'got 2 of uint8; choose the map'),
        (make_scene('c.tif', array.astype('float32')), ConfigurationError, 'got 1 of float32'),
        (make_scene('d.tif', array, tags={'CLASS_NAMES': 'vine'}), ConfigurationError, "CLASS_NAMES is 'vine'"),
        (str(tmp_path / 'none.tif'), SceneReadError, r'none\.tif: cannot be read as a map'),
    ]
    for path, kind, sentence in bad:
        with pytest.raises(kind, match=sentence):
            vectorize(path, tmp_path / 'out.gpkg', progress=False)
    assert not (tmp_path / 'out.gpkg').exists()
    wrong: list[dict[str, Any]] = [{'min_area': -1}, {'simplify': float('nan')}, {'max_gap': 0.1}]
    for options in wrong:
        with pytest.raises(ConfigurationError, match=f'{next(iter(options))}: expected'):
            VectorizeOptions(**options)


def test_centrelines_of_any_shape_are_found(make_scene: MakeScene, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    options = VectorizeOptions({'v': 1}, centrelines=True)
    for smooth in (0.6, 1.0, 1.5, 2.0, 2.5, 3.0):
        noise = ndimage.gaussian_filter(rng.random(rng.integers(100, 180, 2)), smooth) > 0.5
        path = make_scene('map.tif', noise.astype(np.uint8))
        vectorize(path, tmp_path / 'map.gpkg', options, progress=False)
        lines = gpd.read_file(tmp_path / 'map.gpkg', layer='centrelines').geometry
        assert np.isfinite(shapely.get_coordinates(lines)).all()


@pytest.mark.parametrize('inside', ['YES', 'NO'])
def test_what_is_masked_is_no_area(make_scene: MakeScene, tmp_path: Path, inside: str) -> None:
    mask = np.ones((120, 140), dtype=bool)
    mask[30:90, 40:100] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
        path = make_scene('map.tif', np.ones(mask.shape, dtype=np.uint8), mask=mask, res=1.0)
    told = vectorize(path, tmp_path / 'map.gpkg', block=50, progress=False)
    assert told.areas == {'1': mask.sum()}


def test_a_local_plane_has_its_own_metres(make_scene: MakeScene, tmp_path: Path) -> None:
    array = np.zeros((60, 100), dtype=np.uint8)
    array[10:13, 10:90] = 1
    path = make_scene('map.tif', array, res=0.5, crs='LOCAL_CS["site",UNIT["foot",0.3048]]')
    told = vectorize(path, tmp_path / 'map.gpkg', VectorizeOptions(centrelines=True), progress=False)
    assert told.areas == {'1': pytest.approx(60 * 0.3048**2)}
    assert told.rows == (1, pytest.approx(40 * 0.3048), 0, 0)


def test_metres_that_cannot_be_had_are_told(make_scene: MakeScene, tmp_path: Path) -> None:
    moon = {'crs': '+proj=longlat +R=1737400', 'transform': Affine(1e-3, 0, 3, 0, -1e-3, 3)}
    path = make_scene('moon.tif', class_map(), **moon)
    with pytest.raises(ConfigurationError, match=r'leads from .* to a UTM zone'):
        vectorize(path, tmp_path / 'map.gpkg', progress=False)
