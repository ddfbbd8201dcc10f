"""Decoded scenes as memory-mapped arrays, for fast random reads.

An entry is a folder whose name depends on everything that decides its pixels (path, size, modification time, bands,
layout), so a stale entry is never found. It is built under another name and renamed when it is complete, so a partial
entry is never read. Pixels are stored in square tiles, all bands of a tile together, so that a chip is copied in runs
of a tile's width from few places.
"""

import errno
import gc
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError, MSSSLError, OutputError, SceneReadError
from torchgeo_msssl.files import FRESH
from torchgeo_msssl.geo.eviction import (
    building_path,
    entry_lock,
    format_size,
    make_room,
    remove,
    remove_abandoned,
    touch,
)
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.user_cache import cache_folder, scene_key
from torchgeo_msssl.geo.valid_counts import streaming_windows
from torchgeo_msssl.processes import available_cpus

#: Side of a tile in pixels.
TILE = 256

#: Increase when the layout changes, or the pixels that are read from the same files.
_VERSION = 3

#: File of a complete entry; its modification time tells when the entry was last used.
_MARKER = 'complete.json'

#: Number of threads that decode a scene, and of pixels that each of them holds.
_THREADS = 4
_PIXELS = 2_000_000

#: Seconds after which the use of an open entry is recorded again.
_RECORD_EVERY = 3600.0


class Claim:
    """Protects entries from eviction by this process and its forks for as long as the object lives.

    Attributes:
        entries: Folders of the entries, whether or not they exist.
    """

    def __init__(self, entries: Collection[Path]) -> None:
        self.entries = frozenset(entries)
        _claims.add(self)


_claims: WeakSet[Claim] = WeakSet()


class DecodedScene:
    """The pixels of a scene in memory maps.

    Args:
        folder: Folder of the arrays: a complete entry, or one that is about to be renamed.
        scene: The scene.
        bands: Canonical names in the order of the entry.
        entry: The cache entry.
    """

    def __init__(self, folder: Path, scene: Scene, bands: Sequence[str], entry: Path) -> None:
        self.bands = tuple(bands)
        self._claim = Claim([entry])
        self._marker = entry / _MARKER
        self._recorded = time.monotonic()
        self._image = _map_array(folder / 'image.npy', _shape(scene, len(bands)), scene.dtype)
        # a scene with data everywhere has no mask
        self._valid = (
            None if scene.always_valid else _map_array(folder / 'valid.npy', _shape(scene), np.dtype(np.bool_))
        )

    def record_use(self) -> None:
        """Record once an hour that the entry is in use, so that other processes do not evict it as the oldest."""
        if time.monotonic() - self._recorded > _RECORD_EVERY:
            self._recorded = time.monotonic()
            touch(self._marker)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Copy a window.

        Args:
            window: Window inside the scene's grid.

        Returns:
            ``(image, valid)``, shapes (band, height, width) and (height, width).
        """
        image = np.empty((len(self.bands), window.height, window.width), dtype=self._image.dtype)
        valid = np.empty((window.height, window.width), dtype=np.bool_)
        self.read_into(window, image, valid)
        return image, valid

    def read_into(self, window: Window, image: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Copy a window into arrays.

        Args:
            window: Window inside the scene's grid.
            image: Array for the pixels, shape (band, height, width).
            valid: Array for the mask of pixels with data, shape (height, width).
        """
        for tile, of, to in _pieces(window):
            image[:, *to] = self._image[*tile, :, *of]
            if self._valid is not None:
                valid[to] = self._valid[*tile, *of]
        if self._valid is None:
            valid[...] = True


