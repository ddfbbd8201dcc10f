"""Bounds on the valid pixels of a window hold for every mask and every window."""

import os

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.crs import CRS
from rasterio.transform import from_origin

from torchgeo_msssl.bands import get_sensor
from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo import valid_counts as valid_module
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.scene import BandFile, Scene
from torchgeo_msssl.geo.user_cache import cache_folder, scene_key
from torchgeo_msssl.geo.valid_counts import CELL, ValidCells, count_valid, streaming_windows

masks = st.tuples(st.integers(1, 45), st.integers(1, 45)).flatmap(lambda shape: arrays(np.bool_, shape))


def cells_of(mask: np.ndarray) -> ValidCells:
    """Counts by the plainest way there is."""
    height, width = mask.shape
    counts = [[mask[r : r + CELL, c : c + CELL].sum() for c in range(0, width, CELL)] for r in range(0, height, CELL)]
    return ValidCells(np.array(counts, dtype=np.uint8), height, width)


@settings(max_examples=150, deadline=None)
@given(masks, st.data())
def test_bounds_enclose_the_truth_and_cannot_be_closer(mask: np.ndarray, data) -> None:
    height, width = mask.shape
    size = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    places = data.draw(
        st.lists(st.tuples(st.integers(0, height - size[0]), st.integers(0, width - size[1])), min_size=1, max_size=5)
    )
    rows, cols = np.array(places).T
    cells = cells_of(mask)
    least, most = cells.bounds(rows, cols, size)
    for row, col, low, high in zip(rows, cols, least, most, strict=True):
        true = mask[row : row + size[0], col : col + size[1]].sum()
        assert low <= true <= high
        # the closest bounds that counts in cells allow: all others valid outside first, or inside first
        best_low = best_high = 0
        for r in range(0, height, CELL):
            for c in range(0, width, CELL):
                cell = mask[r : r + CELL, c : c + CELL]
                inside = np.zeros_like(mask)
                inside[row : row + size[0], col : col + size[1]] = True
                shared = inside[r : r + CELL, c : c + CELL].sum()
                best_low += max(0, int(cell.sum()) - (cell.size - shared))
                best_high += min(int(cell.sum()), int(shared))
        assert (low, high) == (best_low, best_high)


@settings(max_examples=60, deadline=None)
@given(masks, st.data())
def test_aligned_windows_are_counted_exactly(mask: np.ndarray, data) -> None:
    height, width = mask.shape
    row, col = (CELL * data.draw(st.integers(0, (extent - 1) // CELL)) for extent in mask.shape)
    rows, cols = data.draw(st.integers(1, 6)) * CELL, data.draw(st.integers(1, 6)) * CELL
    size = min(rows, height - row), min(cols, width - col)
    least, most = cells_of(mask).bounds(np.array([row]), np.array([col]), size)
    assert least == most == mask[row : row + size[0], col : col + size[1]].sum()


def test_many_windows_go_in_portions(monkeypatch) -> None:
    mask = np.random.default_rng(0).random((60, 70)) < 0.7
    rows, cols = np.random.default_rng(1).integers(0, 30, (2, 500))
    whole = cells_of(mask).bounds(rows, cols, (20, 30))
    monkeypatch.setattr(valid_module, '_CELLS_AT_ONCE', 100)
    np.testing.assert_array_equal(cells_of(mask).bounds(rows, cols, (20, 30)), whole)
    least, most = cells_of(mask).bounds(rows[:0], cols[:0], (20, 30))
    assert len(least) == len(most) == 0


@pytest.fixture
def scene(make_scene, random_array) -> Scene:
    array = random_array((2, 77, 51))
    array[0][np.random.default_rng(1).random((77, 51)) < 0.3] = 0
    array[1, :, 40:] = 0
    return find_scenes(make_scene('s.tif', array, nodata=0, names=['B02', 'B03']))[0]


@pytest.mark.parametrize('bands', [['B02'], ['B03'], ['B02', 'B03']])
def test_counts_are_those_of_the_mask(scene: Scene, bands, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'cache'))
    done: list[float] = []
    found = count_valid(scene, bands, done.append)
    mask = scene.read(scene.grid.window, bands)[1]
    np.testing.assert_array_equal(found.counts, cells_of(mask).counts)
    assert found.total == mask.sum()
    assert done[-1] == 1
    again = count_valid(scene, bands, lambda _: pytest.fail('counted again'))
    np.testing.assert_array_equal(again.counts, found.counts)
    assert len(list((tmp_path / 'cache/valid').iterdir())) == 1


def test_a_scene_without_gaps_is_not_read(make_scene, random_array, monkeypatch) -> None:
    full = find_scenes(make_scene('s.tif', random_array((1, 77, 51))))[0]
    monkeypatch.setattr(Scene, 'read', lambda *_: pytest.fail('read'))
    np.testing.assert_array_equal(count_valid(full, full.bands).counts, cells_of(np.ones((77, 51), bool)).counts)


@pytest.mark.parametrize('content', ['empty', 'cut', 'foreign', 'other shape', 'other dtype', 'zip'])
def test_a_torn_or_foreign_cache_file_is_counted_again(scene: Scene, content, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path))
    good = count_valid(scene, ['B02']).counts
    (kept,) = (tmp_path / 'valid').iterdir()
    whole = kept.read_bytes()
    if content == 'other shape':
        np.save(kept, np.zeros((3, 3), np.uint8))
    elif content == 'other dtype':
        np.save(kept, np.zeros(good.shape))
    else:
        kept.write_bytes({'empty': b'', 'cut': whole[:-10], 'foreign': b'{"a": 1}', 'zip': b'PK\x03\x04' * 9}[content])
    np.testing.assert_array_equal(count_valid(scene, ['B02']).counts, good)
    assert kept.read_bytes() == whole


def test_without_a_writable_cache_a_warning_is_logged(scene: Scene, monkeypatch, tmp_path, caplog) -> None:
    (tmp_path / 'file').touch()
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'file'))
    assert count_valid(scene, ['B03']).total == 77 * 40
    assert 'will be computed again next time' in caplog.text


