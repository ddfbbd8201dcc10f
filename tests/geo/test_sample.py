"""The sample area is complete, reproducible, learnable and not trivial."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.features import rasterize
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from torchgeo_msssl.bands import SENSORS
from torchgeo_msssl.errors import ConfigurationError, OutputError
from torchgeo_msssl.geo.sample import SampleArea, sample_area, write_sample_area
from torchgeo_msssl.geo.sample.landscape import COARSE_OF_FINE, IGNORE, make_landscape
from torchgeo_msssl.geo.sample.scenes import measure, reflectance

SCALE = 0.5
DATES = 4


@pytest.fixture(scope='module')
def area(tmp_path_factory: pytest.TempPathFactory) -> SampleArea:
    return write_sample_area(tmp_path_factory.mktemp('sample'), seed=0, scale=SCALE)


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> SampleArea:
    return write_sample_area(tmp_path_factory.mktemp('small'), seed=0, scale=0.1)


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as scene:
        return np.asarray(scene.read())


def overlap(first: Path, second: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pixels of the ground that both of two tiles in a row show."""
    with rasterio.open(first) as a, rasterio.open(second) as b:
        shift = round((b.transform.c - a.transform.c) / 10)
        return a.read()[..., shift:], b.read()[..., : a.width - shift]


@pytest.mark.slow
def test_scenes_are_named_placed_and_described_like_sentinel2(area: SampleArea) -> None:
    assert [path.name for path in area.sentinel2][:2] == ['T31TFJ_20210415T103021.tif', 'T31TFJ_20210614T103021.tif']
    assert len(area.sentinel2) == 2 * DATES
    for path in area.sentinel2:
        with rasterio.open(path) as scene:
            assert scene.descriptions == SENSORS['sentinel2_l2a'].names
            assert (scene.crs.to_epsg(), scene.res, scene.shape) == (32631, (10, 10), (320, 320))
            assert (scene.dtypes[0], scene.nodata, scene.tags()['SENSOR']) == ('uint16', 0, 'sentinel2_l2a')


def test_labels_lie_on_their_tile_with_names_and_colours(area: SampleArea) -> None:
    for paths, names in ((area.landcover_fine, area.classes_fine), (area.landcover_coarse, area.classes_coarse)):
        for path, tile in zip(paths, area.sentinel2[::DATES], strict=True):
            with rasterio.open(path) as labels, rasterio.open(tile) as scene:
                assert (labels.crs, labels.transform, labels.shape) == (scene.crs, scene.transform, scene.shape)
                assert (labels.dtypes[0], labels.nodata) == ('uint8', IGNORE)
                assert tuple(json.loads(labels.tags()['CLASS_NAMES'])) == names
                assert len({labels.colormap(1)[index] for index in range(len(names))}) == len(names)
                assert labels.read().max(where=labels.read() != IGNORE, initial=0) < len(names)
    assert (len(area.classes_coarse), len(area.classes_fine)) == (7, 14)


def test_every_class_occurs_and_some_ground_is_not_surveyed(area: SampleArea) -> None:
    found = np.unique([read(path) for path in area.landcover_fine])
    assert found.tolist() == [*range(14), IGNORE]


def test_every_class_occurs_in_a_small_area(small: SampleArea) -> None:
    assert len(np.unique([read(path) for path in small.landcover_coarse])) >= 4


def test_coarse_follows_from_fine(area: SampleArea) -> None:
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[: len(COARSE_OF_FINE)] = COARSE_OF_FINE
    for fine, coarse in zip(area.landcover_fine, area.landcover_coarse, strict=True):
        np.testing.assert_array_equal(lookup[read(fine)], read(coarse))


def test_tiles_agree_where_they_overlap(area: SampleArea) -> None:
    for pair in (area.landcover_fine, area.landcover_coarse):
        first, second = overlap(*pair)
        assert first.shape[-1] == round(120 * SCALE)
        np.testing.assert_array_equal(first, second)
    for date in range(DATES):
        first, second = (a.astype(float) for a in overlap(area.sentinel2[date], area.sentinel2[DATES + date]))
        assert not np.array_equal(first, second), 'each tile has its own noise'
        # Two draws of noise of 1.2 % and 12 DN.
        assert np.abs(first - second).mean() < 0.03 * first.mean()


def test_one_tile_has_a_wedge_without_data(area: SampleArea) -> None:
    empty = [(read(path) == 0) for path in area.sentinel2]
    assert not any(mask.any() for mask in empty[:DATES])
    for mask in empty[DATES:]:
        np.testing.assert_array_equal(mask, np.broadcast_to(mask[0], mask.shape))
        assert 0.05 < mask.mean() < 0.15
        assert not mask[..., : round(120 * SCALE)].any(), 'the wedge stays out of the overlap'


