"""Decoded scenes hold the scene's pixels, whole or not at all."""

import errno
import json
import multiprocessing
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torchgeo_msssl.errors import ConfigurationError, OutputError, SceneReadError
from torchgeo_msssl.geo import decoded_cache as cache_module
from torchgeo_msssl.geo import eviction
from torchgeo_msssl.geo.decoded_cache import decoded
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.scene import Scene

BANDS = ('B08', 'B02')


class NoLock(FileLock):  # type: ignore[misc]
    """A lock on a file system that has none."""

    def acquire(self, *_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOLCK, 'no locks available')


def aged(path: str) -> str:
    """A file that was not written just now."""
    os.utime(path, (10**9, 10**9))
    return path


@pytest.fixture
def scene(make_scene, random_array) -> Scene:
    array = random_array((3, 83, 61))
    array[0][np.random.default_rng(0).random((83, 61)) < 0.3] = 0
    return find_scenes(aged(make_scene('s.tif', array, nodata=0, names=['B02', 'B03', 'B08'])))[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / 'decoded'


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 82), st.integers(0, 60), st.integers(1, 83), st.integers(1, 61))
def test_pixels_are_the_scenes(scene: Scene, folder: Path, row, col, height, width) -> None:
    window = Window(row, col, min(height, 83 - row), min(width, 61 - col))
    image, valid = decoded(scene, BANDS, folder).read(window)
    expected, expected_valid = scene.read(window, BANDS)
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(valid, expected_valid)
    assert image.dtype == expected.dtype
    assert image.flags.c_contiguous
    assert image.flags.writeable


def test_an_entry_is_built_once(scene: Scene, folder: Path) -> None:
    done: list[float] = []
    decoded(scene, BANDS, folder, done.append)
    assert done[-1] == 1
    decoded(scene, BANDS, folder, lambda _: pytest.fail('built again'))
    assert len(os.listdir(folder)) == 1


def test_tiles_come_together_again(make_scene, random_array, folder, monkeypatch) -> None:
    """Windows over many tiles, on whose edges they begin and end or not."""
    monkeypatch.setattr(cache_module, 'TILE', 16)
    array = np.random.default_rng(0).integers(1, 60_000, (2, 83, 61), dtype=np.uint16)
    scene = find_scenes(make_scene('t.tif', array))[0]
    found = decoded(scene, scene.bands, folder)
    rng = np.random.default_rng(1)
    for _ in range(200):
        row, col = int(rng.integers(83)), int(rng.integers(61))
        window = Window(row, col, int(rng.integers(1, 84 - row)), int(rng.integers(1, 62 - col)))
        image, valid = found.read(window)
        np.testing.assert_array_equal(image, array[:, row : row + window.height, col : col + window.width])
        assert valid.all()


def test_of_a_scene_with_data_everywhere_no_mask_is_kept(make_scene, random_array, folder) -> None:
    scene = find_scenes(make_scene('t.tif', random_array((2, 20, 30))))[0]
    assert scene.always_valid
    decoded(scene, scene.bands, folder)
    (entry,) = folder.iterdir()
    assert sorted(path.name for path in entry.iterdir()) == ['complete.json', 'image.npy']


def test_another_reader_makes_another_entry(scene: Scene, folder: Path, monkeypatch) -> None:
    decoded(scene, BANDS, folder)
    monkeypatch.setattr(cache_module, '_VERSION', 99)
    done: list[float] = []
    decoded(scene, BANDS, folder, done.append)
    assert done
    assert len(os.listdir(folder)) == 2


def test_scenes_larger_than_a_window_of_the_stream(make_scene, random_array, folder, monkeypatch) -> None:
    array = random_array((2, 83, 61))
    scene = find_scenes(make_scene('t.tif', array, tiled=True, blockxsize=16, blockysize=16))[0]
    stream = cache_module.streaming_windows
    monkeypatch.setattr(cache_module, 'streaming_windows', lambda scene, _: stream(scene, 1000))
    np.testing.assert_array_equal(decoded(scene, scene.bands, folder).read(scene.grid.window)[0], array)


def test_a_changed_file_is_decoded_anew(make_scene, random_array, folder) -> None:
    first, second = random_array((1, 20, 30)), random_array((1, 20, 30), seed=1)
    path = make_scene('s.tif', first)
    before = decoded(find_scenes(path)[0], ['band_1'], folder)
    os.replace(make_scene('new.tif', second), path)
    after = decoded(find_scenes(path)[0], ['band_1'], folder)
    np.testing.assert_array_equal(after.read(Window(0, 0, 20, 30))[0], second)
    np.testing.assert_array_equal(before.read(Window(0, 0, 20, 30))[0], first)  # who has it open keeps it


