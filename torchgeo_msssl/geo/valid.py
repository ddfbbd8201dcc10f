"""Where a scene has data: exact counts of valid pixels in small cells.

A full-resolution mask is read once, in a stream, and kept as one count a cell. From these, the valid pixels of
any window are bounded from below and above without reading a pixel.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene

#: Side of a cell in pixels. Small against any chip, so that the bounds are tight; a Sentinel-2 tile has 1.9 million.
CELL = 8

#: Raise when the meaning of a cached file changes.
_VERSION = 1


def cache_folder() -> Path:
    """Folder for what can be computed again: ``$TORCHGEO_MSSSL_CACHE``, else the user's cache folder."""
    base = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    return Path(os.environ.get('TORCHGEO_MSSSL_CACHE') or os.path.join(base, 'torchgeo_msssl'))


def scene_key(scene: Scene, bands: Sequence[str]) -> str:
    """A key that changes when a scene's files, or the bands asked for, change.

    Args:
        scene: Scene.
        bands: Canonical names.

    Returns:
        40 hexadecimal digits, of path, size, modification time, nodata value and bands.
    """
    files = []
    for file in scene.files:
        try:
            status = os.stat(file.path)
            files.append((os.path.abspath(file.path), status.st_size, status.st_mtime_ns))
        except OSError:  # a virtual path: its name has to do
            files.append((file.path, 0, 0))
    grid = scene.grid
    where = [str(grid.crs), list(grid.transform), grid.height, grid.width]
    text = json.dumps([_VERSION, files, where, repr(scene.nodata), list(bands)])
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class ValidCells:
    """Counts of valid pixels in cells of :data:`CELL` pixels a side.

    Args:
        counts: Shape (ceil(height / CELL), ceil(width / CELL)).
        height: Rows of the scene, pixels.
        width: Columns of the scene, pixels.
    """

    def __init__(self, counts: NDArray[np.integer], height: int, width: int) -> None:
        """Initialize from counts."""
        self.counts = counts
        self.height = height
        self.width = width

    @property
    def total(self) -> int:
        """Valid pixels of the scene."""
        return int(self.counts.sum(dtype=np.int64))

    def bounds(
        self, rows: NDArray[np.integer], cols: NDArray[np.integer], size: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bound the valid pixels of windows inside the scene.

        Args:
            rows: First row of each window, shape (n,).
            cols: First column of each window, shape (n,).
            size: ``(height, width)`` of all windows.

        Returns:
            ``(at_least, at_most)``, shape (n,) each; equal where a window's edges lie on cell edges, or where the
            cells it cuts are full or empty.
        """
        row_cells, row_overlap, row_extent = _overlaps(rows, size[0], self.height)
        col_cells, col_overlap, col_extent = _overlaps(cols, size[1], self.width)
        counts = self.counts[row_cells[:, :, None], col_cells[:, None, :]].astype(np.int64)
        overlap = row_overlap[:, :, None] * col_overlap[:, None, :]
        outside = row_extent[:, :, None] * col_extent[:, None, :] - overlap
        at_least = np.maximum(counts - outside, 0)
        at_most = np.minimum(counts, overlap)
        return np.minimum(at_least, overlap).sum(axis=(1, 2)), at_most.sum(axis=(1, 2))


def _overlaps(
    starts: NDArray[np.integer], size: int, extent: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cells along one axis that each window touches: index, overlap and own length, shape (n, cells)."""
    touched = size // CELL + 2
    last = (extent - 1) // CELL
    raw = starts[:, None].astype(np.int64) // CELL + np.arange(touched)
    cells = np.minimum(raw, last)
    lengths = np.minimum((cells + 1) * CELL, extent) - cells * CELL
    first = np.maximum(cells * CELL, starts[:, None])
    end = np.minimum(cells * CELL + lengths, starts[:, None] + size)
    # beyond the window's (or the scene's) last cell there is nothing to count
    overlap = np.where(raw > last, 0, np.maximum(end - first, 0))
    return cells, overlap, np.where(overlap > 0, lengths, 0)


def count_valid(
    scene: Scene, bands: Sequence[str], on_progress: Callable[[float], None] | None = None, cache: bool = True
) -> ValidCells:
    """Count the valid pixels of every cell of a scene, reading it once in a stream.

    Args:
        scene: Scene.
        bands: Bands that must have data for a pixel to count.
        on_progress: Called with the fraction done after each strip.
        cache: Keep the counts in :func:`cache_folder`, and take them from there.

    Returns:
        The counts.

    Raises:
        SceneReadError: If the scene is damaged.
    """
    height, width = scene.grid.height, scene.grid.width
    if scene.always_valid:
        return ValidCells(np.outer(_lengths(height), _lengths(width)), height, width)
    kept = cache_folder() / 'valid' / f'{scene_key(scene, bands)}.npy'
    if cache and kept.is_file():
        try:
            counts = np.load(kept, allow_pickle=False)
            if counts.shape == (len(_lengths(height)), len(_lengths(width))):
                return ValidCells(counts, height, width)
        except (OSError, ValueError):
            pass  # a torn or foreign file: count again
    counts = np.empty((len(_lengths(height)), len(_lengths(width))), dtype=np.uint8)
    step = strip_height(scene)
    for row in range(0, height, step):
        window = Window(row, 0, min(step, height - row), width)
        _, valid = scene.read(window, bands)
        rows = np.add.reduceat(valid, np.arange(0, window.height, CELL), axis=0, dtype=np.uint8)
        cells = np.add.reduceat(rows, np.arange(0, width, CELL), axis=1, dtype=np.uint8)
        counts[row // CELL : row // CELL + cells.shape[0]] = cells
        if on_progress:
            on_progress((row + window.height) / height)
    if cache:
        _keep(kept, counts)
    return ValidCells(counts, height, width)


def _keep(path: Path, counts: NDArray[np.integer]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            np.save(temporary, counts, allow_pickle=False)
    except OSError:
        pass  # without a writable cache folder the counts are made again next time


def strip_height(scene: Scene) -> int:
    """Rows to read at once when streaming over a scene: whole blocks and whole cells, about 4 million pixels.

    Args:
        scene: Scene.

    Returns:
        A multiple of :data:`CELL`, and of the block height where that is not larger than the strip.
    """
    unit = int(np.lcm(CELL, scene.block_shape[0])) if scene.block_shape[0] <= 1024 else CELL
    return unit * max(1, 4_000_000 // (unit * scene.grid.width))


def _lengths(extent: int) -> NDArray[np.int64]:
    starts = np.arange(0, extent, CELL)
    return np.minimum(CELL, extent - starts)
