"""Decoded scenes as memory-mapped arrays, for fast random reads.

An entry is a folder named after everything that decides its pixels (path, size, modification time, bands, layout); it
is built beside and renamed when complete, so a torn entry is never read and a stale one never found. Pixels lie in
square tiles, all bands of a tile together: a chip is then copied in runs of a tile's width from few places.
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
from torchgeo_msssl.geo.eviction import beside, clear_left_behind, format_size, lock_of, make_room, remove, touch
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.locks import Lock, lock
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.valid_counts import cache_folder, scene_key, streaming_windows

#: Side of a tile in pixels.
TILE = 256

#: Raise when the layout changes, or what a reader makes of a file.
_VERSION = 3

_COMPLETE = 'complete.json'

#: Threads that decode a scene; each holds a few million pixels.
_THREADS = 4
_PIXELS = 2_000_000

#: Seconds after which it is noted again that an entry is in use.
_NOTE_EVERY = 3600.0


class Claim:
    """Entries that somebody in this process, or the one it is a fork of, works with: they stay as long as it lives.

    Attributes:
        entries: Their folders.
    """

    def __init__(self, entries: Collection[Path]) -> None:
        """Claim entries, whether they are there or not."""
        self.entries = frozenset(entries)
        _claims.add(self)


_claims: WeakSet[Claim] = WeakSet()


class DecodedScene:
    """A scene's pixels in a memory map.

    Args:
        folder: What holds the arrays: a complete cache entry, or what is about to become one.
        scene: The scene it was made of.
        bands: Canonical names in the order of the entry.
        entry: The cache entry.
    """

    def __init__(self, folder: Path, scene: Scene, bands: Sequence[str], entry: Path) -> None:
        """Map the arrays; no pixel is read yet."""
        self.bands = tuple(bands)
        self._claim = Claim([entry])
        self._mark = entry / _COMPLETE
        self._noted = time.monotonic()
        self._image = _mapped(folder / 'image.npy', _shape(scene, len(bands)), scene.dtype)
        # of a scene that has data everywhere nothing is kept
        self._valid = None if scene.always_valid else _mapped(folder / 'valid.npy', _shape(scene), np.dtype(np.bool_))
        self._dtype = scene.dtype

    def note_use(self) -> None:
        """Note now and then that the entry is in use, so that it is not taken for one that was left long ago."""
        if time.monotonic() - self._noted > _NOTE_EVERY:
            self._noted = time.monotonic()
            touch(self._mark)

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
        SceneReadError: If the scene is damaged, or was changed while it was decoded.
    """
    entry = _entry(scene, bands, folder)
    found = _open(scene, bands, entry)
    if found is None:
        with lock(lock_of(entry)) as state:  # of several processes one builds; without locks all do, which is as right
            found = _open(scene, bands, entry) or _build(scene, bands, entry, on_progress, limit, state)
    return found


def claim(scenes: Sequence[Scene], bands: Sequence[str], folder: Path | None = None, limit: int | None = None) -> Claim:
    """Say which scenes will be used, so that none of them makes room for another.

    Args:
        scenes: Scenes.
        bands: Canonical names.
        folder: Cache folder (default: ``decoded`` in the package's cache folder).
        limit: Bytes that all entries of the folder may have.

    Returns:
        The claim; it holds as long as the caller keeps it.

    Raises:
        ConfigurationError: If they do not fit under the limit together.
    """
    need = sum(_bytes(scene, bands) for scene in scenes)
    if limit is not None and need > limit:
        msg = (
            f'cache_size: {len(scenes)} scene(s) need {format_size(need)} decoded, and {format_size(limit)} are '
            'allowed; allow more, take fewer scenes or bands, or use `cache: none`.'
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
    """Map an entry, or return None where there is none, or it is not whole or not to be trusted."""
    try:
        if not json.loads((entry / _COMPLETE).read_text(encoding='utf-8'))['settled']:
            return None
        found = DecodedScene(entry, scene, bands, entry)
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    touch(entry / _COMPLETE)
    return found


def _is_settled(scene: Scene) -> bool:
    """Whether its key will change if its files do: a tick of the clock has passed since they were written."""
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
    state: Lock,
) -> DecodedScene:
    mine = entry if state is Lock.OURS else None
    settled = _is_settled(scene)
    building = beside(entry)
    try:
        image, valid = _reserve(scene, bands, entry, building, limit, mine)
        _decode(scene, bands, image, valid, on_progress)
        if _entry(scene, bands, entry.parent) != entry:
            raise SceneReadError(f'{scene.path}: was changed while it was decoded; start again when it is complete.')
        mark = {'scene': scene.path, 'bands': list(bands), 'settled': settled}
        (building / _COMPLETE).write_text(json.dumps(mark), encoding='utf-8')
        # mapped before it has its name, when others may already take it away
        found = DecodedScene(building, scene, bands, entry)
        return _publish(scene, bands, building, entry) or found
    except OSError as error:
        if isinstance(error, MSSSLError) or not error.errno:
            raise
        raise OutputError(
            f'cache: {entry} could not be written ({error.strerror}); make room there, or set `cache_dir`.'
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


type _Arrays = tuple[np.memmap[Any, Any], np.memmap[Any, Any] | None]


def _reserve(
    scene: Scene, bands: Sequence[str], entry: Path, building: Path, limit: int | None, mine: Path | None
) -> _Arrays:
    """Take the place of an entry on the disk, below the limit whoever else is building there."""
    folder, need = entry.parent, _bytes(scene, bands)
    while True:
        with lock(folder / '.lock-room'):
            _begin(folder)
            others = clear_left_behind(folder, mine)
            over = make_room(entry, need, limit, _in_use(), _COMPLETE) if limit is not None else 0
            if over and limit is not None:
                gc.collect()  # of datasets that nobody uses any more, those in cycles wait for this
                over = make_room(entry, need, limit, _in_use(), _COMPLETE)
            if not over:
                _check_disk(scene, folder, need)
                return _new_arrays(scene, bands, building)
        if not others:
            msg = (
                f'cache_size: {scene.path} needs {format_size(need)} decoded, which is {format_size(over)} too much '
                f'beside what is in use in {folder}; allow more than {format_size(limit or 0)}, or use `cache: none`.'
            )
            raise ConfigurationError(msg)
        with lock(lock_of(others[0])):  # an entry that is complete can make room, one that is being built cannot
            pass


def _in_use() -> set[Path]:
    return {entry for claim in list(_claims) for entry in claim.entries}


def _begin(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f'cache: {folder} cannot be written ({error.strerror}); set `cache_dir`.') from error


def _check_disk(scene: Scene, folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        msg = (
            f'cache: {scene.path} needs {format_size(need)} decoded and {folder} has {format_size(free)} free; '
            'make room, set `cache_dir` to another disk, or use `cache: none`.'
        )
        raise OutputError(msg)


def _new_arrays(scene: Scene, bands: Sequence[str], folder: Path) -> _Arrays:
    try:
        folder.mkdir()
    except OSError as error:
        raise OutputError(f'cache: {folder.parent} cannot be written ({error.strerror}); set `cache_dir`.') from error
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


def _publish(scene: Scene, bands: Sequence[str], building: Path, entry: Path) -> DecodedScene | None:
    """Give an entry its name, or return the one that another process has finished first."""
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
        remove(entry)  # a torn one stood there, or one of a file that had just been written
    raise failure