def test_a_damaged_scene_is_named(make_scene, monkeypatch, tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 60000, (1, 200, 200)).astype('uint16')
    path = make_scene('s.tif', noise, nodata=0, compress='deflate')
    os.truncate(path, os.path.getsize(path) // 2)
    with pytest.raises(SceneReadError, match=r's\.tif: cannot be read at rows 0:200'):
        count_valid(find_scenes(path)[0], ['band_1'])


def test_keys_follow_everything_that_decides_pixels(make_scene, random_array, tmp_path) -> None:
    array = random_array((4, 16, 16))
    path = make_scene('s.tif', array)
    plain = find_scenes(path)[0]
    keys = [scene_key(plain, plain.bands), scene_key(plain, plain.bands[:2]), scene_key(plain, plain.bands[::-1])]
    # one name, another band of the file
    first, second = (find_scenes(path, get_sensor(name))[0] for name in ('rgbn', 'dji_mavic_3m'))
    keys += [scene_key(first, ['red']), scene_key(second, ['red'])]
    assert scene_key(find_scenes(path)[0], plain.bands) == keys[0]
    os.utime(path, ns=(0, 0))
    keys.append(scene_key(first, ['red']))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        masked = find_scenes(make_scene('m.tif', array, mask=array[0] > 9))[0]
        keys.append(scene_key(masked, ['band_1']))
        with rasterio.open(masked.path, 'r+') as file:
            file.write_mask(array[0] > 50)
        os.utime(f'{masked.path}.msk', ns=(5, 5))
    keys.append(scene_key(masked, ['band_1']))
    assert len(set(keys)) == len(keys)


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', '~/x')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert cache_folder() == tmp_path / 'x'
    monkeypatch.delenv('TORCHGEO_MSSSL_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert cache_folder() == tmp_path / 'xdg/torchgeo_msssl'


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 200_000),
    st.integers(1, 200_000),
    st.sampled_from([(1, None), (2, None), (1023, None), (None, None), (256, 256), (512, 512), (1000, 1000), (16, 48)]),
)
def test_streams_cover_scenes_once_in_bounded_windows(height, width, block) -> None:
    """Very wide strips and strips as large as the scene included."""
    grid = PixelGrid(CRS.from_epsg(32631), from_origin(0, 0, 1, 1), height, width)
    file = BandFile(
        'x.tif', grid, ('a',), 'uint8', None, False, (block[0] or height, block[1] or width), (1,), (0,), {}
    )
    windows = streaming_windows(Scene('x', (file,), None, None))
    assert sum(window.area for window in windows) == height * width
    assert len({(window.row, window.col) for window in windows}) == len(windows)
    for window in windows:
        assert window.row % CELL == window.col % CELL == 0
        assert grid.window.intersection(window) == window
        assert window.area <= max(4_000_000, CELL * width)