@pytest.mark.parametrize('damage', ['no mark', 'cut image', 'no mask', 'other shape', 'other dtype', 'empty image'])
def test_a_torn_entry_is_built_anew(scene: Scene, folder: Path, damage: str) -> None:
    decoded(scene, BANDS, folder)
    (entry,) = folder.iterdir()
    image = entry / 'image.npy'
    match damage:
        case 'no mark':
            (entry / 'complete.json').unlink()
            image.write_bytes(image.read_bytes()[:-100] + b'\x07' * 100)
        case 'cut image':
            os.truncate(image, image.stat().st_size - 1)
        case 'no mask':
            (entry / 'valid.npy').unlink()
        case 'other shape':
            np.save(image, np.zeros((5, 5, 2), np.uint16))
        case 'other dtype':
            np.save(image, np.zeros((83, 61, 2), np.int16))
        case 'empty image':
            os.truncate(image, 0)
    image_again, valid = decoded(scene, BANDS, folder).read(scene.grid.window)
    expected, expected_valid = scene.read(scene.grid.window, BANDS)
    np.testing.assert_array_equal(image_again, expected)
    np.testing.assert_array_equal(valid, expected_valid)
    assert [path.name for path in folder.iterdir()] == [entry.name]


def build_together(path: str, folder: str, barrier, results, waits: bool) -> None:
    """One of the processes that decode one scene."""
    scene = find_scenes(path)[0]
    if not waits:
        eviction.FileLock = NoLock
        original = cache_module._publish

        def publish(*arguments) -> Any:
            barrier.wait(30)  # all are complete now
            return original(*arguments)

        cache_module._publish = publish
    steps: list[float] = []
    barrier.wait(30)
    image, _ = decoded(scene, BANDS, Path(folder), steps.append).read(scene.grid.window)
    results.put((int(image.astype(np.int64).sum()), bool(steps)))


@pytest.mark.slow
@pytest.mark.parametrize('waits', [True, False])
def test_three_processes_at_once(scene: Scene, folder: Path, waits: bool) -> None:
    """With locks one of them builds, and the others wait for it; without, the first one to finish counts."""
    context = multiprocessing.get_context('fork')
    barrier, results = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=build_together, args=(scene.path, str(folder), barrier, results, waits))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert {total for total, _ in found} == {int(scene.read(scene.grid.window, BANDS)[0].astype(np.int64).sum())}
    assert sum(built for _, built in found) == (1 if waits else 3)
    (entry,) = folder.iterdir()
    assert not entry.name.startswith('.')


def test_who_finishes_second_leaves_the_first_ones_entry(scene: Scene, folder: Path) -> None:
    decoded(scene, BANDS, folder)
    (entry,) = folder.iterdir()
    first = entry.stat().st_ino
    cache_module._build(scene, BANDS, entry, None, None, False)
    assert [(path.name, path.stat().st_ino) for path in folder.iterdir()] == [(entry.name, first)]


def test_too_little_room_is_said_before_any_work(scene: Scene, folder: Path, monkeypatch) -> None:
    usage = shutil.disk_usage('/')
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=100))
    with pytest.raises(OutputError, match=r'cache: .*s\.tif needs .* free; free disk space'):
        decoded(scene, BANDS, folder)
    assert not list(folder.iterdir())


@pytest.mark.skipif(not hasattr(os, 'posix_fallocate'), reason='the room is taken with posix_fallocate')
@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_an_error_and_leaves_nothing(scene: Scene, folder: Path, monkeypatch, code: int) -> None:
    """Writing through a memory map to a full disk would kill the process with SIGBUS."""

    def full(*_) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, 'posix_fallocate', full)
    with pytest.raises(OutputError, match=rf'cache: .* cannot be written \({os.strerror(code)}\)'):
        decoded(scene, BANDS, folder)
    assert not list(folder.iterdir())


