"""Drawn labels: what ground without a geometry is, what lies on top, and what a file lacks."""

import logging
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from shapely.geometry import (
    GeometryCollection,
    LineString,
    MultiLineString,
    MultiPolygon,
    Point,
    Polygon,
    box,
)

from tests.geo.drawings import GRID, NAMES, UTM, X, Y, save, scattered, square, vector_labels
from tests.real_data import DATA
from torchgeo_msssl.errors import (
    ConfigurationError,
    MissingCRSError,
    SceneReadError,
    ScenesNotFoundError,
)
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.labels.classes import ClassNames
from torchgeo_msssl.geo.vector.burn import GeometryIndex
from torchgeo_msssl.geo.vector.files import find_vectors
from torchgeo_msssl.geo.vector.geometries import simple_parts


@pytest.mark.parametrize('crs', [UTM, 'EPSG:4326', 'EPSG:3857', 'EPSG:2154'])
def test_rows_are_as_wide_as_their_metres(tmp_path: Path, crs: str) -> None:
    rows = [LineString([(X + 2, Y - 3 - 2.5 * k), (X + 52, Y - 8.3 - 2.5 * k)]) for k in range(8)]
    lines = gpd.GeoSeries(rows, crs=UTM).to_crs(crs)
    path = save(tmp_path / 'rows.gpkg', list(lines), crs=crs)
    labels = vector_labels(path, ['ground', 'vine'], buffer=0.3, background=True)
    grid = PixelGrid(GRID.crs, Affine(0.05, 0, X, 0, -0.05, Y), 800, 1200)
    area = int(labels.burn(grid, grid.window).sum()) * 0.05**2
    want = 0.6 * sum(row.length for row in rows)  # flat caps: nothing beyond the ends
    assert area == pytest.approx(want, rel=0.01)


def test_a_bow_tie_keeps_both_lobes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bow_tie = Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    parts, parent, invalid = simple_parts(np.array([bow_tie], dtype=object))
    assert invalid == 1
    assert parent.tolist() == [0, 0]
    assert shapely.area(parts).tolist() == pytest.approx([0.25, 0.25])  # of the unit square, each lobe is a quarter
    large = Polygon([(X, Y), (X + 40, Y - 40), (X + 40, Y), (X, Y - 40)])
    path = save(tmp_path / 'bow.gpkg', [square(0, 0, 1), large, square(5, 5, 2)])
    with caplog.at_level(logging.WARNING):
        labels = vector_labels(path, ['ground', 'vine'], background=True)
    assert '1 of 3 geometries were invalid and were repaired' in caplog.text
    assert labels.repaired == 1
    area = int(GeometryIndex(labels.geometries.geometries, labels.geometries.values, UTM).burn(GRID, GRID.window).sum())
    assert area * 0.25 == pytest.approx(800, rel=0.03)


def test_collections_are_taken_apart_and_empties_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shapes = [
        MultiPolygon([square(0, 0, 2), square(5, 5, 2)]),
        GeometryCollection([square(10, 10, 2), MultiPolygon([square(20, 20, 2), square(30, 30, 2)])]),
        Polygon(),
        None,
    ]
    path = save(tmp_path / 'many.geojson', shapes, kind=['vine', 'tree', 'vine', 'vine'])
    with caplog.at_level(logging.WARNING):
        labels = vector_labels(path, NAMES, 'kind', background=False)
    assert (labels.read, labels.dropped, labels.repaired) == (4, 2, 0)
    assert '2 of 4 geometries were empty and were left out' in caplog.text
    assert sorted(labels.geometries.values.tolist()) == [1, 1, 2, 2, 2]


def test_reprojection_there_and_back(tmp_path: Path) -> None:
    shapes, _ = scattered(1)
    polygons = [shape for shape in shapes if shape.geom_type == 'Polygon']
    near = save(tmp_path / 'near.gpkg', polygons)
    far = str(tmp_path / 'far.gpkg')
    gpd.GeoDataFrame(geometry=polygons, crs=UTM).to_crs('EPSG:4326').to_file(far)
    masks = [vector_labels(path, ['ground', 'vine'], background=True).burn(GRID, GRID.window) for path in (near, far)]
    assert (masks[0] != masks[1]).mean() < 1e-3
    assert masks[0].any()


def test_ground_without_a_geometry_is_background_unless_said_otherwise(tmp_path: Path) -> None:
    path = save(tmp_path / 'vines.gpkg', [square(5, 5, 10)])
    assert vector_labels(path, ['ground', 'vine']).background
    counts = {}
    for background in (True, False):
        mask = vector_labels(path, ['ground', 'vine'], background=background).burn(GRID, GRID.window)
        counts[background] = {int(value): int((mask == value).sum()) for value in np.unique(mask)}
    rest = GRID.window.area - 400
    assert counts == {True: {0: rest, 1: 400}, False: {1: 400, 255: rest}}


