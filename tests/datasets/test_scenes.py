"""Scenes gives TorchGeo's pixels to the last one, and chips as the file has them, from any process."""

import gc
import os
import pickle
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import rasterio.merge
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.warp import transform as transform_points
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset, stack_samples
from torchgeo.samplers import GriddedPatchSampler, RandomPatchSampler

from tests.marks import first_fast
from torchgeo_msssl.datasets import ChipQuery, Scenes
from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.errors import (
    BandError,
    ConfigurationError,
    EmptyIntersectionError,
    MissingCRSError,
    SceneReadError,
    ScenesNotFoundError,
)
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.open_datasets import close_datasets

type Query = Any  # two or three slices

QUERIES = 100
TILED: dict[str, Any] = {'tiled': True, 'blockxsize': 64, 'blockysize': 64, 'compress': 'deflate'}
ORIGIN = (500_000.0, 4_900_000.0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'cache'))
    yield
    close_datasets()


def pixels(shape: tuple[int, int, int] = (3, 150, 180), dtype: str = 'uint16', seed: int = 0) -> NDArray[Any]:
    """Noise in which no two windows are alike."""
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        return rng.normal(0.2, 0.1, shape).astype(dtype)
    return rng.integers(1, min(5000, np.iinfo(dtype).max), shape, dtype=dtype)


def write(
    path: Path,
    array: NDArray[Any],
    *,
    crs: str | None = 'EPSG:32631',
    res: float = 10.0,
    origin: tuple[float, float] = ORIGIN,
    nodata: float | None = None,
    names: Sequence[str] = (),
    colours: Sequence[ColorInterp] = (),
    transform: Affine | None = None,
    placed: bool = True,
    **profile: Any,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = array.shape
    if placed:
        profile['transform'] = transform or Affine(res, 0, origin[0], 0, -res, origin[1])
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        crs=crs,
        height=height,
        width=width,
        count=bands,
        dtype=array.dtype,
        nodata=nodata,
        **profile,
    ) as file:
        if colours:
            file.colorinterp = list(colours)
        if names:
            file.descriptions = tuple(names)
        file.write(array)
    return path


def with_hole(array: NDArray[Any], value: float) -> NDArray[Any]:
    """Nodata in all bands of one part, and in one band of another."""
    array = array.copy()
    array[:, 40:80, 50:120] = value
    array[0, 100:110] = value
    return array


def queries_over(stock: RasterDataset, count: int = QUERIES, *, aligned: bool | None = None) -> list[Query]:
    """Random queries over and a little beyond a dataset; every other one on its pixel edges."""
    rng = np.random.default_rng(7)
    x, y, _ = stock.bounds
    across, down = stock.res
    columns, rows = round((x.stop - x.start) / across), round((y.stop - y.start) / down)
    queries: list[Query] = []
    for k in range(count):
        height, width = (int(side) for side in rng.integers(1, 60, 2))
        row, col = float(rng.integers(-20, rows)), float(rng.integers(-20, columns))
        if not (k % 2 if aligned is None else aligned):
            row, col = row + rng.uniform(-0.5, 0.5), col + rng.uniform(-0.5, 0.5)
        left, top = x.start + col * across, y.stop - row * down
        queries.append((slice(left, left + width * across), slice(top - height * down, top)))
    return queries


def answer(dataset: RasterDataset, query: Query) -> NDArray[Any] | None:
    """The image as float32, or None where the dataset says that nothing is there."""
    try:
        return dataset[query]['image'].to(torch.float32).numpy()
    except IndexError:
        return None


def assert_same(stock: RasterDataset, ours: RasterDataset, queries: Sequence[Query]) -> int:
    """Compare; returns how many queries met data."""
    met = 0
    for query in queries:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            want, got = answer(stock, query), answer(ours, query)
        assert (want is None) == (got is None), query
        if want is not None and got is not None:
            np.testing.assert_array_equal(got, want, err_msg=str(query))
            met += 1
    return met


def place_near(crs: str, x: float, y: float) -> tuple[float, float]:
    (left,), (top,) = transform_points('EPSG:32631', crs, [x], [y])
    return round(left, -1), round(top, -1)


# What stock is asked about: name → (files, arguments of both, stock's class attributes, bands of both).


def one(**options: Any) -> Callable[[Path], list[Path]]:
    array = options.pop('array', None)

    def make(folder: Path) -> list[Path]:
        return [write(folder / 'scene.tif', pixels() if array is None else array, **({**TILED} | options))]

    return make


def several(*parts: dict[str, Any]) -> Callable[[Path], list[Path]]:
    def make(folder: Path) -> list[Path]:
        files = []
        for k, part in enumerate(parts):
            part = dict(part)
            name = part.pop('name', f'scene_{k}.tif')
            files.append(write(folder / name, part.pop('array', pixels(seed=k)), **({**TILED} | part)))
        return files

    return make


