"""Decoded scenes as memory-mapped arrays, for fast random reads.

An entry is a folder named after everything that decides its pixels (path, size, modification time, bands, layout); it
is built beside and renamed when complete, so a torn entry is never read and a stale one never found. Pixels lie in
square tiles, all bands of a tile together: a chip is then copied in runs of a tile's width from few places.
"""

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError, MSSSLError, OutputError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.room import make_room, touch
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.valid import cache_folder, scene_key, streaming_windows

try:
    import fcntl
except ImportError:  # a system without these locks: several processes then decode the same scene, each for itself
    fcntl = None  # type: ignore[assignment]

#: Side of a tile in pixels.
TILE = 256

#: Raise when the layout changes, or what a reader makes of a file.
_VERSION = 2

_COMPLETE = 'complete.json'

#: Threads that decode a scene; each holds a few million pixels.
_THREADS = 4
_PIXELS = 2_000_000

#: Seconds after which a folder that is still being built is one whose builder was killed.
_LEFT_BEHIND = 24 * 3600.0

#: Entries that this process, or the one it is a fork of, works with.
_in_use: set[Path] = set()


class DecodedScene:
    """A scene's pixels in a memory map.

    Args:
        folder: A complete cache entry.
        scene: The scene it was made of.
        bands: Canonical names in the order of the entry.
    """

    def __init__(self, folder: Path, scene: Scene, bands: Sequence[str]) -> None:
        """Map the arrays; no pixel is read yet."""
        self.bands = tuple(bands)
        self._image = _mapped(folder / 'image.npy', _shape(scene, len(bands)), scene.dtype)
        # of a scene that has data everywhere nothing is kept
        self._valid = None if scene.always_valid else _mapped(folder / 'valid.npy', _shape(scene), np.dtype(np.bool_))
        self._dtype = scene.dtype

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Copy a window that lies inside the scene.

        Args:
            window: Window inside the scene's grid.

        Returns:
            ``(image, valid)``, shapes (band, height, width) and (height, width).
        """
        image = np.empty((len(self.bands), window.height, window.width), dtype=self._dtype)
        valid = np.empty((window.height, window.width), dtype=np.bool_)
        self.read_into(window, image, valid)
        return image, valid

    def read_into(self, window: Window, image: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Copy a window that lies inside the scene into arrays.

        Args:
            window: Window inside the scene's grid.
            image: Takes the pixels, shape (band, height, width).
            valid: Takes where they have data, shape (height, width).
        """
        for tile, of, to in _pieces(window):
            image[:, *to] = self._image[*tile, :, *of]
            if self._valid is not None:
                valid[to] = self._valid[*tile, *of]
        if self._valid is None:
            valid[...] = True


def _pieces(window: Window) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
    """The tiles that a window touches: which, which part of the tile, and where in the window that is."""
    rows, cols = _runs(window.row, window.height), _runs(window.col, window.width)
    for row, of_rows, to_rows in rows:
        for col, of_cols, to_cols in cols:
            yield (row, col), (of_rows, of_cols), (to_rows, to_cols)


