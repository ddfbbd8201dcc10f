"""Streamed moments are those of NumPy over all valid pixels at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_msssl.errors import ValidDataError
from torchgeo_msssl.geo.band_statistics.moments import BandStatistics, block_statistics, scene_statistics
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene

BANDS = ('B02', 'B03', 'B04')
PLAIN = Radiometry((1.0,) * 3, (0.0,) * 3, '')
NEW = Radiometry((1e-4, 1e-4, 2e-4), (-1000.0, -1000.0, 5.0), '')


@pytest.fixture
def scenes(make_scene) -> list[Scene]:
    """Two scenes of different size, storage and gaps."""
    rng = np.random.default_rng(0)
    layouts = [{'tiled': True, 'blockxsize': 64, 'blockysize': 64}, {'blockysize': 1}]
    found = []
    for i, (shape, layout) in enumerate(zip([(300, 700), (1100, 90)], layouts, strict=True)):
        array = rng.integers(1, 10000, (3, *shape)).astype('uint16')
        array[rng.integers(0, 3), rng.random(shape) < 0.2] = 0
        path = make_scene(f'{i}.tif', array, nodata=0, names=BANDS, **layout)
        found.append(find_scenes(path)[0])
    return found


def all_pixels(scenes: list[Scene], how: list[Radiometry]) -> np.ndarray:
    parts = []
    for scene, radiometry in zip(scenes, how, strict=True):
        image, valid = scene.read(scene.grid.window, BANDS)
        pixels = image[:, valid].astype(np.float64)
        parts.append((pixels + np.array(radiometry.offset)[:, None]) * np.array(radiometry.scale)[:, None])
    return np.concatenate(parts, axis=1)


def test_moments_are_numpys_over_all_valid_pixels(scenes) -> None:
    how, done = [PLAIN, NEW], []
    found = scene_statistics(scenes, BANDS, how, on_progress=done.append)
    pixels = all_pixels(scenes, how)
    assert found.count == pixels.shape[1] < sum(scene.grid.window.area for scene in scenes)
    np.testing.assert_allclose(found.mean, pixels.mean(axis=1), rtol=1e-10)
    np.testing.assert_allclose(found.std, pixels.std(axis=1), rtol=1e-10)
    assert done == sorted(done)
    assert done[-1] == 1


def test_a_large_offset_costs_no_digits() -> None:
    image = (1e9 + np.random.default_rng(0).normal(0, 1, (1, 100, 100))).astype(np.float64)
    whole = np.ones((100, 100), bool)
    parts = [block_statistics(image[:, i : i + 7], whole[i : i + 7]) for i in range(0, 100, 7)]
    merged = BandStatistics(0, np.zeros(1), np.zeros(1))
    for part in parts:
        merged = merged.merge(part)
    np.testing.assert_allclose(merged.std, image.std(), rtol=1e-7)


blocks = st.integers(0, 2**32).map(
    lambda seed: (lambda rng: block_statistics(rng.normal(rng.normal(), 2, (2, 5, 7)), rng.random((5, 7)) < 0.5))(
        np.random.default_rng(seed)
    )
)
empty = st.just(BandStatistics(0, np.zeros(2), np.zeros(2)))


@settings(max_examples=60, deadline=None)
@given(blocks | empty, blocks | empty, blocks | empty)
def test_merging_minds_neither_order_nor_brackets(a, b, c) -> None:
    one, other = a.merge(b).merge(c), c.merge(a.merge(b))
    third = a.merge(b.merge(c))
    for found in (other, third):
        assert found.count == one.count
        np.testing.assert_allclose(found.mean, one.mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found.m2, one.m2, rtol=1e-9, atol=1e-12)


def test_a_draw_is_a_function_of_the_seed(scenes) -> None:
    how = [PLAIN, PLAIN]
    few = [scene_statistics(scenes, BANDS, how, values=300_000, seed=seed) for seed in (0, 0, 1)]
    assert few[0].count == few[1].count < all_pixels(scenes, how).shape[1]
    np.testing.assert_array_equal(few[0].mean, few[1].mean)
    assert not np.array_equal(few[0].mean, few[2].mean)
    np.testing.assert_allclose(few[0].mean, all_pixels(scenes, how).mean(axis=1), rtol=0.02)


def test_a_draw_that_meets_no_data_goes_on(make_scene) -> None:
    array = np.zeros((3, 64, 3000), 'uint16')
    array[:, :, -1] = [[4], [5], [6]]
    scene = find_scenes(make_scene('s.tif', array, nodata=0, names=BANDS, tiled=True, blockxsize=64, blockysize=64))[0]
    for seed in range(4):
        found = scene_statistics([scene], BANDS, [PLAIN], values=1, seed=seed)
        np.testing.assert_array_equal(found.mean, [4, 5, 6])


def test_no_data_at_all(make_scene, random_array) -> None:
    array = random_array((3, 20, 30))
    array[1] = 0
    scene = find_scenes(make_scene('gone.tif', array, nodata=0, names=BANDS))[0]
    with pytest.raises(ValidDataError, match=r'no pixel of the 1 scene\(s\) .*gone\.tif.* B02, B03, B04'):
        scene_statistics([scene], BANDS, [PLAIN])
    assert scene_statistics([scene], ['B02', 'B04'], [Radiometry((1, 1), (0, 0), '')]).count == 600
