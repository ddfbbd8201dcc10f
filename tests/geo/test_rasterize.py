"""Masks in files are those of GDAL, whatever the blocks; fractions are areas; the memory is that of a block."""

import json
import shutil
import subprocess
import sys
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

from tests.geo.drawings import GRID, UTM, X, Y, save, square, vector_labels
from torchgeo_msssl.commands.rasterize import RasterizeOptions
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.rasterize import ignore_borders, write_coverage, write_mask


def layout(seed: int, grid: PixelGrid, snapped: bool = False) -> tuple[list[Any], list[int]]:
    """Polylines, triangles, rings and multipolygons with holes, in and round a grid; snapped to half pixels."""
    rng = np.random.default_rng(seed)
    scale = np.array([grid.width, grid.height])

    def corners(count: int) -> NDArray[Any]:
        return rng.uniform(-0.1, 1.1, 2) * scale + rng.uniform(-0.25, 0.25, (count, 2)) * scale

    shapes: list[Any] = []
    for k in range(40):
        points = corners(4)
        if k % 4 == 0:
            shape = shapely.LineString(points)
        elif k % 4 == 1:
            shape = shapely.Polygon(points[:3])
        elif k % 4 == 2:
            shape = shapely.Point(points[0]).buffer(20).difference(shapely.Point(points[0]).buffer(rng.uniform(2, 18)))
        else:
            rings = [shapely.Point(point).buffer(9).difference(shapely.Point(point).buffer(4)) for point in points]
            shape = shapely.union_all(rings)
        if snapped:
            shape = shapely.transform(shape, lambda xy: np.rint(2 * xy) / 2)
        if shape.is_valid:
            shapes.append(shapely.transform(shape, lambda xy: np.column_stack(grid.transform @ xy.T)))
    return shapes, rng.integers(1, 9, len(shapes)).tolist()


def burned_by_gdal(source: str, out: Path, grid: PixelGrid, all_touched: bool) -> NDArray[np.uint8]:
    """What gdal_rasterize, or where it is not installed rasterio, makes of the whole grid."""
    profile = {'driver': 'GTiff', 'count': 1, 'dtype': 'uint8', 'crs': grid.crs, 'transform': grid.transform}
    if shutil.which('gdal_rasterize') is None:
        frame = gpd.read_file(source)
        burned: NDArray[np.uint8] = rasterize(
            zip(frame.geometry, frame['value'].astype(int), strict=True),
            out_shape=(grid.height, grid.width),
            transform=grid.transform,
            all_touched=all_touched,
            dtype='uint8',
        )
        return burned
    with rasterio.open(out, 'w', height=grid.height, width=grid.width, **profile):
        pass
    options = ['-at'] if all_touched else []
    subprocess.run(['gdal_rasterize', *options, '-a', 'value', source, str(out)], check=True, capture_output=True)
    with rasterio.open(out) as dataset:
        return np.asarray(dataset.read(1))


@pytest.mark.parametrize('all_touched', [False, True])
@pytest.mark.parametrize('seed', range(5))
def test_a_mask_in_blocks_is_that_of_gdal_rasterize(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, all_touched: bool
) -> None:
    monkeypatch.setattr('torchgeo_msssl.geo.rasterize._BLOCK', 48)
    res = (0.1, 0.25, 1 / 3, 10.0, 1e-4)[seed]
    crs, x, y = ('EPSG:4326', 3.1, 44.2) if seed == 4 else (UTM, 601_234.567, 4_999_876.543)
    grid = PixelGrid(CRS.from_user_input(crs), Affine(res, 0, x, 0, -res, y), 131, 117)
    # Which pixels a line exactly through their corners touches differs from one GDAL to the next.
    shapes, values = layout(seed, grid, snapped=seed % 2 == 1 and not all_touched)
    source = save(tmp_path / 'a.gpkg', shapes, crs=crs, value=values)
    labels = vector_labels(source, column='value', all_touched=all_touched)
    counts = write_mask(labels, grid, tmp_path / 'mask.tif', progress=False)
    with rasterio.open(tmp_path / 'mask.tif') as dataset:
        got = dataset.read(1)
    want = burned_by_gdal(source, tmp_path / 'gdal.tif', grid, all_touched)
    assert len(np.unique(want)) > 5
    np.testing.assert_array_equal(got, want)
    assert counts == {int(value): int((want == value).sum()) for value in np.unique(want)}


