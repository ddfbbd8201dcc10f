"""The summary of a stream equals NumPy's of all valid pixels at once."""

from collections.abc import Iterator

import numpy as np
import pytest
from affine import Affine

from torchgeo_msssl.errors import ValidDataError
from torchgeo_msssl.geo.band_statistics import summary as module
from torchgeo_msssl.geo.band_statistics.histograms import PERCENTILES
from torchgeo_msssl.geo.band_statistics.moments import scene_statistics
from torchgeo_msssl.geo.band_statistics.summary import BandSummary, summarize_bands
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene

BANDS = ('B02', 'B03')
OLD = Radiometry((1e-4, 2e-4), (0.0, 0.0), 'old')
NEW = Radiometry((1e-4, 2e-4), (-1000.0, -1000.0), 'new')
PLAIN = Radiometry((1.0, 1.0), (0.0, 0.0), '')


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Many windows and portions, also of small scenes."""
    monkeypatch.setattr(module, '_PIXELS', 4000)
    monkeypatch.setattr(module, '_WINDOWS', 3)
    yield
    close_datasets()


def whole(scenes: list[Scene], how: list[Radiometry], dtype: type = np.float64) -> np.ndarray:
    parts = []
    for scene, radiometry in zip(scenes, how, strict=True):
        image, valid = scene.read(scene.grid.window, BANDS)
        pixels = image[:, valid].astype(np.float64)
        scaled = (pixels + np.array(radiometry.offset)[:, None]) * np.array(radiometry.scale)[:, None]
        parts.append(scaled.astype(dtype).astype(np.float64))
    return np.concatenate(parts, axis=1)


def check(found: BandSummary, pixels: np.ndarray) -> None:
    assert found.moments.count == pixels.shape[1]
    np.testing.assert_array_equal(found.percentiles, np.percentile(pixels, PERCENTILES, axis=1))
    np.testing.assert_array_equal(found.least, pixels.min(axis=1))
    np.testing.assert_array_equal(found.most, pixels.max(axis=1))
    np.testing.assert_allclose(found.moments.mean, pixels.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.moments.std, pixels.std(axis=1), rtol=1e-6)
    for k in range(len(BANDS)):
        np.testing.assert_array_equal(found.histogram[k], np.histogram(pixels[k], found.edges[k])[0])
        assert found.histogram[k].sum() > 0.97 * found.moments.count


def test_integers_of_two_eras(make_scene) -> None:
    rng = np.random.default_rng(0)
    scenes = []
    for i, shape in enumerate([(150, 220), (90, 61)]):
        array = rng.gamma(4, 500, (2, *shape)).astype('uint16') + 1000 * i
        array[i, rng.random(shape) < 0.2] = 0
        scenes += find_scenes(
            make_scene(f'{i}.tif', array, nodata=0, names=BANDS, tiled=True, blockxsize=64, blockysize=64)
        )
    how, done = [OLD, NEW], []
    found = summarize_bands(scenes, BANDS, how, on_progress=done.append)
    check(found, whole(scenes, how))
    moments = scene_statistics(scenes, BANDS, how)
    np.testing.assert_allclose(found.moments.mean, moments.mean, rtol=1e-12)
    np.testing.assert_allclose(found.moments.std, moments.std, rtol=1e-12)
    total = 150 * 220 + 90 * 61
    empty = [scene.read(scene.grid.window, [band])[0][0] == 0 for scene, band in zip(scenes, BANDS, strict=True)]
    np.testing.assert_allclose(found.valid_fraction, [1 - gap.sum() / total for gap in empty])
    assert sum(found.scene_pixels) == found.moments.count
    assert found.scene_pixels[0] == int((~empty[0]).sum())
    assert done == sorted(done)
    assert done[-1] == 1


@pytest.mark.parametrize('dtype', ['float32', 'int32'])
def test_wide_values_are_exact_too(make_scene, dtype: str) -> None:
    rng = np.random.default_rng(1)
    array = rng.normal(0, 1, (2, 130, 111))
    array = (array * 1e6).astype(dtype) if dtype == 'int32' else array.astype(dtype)
    array[0, :7] = -9999
    if dtype == 'float32':
        array[1, 9, :50] = np.nan
        array[1, 10, 3] = 1e30  # an outlier changes nothing else
    (scene,) = find_scenes(make_scene('wide.tif', array, nodata=-9999, names=BANDS))
    found = summarize_bands([scene], BANDS, [PLAIN])
    pixels = whole([scene], [PLAIN])
    np.testing.assert_array_equal(found.percentiles, np.percentile(pixels, PERCENTILES, axis=1))
    check(found, pixels)


def test_what_has_more_bits_is_rounded_to_float32(make_scene) -> None:
    rng = np.random.default_rng(2)
    array = rng.normal(5, 1, (2, 60, 80))
    (scene,) = find_scenes(make_scene('double.tif', array, names=BANDS))
    found = summarize_bands([scene], BANDS, [OLD])
    exact = np.percentile(whole([scene], [OLD]), PERCENTILES, axis=1)
    assert not np.array_equal(found.percentiles, exact)
    np.testing.assert_allclose(found.percentiles, exact, rtol=2**-24)
    check(found, whole([scene], [OLD], np.float32))


def test_each_band_has_its_own_gaps_under_a_mask(make_scene) -> None:
    rng = np.random.default_rng(3)
    array = rng.integers(1, 100, (2, 40, 50)).astype('uint8')
    array[0, :10] = 0
    mask = np.ones((40, 50), bool)
    mask[:, :5] = False
    (scene,) = find_scenes(make_scene('masked.tif', array, mask=mask, names=BANDS))
    assert scene.files[0].masked
    found = summarize_bands([scene], BANDS, [PLAIN])
    assert found.moments.count == scene.read(scene.grid.window, BANDS)[1].sum()
    own = [scene.read(scene.grid.window, [band])[1].mean() for band in BANDS]
    np.testing.assert_allclose(found.valid_fraction, own)


def test_processes_change_nothing(make_scene, random_array) -> None:
    paths = [make_scene(f'{i}.tif', random_array((2, 70, 90), seed=i), names=BANDS) for i in range(2)]
    scenes = [scene for path in paths for scene in find_scenes(path)]
    alone, together = (summarize_bands(scenes, BANDS, [OLD, NEW], num_workers=n) for n in (1, 2))
    np.testing.assert_array_equal(alone.moments.mean, together.moments.mean)
    np.testing.assert_array_equal(alone.moments.m2, together.moments.m2)
    np.testing.assert_array_equal(alone.percentiles, together.percentiles)


def test_no_data_names_the_empty_band(make_scene, random_array) -> None:
    array = random_array((2, 20, 30))
    array[1] = 0
    (scene,) = find_scenes(make_scene('gone.tif', array, nodata=0, names=BANDS))
    with pytest.raises(ValidDataError, match=r'gone.tif.* in all of B02, B03 \(B03 has no data at all\)'):
        summarize_bands([scene], BANDS, [PLAIN])
    array[1, :10], array[0, :10] = 5, 0
    (scene,) = find_scenes(make_scene('apart.tif', array, nodata=0, names=BANDS))
    with pytest.raises(ValidDataError, match=r'the data of the bands do not overlap'):
        summarize_bands([scene], BANDS, [PLAIN])


def test_memory_does_not_grow_with_the_scene(make_scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, '_PIXELS', 65536)
    largest = []
    read = Scene.read

    def note(self, window, bands):
        largest.append(window.area)
        return read(self, window, bands)

    monkeypatch.setattr(Scene, 'read', note)
    for side in (512, 1536):
        array = np.full((2, side, side), side, 'uint16')
        (scene,) = find_scenes(
            make_scene(f'{side}.tif', array, names=BANDS, tiled=True, transform=Affine(10, 0, 0, 0, -10, 0))
        )
        summarize_bands([scene], BANDS, [PLAIN])
    assert max(largest) <= 65536