FLOAT = with_hole(pixels(dtype='float32'), np.nan)
CASES: dict[str, Callable[[Path], list[Path]]] = {
    'striped': lambda folder: [write(folder / 'scene.tif', pixels())],
    'nodata': one(array=with_hole(pixels(), 0), nodata=0),
    'two zones': several({}, {'crs': 'EPSG:32632', 'origin': place_near('EPSG:32632', 500_900, 4_899_500)}),
    'pixel-interleaved': one(interleave='pixel'),
    'band-interleaved': one(interleave='band'),
    'uncompressed': one(compress='none'),
    'nodata that is not 0': one(array=with_hole(pixels(), 65535), nodata=65535),
    'float32 with NaN': one(array=FLOAT, nodata=np.nan),
    'float32 with -9999': one(array=with_hole(pixels(dtype='float32'), -9999), nodata=-9999),
    'drone, 3.21 cm': one(res=0.0321, origin=(500_000.123, 4_900_000.456)),
    'drone, float32': one(array=FLOAT, nodata=np.nan, res=0.0321, origin=(500_000.123, 4_900_000.456)),
    'drone, uint32': one(array=pixels(dtype='uint32') * 700_000, res=0.0321, origin=(500_000.123, 4_900_000.456)),
    'int8': one(array=pixels(dtype='int8')),
    'degrees': one(crs='EPSG:4326', res=1e-4, origin=(3.1, 44.3)),
    'two that overlap': several({}, {'origin': (500_900.0, 4_899_500.0)}),
    'two that overlap, nodata': several(
        {'array': with_hole(pixels(), 0), 'nodata': 0}, {'origin': (500_900.0, 4_899_500.0), 'nodata': 0}
    ),
    'two side by side': several({}, {'origin': (501_800.0, 4_900_000.0)}),
    'two dtypes': several({}, {'array': pixels(dtype='float32'), 'origin': (500_900.0, 4_899_500.0)}),
    'two resolutions': several({}, {'res': 20.0, 'origin': (500_700.0, 4_899_600.0)}),
    'south up': one(transform=Affine(10, 0, ORIGIN[0], 0, 10, ORIGIN[1])),
}


@pytest.mark.parametrize('case', first_fast(CASES, 3))
def test_a_query_gives_the_pixels_that_torchgeo_gives(tmp_path: Path, case: str) -> None:
    files = CASES[case](tmp_path)
    stock, ours = RasterDataset(files), Scenes(files)
    assert ours.bounds == stock.bounds
    assert (ours.crs, ours.res, len(ours)) == (stock.crs, stock.res, len(stock))
    assert list(ours.index.filepath) == list(map(str, stock.index.filepath))
    assert assert_same(stock, ours, queries_over(stock)) > QUERIES // 4


@pytest.mark.slow
@pytest.mark.parametrize(
    'options',
    [
        {'crs': 'EPSG:32632'},
        {'crs': 'EPSG:4326'},
        {'res': 20.0},
        {'res': (15.0, 25.0)},
        {'crs': 'EPSG:3857', 'res': 12.0},
    ],
    ids=str,
)
def test_another_crs_or_resolution_gives_the_pixels_that_torchgeo_gives(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    files = [write(tmp_path / 'scene.tif', with_hole(pixels(), 0), nodata=0, **TILED)]
    given = options | ({'crs': rasterio.crs.CRS.from_user_input(options['crs'])} if 'crs' in options else {})
    stock, ours = RasterDataset(files, **given), Scenes(files, **options)
    assert ours.bounds == stock.bounds
    assert ours.res == stock.res
    assert assert_same(stock, ours, queries_over(stock)) > QUERIES // 4


def test_a_step_in_the_query_is_a_resolution(tmp_path: Path) -> None:
    files = [write(tmp_path / 'scene.tif', pixels(), **TILED)]
    stock, ours = RasterDataset(files), Scenes(files)
    finer = [(slice(x.start, x.stop, 4.0), slice(y.start, y.stop, 25.0)) for x, y in queries_over(stock, 30)]
    assert assert_same(stock, ours, finer) > 10


def test_dated_scenes_answer_for_their_time(tmp_path: Path) -> None:
    class Dated(RasterDataset):
        filename_regex = r'S2_(?P<date>\d{8})'
        date_format = '%Y%m%d'

    files = [
        write(tmp_path / f'S2_{date}.tif', pixels(seed=k), origin=(500_000 + 300.0 * k, 4_900_000), **TILED)
        for k, date in enumerate(('20170918', '20171008', '20180401'))
    ]
    stock, ours = Dated(files), Scenes(files)
    assert ours.bounds == stock.bounds
    times = [
        slice(pd.Timestamp(2017, 9, 1), pd.Timestamp(2017, 9, 30)),
        slice(pd.Timestamp(2017, 9, 18, 12), pd.Timestamp(2017, 12, 31)),
        slice(pd.Timestamp(2017, 9, 1), pd.Timestamp(2019, 1, 1), 2),
        slice(pd.Timestamp(2020, 1, 1), pd.Timestamp(2021, 1, 1)),
        slice(None),
    ]
    queries = [(*query, times[k % len(times)]) for k, query in enumerate(queries_over(stock))]
    assert assert_same(stock, ours, queries) > QUERIES // 4
    october = ours[500_300:502_100, 4_898_500:4_900_000, pd.Timestamp(2017, 10, 1) : pd.Timestamp(2017, 11, 1)]
    np.testing.assert_array_equal(october['image'].numpy(), pixels(seed=1))


def test_bands_by_name_are_those_torchgeo_takes_by_position(tmp_path: Path) -> None:
    names = ('B02', 'B03', 'B04', 'B08')

    class Named(RasterDataset):
        all_bands = names

    files = [write(tmp_path / 'scene.tif', pixels((4, 150, 180)), names=names, **TILED)]
    for bands in (('B08', 'B02'), ('B04', 'B03', 'B02'), ('B8', 'b2')):
        canonical = [f'B0{band[-1]}' for band in bands]
        assert assert_same(Named(files, bands=canonical), Scenes(files, bands=bands), queries_over(Named(files), 20))


@pytest.mark.parametrize('nodata', [None, 0])
def test_an_alpha_band_hides_pixels_and_is_no_band(tmp_path: Path, nodata: float | None) -> None:
    class Picture(RasterDataset):
        all_bands = ('red', 'green', 'blue', 'alpha')

    array = pixels((4, 150, 180), 'uint8')
    array[3] = np.where(np.random.default_rng(1).random((150, 180)) < 0.3, 0, 255)
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    files = [write(tmp_path / 'scene.tif', array, colours=colours, nodata=nodata, **TILED)]
    ours, stock = Scenes(files), Picture(files, bands=('red', 'green', 'blue'))
    assert ours.bands == ('red', 'green', 'blue')
    assert assert_same(stock, ours, queries_over(stock, 40)) > 10
    chip = ours[ours.query(0, Window(10, 20, 30, 40))]
    np.testing.assert_array_equal(chip['valid'][0].numpy(), array[3, 10:40, 20:60] > 0)


HIDDEN = np.random.default_rng(2).random((150, 180)) < 0.3


def masked(folder: Path, kind: str, **options: Any) -> Path:
    """A file some of whose pixels are hidden by an alpha band or a mask."""
    if kind == 'alpha':
        array = pixels((4, 150, 180), 'uint8')
        array[3] = np.where(HIDDEN, 0, 255)
        colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        return write(folder / 'scene.tif', array, colours=colours, **TILED, **options)
    path = write(folder / 'scene.tif', pixels(), **TILED, **options)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == 'internal mask'), rasterio.open(path, 'r+') as file:
        file.write_mask(~HIDDEN)
    return path