def test_a_mask_says_what_its_values_are(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.gpkg', [square(0, 0, 4), square(10, 10, 4)], kind=['vine', 'grass'])
    labels = vector_labels(path, {'grass': 'grass', 'vine': 'vine'}, 'kind', background=True, ignore_index=9)
    counts = write_mask(labels, GRID, tmp_path / 'mask.tif', progress=False)
    assert counts == {0: GRID.window.area - 128, 1: 64, 2: 64}
    with rasterio.open(tmp_path / 'mask.tif') as dataset:
        assert (dataset.crs, dataset.transform, dataset.shape) == (GRID.crs, GRID.transform, (97, 131))
        assert (dataset.nodata, dataset.descriptions, dataset.overviews(1)) == (9, ('class',), [])
        assert json.loads(dataset.tags()['CLASS_NAMES']) == ['background', 'grass', 'vine']
        colors = dataset.colormap(1)
    assert colors[9] == (0, 0, 0, 0)
    assert len({colors[value] for value in (0, 1, 2, 9)}) == 4
    assert colors[0] == (224, 224, 224, 255)


def test_many_classes_have_many_colours(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.gpkg', [square(0, 0, 4)], kind=['c0'])
    labels = vector_labels(path, ['background', *(f'c{k}' for k in range(40))], 'kind')
    write_mask(labels, GRID, tmp_path / 'mask.tif', progress=False)
    with rasterio.open(tmp_path / 'mask.tif') as dataset:
        assert len({dataset.colormap(1)[value] for value in range(41)}) > 38


@pytest.mark.parametrize('pixels', [1, 3])
def test_borders_are_ignored_alike_in_all_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    shapes, values = layout(1, GRID)
    outline = save(tmp_path / 'outline.gpkg', [shapely.box(X + 6.1, Y - 40.2, X + 50.3, Y - 5.7)])
    labels = vector_labels(save(tmp_path / 'a.gpkg', shapes, value=values), column='value', extent=outline)
    plain = tmp_path / 'plain.tif'
    write_mask(labels, GRID, plain, progress=False)
    monkeypatch.setattr('torchgeo_msssl.geo.rasterize._BLOCK', 32)
    write_mask(labels, GRID, tmp_path / 'b.tif', pixels, progress=False)
    with rasterio.open(plain) as first, rasterio.open(tmp_path / 'b.tif') as second:
        mask, got = first.read(1), second.read(1)
    # Whatever has a pixel of another class within reach, said once more with dilations.
    near = np.zeros(mask.shape, dtype=bool)
    for value in np.unique(mask[mask != 255]):
        reach = ndimage.binary_dilation(mask == value, np.ones((3, 3)), iterations=pixels)
        near |= reach & (mask != value)
    want = np.where(near, 255, mask)
    assert 0.02 < (near & (mask != 255)).mean() < 0.6
    np.testing.assert_array_equal(got, want)


def test_a_straight_border_is_ignored_on_both_sides() -> None:
    mask = np.repeat(np.array([[0, 0, 0, 1, 1, 255, 2, 2]], dtype=np.uint8), 3, axis=0)
    assert ignore_borders(mask, 1, 255)[1].tolist() == [0, 0, 255, 255, 1, 255, 2, 2]


@pytest.mark.parametrize('block', [32, 256])
def test_coverage_is_the_area_in_each_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr('torchgeo_msssl.geo.rasterize._SAMPLED_BLOCK', block)
    grid = PixelGrid(GRID.crs, GRID.transform, 40, 45)
    rng = np.random.default_rng(0)
    blobs = [shapely.Point(X + x, Y - y).buffer(rng.uniform(0.3, 4)) for x, y in rng.uniform(0, 20, (12, 2))]
    line = shapely.LineString([(X + 1, Y - 2), (X + 19, Y - 17)])
    path = save(tmp_path / 'a.gpkg', [*blobs, line], kind=['tree'] * 12 + ['vine'])
    labels = vector_labels(path, ['tree', 'grass', 'vine'], 'kind', buffer=0.3, priority=['vine'])
    totals = write_coverage(labels, grid, tmp_path / 'c.tif', progress=False)
    with rasterio.open(tmp_path / 'c.tif') as dataset:
        got = dataset.read()
        assert dataset.descriptions == ('tree', 'grass', 'vine')
        assert np.isnan(dataset.nodata)
    cells = np.array([[shapely.box(*grid.cut(window).bounds) for window in row] for row in _pixels(grid)])
    row = line.buffer(0.3, cap_style='flat')
    for band, shape in zip(got[[0, 2]], (shapely.union_all(blobs).difference(row), row), strict=True):
        area = shapely.area(shapely.intersection(cells, shape)) / 0.25
        assert 0.01 < area.mean() < 0.9
        assert np.abs(band - area).max() < 0.06
        assert band.mean() == pytest.approx(area.mean(), rel=0.01)
    assert got.sum(axis=0).max() <= 1
    assert totals == pytest.approx({'tree': got[0].sum(), 'grass': 0, 'vine': got[2].sum()})


def test_coverage_outside_the_surveyed_ground_is_nan(tmp_path: Path) -> None:
    outline = save(tmp_path / 'b.gpkg', [square(0, 0, 10)])
    labels = vector_labels(save(tmp_path / 'a.gpkg', [square(0, 0, 4)]), extent=outline)
    write_coverage(labels, GRID, tmp_path / 'c.tif', progress=False)
    with rasterio.open(tmp_path / 'c.tif') as dataset:
        assert dataset.descriptions == ('a',)
        got = dataset.read(1)
    assert np.isfinite(got).sum() == 400
    assert (got == 1).sum() == 64
    lines = vector_labels(save(tmp_path / 'd.gpkg', [shapely.LineString([(X, Y), (X + 9, Y - 9)])]))
    with pytest.raises(ConfigurationError, match='holds 1 lines, which cover no ground'):
        write_coverage(lines, GRID, tmp_path / 'e.tif')


def test_values_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.gpkg', [square(0, 0, 4)])
    with pytest.raises(ConfigurationError, match=r'ignore_index: expected 2 to 255.*got 1'):
        vector_labels(path, ['ground', 'vine'], ignore_index=1)
    for ignore_index in (256, -1):
        with pytest.raises(ConfigurationError, match=f'ignore_index: expected 0 to 255.*got {ignore_index}'):
            RasterizeOptions(labels='a.gpkg', like='a.tif', output='mask.tif', ignore_index=ignore_index)
    with pytest.raises(ConfigurationError, match='boundary_ignore: expected 0 pixels or more, got -2'):
        write_mask(vector_labels(path), GRID, tmp_path / 'mask.tif', -2)
    assert not (tmp_path / 'mask.tif').exists()


_MEASURED = """
import resource, sys
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.labels.vector import VectorLabels
from torchgeo_msssl.geo.rasterize import write_mask
write_mask(VectorLabels(sys.argv[1]), find_scenes(sys.argv[2])[0].grid, sys.argv[3], progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = save(tmp_path / 'a.gpkg', [square(x, y, 2) for x, y in rng.uniform(0, 1500, (500, 2))])
    peak = []
    for side in (3000, 12000):
        scene = tmp_path / f'{side}.tif'
        profile = {'driver': 'GTiff', 'count': 1, 'dtype': 'uint8', 'crs': UTM, 'transform': GRID.transform}
        with rasterio.open(scene, 'w', height=side, width=side, tiled=True, sparse_ok=True, **profile):
            pass
        command = [sys.executable, '-c', _MEASURED, source, str(scene), str(tmp_path / f'{side}_mask.tif')]
        peak.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peak[1] - peak[0] < 20  # MB; the larger mask alone has 137 MB


def _pixels(grid: PixelGrid) -> Any:
    return [[Window(row, col, 1, 1) for col in range(grid.width)] for row in range(grid.height)]


def test_what_is_nodata_is_not_called_background(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.gpkg', [square(1, 1, 5)])
    out = tmp_path / 'mask.tif'
    write_mask(vector_labels(path, ['vine'], background=False), GRID, out, progress=False)
    with rasterio.open(out) as dataset:
        assert json.loads(dataset.tags()['CLASS_NAMES']) == ['vine']
        assert np.unique(dataset.read(1)).tolist() == [0, 255]