def test_clouds_on_exactly_one_date(area: SampleArea) -> None:
    blue = SENSORS['sentinel2_l2a'].names.index('B02')
    bright = [(read(path)[blue] > 4000).mean() for path in area.sentinel2]
    cloudy = [share > 0.02 for share in bright]
    assert cloudy == [False, True, False, False] * 2
    assert all(share < 0.001 for share, cloud in zip(bright, cloudy, strict=True) if not cloud)
    means = [read(path)[blue].mean() for path in area.sentinel2[:DATES]]
    assert int(np.argmax(means)) == 1


def test_values_are_reflectance(area: SampleArea) -> None:
    clear = read(area.sentinel2[2]) / 10000
    assert clear.mean((1, 2)).min() > 0.02
    assert clear.mean((1, 2)).max() < 0.5
    assert np.quantile(clear, 0.999) < 0.7


@pytest.fixture(scope='module')
def full_scene() -> tuple[NDArray[Any], NDArray[Any]]:
    """One date at full size with its fine labels: half an area has too few fields of a class to learn from."""
    land = make_landscape(np.random.default_rng(0), (640, 1160))
    image = measure(np.random.default_rng(1), reflectance(np.random.default_rng(2), land, 2))
    return image, land.labels()


def chips(image: NDArray[Any], labels: NDArray[Any], size: int = 32) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Mean and deviation of each band, main class, and row of every chip that is mostly of one class."""
    features, classes, rows = [], [], []
    for row in range(0, labels.shape[0] - size + 1, size):
        for col in range(0, labels.shape[1] - size + 1, size):
            here = labels[row : row + size, col : col + size]
            counts = np.bincount(here[here != IGNORE], minlength=14)
            if counts.max() >= 0.7 * size**2:
                chip = image[:, row : row + size, col : col + size]
                features.append(np.concatenate([chip.mean((1, 2)), chip.std((1, 2))]))
                classes.append(counts.argmax())
                rows.append(row)
    return np.array(features), np.array(classes), np.array(rows)


@pytest.mark.slow
def test_chips_can_be_told_apart_but_not_by_band_statistics_alone(
    full_scene: tuple[NDArray[Any], NDArray[Any]],
) -> None:
    features, classes, rows = chips(*full_scene)
    assert len(classes) > 0.4 * 20 * 36, 'many chips are dominated by one class'
    # North trains, south tests, and a row of chips between them does neither.
    train, test = rows < 288, rows >= 320
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(3)).fit(features[train], classes[train])
    accuracy = model.score(features[test], classes[test])
    chance = np.bincount(classes[test]).max() / test.sum()
    print(f'{len(classes)} chips, accuracy {accuracy:.2f}, chance {chance:.2f}')
    assert accuracy > chance + 0.2
    assert accuracy < 0.95


def test_pixels_of_one_date_overlap_between_classes(area: SampleArea) -> None:
    pixels, labels = read(area.sentinel2[2]).reshape(12, -1).T, read(area.landcover_fine[0]).ravel()
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(labels != IGNORE))[:6000]
    model = make_pipeline(StandardScaler(), KNeighborsClassifier(15)).fit(pixels[chosen[:4000]], labels[chosen[:4000]])
    assert 0.3 < model.score(pixels[chosen[4000:]], labels[chosen[4000:]]) < 0.85


def vines(area: SampleArea, index: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """NDVI, truth and valid pixels of an orthomosaic."""
    rows = gpd.read_file(area.vines, layer='rows')
    with rasterio.open(area.drone[index]) as scene:
        image = scene.read()
        truth = rasterize(rows.geometry, scene.shape, transform=scene.transform).astype(bool)
    valid = image[-1] > 0
    red, nir = image[2].astype(float), image[4].astype(float)
    return (nir - red) / np.maximum(nir + red, 1), truth, valid


def test_orthomosaics_say_in_two_ways_where_nothing_was_flown(area: SampleArea) -> None:
    with rasterio.open(area.drone[0]) as a, rasterio.open(area.drone[1]) as b:
        for scene in (a, b):
            assert (scene.crs.to_epsg(), scene.tags()['SENSOR']) == (32631, 'micasense_rededge')
            assert scene.res == pytest.approx((0.08, 0.08))
            assert scene.descriptions[:5] == SENSORS['micasense_rededge'].names
        assert (a.count, a.nodata, b.count, b.nodata) == (5, 0, 6, None)
        assert [index for index, kind in enumerate(b.colorinterp) if kind == ColorInterp.alpha] == [5]
        assert np.unique(b.read(6)).tolist() == [0, 65535]
        for flown in (a.read(1) > 0, b.read(6) > 0):
            assert 0.6 < flown.mean() < 0.95
            assert not flown[[0, 0, -1, -1], [0, -1, 0, -1]].any()


def test_row_polygons_lie_in_their_parcels(area: SampleArea) -> None:
    rows, parcels = (gpd.read_file(area.vines, layer=layer) for layer in ('rows', 'parcels'))
    assert rows.crs.to_epsg() == parcels.crs.to_epsg() == 32631
    assert {'parcel', 'variety', 'vigour'} <= set(rows.columns)
    assert rows.is_valid.all()
    outlines = parcels.set_index('parcel').geometry
    assert set(rows['parcel']) <= set(outlines.index)
    assert outlines.loc[rows['parcel']].reset_index(drop=True).contains(rows.geometry).all()
    assert rows['vigour'].between(0, 1).all()
    assert parcels['spacing'].between(1.8, 3).all()
    assert parcels['ground'].nunique() >= 3


def test_no_threshold_on_ndvi_finds_the_vines(area: SampleArea) -> None:
    for index in range(2):
        ndvi, truth, valid = vines(area, index)
        ndvi, truth = ndvi[valid], truth[valid]
        assert 0.05 < truth.mean() < 0.4
        assert ndvi[truth].mean() > ndvi[~truth].mean() + 0.1
        guesses = (ndvi > threshold for threshold in np.linspace(0, 1, 51))
        best = max((guess & truth).sum() / (guess | truth).sum() for guess in guesses)
        assert 0.2 < best < 0.7


def test_rows_are_seen_where_the_polygons_are(area: SampleArea) -> None:
    """Shifted polygons fit the picture less well, in any direction."""
    ndvi, truth, _ = vines(area, 0)
    centre = ndvi[truth].mean()
    for shift in ((4, 0), (-4, 0), (0, 4), (0, -4)):
        assert ndvi[np.roll(truth, shift, (0, 1))].mean() < centre


def test_same_seed_same_pixels_and_another_seed_others(small: SampleArea, tmp_path: Path) -> None:
    again = write_sample_area(tmp_path / 'again', seed=0, scale=0.1)
    other = write_sample_area(tmp_path / 'other', seed=1, scale=0.1)
    for one, same, different in zip(small.files[:-1], again.files[:-1], other.files[:-1], strict=True):
        assert one.read_bytes() == same.read_bytes()
        assert one.read_bytes() != different.read_bytes()
    first, second = (gpd.read_file(path, layer='rows') for path in (small.vines, again.vines))
    assert first.equals(second)


def test_only_a_finished_area_is_found(small: SampleArea, tmp_path: Path) -> None:
    assert sample_area(tmp_path / 'nowhere') is None
    assert sample_area(small.directory) == small
    area = write_sample_area(tmp_path, scale=0.1)
    manifest = tmp_path / 'sample.json'
    text = manifest.read_text()
    for broken in (text[:-5], '[]', text.replace('"generator_version": ', '"generator_version": 9')):
        manifest.write_text(broken)
        assert sample_area(tmp_path) is None
    manifest.write_text(text)
    assert sample_area(tmp_path) == area
    area.drone[0].write_bytes(area.drone[0].read_bytes()[:-1])
    assert sample_area(tmp_path) is None
    area.drone[0].unlink()
    assert sample_area(tmp_path) is None


@pytest.mark.slow
def test_a_killed_run_is_not_taken_for_finished_even_over_an_old_area(tmp_path: Path) -> None:
    write_sample_area(tmp_path, scale=0.1)
    code = f"""
import os, signal
from torchgeo_msssl.geo.sample import area as sample
sample.make_vineyard = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sample.write_sample_area({str(tmp_path)!r}, scale=0.1)
"""
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, timeout=120, check=False
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert sample_area(tmp_path) is None
    assert sample_area(write_sample_area(tmp_path, scale=0.1).directory) is not None


def test_the_area_says_that_it_is_synthetic(small: SampleArea) -> None:
    assert 'SYNTHETIC' in (small.directory / 'README.txt').read_text()
    for path in small.files[:-1]:
        with rasterio.open(path) as raster:
            assert raster.tags()['SYNTHETIC'] == 'yes'
    assert not list(small.directory.rglob('*.aux.xml'))
    assert not list(small.directory.rglob('.*'))


def test_progress_goes_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_sample_area(tmp_path, scale=0.1)
    assert not capfd.readouterr().out


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='scale: expected'):
        write_sample_area(tmp_path, scale=0)
    with pytest.raises(ConfigurationError, match='seed: expected'):
        write_sample_area(tmp_path, seed=-1)
    (tmp_path / 'file').write_text('')
    with pytest.raises(OutputError, match='cannot be written'):
        write_sample_area(tmp_path / 'file')