@pytest.mark.parametrize('cache', ['none', 'disk'])
@pytest.mark.parametrize('nodata', [None, 77])
@pytest.mark.parametrize('kind', ['alpha', 'internal mask', 'mask file'])
def test_under_a_mask_a_chip_shows_what_torchgeo_shows(
    tmp_path: Path, kind: str, nodata: float | None, cache: Any
) -> None:
    path = masked(tmp_path, kind, nodata=nodata)
    ours = Scenes(path, cache=cache)
    stock = RasterDataset([path])
    stock.band_indexes = [1, 2, 3]
    windows = [Window(0, 0, 150, 180), *(Window(7 * k, 11 * k, 60, 60) for k in range(8))]
    chips = ours.__getitems__([ours.query(0, window) for window in windows[1:]])
    for window, chip in zip(windows, [ours[ours.query(0, windows[0])], *chips], strict=True):
        want = stock[tuple(ours.query(0, window))]['image'].numpy()
        np.testing.assert_array_equal(chip['image'].numpy(), want)
        hidden = HIDDEN[window.row : window.row + window.height, window.col : window.col + window.width]
        assert not chip['valid'][0].numpy()[hidden].any()


def test_a_folder_of_single_band_files_is_one_scene(tmp_path: Path) -> None:
    class Separate(RasterDataset):
        filename_glob = 'T*_B02_10m.tif'
        filename_regex = r'^T31UFT_(?P<date>\d{8}T\d{6})_(?P<band>B0\d)_10m'
        date_format = '%Y%m%dT%H%M%S'
        all_bands = ('B02', 'B03', 'B04')
        separate_files = True

    for k, date in enumerate(('20240601T104031', '20240604T104031')):
        for b, band in enumerate(('B02', 'B03', 'B04')):
            write(
                tmp_path / f'T31UFT_{date}_{band}_10m.tif',
                pixels((1, 150, 180), seed=10 * k + b),
                origin=(500_000 + 700.0 * k, 4_900_000),
                nodata=0,
                **TILED,
            )
    for bands in (None, ('B04', 'B02')):
        stock, ours = Separate(tmp_path, bands=bands), Scenes(tmp_path, bands=bands)
        assert len(ours) == 2
        assert ours.bounds == stock.bounds
        assert assert_same(stock, ours, queries_over(stock, 32)) > 8


def test_a_multi_band_file_and_a_folder_of_bands_make_one_mosaic(tmp_path: Path) -> None:
    array = pixels((2, 60, 80))
    write(tmp_path / 'a.tif', array[:, :, :40], names=('B02', 'B03'))
    for k, band in enumerate(('B02', 'B03')):
        write(tmp_path / f'b_{band}.tif', array[k : k + 1, :, 40:], origin=(ORIGIN[0] + 400, ORIGIN[1]))
    for order in (['a.tif', 'b_B02.tif', 'b_B03.tif'], ['b_B02.tif', 'b_B03.tif', 'a.tif']):
        ours = Scenes([tmp_path / name for name in order])
        np.testing.assert_array_equal(ours[:, :]['image'].numpy(), array)


# Which way a query goes.


@pytest.fixture
def merges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each call of rasterio's merge."""
    from torchgeo_msssl.datasets import slices as module

    calls: list[int] = []
    real = rasterio.merge.merge

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(module, 'merge', counted)
    return calls


@pytest.mark.parametrize('case', ['pixel-interleaved', 'nodata', 'drone, 3.21 cm', 'float32 with NaN', 'two zones'])
def test_queries_on_pixel_edges_are_read_without_a_merge(tmp_path: Path, case: str, merges: list[int]) -> None:
    files = CASES[case](tmp_path)
    ours, first = Scenes(files), RasterDataset(files[:1])
    x, y, _ = first.bounds
    for query in queries_over(first, 40, aligned=True):
        if query[0].stop <= x.start + 900 * first.res[0] and query[0].stop > x.start:
            answer(ours, query)
    if case == 'two zones':
        assert len(merges) < 40  # where both scenes are met
        ours[x.start : x.start + 300, y.stop - 300 : y.stop]
        assert len(merges) < 40
    else:
        assert not merges
    ours[x.start + 0.3 * first.res[0] : x.start + 20.3 * first.res[0], y.stop - 10 * first.res[1] : y.stop]
    assert merges


