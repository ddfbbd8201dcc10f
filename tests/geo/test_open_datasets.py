"""Datasets are pooled per process and thread, and opened with their sidecar files."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.env import get_gdal_config, set_gdal_config

from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo import open_datasets
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.open_datasets import (
    close_datasets,
    divide_block_cache,
    is_remote,
    open_raster,
    pooled_dataset,
    pooled_raster,
)


@pytest.fixture(autouse=True)
def _close_all():
    yield
    close_datasets()


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
@pytest.mark.parametrize('setting', [None, 'EMPTY_DIR', 'TRUE'])
def test_sidecars_count_whatever_the_environment_says(make_scene, random_array, monkeypatch, setting) -> None:
    """TorchGeo's command line sets EMPTY_DIR, which hides sidecars from GDAL."""
    inside = np.zeros((20, 30), dtype=bool)
    inside[5:, 10:] = True
    array = random_array((2, 20, 30))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        path = make_scene('masked.tif', array, mask=inside)
    assert Path(f'{path}.msk').is_file()
    world = make_scene('world.tif', array, placed=False)
    # centre of the upper left pixel, as world files have it
    Path(world).with_suffix('.tfw').write_text('2\n0\n0\n-2\n600001\n4999999\n')
    if setting is None:
        monkeypatch.delenv('GDAL_DISABLE_READDIR_ON_OPEN', raising=False)
    else:
        monkeypatch.setenv('GDAL_DISABLE_READDIR_ON_OPEN', setting)
    with open_raster(path) as scene:
        np.testing.assert_array_equal(scene.dataset_mask() > 0, inside)
    masked, placed = find_scenes([path, world])
    np.testing.assert_array_equal(masked.read(masked.grid.window, masked.bands)[1], inside)
    assert not masked.always_valid
    assert placed.grid.transform == Affine(2, 0, 600000, 0, -2, 5000000)


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
def test_the_environment_would_have_hidden_them(make_scene, random_array, monkeypatch) -> None:
    """Without this the test above could pass with a plain ``rasterio.open``."""
    monkeypatch.setenv('GDAL_DISABLE_READDIR_ON_OPEN', 'EMPTY_DIR')
    path = make_scene('world.tif', random_array((1, 20, 30)), placed=False)
    Path(path).with_suffix('.tfw').write_text('2\n0\n0\n-2\n600001\n4999999\n')
    with rasterio.open(path) as scene:
        assert scene.transform.is_identity