def _runs(start: int, length: int) -> list[tuple[int, slice, slice]]:
    runs = []
    for tile in range(start // TILE, (start + length - 1) // TILE + 1):
        first, end = max(start, tile * TILE), min(start + length, (tile + 1) * TILE)
        runs.append((tile, slice(first - tile * TILE, end - tile * TILE), slice(first - start, end - start)))
    return runs


def _shape(scene: Scene, *bands: int) -> tuple[int, ...]:
    return -(-scene.grid.height // TILE), -(-scene.grid.width // TILE), *bands, TILE, TILE


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    found = np.load(path, mmap_mode='r', allow_pickle=False)
    if found.shape != shape or found.dtype != dtype:
        raise ValueError(f'{path}: expected {dtype} {shape}, got {found.dtype} {found.shape}')
    return np.asarray(found)


def decoded(
    scene: Scene,
    bands: Sequence[str],
    folder: Path | None = None,
    on_progress: Callable[[float], None] | None = None,
    limit: int | None = None,
) -> DecodedScene:
    """Map a decoded scene, building the entry first where there is none.

    Args:
        scene: Scene.
        bands: Canonical names.
        folder: Cache folder (default: ``decoded`` in the package's cache folder).
        on_progress: Called with the fraction done while building.
        limit: Bytes that all entries of the folder may have; the least recently used ones make room.

    Returns:
        The mapped scene.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
        ConfigurationError: If the scene does not fit under the limit beside those that are in use.
        SceneReadError: If the scene is damaged.
    """
    entry = _entry(scene, bands, folder)
    _in_use.add(entry)
    found = _open(scene, bands, entry)
    if found is None:
        with _one_at_a_time(entry):
            found = _open(scene, bands, entry)  # another process may have built it meanwhile
            if found is None:
                _build(scene, bands, entry, on_progress, limit)
        found = found or _open(scene, bands, entry)
    if found is None:
        raise OutputError(f'cache: {entry} does not hold what was just written there; set `cache_dir` to another disk.')
    return found


def claim(scenes: Sequence[Scene], bands: Sequence[str], folder: Path | None = None, limit: int | None = None) -> None:
    """Say which scenes will be used, so that none of them makes room for another.

    Args:
        scenes: Scenes.
        bands: Canonical names.
        folder: Cache folder (default: ``decoded`` in the package's cache folder).
        limit: Bytes that all entries of the folder may have.

    Raises:
        ConfigurationError: If they do not fit under the limit together.
    """
    need = sum(_bytes(scene, bands) for scene in scenes)
    if limit is not None and need > limit:
        msg = (
            f'cache_size: {len(scenes)} scene(s) need {need / 1e9:.2f} GB decoded, and {limit / 1e9:.2f} GB are '
            'allowed; allow more, take fewer scenes or bands, or use `cache: none`.'
        )
        raise ConfigurationError(msg)
    _in_use.update(_entry(scene, bands, folder) for scene in scenes)


def _entry(scene: Scene, bands: Sequence[str], folder: Path | None) -> Path:
    return (folder or cache_folder() / 'decoded').absolute() / f'{scene_key(scene, bands)}-{_VERSION}'


def _bytes(scene: Scene, bands: Sequence[str]) -> int:
    rows, cols, *_ = _shape(scene)
    return rows * cols * TILE * TILE * (len(bands) * scene.dtype.itemsize + (not scene.always_valid))


def _open(scene: Scene, bands: Sequence[str], entry: Path) -> DecodedScene | None:
    """Map an entry, or return None where there is none or it is not whole."""
    if not (entry / _COMPLETE).is_file():
        return None
    try:
        found = DecodedScene(entry, scene, bands)
    except (OSError, ValueError, EOFError):
        return None
    touch(entry / _COMPLETE)
    return found


@contextlib.contextmanager
def _one_at_a_time(entry: Path) -> Iterator[None]:
    """Wait while another process builds the same entry. Without locks both build it, which is as right."""
    lock = entry.with_name(f'.lock-{entry.name}')
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open('wb')
    except OSError:  # said in full by whoever writes there next
        yield
        return
    with file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # not every network disk has locks
                fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _build(
    scene: Scene, bands: Sequence[str], entry: Path, on_progress: Callable[[float], None] | None, limit: int | None
) -> None:
    building = entry.with_name(f'.{entry.name}.{uuid.uuid4().hex[:12]}')
    try:
        _make_room(scene, bands, entry, limit)
        building.mkdir()
    except MSSSLError:
        raise
    except OSError as error:
        raise OutputError(f'cache: {entry.parent} cannot be written ({error.strerror}); set `cache_dir`.') from error
    try:
        _decode(scene, bands, building, on_progress)
        _publish(scene, bands, building, entry)
    except OSError as error:
        if isinstance(error, MSSSLError) or not error.errno:
            raise
        raise OutputError(
            f'cache: {entry} could not be written ({error.strerror}); make room there, or set `cache_dir`.'
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _make_room(scene: Scene, bands: Sequence[str], entry: Path, limit: int | None) -> None:
    """Make the folder, clear away what is not needed there, and see whether the disk has room."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    for left in entry.parent.glob('.*-*.*'):
        if left.is_dir() and time.time() - left.stat().st_mtime > _LEFT_BEHIND:
            shutil.rmtree(left, ignore_errors=True)
    need = _bytes(scene, bands)
    over = make_room(entry, need, limit, _in_use, _COMPLETE) if limit is not None else 0
    if limit is not None and over:
        msg = (
            f'cache_size: {scene.path} needs {need / 1e9:.2f} GB decoded, which is {over / 1e9:.2f} GB too much beside '
            f'what is in use in {entry.parent}; allow more than {limit / 1e9:.2f} GB, or use `cache: none`.'
        )
        raise ConfigurationError(msg)
    free = shutil.disk_usage(entry.parent).free
    if need > free:
        msg = (
            f'cache: {scene.path} needs {need / 1e9:.1f} GB decoded and {entry.parent} has {free / 1e9:.1f} GB '
            'free; make room, set `cache_dir` to another disk, or use `cache: none`.'
        )
        raise OutputError(msg)


def _decode(scene: Scene, bands: Sequence[str], folder: Path, on_progress: Callable[[float], None] | None) -> None:
    image = _new_array(folder / 'image.npy', scene.dtype, _shape(scene, len(bands)))
    always = scene.always_valid
    valid = None if always else _new_array(folder / 'valid.npy', np.dtype(np.bool_), _shape(scene))

    def copy(window: Window) -> None:
        pixels, mask = scene.read(window, bands)
        for tile, of, to in _pieces(window):  # no two windows have a pixel in common
            image[*tile, :, *of] = pixels[:, *to]
            if valid is not None:
                valid[*tile, *of] = mask[to]

    windows = streaming_windows(scene, _PIXELS)
    # each thread has a handle of its own, and closes it when it ends
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1, len(windows))) as pool:
        for done, _ in enumerate(pool.map(copy, windows), start=1):
            if on_progress:
                on_progress(done / len(windows))
    image.flush()
    if valid is not None:
        valid.flush()
    (folder / _COMPLETE).write_text(json.dumps({'scene': scene.path, 'bands': list(bands)}), encoding='utf-8')


def _new_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A memory-mapped array whose place on the disk is taken: a full disk would otherwise kill the process."""
    array = np.lib.format.open_memmap(path, 'w+', dtype, shape)
    if hasattr(os, 'posix_fallocate'):
        with path.open('rb+') as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # not every file system can
                    raise
    return array


def _publish(scene: Scene, bands: Sequence[str], building: Path, entry: Path) -> None:
    for _ in range(3):
        try:
            os.rename(building, entry)
            return
        except OSError as error:
            if not entry.exists():
                raise
            if _open(scene, bands, entry) is not None:  # another process finished the same entry first
                return
            failure = error
        shutil.rmtree(entry, ignore_errors=True)  # a torn one stood there
    raise failure