def _pieces(window: Window) -> Iterator[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
    """Yield row and column of each tile that a window touches, its part of the tile, and the place in the window."""
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


def _map_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
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
    """Map a decoded scene; decode it first if it is not in the cache.

    Args:
        scene: Scene.
        bands: Canonical names.
        folder: Cache folder (default: ``decoded`` in the package's cache folder).
        on_progress: Called with the fraction done while decoding.
        limit: Bytes that all entries of the folder may have; the least recently used ones are evicted.

    Returns:
        The mapped scene.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
        ConfigurationError: If the scene does not fit under the limit together with those that are in use.
        SceneReadError: If the scene is damaged, or was changed while it was decoded.
    """
    entry = _entry(scene, bands, folder)
    found = _open(scene, bands, entry)
    if found is None:
        # of several processes one decodes; without locks all do, and the first one to finish counts
        with entry_lock(entry) as held:
            found = _open(scene, bands, entry) or _build(scene, bands, entry, on_progress, limit, bool(held))
    return found


def claim(scenes: Sequence[Scene], bands: Sequence[str], folder: Path | None = None, limit: int | None = None) -> Claim:
    """Protect the entries of scenes, so that none of them is evicted for another one.

    Args:
        scenes: Scenes.
        bands: Canonical names.
        folder: Cache folder (default: ``decoded`` in the package's cache folder).
        limit: Bytes that all entries of the folder may have.

    Returns:
        The claim; the protection ends with it.

    Raises:
        ConfigurationError: If the scenes do not fit under the limit together.
    """
    need = sum(_bytes(scene, bands) for scene in scenes)
    if limit is not None and need > limit:
        msg = (
            f'cache_size: {len(scenes)} scene(s) need {format_size(need)} when decoded, and the limit is '
            f'{format_size(limit)}; increase it, use fewer scenes or bands, or set `cache: none`.'
        )
        raise ConfigurationError(msg)
    return Claim([_entry(scene, bands, folder) for scene in scenes])


def _entry(scene: Scene, bands: Sequence[str], folder: Path | None) -> Path:
    kind = 'f' if scene.filled else ''
    return (folder or cache_folder() / 'decoded').absolute() / f'{scene_key(scene, bands)}-{_VERSION}{kind}'


def _bytes(scene: Scene, bands: Sequence[str]) -> int:
    rows, cols, *_ = _shape(scene)
    return rows * cols * TILE * TILE * (len(bands) * scene.dtype.itemsize + (not scene.always_valid))


def _open(scene: Scene, bands: Sequence[str], entry: Path) -> DecodedScene | None:
    """Map an entry; return None if there is none, or it is damaged or not settled."""
    try:
        if not json.loads((entry / _MARKER).read_text(encoding='utf-8'))['settled']:
            return None
        found = DecodedScene(entry, scene, bands, entry)
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    touch(entry / _MARKER)
    return found


def _is_settled(scene: Scene) -> bool:
    """Whether a change of the files will change their times: a tick of the clock has passed since the last one."""
    return not any(_is_fresh(path) for file in scene.files for path in file.sources or (file.path,))


def _is_fresh(path: str) -> bool:
    try:
        return abs(time.time() - os.stat(path).st_mtime) < FRESH
    except (OSError, ValueError):  # a virtual path
        return False


def _build(
    scene: Scene,
    bands: Sequence[str],
    entry: Path,
    on_progress: Callable[[float], None] | None,
    limit: int | None,
    locked: bool,
) -> DecodedScene:
    settled = _is_settled(scene)
    building = building_path(entry)
    try:
        image, valid = _reserve(scene, bands, entry, building, limit, entry if locked else None)
        _decode(scene, bands, image, valid, on_progress)
        if _entry(scene, bands, entry.parent) != entry:
            raise SceneReadError(f'{scene.path}: was changed while it was decoded; start again when it is complete.')
        marker = {'scene': scene.path, 'bands': list(bands), 'settled': settled}
        (building / _MARKER).write_text(json.dumps(marker), encoding='utf-8')
        found = DecodedScene(building, scene, bands, entry)  # mapped first: once renamed, others may evict it
        return _publish(scene, bands, building, entry) or found
    except OSError as error:
        if isinstance(error, MSSSLError) or not error.errno:
            raise
        raise _unwritable(entry, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f'cache: {path} cannot be written ({error.strerror}); free disk space, or set `cache_dir`.')


type _Arrays = tuple[np.memmap[Any, Any], np.memmap[Any, Any] | None]


def _reserve(
    scene: Scene, bands: Sequence[str], entry: Path, building: Path, limit: int | None, locked: Path | None
) -> _Arrays:
    """Allocate the arrays of an entry below the limit, also if other processes build entries at the same time."""
    folder, need = entry.parent, _bytes(scene, bands)
    while True:
        with entry_lock(folder / 'room'):
            folder.mkdir(parents=True, exist_ok=True)
            in_progress = remove_abandoned(folder, locked)
            over = make_room(entry, need, limit, _in_use(), _MARKER) if limit is not None else 0
            if over and limit is not None:
                gc.collect()  # datasets that are no longer used release their claims
                over = make_room(entry, need, limit, _in_use(), _MARKER)
            if not over:
                _check_disk(scene, folder, need)
                return _new_arrays(scene, bands, building)
        if not in_progress:
            msg = (
                f'cache_size: {scene.path} needs {format_size(need)} when decoded, {format_size(over)} too much with '
                f'the scenes in use in {folder}; increase the limit of {format_size(limit or 0)}, or set `cache: none`.'
            )
            raise ConfigurationError(msg)
        with entry_lock(in_progress[0]):  # a complete entry can be evicted, an unfinished one cannot
            pass


def _in_use() -> set[Path]:
    return {entry for claim in list(_claims) for entry in claim.entries}


def _check_disk(scene: Scene, folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        msg = (
            f'cache: {scene.path} needs {format_size(need)} when decoded and {folder} has {format_size(free)} free; '
            'free disk space, set `cache_dir` to another disk, or set `cache: none`.'
        )
        raise OutputError(msg)


def _new_arrays(scene: Scene, bands: Sequence[str], folder: Path) -> _Arrays:
    folder.mkdir()
    image = _new_array(folder / 'image.npy', scene.dtype, _shape(scene, len(bands)))
    if scene.always_valid:
        return image, None
    return image, _new_array(folder / 'valid.npy', np.dtype(np.bool_), _shape(scene))


def _decode(
    scene: Scene,
    bands: Sequence[str],
    image: np.memmap[Any, Any],
    valid: np.memmap[Any, Any] | None,
    on_progress: Callable[[float], None] | None,
) -> None:
    def copy(window: Window) -> None:
        pixels, mask = scene.read(window, bands)
        for tile, of, to in _pieces(window):  # windows do not overlap, so threads never write to the same pixel
            image[*tile, :, *of] = pixels[:, *to]
            if valid is not None:
                valid[*tile, *of] = mask[to]

    windows = streaming_windows(scene, _PIXELS)
    # each thread opens its own datasets, which are closed when it ends
    with ThreadPoolExecutor(min(_THREADS, available_cpus(), len(windows))) as pool:
        for done, _ in enumerate(pool.map(copy, windows), start=1):
            if on_progress:
                on_progress(done / len(windows))
    image.flush()
    if valid is not None:
        valid.flush()


def _new_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Create a memory-mapped array and allocate its disk space, as a full disk would kill the process later."""
    array = np.lib.format.open_memmap(path, 'w+', dtype, shape)
    if hasattr(os, 'posix_fallocate'):
        with path.open('rb+') as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # not supported there
                    raise
    return array


def _publish(scene: Scene, bands: Sequence[str], building: Path, entry: Path) -> DecodedScene | None:
    """Rename a finished entry, or return the one that another process has finished first."""
    for _ in range(3):
        try:
            os.rename(building, entry)
            return None
        except OSError as error:
            if not entry.exists():
                raise
            if (first := _open(scene, bands, entry)) is not None:
                return first
            failure = error
        remove(entry)  # it is damaged, or not settled
    raise failure
