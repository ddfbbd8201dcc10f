"""Decoded scenes as memory-mapped arrays, for fast random reads.

An entry is a folder named after everything that decides its pixels (path, size, modification time, bands); it
is built beside and renamed when complete, so a torn entry is never read and a stale one never found.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.valid import cache_folder, scene_key, strip_height


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

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Copy a window that lies inside the scene.

        Args:
            window: Window inside the scene's grid.

        Returns:
            ``(image, valid)``, shapes (band, height, width) and (height, width).
        """
        rows = slice(window.row, window.row + window.height)
        cols = slice(window.col, window.col + window.width)
        image = np.ascontiguousarray(self._image[rows, cols].transpose(2, 0, 1))
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
    if not (entry / 'complete.json').is_file():
        _build(scene, bands, entry, on_progress)
    return DecodedScene(entry, bands)


def _build(scene: Scene, bands: Sequence[str], entry: Path, on_progress: Callable[[float], None] | None) -> None:
    grid = scene.grid
    need = grid.height * grid.width * (len(bands) * scene.dtype.itemsize + 1)
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(entry.parent).free
        if need > free:
            msg = (
                f'cache: {scene.path} needs {need / 1e9:.1f} GB decoded and {entry.parent} has {free / 1e9:.1f} GB '
                'free; make room, set `cache_dir` to another disk, or use `cache: none`.'
            )
            raise OutputError(msg)
        building = Path(tempfile.mkdtemp(prefix=f'.{entry.name[:8]}-', dir=entry.parent))
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f'cache: {entry.parent} cannot be written ({error.strerror}); set `cache_dir`.') from error
    try:
        shape = (grid.height, grid.width)
        image = np.lib.format.open_memmap(building / 'image.npy', 'w+', scene.dtype, (*shape, len(bands)))
        valid = np.lib.format.open_memmap(building / 'valid.npy', 'w+', np.bool_, shape)
        step = strip_height(scene)
        for row in range(0, grid.height, step):
            window = Window(row, 0, min(step, grid.height - row), grid.width)
            pixels, mask = scene.read(window, bands)
            image[row : row + window.height] = pixels.transpose(1, 2, 0)
            valid[row : row + window.height] = mask
            if on_progress:
                on_progress((row + window.height) / grid.height)
        image.flush()
        valid.flush()
        (building / 'complete.json').write_text(json.dumps({'scene': scene.path, 'bands': list(bands)}))
        try:
            os.rename(building, entry)
        except OSError:  # another process finished the same entry first
            if not (entry / 'complete.json').is_file():
                raise
    except OSError as error:
        if isinstance(error, OutputError) or not error.errno:
            raise
        raise OutputError(f'cache: {entry} could not be written ({error.strerror}); set `cache_dir`.') from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