def test_a_thread_keeps_its_handle_and_shares_it_with_no_other(make_scene, random_array) -> None:
    path = make_scene('a.tif', random_array((1, 20, 30)))
    mine = pooled_raster(path)
    assert pooled_raster(path) is mine
    barrier = threading.Barrier(3)

    def other() -> rasterio.DatasetReader:
        barrier.wait()
        found = pooled_raster(path)
        assert pooled_raster(path) is found
        return found

    with ThreadPoolExecutor(3) as pool:
        theirs = [future.result() for future in [pool.submit(other) for _ in range(3)]]
        assert len({id(dataset) for dataset in [mine, *theirs]}) == 4


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
@pytest.mark.filterwarnings('ignore:.*multi-threaded.*fork')
def test_a_forked_child_opens_its_own_and_leaves_its_parents_alone(make_scene, random_array) -> None:
    """Two processes on one handle move one file offset: pixels come out of the wrong place without an error."""
    path = make_scene('a.tif', random_array((1, 20, 30)))
    mine = pooled_raster(path)
    child = os.fork()
    if child == 0:
        own = pooled_raster(path)
        good = own is not mine and not mine.closed and pooled_raster(path) is own and own.read(1).shape == (20, 30)
        close_datasets()
        os._exit(0 if good and own.closed and not mine.closed else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not mine.closed
    assert pooled_raster(path) is mine


def test_the_least_recently_used_is_closed(make_scene, random_array, monkeypatch) -> None:
    monkeypatch.setattr(open_datasets, 'MAX_DATASETS', 2)
    a, b, c = (make_scene(f'{name}.tif', random_array((1, 8, 8))) for name in 'abc')
    first, second = pooled_raster(a), pooled_raster(b)
    assert pooled_raster(a) is first  # so b is the oldest
    third = pooled_raster(c)
    assert second.closed
    assert not first.closed
    assert not third.closed
    assert pooled_raster(b) is not second
    assert first.closed


def test_closing_closes_all_of_this_thread(make_scene, random_array) -> None:
    opened = [pooled_raster(make_scene(f'{i}.tif', random_array((1, 8, 8)))) for i in range(3)]
    close_datasets()
    assert all(dataset.closed for dataset in opened)


AT_EXIT = """
import atexit, sys
opened = []
atexit.register(lambda: print([dataset.closed for dataset in opened]))
from torchgeo_msssl.geo.open_datasets import pooled_raster
opened.append(pooled_raster(sys.argv[1]))
"""


def test_a_process_closes_its_datasets_before_it_ends(make_scene, random_array) -> None:
    """Later, GDAL's messages have no handler, of which Python complains."""
    path = make_scene('a.tif', random_array((1, 8, 8)))
    ended = subprocess.run([sys.executable, '-c', AT_EXIT, path], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ('[True]\n', '')


@pytest.mark.parametrize(('processes', 'given', 'expected'), [(2, None, 150), (16, None, 64), (2, '300', 300)])
def test_processes_share_the_memory_for_blocks(monkeypatch, processes: int, given: str | None, expected: int) -> None:
    """If ``rasterio.env`` no longer had these functions, workers would each take as much memory as one process."""
    before = get_gdal_config('GDAL_CACHEMAX')
    monkeypatch.delenv('GDAL_CACHEMAX', raising=False)
    if given is not None:
        monkeypatch.setenv('GDAL_CACHEMAX', given)
    try:
        set_gdal_config('GDAL_CACHEMAX', 300 * 2**20)
        divide_block_cache(processes)
        assert get_gdal_config('GDAL_CACHEMAX') == expected * 2**20
    finally:
        set_gdal_config('GDAL_CACHEMAX', before)


def test_a_file_that_was_replaced_is_opened_again(make_scene, random_array) -> None:
    path = make_scene('a.tif', random_array((1, 20, 30)))
    old = find_scenes(path)[0]
    np.testing.assert_array_equal(old.read(old.grid.window, old.bands)[0], random_array((1, 20, 30)))
    stale = pooled_raster(path)
    os.replace(make_scene('new.tif', random_array((1, 20, 30), seed=1)), path)
    new = find_scenes(path)[0]
    np.testing.assert_array_equal(new.read(new.grid.window, new.bands)[0], random_array((1, 20, 30), seed=1))
    assert stale.closed


def test_other_keys_have_other_datasets(make_scene, random_array) -> None:
    path = make_scene('a.tif', random_array((1, 20, 30)))
    warped = pooled_dataset(f'{path}|wkt', lambda: open_raster(path))
    assert warped is not pooled_raster(path)
    assert pooled_dataset(f'{path}|wkt', lambda: open_raster(path)) is warped


@pytest.mark.parametrize('content', [b'', b'this is a text, not a picture\n', b'II*\x00\x08\x00\x00\x00'])
def test_a_file_that_is_not_a_raster(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'notes.txt').write_bytes(content)
    with pytest.raises(SceneReadError) as caught:
        find_scenes(tmp_path / 'notes.txt')
    assert str(tmp_path / 'notes.txt') in str(caught.value)
    assert 'cannot be opened as a raster' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_a_file_that_vanished(make_scene, random_array) -> None:
    path = make_scene('a.tif', random_array((1, 8, 8)))
    scene = find_scenes(path)[0]
    os.remove(path)
    with pytest.raises(SceneReadError, match=r'a\.tif: cannot be .*No such file'):
        scene.read(Window(0, 0, 8, 8), scene.bands)


def test_which_paths_are_gdals_own() -> None:
    assert is_remote('/vsicurl/https://host/a.tif')
    assert is_remote('s3://bucket/a.tif')
    assert not is_remote('/data/a.tif')
    assert not is_remote('C:\\data\\a.tif')