def test_unlabelled_is_ignored_where_class_0_is_drawn(tmp_path: Path) -> None:
    path = save(tmp_path / 'both.gpkg', [square(0, 0, 5), square(10, 10, 5)], kind=[0, 'vine'])
    mask = vector_labels(path, NAMES, 'kind', ignore_index=200).burn(GRID, GRID.window)
    assert [int((mask == value).sum()) for value in (0, 1, 200)] == [100, 100, GRID.window.area - 200]


def test_a_drawn_class_0_is_not_the_background_of_an_extent(tmp_path: Path) -> None:
    path = save(tmp_path / 'crops.gpkg', [square(0, 0, 5), square(10, 10, 5)], kind=['wheat', 'maize'])
    outline = save(tmp_path / 'outline.gpkg', [square(0, 0, 20)])
    mask = vector_labels(path, ['wheat', 'maize'], 'kind', extent=outline).burn(GRID, GRID.window)
    assert [int((mask == value).sum()) for value in (0, 1)] == [100, 100]
    frank = vector_labels(path, ['wheat', 'maize'], 'kind', extent=outline, background=True)
    assert int((frank.burn(GRID, GRID.window) == 0).sum()) == 1500
    grown = vector_labels(path, ['crop'], background=True)
    assert grown.class_names == ('background', 'crop')
    assert [int((grown.burn(GRID, GRID.window) == value).sum()) for value in (1, 255)] == [200, 0]


def test_only_surveyed_ground_is_background(tmp_path: Path) -> None:
    vines = [square(5, 5, 5), square(40, 5, 5)]
    path = save(tmp_path / 'vines.gpkg', vines, layer='rows')
    save(tmp_path / 'vines.gpkg', [square(0, 0, 20)], layer='parcels')
    outline = save(tmp_path / 'outline.geojson', [square(0, 0, 20)])
    for extent in ('parcels', f'{path}|layername=parcels', outline):
        labels = vector_labels(path, ['ground', 'vine'], layer='rows', extent=extent)
        mask = labels.burn(GRID, GRID.window)
        counts = [int((mask == value).sum()) for value in (0, 1, 255)]
        assert counts == [1600 - 100, 100, GRID.window.area - 1600]
    unsure = vector_labels(path, ['ground', 'vine'], layer='rows', extent='parcels', background=False)
    assert np.unique(unsure.burn(GRID, GRID.window)).tolist() == [1, 255]
    with pytest.raises(ScenesNotFoundError, match=r'neither a file nor a layer of .*\(rows, parcels\)'):
        vector_labels(path, ['ground', 'vine'], layer='rows', extent='fields')


def test_the_first_of_priority_lies_on_top(tmp_path: Path) -> None:
    kinds = ['vine', 'grass', 'tree', 'vine']
    path = save(tmp_path / 'a.gpkg', [square(k, 0, 4) for k in range(4)], kind=kinds)
    names = ['ground', 'grass', 'vine', 'tree']

    def on_top(*priority: str) -> str:
        labels = vector_labels(path, names, 'kind', priority=priority)
        return names[labels.burn(GRID, GRID.window)[1, 7]]  # 3.5 m from the left, where all four lie

    assert on_top() == 'vine'  # the last of the file
    assert on_top('grass') == 'grass'
    assert on_top('tree', 'grass') == 'tree'
    assert on_top('grass', 'tree', 'vine') == 'grass'
    for wrong in (['house'], ['vine', 'vine']):
        with pytest.raises(ConfigurationError, match=r'priority: expected different names .*ground, grass, vine, tree'):
            on_top(*wrong)


def test_a_mapping_chooses_among_the_values_of_a_column(tmp_path: Path) -> None:
    shapes = [square(0, 0, 5), square(10, 10, 5), square(20, 20, 5), square(0, 0, 2)]
    path = save(tmp_path / 'crops.gpkg', shapes, code=['VI', 'HO', 'WW', 'XX'])

    def pixels(class_names: ClassNames, **options: Any) -> dict[int, int]:
        mask = vector_labels(path, class_names, 'code', **options).burn(GRID, GRID.window)
        return {int(value): int((mask == value).sum()) for value in np.unique(mask)}

    rest = GRID.window.area
    crops = {'hops': 'HO', 'other': ['VI', 'WW']}
    # the square XX lies on top of a vineyard, and has no class
    assert pixels(crops) == {0: 100, 1: 184, 255: rest - 284}
    assert pixels(crops, background=True) == {0: rest - 284, 1: 100, 2: 184}
    assert pixels(crops, priority=['other']) == {0: 100, 1: 200, 255: rest - 300}
    assert vector_labels(path, crops, 'code', background=True).class_names == ('background', 'hops', 'other')


