"""Masks lie where the labels are, on every grid, in every process, and unlabelled is not background."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform as transform_points
from shapely.geometry import LineString, Point, box
from torch.utils.data import DataLoader

from tests.real_data import DATA
from torchgeo_msssl.__main__ import main
from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.datasets.labels import LabelledScenes, Labels
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError, ScenesNotFoundError
from torchgeo_msssl.geo.chipping.labels import open_chip_labels
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.labels.vector import VectorLabels
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.sample import SampleArea
from torchgeo_msssl.samplers import GridChipSampler, RandomChipSampler, split_blocks

X, Y = 600_000.0, 5_000_000.0  # upper left corner of make_scene, EPSG:32631, 10 m
SHAPE = (90, 110)
CLASSES = ['ground', 'vine', 'tree']

type Maker = Callable[..., str]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_datasets()


@pytest.fixture
def image(make_scene: Maker, random_array: Callable[..., NDArray[Any]]) -> str:
    array = random_array((4, *SHAPE))
    array[:, :20, :30] = 0
    return make_scene('image.tif', array, nodata=0, names=['B02', 'B03', 'B04', 'B08'])


@pytest.fixture
def classes() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8)


@pytest.fixture
def drawn(tmp_path: Path) -> str:
    """Circles and rows across the whole image."""
    rng = np.random.default_rng(4)
    shapes = [Point(X + x, Y - y).buffer(60) for x, y in rng.uniform(0, (1100, 900), (40, 2))]
    path = tmp_path / 'drawn.gpkg'
    gpd.GeoDataFrame({'kind': rng.integers(1, 3, 40)}, geometry=shapes, crs=32631).to_file(path)
    return str(path)


def whole(labels: Labels, scenes: Scenes, i: int = 0) -> NDArray[np.uint8]:
    grid = scenes.scenes[i].grid
    return labels.mask_for(grid, grid.window, scenes.index.index[i])


# Mask rasters


def test_a_mask_on_the_images_grid_is_read_as_it_is(make_scene: Maker, image: str, classes: NDArray[np.uint8]) -> None:
    scenes = Scenes(image)
    labels = Labels(make_scene('mask.tif', classes), CLASSES)
    np.testing.assert_array_equal(whole(labels, scenes), classes)
    data = LabelledScenes(scenes, labels)
    valid = np.ones(SHAPE, dtype=bool)
    valid[:20, :30] = False
    for window in (Window(0, 0, 32, 48), Window(50, 70, 40, 40), Window(70, 90, 40, 40)):
        sample = data[scenes.query(0, window)]
        assert sample['mask'].dtype == torch.int64
        assert sample['image'].shape[-2:] == sample['mask'].shape == (window.height, window.width)
        want = np.full((window.height, window.width), 255)  # beyond the image, and where it has no data
        inside = window.intersection(scenes.scenes[0].grid.window)
        assert inside is not None
        part = np.where(valid, classes, 255)[window.row : window.row + 40, window.col : window.col + 48]
        want[: inside.height, : inside.width] = part[: inside.height, : inside.width]
        np.testing.assert_array_equal(sample['mask'].numpy(), want)


def test_a_part_of_the_image_is_labelled(
    make_scene: Maker, image: str, classes: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    scenes = Scenes(image)
    part = make_scene('part.tif', classes[10:50, 20:70], transform=Affine(10, 0, X + 200, 0, -10, Y - 100))
    with caplog.at_level(logging.INFO):
        labels = Labels(part, CLASSES)
        LabelledScenes(scenes, labels)
        LabelledScenes(scenes, labels)
    assert caplog.text.count('covers a part of the image') == 1
    want = np.full(SHAPE, 255)
    want[10:50, 20:70] = classes[10:50, 20:70]
    np.testing.assert_array_equal(whole(labels, scenes), want)
    assert (np.where(want == 255, 0, want) == whole(Labels(part, CLASSES, background=True), scenes)).all()


@pytest.mark.parametrize(('crs', 'res'), [('EPSG:32631', 7.0), ('EPSG:32630', 13.0), ('EPSG:4326', 9e-5)])
def test_a_mask_on_another_grid_gives_each_pixel_the_value_under_its_centre(
    make_scene: Maker, image: str, crs: str, res: float, caplog: pytest.LogCaptureFixture
) -> None:
    scenes = Scenes(image)
    grid = scenes.scenes[0].grid
    (left,), (top,) = transform_points(grid.crs, crs, [X + 55], [Y - 20])
    values = np.random.default_rng(0).integers(0, 3, (100, 90)).astype(np.uint8)
    own = Affine(res, 0, left, 0, -res, top)
    labels = Labels(make_scene('other.tif', values, crs=crs, transform=own), CLASSES)
    with caplog.at_level(logging.INFO):
        LabelledScenes(scenes, labels)
        got = whole(labels, scenes)
    assert caplog.text.count('aligned by nearest neighbour') == 1  # said once
    rows, cols = np.indices(SHAPE) + 0.5
    xs, ys = transform_points(grid.crs, crs, (X + 10 * cols).ravel(), (Y - 10 * rows).ravel())
    col, row = (np.array(xs) - own.c) / own.a, (np.array(ys) - own.f) / own.e
    row, col = np.floor(row).astype(int), np.floor(col).astype(int)
    inside = (row >= 0) & (row < 100) & (col >= 0) & (col < 90)
    want = np.full(row.shape, 255)
    want[inside] = values[row[inside], col[inside]]
    assert (got.ravel() != want).mean() < 1e-3
    assert inside.mean() > 0.2
    for window in (Window(0, 0, 31, 37), Window(31, 37, 40, 40), Window(60, 70, 30, 40)):
        rows_, cols_ = slice(window.row, window.row + window.height), slice(window.col, window.col + window.width)
        np.testing.assert_array_equal(labels.mask_for(grid, window), got[rows_, cols_])


def test_nodata_masked_nan_and_ignore_are_unlabelled(
    make_scene: Maker, image: str, classes: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    scenes = Scenes(image)
    holes = classes.astype(np.float32)
    holes[0, :5], holes[1, :5], holes[2, :5] = 7, np.nan, 255
    mask = np.ones(SHAPE, dtype=bool)
    mask[3, :5] = False
    got = whole(Labels(make_scene('a.tif', holes, nodata=7), CLASSES), scenes)
    want = classes.copy()
    want[:3, :5] = 255
    np.testing.assert_array_equal(got, want)
    got = whole(Labels(make_scene('b.tif', classes, mask=mask), CLASSES), scenes)
    np.testing.assert_array_equal(got, np.where(mask, classes, 255))
    with caplog.at_level(logging.WARNING):
        got = whole(Labels(make_scene('c.tif', classes, nodata=0), CLASSES), scenes)
    assert "declares nodata 0, which would be class 'ground'" in caplog.text
    np.testing.assert_array_equal(got, np.where(classes == 0, 255, classes))


def test_values_that_are_no_classes_are_named(make_scene: Maker, image: str, classes: NDArray[np.uint8]) -> None:
    classes = classes.astype(np.int16)
    classes[40, 40:43] = 3, 300, -1
    labels = Labels(make_scene('mask.tif', classes), CLASSES)
    with pytest.raises(ConfigurationError, match=r'mask\.tif: holds the value\(s\) -1, 3, 300.*0 to 2'):
        whole(labels, Scenes(image))
    with pytest.raises(ConfigurationError, match=r'has 4 bands, and a mask has one'):
        Labels(image, CLASSES)
    with pytest.raises(ConfigurationError, match=r'buffer: is for vector files'):
        Labels(image, CLASSES, buffer=1.0)
    with pytest.raises(ScenesNotFoundError):
        Labels('nothing.tif', CLASSES)


def test_masks_of_several_dates_go_with_their_scenes(
    make_scene: Maker, random_array: Callable[..., NDArray[Any]]
) -> None:
    days = ('2021-05-01', '2021-06-01')
    for k, day in enumerate(days):
        make_scene(f'images/{day}.tif', random_array((1, 20, 20)))
        make_scene(f'masks/{day}.tif', np.full((20, 20), k, dtype=np.uint8))
    folder = Path(make_scene('images/2021-07-01.tif', random_array((1, 20, 20)))).parent
    scenes, labels = Scenes(folder), Labels(folder.parent / 'masks', CLASSES)
    assert [np.unique(whole(labels, scenes, i)).tolist() for i in range(3)] == [[0], [1], [255]]
    one = Labels(folder.parent / 'masks' / '2021-05-01.tif', CLASSES)  # a single mask holds for every date
    assert [np.unique(whole(one, scenes, i)).tolist() for i in range(3)] == [[0]] * 3
    late = Scenes(folder / '2021-07-01.tif')
    with pytest.raises(EmptyIntersectionError, match='dates in the names'):
        LabelledScenes(late, labels)


# Vectors


def test_chips_hold_what_rasterio_burns_on_the_whole(image: str, drawn: str) -> None:
    scenes, labels = Scenes(image), Labels(drawn, CLASSES, 'kind', background=True)
    data, grid = LabelledScenes(scenes, labels), scenes.scenes[0].grid
    frame = gpd.read_file(drawn)
    want = rasterize(
        zip(frame.geometry, frame['kind'].astype(int), strict=True), SHAPE, transform=grid.transform, dtype='uint8'
    ).astype(np.int64)
    want[:20, :30] = 255
    for query in GridChipSampler(scenes, 32, overlap=5):
        window = query.window
        rows, cols = slice(window.row, window.row + 32), slice(window.col, window.col + 32)
        np.testing.assert_array_equal(data[query]['mask'].numpy(), want[rows, cols])
    x, y = slice(X + 200, X + 600, 10), slice(Y - 500, Y - 100, 10)
    np.testing.assert_array_equal(data[x, y]['mask'].numpy(), want[10:50, 20:60])


def test_labels_and_images_intersect_as_in_torchgeo(image: str, drawn: str) -> None:
    far = Path(drawn).with_name('far.gpkg')
    gpd.read_file(drawn).to_crs('EPSG:4326').to_file(far)
    for path in (drawn, far):
        scenes, labels = Scenes(image), Labels(path, CLASSES, 'kind', background=True)
        x, y = slice(X + 200, X + 600), slice(Y - 500, Y - 100)
        sample = (scenes & labels)[x, y]
        assert sample['image'].shape == (4, 40, 40)
        want = Labels(drawn, CLASSES, 'kind', background=True).mask_for(scenes.scenes[0].grid, Window(10, 20, 40, 40))
        assert (sample['mask'].numpy() != want).mean() < 2e-3
    chip = scenes.query(0, Window(10, 20, 40, 40))
    np.testing.assert_array_equal(labels[chip]['mask'].numpy(), sample['mask'].numpy())
    with pytest.raises(IndexError):
        labels[slice(0, 10), slice(0, 10)]
    with pytest.raises(ConfigurationError, match='no pixel size'):
        Labels(drawn, CLASSES, 'kind', background=True)[x, y]


def test_a_chip_on_another_grid_than_its_slices_is_refused(
    make_scene: Maker, random_array: Callable[..., NDArray[Any]], image: str, drawn: str
) -> None:
    finer = make_scene('image_fine.tif', random_array((4, 80, 80)), res=5.0, names=['B02', 'B03', 'B04', 'B08'])
    scenes, labels = Scenes([image, finer]), Labels(drawn, CLASSES, 'kind', background=True, res=10.0)
    chip = scenes.query(1, Window(3, 5, 30, 30))
    with pytest.raises(ConfigurationError, match='use LabelledScenes'):
        labels[chip]
    mask = LabelledScenes(scenes, labels)[chip]['mask'].numpy()
    np.testing.assert_array_equal(mask, labels.mask_for(scenes.scenes[1].grid, chip.window))


@pytest.mark.parametrize('method', ['fork', pytest.param('spawn', marks=pytest.mark.slow)])
def test_workers_give_the_same_batches(image: str, drawn: str, method: str) -> None:
    scenes, labels = Scenes(image), Labels(drawn, CLASSES, 'kind', background=True)
    data = LabelledScenes(scenes, labels)

    def batches(**options: Any) -> list[torch.Tensor]:
        sampler = RandomChipSampler(scenes, 24, length=12, min_valid=0.5, seed=3)
        loader = DataLoader(data, batch_size=4, sampler=sampler, collate_fn=collate, **options)
        return [batch['mask'] for batch in loader]

    here = batches()
    there = batches(num_workers=1, multiprocessing_context=method)
    assert len(here) == len(there) == 3
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert {int(value) for batch in here for value in batch.unique()} >= {0, 1, 2}


def test_labels_that_do_not_touch_the_images(image: str, tmp_path: Path, make_scene: Maker) -> None:
    scenes, away = Scenes(image), tmp_path / 'away.gpkg'
    gpd.GeoDataFrame(geometry=[box(X + 9e4, Y, X + 9e4 + 10, Y + 10)], crs=32631).to_file(away)
    with pytest.raises(EmptyIntersectionError) as error:
        LabelledScenes(scenes, Labels(away, ['ground', 'vine'], background=True))
    for part in ('away.gpkg', 'image.tif', 'EPSG:32631', '690000', '600000'):
        assert part in str(error.value)
    mask = make_scene('away.tif', np.zeros((5, 5), dtype=np.uint8), transform=Affine(10, 0, X - 5e4, 0, -10, Y))
    with pytest.raises(EmptyIntersectionError, match=r'away\.tif .*does not touch .*image\.tif'):
        LabelledScenes(scenes, Labels(mask, CLASSES))


def test_scenes_without_labels_are_named(
    image: str,
    drawn: str,
    make_scene: Maker,
    random_array: Callable[..., NDArray[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ['B02', 'B03', 'B04', 'B08']
    bare = make_scene('bare.tif', random_array((4, 9, 9)), transform=Affine(10, 0, X + 5e4, 0, -10, Y), names=names)
    with caplog.at_level(logging.WARNING):
        LabelledScenes(Scenes([image, bare]), Labels(drawn, CLASSES, 'kind', background=False))
    assert '1 of 2 scenes have none' in caplog.text
    assert 'bare.tif' in caplog.text


def test_rasters_and_vectors_do_not_mix(image: str, drawn: str) -> None:
    with pytest.raises(ConfigurationError, match='one kind'):
        Labels([image, drawn], CLASSES)


# Counts


def test_counts_are_those_of_the_pixels_with_data(image: str, drawn: str, make_scene: Maker) -> None:
    scenes, labels = Scenes(image), Labels(drawn, [*CLASSES, 'house'], 'kind', background=True)
    mask = whole(labels, scenes)
    mask[:20, :30] = 255
    counts = labels.class_counts(scenes, progress=False)
    assert counts.tolist() == [int((mask == k).sum()) for k in range(4)]
    assert counts[3] == 0
    parts = split_blocks(scenes, (0.5, 0.5), block_size=16)
    by_part = sum(labels.class_counts(scenes, region=part) for part in parts)
    assert np.array_equal(by_part, counts)
    half = shapely.box(X, Y - 900, X + 500, Y)
    assert labels.class_counts(scenes, half, progress=False).tolist() == [
        int((mask[:, :50] == k).sum()) for k in range(4)
    ]


def test_labels_that_miss_every_pixel_with_data_are_an_error(image: str, tmp_path: Path) -> None:
    scenes = Scenes(image)
    for name, shape in {'speck': box(X + 501, Y - 503, X + 503, Y - 501), 'gap': box(X, Y - 50, X + 50, Y)}.items():
        gpd.GeoDataFrame(geometry=[shape], crs=32631).to_file(tmp_path / f'{name}.gpkg')
        labels = Labels(tmp_path / f'{name}.gpkg', ['ground', 'vine'], background=False)
        with pytest.raises(EmptyIntersectionError, match='labels no pixel that has data'):
            labels.class_counts(scenes, progress=False)


# The sample area and real data


def test_vines_of_the_sample_area(small_area: SampleArea) -> None:
    area = small_area
    scenes = Scenes(area.drone[0])
    grid = scenes.scenes[0].grid
    labels = Labels(area.vines, ['other', 'vine'], layer='rows', extent='parcels')
    data = LabelledScenes(scenes, labels)
    rows, parcels = (gpd.read_file(area.vines, layer=layer).geometry for layer in ('rows', 'parcels'))
    shape = (grid.height, grid.width)
    want = rasterize(rows, shape, transform=grid.transform, dtype='uint8')
    want[rasterize(parcels, shape, transform=grid.transform) == 0] = 255
    np.testing.assert_array_equal(labels.mask_for(grid, grid.window), want)
    counts = labels.class_counts(scenes, progress=False)
    assert 0.02 < counts[1] / counts.sum() < 0.5
    masks = [data[query]['mask'] for query in GridChipSampler(scenes, 128)]
    assert {int(value) for mask in masks for value in mask.unique()} == {0, 1, 255}


def test_land_cover_of_the_sample_area(small_area: SampleArea) -> None:
    area = small_area
    scenes = Scenes([*area.sentinel2])
    labels = Labels([*area.landcover_coarse], area.classes_coarse)
    assert labels.source.dates is None  # type: ignore[union-attr]
    LabelledScenes(scenes, labels)
    with rasterio.open(area.landcover_coarse[0]) as truth:
        want = truth.read(1)
    got = whole(labels, scenes)
    # in the overlap the other tile's mask lies on top: the same land
    assert (got == want).mean() > 0.99


def test_row_lines_keep_their_area(tmp_path: Path, image: str) -> None:
    line = LineString([(X + 3, Y - 4), (X + 40, Y - 30)])
    gpd.GeoDataFrame(geometry=[line], crs=32631).to_crs(4326).to_file(tmp_path / 'row.geojson')
    grid = PixelGrid(CRS.from_epsg(32631), Affine(0.04, 0, X, 0, -0.04, Y), 1000, 1200)
    labels = Labels(tmp_path / 'row.geojson', ['ground', 'vine'], buffer=0.35, background=True)
    area = labels.mask_for(grid, grid.window).sum() * 0.04**2
    assert area == pytest.approx(0.7 * line.length, rel=0.01)
    assert isinstance(labels.source, VectorLabels)


@pytest.mark.skipif(not DATA.is_dir(), reason='no real data next to the repository')
def test_real_masks_and_polygons_agree() -> None:
    folder = DATA / 'vineyard_aerial'
    scenes = Scenes(folder / 'aerial0.tif')
    drawn = Labels(folder / 'aerial0_vineyards.gpkg', ['other', 'vineyard'], 'class', background=True)
    painted = Labels(folder / 'aerial0_mask.tif', ['other', 'vineyard'])
    a, b = whole(drawn, scenes) == 1, whole(painted, scenes) == 1
    assert (a & b).sum() / (a | b).sum() > 0.98
    assert painted.class_counts(scenes, progress=False)[1] == b.sum()


@pytest.mark.skipif(not DATA.is_dir(), reason='no real data next to the repository')
def test_real_cloud_masks_go_by_date() -> None:
    folder = DATA / 's2_timeseries_lahinch'
    scenes = Scenes(folder / 'S2')
    classes = ['none', 'thick', 'thin', 'shadow']
    # the masks declare their 0 to be nodata: unlabelled, unless one says that it is a class
    strict, frank = (Labels(folder / 'cloudmask', classes, background=background) for background in (False, True))
    for i, scene in enumerate(scenes.scenes):
        with rasterio.open(folder / 'cloudmask' / Path(scene.path).name) as truth:
            want = truth.read(1)
        np.testing.assert_array_equal(whole(strict, scenes, i), np.where(want == 0, 255, want))
        np.testing.assert_array_equal(whole(frank, scenes, i), want)


# One meaning of options


def test_the_first_of_priority_is_on_top_everywhere(image: str, drawn: str, tmp_path: Path) -> None:
    scenes, options = Scenes(image), {'class_names': CLASSES, 'column': 'kind', 'background': True}
    grid = scenes.scenes[0].grid
    frame = gpd.read_file(drawn)
    for first, last in ((1, 2), (2, 1)):
        want = np.zeros(SHAPE, np.uint8)
        for value in (last, first):
            shapes = frame.geometry[frame['kind'] == value]
            want[rasterize(shapes, SHAPE, transform=grid.transform) == 1] = value
        priority = (CLASSES[first], CLASSES[last])
        labels = Labels(drawn, priority=priority, **options)
        np.testing.assert_array_equal(whole(labels, scenes), want)
        chips = open_chip_labels(ChipOptions(labels=(drawn,), priority=priority, **options), scenes.scenes)
        np.testing.assert_array_equal(chips.mask(scenes.scenes[0], grid.window), want)
        mask = tmp_path / f'{first}.tif'
        command = ['rasterize', drawn, '--like', image, '--output', str(mask), '--column', 'kind', '--class_names']
        assert main([*command, ','.join(CLASSES), '--priority', ','.join(priority)]) == 0
        with rasterio.open(mask) as file:
            np.testing.assert_array_equal(file.read(1), want)