def test_queries_over_two_scenes_are_merged(tmp_path: Path, merges: list[int]) -> None:
    ours = Scenes(CASES['two side by side'](tmp_path))
    ours[501_000:501_800, 4_899_500:4_900_000]
    assert not merges
    ours[501_000:501_810, 4_899_500:4_900_000]
    assert len(merges) == 1


# Chips.


@pytest.mark.parametrize('dtype', ['uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'float32', 'float64'])
@pytest.mark.parametrize('cache', ['none', 'disk'])
def test_a_chip_is_the_window_of_the_file_in_its_dtype(tmp_path: Path, dtype: str, cache: Any) -> None:
    array = pixels((2, 70, 90), dtype)
    path = write(tmp_path / 'scene.tif', array, **TILED)
    ours = Scenes(path, cache=cache)
    for window in (Window(0, 0, 70, 90), Window(3, 5, 17, 33), Window(69, 89, 1, 1), Window(20, 0, 5, 90)):
        with warnings.catch_warnings():
            warnings.simplefilter('error')  # a tensor over a read-only map would be told of
            chip = ours[ours.query(0, window)]
        rows, cols = slice(window.row, window.row + window.height), slice(window.col, window.col + window.width)
        np.testing.assert_array_equal(chip['image'].numpy(), array[:, rows, cols], strict=True)
        assert chip['valid'].shape == (1, window.height, window.width)
        assert chip['valid'].all()
        assert chip['window'].tolist() == [window.row, window.col, window.height, window.width]
        assert int(chip['scene']) == 0
        batch = collate([chip, chip])
        assert batch['image'].dtype == ours.dtype == chip['image'].dtype


@pytest.mark.parametrize('cache', ['none', 'disk'])
def test_valid_is_false_where_any_band_lacks_data_or_the_scene_ends(tmp_path: Path, cache: Any) -> None:
    array = with_hole(pixels(), 0)
    ours = Scenes(write(tmp_path / 'scene.tif', array, nodata=0, **TILED), cache=cache)
    chip = ours[ours.query(0, Window(-10, 100, 120, 100))]
    want = np.zeros((120, 100), dtype=bool)
    want[10:, :80] = (array[:, :110, 100:] != 0).all(axis=0)
    np.testing.assert_array_equal(chip['valid'][0].numpy(), want)
    assert (chip['image'][:, :10] == 0).all()
    plain = ours[ORIGIN[0] : ORIGIN[0] + 2000, ORIGIN[1] - 1000 : ORIGIN[1]]  # 20 columns beyond the east
    np.testing.assert_array_equal(plain['valid'][0, :, :180].numpy(), (array[:, :100] != 0).all(axis=0))
    assert not plain['valid'][0, :, 180:].any()


def test_0_in_a_quality_layer_is_data(tmp_path: Path) -> None:
    array = pixels()
    array[2], array[0, :9] = 0, 0
    ours = Scenes(write(tmp_path / 'scene.tif', array, names=('B02', 'B03', 'QA60')))
    for sample in (ours[ours.query(0, Window(0, 0, 150, 180))], ours[:, :], ours[ORIGIN[0] - 3 : ORIGIN[0] + 1797, :]):
        assert not sample['valid'][0, :9].any()
        assert sample['valid'][0, 9:, 1:].all()


def test_nan_and_mask_files_count_as_no_data(tmp_path: Path) -> None:
    ours = Scenes(write(tmp_path / 'nan.tif', FLOAT, **TILED))  # NaN without a declared nodata value
    chip = ours[ours.query(0, Window(0, 0, 150, 180))]
    np.testing.assert_array_equal(chip['valid'][0].numpy(), np.isfinite(FLOAT).all(axis=0))
    mask = np.random.default_rng(0).random((150, 180)) < 0.7
    path = write(tmp_path / 'masked.tif', pixels())
    with rasterio.open(path, 'r+') as file:
        file.write_mask(mask)
    ours = Scenes(path)
    np.testing.assert_array_equal(ours[ours.query(0, Window(0, 0, 150, 180))]['valid'][0].numpy(), mask)
    assert assert_same(RasterDataset([path]), ours, queries_over(RasterDataset([path]), 60))


def test_a_chip_of_many_crs_and_resolutions_is_on_its_own_grid(tmp_path: Path) -> None:
    arrays = [pixels(seed=k) for k in range(3)]
    files = [
        write(tmp_path / 'a.tif', arrays[0]),
        write(tmp_path / 'b.tif', arrays[1], crs='EPSG:32632', origin=(30_000, 4_900_000)),
        write(tmp_path / 'c.tif', arrays[2], crs='EPSG:4326', res=1e-4, origin=(3.0, 44.0)),
    ]
    ours = Scenes(files)
    window = Window(11, 22, 33, 44)
    for i, array in enumerate(arrays):
        query = ours.query(i, window)
        np.testing.assert_array_equal(ours[query]['image'].numpy(), array[:, 11:44, 22:66])
        left, bottom, right, top = ours.scenes[i].grid.window_bounds(window)
        (x0, x1), (y0, y1) = transform_points(ours.scenes[i].grid.crs, ours.crs, [left, right], [bottom, top])
        assert query[0].start <= min(x0, x1) + 1e-6
        assert query[0].stop >= max(x0, x1) - 1e-6
        assert query[1].start <= min(y0, y1) + 1e-6


def test_chips_brought_to_one_grid_show_the_ground_they_say(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(200, dtype='float32'), (1, 200, 200)).copy()  # value = column = 10 m of easting
    ours = Scenes(write(tmp_path / 'scene.tif', ramp, **TILED), crs='EPSG:32632', res=10.0)
    grid = ours.scenes[0].grid
    assert grid.res == (10.0, 10.0)
    assert grid.crs.to_epsg() == 32632
    window = Window(grid.height // 2 - 20, grid.width // 2 - 20, 40, 40)
    chip = ours[ours.query(0, window)]
    assert chip['valid'].all()
    rows, cols = np.mgrid[:40, :40]
    xs, ys = grid.transform @ (cols.ravel() + window.col + 0.5, rows.ravel() + window.row + 0.5)
    east, _ = transform_points('EPSG:32632', 'EPSG:32631', xs, ys)
    want = (np.array(east) - ORIGIN[0]) / 10 - 0.5
    assert np.abs(chip['image'].numpy().ravel() - want).max() <= 0.7
    corner = ours[ours.query(0, Window(0, 0, 8, 8))]
    assert not corner['valid'].all()


def test_scale_and_offset_travel_with_the_chip(tmp_path: Path) -> None:
    for date in ('20210601', '20230601'):
        write(tmp_path / f'T31UFT_{date}T104031.tif', pixels((2, 40, 40)), names=('B02', 'B08'))
    ours = Scenes(tmp_path)
    before, after = (ours[ours.query(i, Window(0, 0, 8, 8))] for i in range(2))
    assert before['scale'].tolist() == pytest.approx([1e-4, 1e-4])
    assert before['offset'].tolist() == [0, 0]
    assert after['offset'].tolist() == [-1000, -1000]
    with pytest.warns(UserWarning, match='different scale or offset'):
        ours[:, :]


def test_a_partner_comes_under_its_own_keys(tmp_path: Path) -> None:
    arrays = [pixels(seed=k) for k in range(2)]
    ours = Scenes([write(tmp_path / f'{k}.tif', array) for k, array in enumerate(arrays)])
    chip = ours[ours.query(0, Window(1, 2, 8, 9), ours.query(1, Window(3, 4, 8, 9)))]
    np.testing.assert_array_equal(chip['image'].numpy(), arrays[0][:, 1:9, 2:11])
    np.testing.assert_array_equal(chip['positive'].numpy(), arrays[1][:, 3:11, 4:13])
    assert {'positive_valid', 'positive_scale', 'positive_offset'} <= set(chip)


def test_bands_lie_in_another_order_in_each_file(tmp_path: Path) -> None:
    array = pixels((3, 40, 40))
    files = [
        write(tmp_path / 'a.tif', array[[2, 1, 0]], names=('B04', 'B03', 'B02')),
        write(tmp_path / 'b.tif', array, names=('B02', 'B03', 'B04'), origin=(500_400, ORIGIN[1])),
    ]
    ours = Scenes(files, bands=['B02', 'B04'])
    for i in range(2):
        np.testing.assert_array_equal(ours[ours.query(i, Window(0, 0, 40, 40))]['image'].numpy(), array[[0, 2]])
        x = ORIGIN[0] + 400 * i
        np.testing.assert_array_equal(ours[x : x + 390, :]['image'].numpy(), array[[0, 2], :, :39])
    np.testing.assert_array_equal(ours[:, :]['image'].numpy(), np.concatenate([array[[0, 2]]] * 2, axis=2))


def test_a_batch_comes_in_the_order_asked(tmp_path: Path) -> None:
    ours = Scenes([write(tmp_path / f'{k}.tif', pixels(seed=k)) for k in range(2)])
    rng = np.random.default_rng(0)
    queries = [
        ours.query(int(rng.integers(2)), Window(int(rng.integers(90)), int(rng.integers(90)), 8, 8)) for _ in range(30)
    ]
    for query, sample in zip(queries, ours.__getitems__(queries), strict=True):
        assert (int(sample['scene']), sample['window'].tolist()[:2]) == (
            query.scene,
            [query.window.row, query.window.col],
        )


@pytest.mark.parametrize('cache', ['none', 'disk'])
def test_a_batch_holds_what_each_chip_holds_by_itself(tmp_path: Path, cache: Any) -> None:
    files = [
        write(tmp_path / '0.tif', with_hole(pixels(), 0), nodata=0, **TILED),
        write(tmp_path / '1.tif', pixels(dtype='int16', seed=1), interleave='band', **TILED),
    ]
    ours = Scenes(files, cache=cache)
    rng = np.random.default_rng(0)

    def some(side: int) -> ChipQuery:
        return ours.query(int(rng.integers(2)), Window(*rng.integers(-9, 120, 2).tolist(), side, side))

    for sides in ([40] * 30, [40, 20] * 5):
        queries = [some(side) for side in sides]
        queries[3] = ours.query(0, queries[3].window, some(sides[3]))
        for query, sample in zip(queries, ours.__getitems__(queries), strict=True):
            alone = ours[query]
            assert sample.keys() == alone.keys()
            for key, value in alone.items():
                assert sample[key].dtype == value.dtype
                assert torch.equal(sample[key].to(torch.float64), value.to(torch.float64)), key


def test_a_sample_says_what_torchgeo_says_of_the_same_query(tmp_path: Path) -> None:
    files = CASES['drone, 3.21 cm'](tmp_path)
    stock, ours = RasterDataset(files), Scenes(files)
    query = ours.query(0, Window(11, 22, 33, 44))
    want, got = stock[tuple(query)], ours[query]
    for key in ('bounds', 'transform'):
        assert torch.equal(got[key], want[key])
        assert got[key].dtype == want[key].dtype


def test_a_batch_of_chips_is_stacked_without_a_copy(tmp_path: Path) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', pixels((3, 300, 300)), **TILED))
    queries = [ours.query(0, Window(k, 2 * k, 64, 64), ours.query(0, Window(9, k, 64, 64))) for k in range(5)]
    samples = ours.__getitems__(queries)
    batch = collate(samples)
    for key in ('image', 'valid', 'positive'):
        assert batch[key].data_ptr() == samples[0][key].data_ptr()
        assert torch.equal(batch[key], torch.stack([sample[key] for sample in samples]))
        assert batch[key].is_contiguous()
    turned = collate(samples[::-1])
    assert turned['image'].data_ptr() != samples[-1]['image'].data_ptr()
    assert torch.equal(turned['image'], batch['image'].flip(0))
    twice = collate([samples[1], samples[1]])
    assert torch.equal(twice['image'][0], twice['image'][1])
    gap = collate([samples[0], samples[2]])
    assert torch.equal(gap['image'][1], samples[2]['image'])


def test_chips_travel_in_their_own_dtype_from_a_worker(tmp_path: Path) -> None:
    """Half the bytes of floats, on the way from the worker and to the device."""
    array = pixels((3, 300, 300))
    ours = Scenes(write(tmp_path / 'scene.tif', array, **TILED))
    queries: list[Any] = [ours.query(0, Window(k, 2 * k, 64, 64)) for k in range(8)]
    for batch in DataLoader(ours, batch_size=4, sampler=queries, num_workers=1, collate_fn=collate, timeout=100):
        assert batch['image'].dtype == torch.uint16
        for image, window in zip(batch['image'], batch['window'].tolist(), strict=True):
            row, col = window[:2]
            np.testing.assert_array_equal(image.numpy(), array[:, row : row + 64, col : col + 64])


def shared(samples: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Whether images and validity are shared with the main process before a queue would have to copy them."""
    batch = collate(samples)
    return torch.tensor([batch[key].is_shared() for key in ('image', 'valid')])


def test_a_worker_reads_to_where_the_main_process_finds_it(tmp_path: Path) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', pixels((3, 300, 300)), **TILED))
    queries: list[Any] = [ours.query(0, Window(k, 2 * k, 64, 64)) for k in range(4)]
    for workers in (0, 1):
        (found,) = DataLoader(ours, batch_size=4, sampler=queries, num_workers=workers, collate_fn=shared)
        assert found.tolist() == [workers > 0] * 2


def test_decoded_scenes_stay_below_a_limit(tmp_path: Path) -> None:
    files = [write(tmp_path / f'{k}.tif', pixels(seed=k)) for k in range(3)]
    tile = 256 * 256 * 2 * 3 + 1000
    ours = Scenes(files[:2], cache='disk', cache_dir=tmp_path / 'small', cache_size=2 * tile)
    for i in range(2):
        assert ours[ours.query(i, Window(0, 0, 9, 9))]['valid'].all()
    assert len(list((tmp_path / 'small').iterdir())) == 2
    with pytest.raises(ConfigurationError, match=r'cache_size: 3 scene\(s\) need'):
        Scenes(files, cache='disk', cache_dir=tmp_path / 'small', cache_size=2 * tile).decode(0)
    with pytest.raises(ConfigurationError, match='cache_size: expected bytes or text'):
        Scenes(files, cache_size='much')


@pytest.mark.parametrize('cache', ['none', 'disk'])
def test_a_scene_that_is_replaced_is_read_anew(tmp_path: Path, cache: Any) -> None:
    first, second = pixels(), pixels(seed=1)
    path = write(tmp_path / 'scene.tif', first)
    limit = 256 * 256 * 2 * 3 + 1000  # the old one makes room
    ours = Scenes(path, cache=cache, cache_dir=tmp_path / 'decoded', cache_size=limit)
    query = ours.query(0, Window(3, 4, 50, 60))
    np.testing.assert_array_equal(ours[query]['image'].numpy(), first[:, 3:53, 4:64])
    os.replace(write(tmp_path / 'new.tif', second), path)
    np.testing.assert_array_equal(ours[query]['image'].numpy(), second[:, 3:53, 4:64])


def test_decoded_scenes_of_a_run_that_is_over_make_room(tmp_path: Path) -> None:
    files = [write(tmp_path / f'{k}.tif', pixels(seed=k)) for k in range(2)]
    for file in files:
        ours = Scenes(file, cache='disk', cache_dir=tmp_path / 'small', cache_size=256 * 256 * 2 * 3 + 1000)
        ours.decode(0)
    assert len(list((tmp_path / 'small').iterdir())) == 1


# In company with TorchGeo.


def test_intersection_and_union_with_torchgeo_datasets(tmp_path: Path) -> None:
    class Mask(RasterDataset):
        is_image = False

    scene = [write(tmp_path / 'scene.tif', pixels(), **TILED)]
    mask = [write(tmp_path / 'mask.tif', pixels((1, 150, 180), 'uint8', seed=3), origin=(500_300, 4_899_800))]
    stock, ours = RasterDataset(scene) & Mask(mask), Scenes(scene) & Mask(mask)
    assert ours.bounds == stock.bounds
    x, y, _ = ours.bounds
    for query in ((slice(None), slice(None)), (slice(x.start + 50, x.start + 333), slice(y.start, y.start + 200))):
        want, got = stock[query], ours[query]
        np.testing.assert_array_equal(got['image'].float().numpy(), want['image'].numpy())
        np.testing.assert_array_equal(got['mask'].numpy(), want['mask'].numpy())
    both = Scenes(scene) & Scenes([write(tmp_path / 'b.tif', pixels(seed=5), **TILED)])
    assert both[:, :]['image'].shape[0] == 6

    more = [write(tmp_path / 'more.tif', pixels(seed=4), origin=(500_900, 4_899_500), **TILED)]
    union = RasterDataset(scene) | RasterDataset(more)
    for ours_too in (Scenes(scene) | Scenes(more), Scenes(scene) | RasterDataset(more)):
        np.testing.assert_array_equal(ours_too[:, :]['image'].float().numpy(), union[:, :]['image'].numpy())
    np.testing.assert_array_equal(
        (RasterDataset(scene) | Scenes(more))[:, :]['image'].float().numpy(), union[:, :]['image'].numpy()
    )


def test_a_dataset_that_another_brought_to_its_crs_still_agrees(tmp_path: Path) -> None:
    first = [write(tmp_path / 'a.tif', pixels(), crs='EPSG:32632', origin=place_near('EPSG:32632', *ORIGIN))]
    second = [write(tmp_path / 'b.tif', pixels(seed=1), **TILED)]
    stock, ours = RasterDataset(second), Scenes(second)
    before = ours.query(0, Window(0, 0, 10, 10))
    _ = RasterDataset(first) & stock
    _ = RasterDataset(first) & ours
    assert ours.crs == stock.crs != rasterio.crs.CRS.from_epsg(32631)
    assert assert_same(stock, ours, queries_over(stock, 60)) > 10
    after = ours.query(0, Window(0, 0, 10, 10))
    (x,), _ = transform_points('EPSG:32631', 'EPSG:32632', [before[0].start], [before[1].stop])
    assert abs(after[0].start - x) < 10


def test_torchgeo_samplers_work(tmp_path: Path) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', pixels(), **TILED))
    for sampler in (RandomPatchSampler(ours, size=32, length=12), GriddedPatchSampler(ours, size=64, stride=64)):
        for batch in DataLoader(ours, batch_size=4, sampler=sampler, collate_fn=stack_samples):
            assert batch['image'].dtype == torch.uint16
            assert batch['image'].shape[1] == 3


# Processes and threads.


def chips_of(ours: Scenes, count: int = 200, side: int = 24) -> list[ChipQuery]:
    rng = np.random.default_rng(3)
    grid = ours.scenes[0].grid
    rows, cols = rng.integers(0, grid.height - side, count), rng.integers(0, grid.width - side, count)
    return [ours.query(0, Window(int(r), int(c), side, side)) for r, c in zip(rows, cols, strict=True)]


def count_wrong(
    dataset: RasterDataset, queries: Sequence[ChipQuery], array: NDArray[Any], context: str, *, plain: bool = False
) -> int:
    """Chips that differ from the array, read by two workers after the main process has read one."""
    asked: list[Any] = [tuple(query[:2]) for query in queries] if plain else list(queries)
    dataset[asked[0]]
    load = DataLoader(
        dataset,
        batch_size=4,
        sampler=asked,
        num_workers=2,
        timeout=100,
        collate_fn=list,
        multiprocessing_context=context,
    )
    samples = [sample for batch in load for sample in batch]
    assert len(samples) == len(queries)
    wrong = 0
    for query, sample in zip(queries, samples, strict=True):
        row, col, height, width = query.window.row, query.window.col, query.window.height, query.window.width
        want = array[:, row : row + height, col : col + width].astype('float32')
        wrong += not np.array_equal(sample['image'].to(torch.float32).numpy(), want)
    return wrong


@pytest.mark.parametrize('compress', first_fast(['deflate', 'none']))
@pytest.mark.parametrize('cache', first_fast(['disk', 'none']))
def test_forked_workers_read_right_after_the_main_process_has_read(tmp_path: Path, compress: str, cache: Any) -> None:
    array = pixels((3, 500, 600))
    ours = Scenes(write(tmp_path / 'scene.tif', array, compress=compress), cache=cache)
    queries = chips_of(ours)
    assert count_wrong(ours, queries, array, 'fork') == 0
    assert count_wrong(ours, queries[:50], array, 'fork', plain=True) == 0


@pytest.mark.slow
@pytest.mark.parametrize('compress', ['none', 'deflate'])
def test_torchgeo_itself_reads_wrong_there(tmp_path: Path, compress: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for handles of our own. If it is skipped one day, TorchGeo has mended it."""
    # a worker may hang in a lock that it has inherited; seconds until it is given up
    monkeypatch.setattr(torch.utils.data._utils, 'MP_STATUS_CHECK_INTERVAL', 0.5)
    array = pixels((3, 500, 600))
    path = write(tmp_path / 'scene.tif', array, compress=compress)
    try:
        wrong = count_wrong(RasterDataset([path]), chips_of(Scenes(path), 400), array, 'fork', plain=True)
    except rasterio.errors.RasterioError:
        wrong = 1  # torn blocks that could not even be decoded
    gc.collect()  # ends the workers here, and not in the middle of another test
    if not wrong:
        pytest.skip('this TorchGeo hands out right chips here')


@pytest.mark.slow
@pytest.mark.parametrize('compress', ['none', 'deflate'])
def test_spawned_workers_read_right_after_the_main_process_has_read(tmp_path: Path, compress: str) -> None:
    array = pixels((3, 200, 300))
    ours = Scenes(
        write(tmp_path / 'scene.tif', array, compress=compress), cache='disk' if compress == 'none' else 'none'
    )
    assert count_wrong(ours, chips_of(ours, 60), array, 'spawn') == 0


def test_what_goes_to_a_spawned_worker_is_small_and_whole(tmp_path: Path) -> None:
    array = pixels((3, 400, 400))
    ours = Scenes(write(tmp_path / 'scene.tif', with_hole(array, 0), nodata=0), cache='disk')
    query = ours.query(0, Window(1, 2, 3, 4), ours.query(0, Window(5, 6, 3, 4)))
    ours[query]
    ours.valid_cells(0)
    sent = pickle.dumps(ours)
    assert len(sent) < 50_000  # the decoded scene alone has 960,000 bytes
    copy = pickle.loads(sent)
    again = pickle.loads(pickle.dumps(query))
    assert (type(again), again, again.scene, again.window) == (ChipQuery, query, 0, Window(1, 2, 3, 4))
    assert again.positive.window == Window(5, 6, 3, 4)
    assert torch.equal(copy[again]['positive'], ours[query]['positive'])
    assert copy.valid_cells(0).total == ours.valid_cells(0).total
    assert ours.decode(0) is ours.decode(0)  # the original keeps what it has


def test_threads_read_right(tmp_path: Path) -> None:
    array = pixels((3, 500, 600))
    ours = Scenes(write(tmp_path / 'scene.tif', array))
    queries = chips_of(ours, 400)
    start = threading.Barrier(4)

    def read(part: int) -> int:
        start.wait()
        wrong = 0
        for query in queries[part::4]:
            w = query.window
            want = array[:, w.row : w.row + w.height, w.col : w.col + w.width]
            wrong += not np.array_equal(ours[query]['image'].numpy(), want)
        close_datasets()
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(read, range(4))) == 0


def test_sidecars_and_names_are_seen_where_torchgeo_hides_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(0).random((150, 180)) < 0.7
    path = write(tmp_path / 'masked.tif', pixels(), names=('B02', 'B03', 'B04'))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, 'r+') as file:
        file.write_mask(mask)
    assert (tmp_path / 'masked.tif.msk').exists()
    world = tmp_path / 'world.tif'
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        write(world, pixels(), placed=False)
    world.with_suffix('.tfw').write_text('2.5\n0\n0\n-2.5\n600001.25\n4899998.75\n')
    monkeypatch.setenv('GDAL_DISABLE_READDIR_ON_OPEN', 'EMPTY_DIR')
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN='EMPTY_DIR'):
        with rasterio.open(path) as file:
            assert file.read_masks(1).all()  # so it is hidden indeed
        ours = Scenes(path)
        assert ours.bands == ('B02', 'B03', 'B04')
        chip = ours[ours.query(0, Window(0, 0, 150, 180))]
        np.testing.assert_array_equal(chip['valid'][0].numpy(), mask)
        grid = Scenes(world).scenes[0].grid
        assert grid.transform == Affine(2.5, 0, 600_000, 0, -2.5, 4_900_000)
        assert grid.crs.to_epsg() == 32631


# What it says when it cannot.


def test_errors_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    path = write(tmp_path / 'scene.tif', pixels(), names=('B02', 'B03', 'B04'))
    with pytest.raises(ScenesNotFoundError, match=re.escape(str(tmp_path / 'no' / '*.tif'))):
        Scenes(tmp_path / 'no' / '*.tif')
    with pytest.raises(BandError, match=r'scene.tif: has no band B08; it has 3: B02, B03, B04'):
        Scenes(path, bands=['B02', 'B08'])
    with pytest.raises(BandError, match='name each once'):
        Scenes(path, bands=['B02', 'B2'])
    with pytest.raises(BandError, match="sensor: unknown sensor 'sentinel9'"):
        Scenes(path, sensor='sentinel9')
    with pytest.raises(ConfigurationError, match='cache'):
        Scenes(path, cache='ram')  # type: ignore[arg-type]
    with pytest.raises(MissingCRSError, match=r'bare.tif'):
        Scenes(write(tmp_path / 'bare.tif', pixels(), crs=None), crs='EPSG:32631')
    (tmp_path / 'text.tif').write_text('no raster')
    with pytest.raises(SceneReadError, match=r'text.tif'):
        Scenes(tmp_path / 'text.tif')
    ours = Scenes(path)
    with pytest.raises(EmptyIntersectionError, match='meets none of the 1 scene'):
        ours[0:10, 0:10]


def test_a_file_cut_short_is_named_with_the_window(tmp_path: Path) -> None:
    path = write(tmp_path / 'scene.tif', pixels((3, 300, 300)), **TILED)
    content = path.read_bytes()
    ours = Scenes(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SceneReadError, match=r'scene.tif: cannot be read at rows 260:300, columns 200:240'):
        ours[ours.query(0, Window(260, 200, 40, 40))]


def test_transforms_see_the_sample(tmp_path: Path) -> None:
    def add(sample: dict[str, Any]) -> dict[str, Any]:
        return sample | {'seen': torch.tensor(sorted(sample).index('image'))}

    ours = Scenes(write(tmp_path / 'scene.tif', pixels()), transforms=add)
    assert 'seen' in ours[ours.query(0, Window(0, 0, 4, 4))]
    assert 'seen' in ours[:, :]