def test_a_geometry_marked_as_unlabelled_is_not_background(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.gpkg', [square(0, 0, 10), square(0, 0, 5)], code=[1, 255])
    mask = vector_labels(path, NAMES, 'code', background=True).burn(GRID, GRID.window)
    assert [int((mask == value).sum()) for value in (0, 1, 255)] == [GRID.window.area - 400, 300, 100]


def test_without_a_column_all_is_one_class(tmp_path: Path) -> None:
    path = save(tmp_path / 'vines.gpkg', [square(0, 0, 4), LineString([(X, Y), (X + 3, Y - 3)])])
    labels = vector_labels(path)
    assert (labels.class_names, labels.geometries.values.tolist(), labels.lines) == (('background', 'vines'), [1, 1], 1)
    for names, background, value in ((['vine'], None, 1), (['vine'], False, 0), (['vine', 'background'], None, 0)):
        labels = vector_labels(path, names, buffer=0.5, background=background)
        assert labels.geometries.values.tolist() == [value, value]
    with pytest.raises(ConfigurationError, match=r'column: name the column of .*vine, grass, hops.*it has none'):
        vector_labels(path, ['vine', 'grass', 'hops'])
    # there are no values to choose from: neither class may silently become the background
    with pytest.raises(ConfigurationError, match=r'column: name the column of .*2 classes \(vine, grass\)'):
        vector_labels(path, {'vine': 1, 'grass': 2})
    named = vector_labels(path, {'background': 0, 'vine': 1}, buffer=0.5)
    assert (named.class_names, named.geometries.values.tolist()) == (('background', 'vine'), [1, 1])


def test_numbers_of_a_column_are_used_as_they_are(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.gpkg', [square(0, 0, 5), square(10, 10, 5)], code=[3, 0], kind=['vine', 'hops'])
    labels = vector_labels(path, column='code')
    assert labels.class_names == ('background', 'class_1', 'class_2', 'class_3')
    mask = labels.burn(GRID, GRID.window)
    assert [int((mask == value).sum()) for value in (0, 3, 255)] == [100, 100, GRID.window.area - 200]
    with pytest.raises(ConfigurationError, match=r"column 'kind' holds no class numbers.*hops.*vine"):
        vector_labels(path, column='kind')


@pytest.mark.parametrize('name', ['a.gpkg', 'a.geojson', 'a.shp', 'a.fgb'])
def test_formats(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, [square(0, 0, 5)], kind=['vine'])
    labels = vector_labels(tmp_path / name, NAMES, 'kind', background=True)
    assert int((labels.burn(GRID, GRID.window) == 1).sum()) == 100


def test_geoparquet(tmp_path: Path) -> None:
    gpd.GeoDataFrame({'kind': ['vine']}, geometry=[square(0, 0, 5)], crs=UTM).to_parquet(tmp_path / 'a.parquet')
    labels = vector_labels(tmp_path / 'a.parquet', NAMES, 'kind', background=True)
    assert int((labels.burn(GRID, GRID.window) == 1).sum()) == 100


def test_several_files_in_several_crs_are_one_index(tmp_path: Path) -> None:
    save(tmp_path / 'a.gpkg', [square(0, 0, 5)])
    gpd.GeoDataFrame(geometry=[square(10, 10, 5)], crs=UTM).to_crs('EPSG:4326').to_file(tmp_path / 'b.gpkg')
    labels = vector_labels(tmp_path / '*.gpkg', ['ground', 'vine'], background=True)
    assert len(labels.files) == 2
    assert int(labels.burn(GRID, GRID.window).sum()) == pytest.approx(200, abs=4)
    assert tuple(find_vectors(tmp_path)) == labels.files


def test_errors_say_what_is_there(tmp_path: Path) -> None:
    path = save(
        tmp_path / 'a.gpkg', [square(0, 0, 5)] * 3, layer='rows', kind=['vine', 'hops', 'grass'], gaps=[1, 2, 300]
    )
    with pytest.raises(ConfigurationError, match=r"no column 'type'; it has kind, gaps"):
        vector_labels(path, NAMES, 'type')
    with pytest.raises(ConfigurationError, match=r'holds grass, hops, which the classes \(ground, vine, tree\) do not'):
        vector_labels(path, NAMES, 'kind')
    with pytest.raises(ConfigurationError, match=r'holds 300, which the classes'):
        vector_labels(path, NAMES, 'gaps')
    with pytest.raises(ConfigurationError, match=r'column: name the column of .*3 classes.*kind, gaps'):
        vector_labels(path, NAMES)
    with pytest.raises(ConfigurationError, match=r"no layer 'vines'; it has rows"):
        vector_labels(path, NAMES, 'kind', layer='vines')
    with pytest.raises(ConfigurationError, match=r'buffer: widens lines and points'):
        vector_labels(path, ['ground', 'vine'], buffer=1.0)
    with pytest.raises(ConfigurationError, match='ignore_index: expected 3 to 255'):
        vector_labels(path, NAMES, 'kind', ignore_index=2)
    with pytest.raises(ConfigurationError, match='ignore_index: expected 300 to 255'):
        vector_labels(path, [f'c{k}' for k in range(300)], 'gaps')
    with pytest.raises(ConfigurationError, match='different names'):
        vector_labels(path, ['vine', 'vine'], 'kind')
    with pytest.raises(ScenesNotFoundError, match='no vector file'):
        vector_labels(tmp_path / 'none.gpkg', NAMES)
    save(tmp_path / 'a.gpkg', [square(0, 0, 5)], layer='parcels')
    with pytest.raises(ConfigurationError, match=r'layer: .* has 2 layers \(rows, parcels\); name the one'):
        vector_labels(path, NAMES, 'kind')
    (tmp_path / 'torn.gpkg').write_bytes(b'nothing')
    with pytest.raises(SceneReadError, match=r'torn\.gpkg: cannot be read'):
        vector_labels(tmp_path / 'torn.gpkg', NAMES)


def test_a_missing_class_or_crs_or_geometry_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.gpkg', [square(0, 0, 5)] * 2, kind=['vine', None])
    with pytest.raises(ConfigurationError, match='1 of 2 geometries have no class'):
        vector_labels(path, NAMES, 'kind')
    path = save(tmp_path / 'b.shp', [square(0, 0, 5)], crs=None)
    with pytest.raises(MissingCRSError, match=r'b\.shp: has no coordinate reference system'):
        vector_labels(path, NAMES)
    gpd.GeoDataFrame({'kind': []}, geometry=[], crs=UTM).to_file(tmp_path / 'c.gpkg')
    with pytest.raises(ConfigurationError, match='is empty'):
        vector_labels(tmp_path / 'c.gpkg', NAMES, 'kind')
    path = save(tmp_path / 'd.gpkg', [Polygon(), None], kind=['vine', 'vine'])
    with pytest.raises(ConfigurationError, match='all of its 2 geometries are empty'):
        vector_labels(path, NAMES, 'kind')
    path = save(tmp_path / 'e.gpkg', [Point(X, Y)])
    with pytest.raises(ConfigurationError, match='holds 1 points, which cover no ground'):
        vector_labels(path, ['ground', 'vine'])


def test_bare_lines_are_one_pixel_wide_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line = MultiLineString([[(X + 1, Y - 5.2), (X + 60, Y - 5.2)]])
    with caplog.at_level(logging.WARNING):
        labels = vector_labels(save(tmp_path / 'a.gpkg', [line]), ['ground', 'vine'], background=True)
    assert 'one pixel wide' in caplog.text
    assert labels.burn(GRID, GRID.window).sum(axis=0).max() == 1


@pytest.mark.skipif(not DATA.is_dir(), reason='no real data next to the repository')
def test_aerial_vineyards_are_those_of_their_mask() -> None:
    folder = DATA / 'vineyard_aerial'
    with rasterio.open(folder / 'aerial0.tif') as image, rasterio.open(folder / 'aerial0_mask.tif') as truth:
        grid = PixelGrid(image.crs, image.transform, image.height, image.width)
        want = truth.read(1)
    labels = vector_labels(folder / 'aerial0_vineyards.gpkg', ['other', 'vineyard'], 'class', background=True)
    got = labels.burn(grid, grid.window)
    iou = ((got == 1) & (want == 1)).sum() / ((got == 1) | (want == 1)).sum()
    assert iou > 0.98


@pytest.mark.skipif(not DATA.is_dir(), reason='no real data next to the repository')
def test_demmin_fields_and_points() -> None:
    folder = DATA / 's2_demmin_fields'
    with rasterio.open(folder / 'sentinel2_fields.tif') as image:
        grid = PixelGrid(image.crs, image.transform, image.height, image.width)
    fields = vector_labels(folder / 'fields.gpkg', ['other', 'Field 1', 'Field 2'], 'desc', background=False)
    mask = fields.burn(grid, grid.window)
    outlines = gpd.read_file(folder / 'fields.gpkg').to_crs('EPSG:32633').area
    pixel = gpd.GeoSeries([box(*grid.window_bounds(Window(100, 300, 1, 1)))], crs=4326).to_crs('EPSG:32633').area[0]
    for value in (1, 2):
        assert (mask == value).sum() * pixel == pytest.approx(outlines[value - 1], rel=0.02)
    with pytest.raises(ConfigurationError, match='78 points'):
        vector_labels(folder / 'esus.gpkg', ['other', 'unit'], background=True)
    discs = vector_labels(folder / 'esus.gpkg', ['other', 'unit'], background=True, buffer=15.0)
    assert discs.touches(grid)
    assert (discs.burn(grid, grid.window) == 1).any()
