"""Decoded scenes as memory-mapped arrays, for fast random reads.

An entry is a folder named after everything that decides its pixels (path, size, modification time, bands); it
is built beside and renamed when complete, so a torn entry is never read and a stale one never found.
"""

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import MSSSLError, OutputError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.valid import cache_folder, scene_key, streaming_windows

_COMPLETE = 'complete.json'

#: Seconds after which a folder that is still being built is one whose builder was killed.
_LEFT_BEHIND = 24 * 3600.0


class DecodedScene:
    """A scene's pixels in a memory map, band last.

    Args:
        folder: A complete cache entry.
        bands: Canonical names in the order of the entry.
    """

    def __init__(self, folder: Path, bands: Sequence[str]) -> None:
        """Map the arrays; no pixel is read yet."""
        self.bands = tuple(bands)
        self._image = np.load(folder / 'image.npy', mmap_mode='r', allow_pickle=False)
        self._valid = np.load(folder / 'valid.npy', mmap_mode='r', allow_pickle=False)

    def fits(self, scene: Scene) -> bool:
        """Whether the arrays have the shape and dtype of a scene."""
        shape = (scene.grid.height, scene.grid.width)
        return (
            self._image.shape == (*shape, len(self.bands))
            and self._image.dtype == scene.dtype
            and self._valid.shape == shape
            and self._valid.dtype == np.bool_
        )

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Copy a window that lies inside the scene.

        Args:
            window: Window inside the scene's grid.

        Returns:
            ``(image, valid)``, shapes (band, height, width) and (height, width).
        """
        rows = slice(window.row, window.row + window.height)
        cols = slice(window.col, window.col + window.width)
        image = np.array(self._image[rows, cols].transpose(2, 0, 1), order='C')  # a copy also of a single band
        return image, np.array(self._valid[rows, cols])


def decoded(
    scene: Scene,
    bands: Sequence[str],
    folder: Path | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> DecodedScene:
    """Map a decoded scene, building the entry first where there is none.

    Args:
        scene: Scene.
        bands: Canonical names.
        folder: Cache folder (default: ``decoded`` in the package's cache folder).
        on_progress: Called with the fraction done while building.

    Returns:
        The mapped scene.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
        SceneReadError: If the scene is damaged.
    """
    entry = (folder or cache_folder() / 'decoded') / scene_key(scene, bands)
    found = _open(scene, bands, entry)
    if found is None:
        _build(scene, bands, entry, on_progress)
        found = _open(scene, bands, entry)
    if found is None:
        raise OutputError(f'cache: {entry} does not hold what was just written there; set `cache_dir` to another disk.')
    return found


def _open(scene: Scene, bands: Sequence[str], entry: Path) -> DecodedScene | None:
    """Map an entry, or return None where there is none or it is not whole."""
    if not (entry / _COMPLETE).is_file():
        return None
    try:
        found = DecodedScene(entry, bands)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.fits(scene) else None


def _build(scene: Scene, bands: Sequence[str], entry: Path, on_progress: Callable[[float], None] | None) -> None:
    building = entry.with_name(f'.{entry.name}.{uuid.uuid4().hex[:12]}')
    try:
        _make_room(scene, bands, entry)
        building.mkdir()
    except OutputError:
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


def _make_room(scene: Scene, bands: Sequence[str], entry: Path) -> None:
    """Make the folder, clear away what killed processes left there, and see whether the disk has room."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    for left in entry.parent.glob(f'.{entry.name}.*'):
        if time.time() - left.stat().st_mtime > _LEFT_BEHIND:
            shutil.rmtree(left, ignore_errors=True)
    need = scene.grid.window.area * (len(bands) * scene.dtype.itemsize + 1)
    free = shutil.disk_usage(entry.parent).free
    if need > free:
        msg = (
            f'cache: {scene.path} needs {need / 1e9:.1f} GB decoded and {entry.parent} has {free / 1e9:.1f} GB '
            'free; make room, set `cache_dir` to another disk, or use `cache: none`.'
        )
        raise OutputError(msg)


def _decode(scene: Scene, bands: Sequence[str], folder: Path, on_progress: Callable[[float], None] | None) -> None:
    shape = (scene.grid.height, scene.grid.width)
    image = _new_array(folder / 'image.npy', scene.dtype, (*shape, len(bands)))
    valid = _new_array(folder / 'valid.npy', np.dtype(np.bool_), shape)
    windows = streaming_windows(scene)
    for done, window in enumerate(windows, start=1):
        pixels, mask = scene.read(window, bands)
        rows = slice(window.row, window.row + window.height)
        cols = slice(window.col, window.col + window.width)
        image[rows, cols] = pixels.transpose(1, 2, 0)
        valid[rows, cols] = mask
        if on_progress:
            on_progress(done / len(windows))
    image.flush()
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