def test_file_systems_that_cannot_reserve(scene: Scene, folder: Path, monkeypatch) -> None:
    def unable(*_) -> None:
        raise OSError(errno.EOPNOTSUPP, 'not supported')

    monkeypatch.setattr(os, 'posix_fallocate', unable, raising=False)
    expected = scene.read(scene.grid.window, BANDS)[0]
    np.testing.assert_array_equal(decoded(scene, BANDS, folder).read(scene.grid.window)[0], expected)


def test_a_folder_that_cannot_be_written(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(OutputError, match=r'cache: .*file.* cannot be written .*set `cache_dir`'):
        decoded(scene, BANDS, tmp_path / 'file' / 'x')


def test_a_damaged_scene_leaves_nothing(make_scene, folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60000, (1, 99, 99)).astype('uint16')
    path = make_scene('s.tif', noise, compress='deflate')
    os.truncate(path, os.path.getsize(path) // 2)
    with pytest.raises(SceneReadError, match='cannot be read at rows 0:99'):
        decoded(find_scenes(path)[0], ['band_1'], folder)
    assert not list(folder.iterdir())


def leave_behind(entry: Path, used: float | None = None) -> Path:
    """What a builder leaves that is killed; the room is taken first."""
    left = entry.with_name(f'.{entry.name}.left')
    left.mkdir()
    (left / 'image.npy').write_bytes(bytes(10**6))
    if used is not None:
        os.utime(left, (used, used))
    return left


def test_what_killed_builders_left_is_cleared_away_at_once(scene: Scene, make_scene, folder: Path) -> None:
    """Its lock can be had, of the same scene and of another one."""
    other = find_scenes(aged(make_scene('other.tif', np.ones((3, 9, 9), np.uint16), names=['B02', 'B03', 'B08'])))[0]
    decoded(scene, BANDS, folder)
    (entry,) = folder.iterdir()
    shutil.rmtree(entry)
    leave_behind(entry)
    leave_behind(cache_module._entry(other, BANDS, folder))
    decoded(scene, BANDS, folder, limit=10**6)  # 393,472 bytes
    assert [path.name for path in folder.iterdir()] == [entry.name]


def test_without_locks_it_is_cleared_away_in_time(scene: Scene, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(eviction, 'FileLock', NoLock)
    decoded(scene, BANDS, folder)
    (entry,) = folder.iterdir()
    shutil.rmtree(entry)
    leave_behind(entry.with_name('old-3'), used=0)
    new = leave_behind(entry)
    decoded(scene, BANDS, folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([entry.name, new.name])


def test_an_entry_that_is_published_meanwhile_is_no_error(scene: Scene, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(eviction, 'FileLock', NoLock)
    folder.mkdir()
    left = leave_behind(folder / 'other-3')
    glob = Path.glob

    def gone(self: Path, pattern: str) -> Any:
        found = list(glob(self, pattern))
        shutil.rmtree(left, ignore_errors=True)
        return found

    monkeypatch.setattr(Path, 'glob', gone)
    decoded(scene, BANDS, folder)


def test_a_file_in_the_place_of_an_entry_is_replaced(scene: Scene, folder: Path) -> None:
    folder.mkdir()
    cache_module._entry(scene, BANDS, folder).write_text('x')
    expected = scene.read(scene.grid.window, BANDS)[0]
    np.testing.assert_array_equal(decoded(scene, BANDS, folder).read(scene.grid.window)[0], expected)
    assert [path.is_dir() for path in folder.iterdir()] == [True]


def test_an_entry_of_a_file_just_written_is_not_trusted(make_scene, random_array, folder: Path) -> None:
    """Written again within a tick of the clock it has the same size and time."""
    path = make_scene('s.tif', random_array((1, 20, 30)))
    tick = os.stat(path).st_mtime_ns
    decoded(find_scenes(path)[0], ['band_1'], folder)
    make_scene('s.tif', random_array((1, 20, 30), seed=1))
    os.utime(path, ns=(tick, tick))
    close_datasets()
    found = decoded(find_scenes(path)[0], ['band_1'], folder)
    np.testing.assert_array_equal(found.read(Window(0, 0, 20, 30))[0], random_array((1, 20, 30), seed=1))


def test_a_file_that_changes_while_it_is_decoded(scene: Scene, folder: Path) -> None:
    with pytest.raises(SceneReadError, match=r's\.tif: was changed while it was decoded; start again'):
        decoded(scene, BANDS, folder, lambda _: os.utime(scene.path))
    assert not list(folder.iterdir())


# A limit.


def entries(folder: Path) -> set[str]:
    """Names of the scenes that are decoded in a folder."""
    return {Path(json.loads((entry / 'complete.json').read_text())['scene']).stem for entry in folder.iterdir()}


@pytest.fixture
def four(make_scene, random_array, monkeypatch) -> dict[str, Scene]:
    """Four scenes of one tile of 16 × 16 pixels, which is 512 bytes and the head of the file."""
    monkeypatch.setattr(cache_module, 'TILE', 16)
    return {
        name: find_scenes(aged(make_scene(f'{name}.tif', random_array((1, 16, 16), seed=k))))[0]
        for k, name in enumerate('abcd')
    }


def test_the_entry_that_was_not_used_for_longest_makes_room(four, folder) -> None:
    for k, name in enumerate('abc'):
        decoded(four[name], ['band_1'], folder)
        for entry in folder.iterdir():
            if json.loads((entry / 'complete.json').read_text())['scene'] == four[name].path:
                os.utime(entry / 'complete.json', (k, k))
    decoded(four['a'], ['band_1'], folder)  # so b is the oldest now
    decoded(four['d'], ['band_1'], folder, limit=2400)
    assert entries(folder) == {'a', 'c', 'd'}
    assert len(list(folder.iterdir())) == 3


def test_what_is_in_use_is_never_taken_away(four, folder) -> None:
    mapped = [decoded(four[name], ['band_1'], folder, limit=1700) for name in 'ab']
    with pytest.raises(
        ConfigurationError, match=r'c\.tif needs 512 B when .* with the scenes in use .* limit of 1\.7 kB'
    ):
        decoded(four['c'], ['band_1'], folder, limit=1700)
    assert entries(folder) == {'a', 'b'}
    claimed = cache_module.claim([four['b']], ['band_1'], folder)
    mapped.clear()  # the run that had them is over
    decoded(four['c'], ['band_1'], folder, limit=1700)
    assert entries(folder) == {'b', 'c'}
    del claimed
    for name in 'ad':
        decoded(four[name], ['band_1'], folder, limit=1700)
    assert entries(folder) == {'a', 'd'}


def test_what_is_used_for_long_is_not_the_oldest(four, folder, monkeypatch) -> None:
    found = decoded(four['a'], ['band_1'], folder)
    (entry,) = folder.iterdir()
    os.utime(entry / 'complete.json', (0, 0))
    found.record_use()
    assert (entry / 'complete.json').stat().st_mtime == 0
    now = time.monotonic()
    monkeypatch.setattr(time, 'monotonic', lambda: now + 3700)
    found.record_use()
    assert (entry / 'complete.json').stat().st_mtime > 0


def test_scenes_that_cannot_fit_together_are_told_of_at_once(four, folder) -> None:
    with pytest.raises(
        ConfigurationError, match=r'cache_size: 4 scene\(s\) need 2\.05 kB when decoded, and the limit is 1\.7 kB'
    ):
        cache_module.claim(list(four.values()), ['band_1'], folder, limit=1700)


def test_what_another_process_has_mapped_stays_readable(four, folder) -> None:
    theirs = decoded(four['a'], ['band_1'], folder)
    theirs._claim.entries = frozenset()  # another process knows nothing of it
    decoded(four['b'], ['band_1'], folder, limit=900)
    assert entries(folder) == {'b'}
    np.testing.assert_array_equal(
        theirs.read(Window(0, 0, 16, 16))[0], four['a'].read(Window(0, 0, 16, 16), ['band_1'])[0]
    )


def decode_slowly(path: str, folder: str, begun, go_on) -> None:
    """A process that waits in the middle of decoding a scene."""
    cache_module.TILE = 16

    def wait(_: float) -> None:
        begun.set()
        go_on.wait(30)

    decoded(find_scenes(path)[0], ['band_1'], Path(folder), wait, limit=900)


@pytest.mark.slow
def test_who_has_no_room_waits_for_an_entry_that_is_being_built(four, folder) -> None:
    """It cannot make room yet; complete, it can."""
    context = multiprocessing.get_context('fork')
    begun, go_on = context.Event(), context.Event()
    other = context.Process(target=decode_slowly, args=(four['a'].path, str(folder), begun, go_on))
    other.start()
    assert begun.wait(30)
    threading.Timer(0.3, go_on.set).start()
    decoded(four['b'], ['band_1'], folder, limit=900)
    other.join(30)
    assert other.exitcode == 0
    assert entries(folder) == {'b'}
