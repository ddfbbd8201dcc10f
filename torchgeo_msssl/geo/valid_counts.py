"""Where a scene has data: exact counts of valid pixels in small cells.

A full-resolution mask is read once, in a stream, and kept as one count a cell. From these, the valid pixels of
any window are bounded from below and above without reading a pixel.
"""

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene

log = logging.getLogger(__name__)

#: Side of a cell in pixels. Small against any chip, so that the bounds are tight; a Sentinel-2 tile has 1.9 million.
CELL = 8

#: Raise when the meaning of a cached file changes.
_VERSION = 2


#: Cells that are looked at together.
_CELLS_AT_ONCE = 1_000_000


def cache_folder() -> Path:
    """Folder for what can be computed again: ``$TORCHGEO_MSSSL_CACHE``, else the user's cache folder."""
    base = os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache')
    return Path(os.environ.get('TORCHGEO_MSSSL_CACHE') or os.path.join(base, 'torchgeo_msssl')).expanduser()


def scene_key(scene: Scene, bands: Sequence[str]) -> str:
    """A key that changes when a scene's files, or the bands asked for, change.

    Args:
        scene: Scene.
        bands: Canonical names.

    Returns:
        40 hexadecimal digits, of path, size and modification time of every file that decides its pixels (masks and
        the sources of virtual rasters too), of grid, nodata value and bands, and of where each band lies.
    """
    files = [[*map(_state, file.sources or (file.path,)), file.names, repr(file.nodata)] for file in scene.files]
    grid = scene.grid
    where = [str(grid.crs), list(grid.transform), grid.height, grid.width]
    text = json.dumps([_VERSION, files, where, repr(scene.nodata), list(bands)])
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _state(path: str) -> tuple[str, int, int]:
    try:
        status = os.stat(path)
    except OSError:  # a virtual path: its name has to do
        return path, 0, 0
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


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
        # In portions: each window touches (size / CELL)² cells, and there may be thousands of windows.
        portion = max(1, _CELLS_AT_ONCE // ((size[0] // CELL + 2) * (size[1] // CELL + 2)))
        parts = [
            self._bounds(rows[i : i + portion], cols[i : i + portion], size)
            for i in range(0, max(len(rows), 1), portion)
        ]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _bounds(
        self, rows: NDArray[np.integer], cols: NDArray[np.integer], size: tuple[int, int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
    shape = (len(_lengths(height)), len(_lengths(width)))
    counts = _kept(kept, shape) if cache else None
    if counts is None:
        counts = np.empty(shape, dtype=np.uint8)
        windows = streaming_windows(scene)
        for done, window in enumerate(windows, start=1):
            _, valid = scene.read(window, bands)
            by_row = np.add.reduceat(valid, np.arange(0, window.height, CELL), axis=0, dtype=np.uint8)
            cells = np.add.reduceat(by_row, np.arange(0, window.width, CELL), axis=1, dtype=np.uint8)
            row, col = window.row // CELL, window.col // CELL
            counts[row : row + cells.shape[0], col : col + cells.shape[1]] = cells
            if on_progress:
                on_progress(done / len(windows))
        if cache:
            _keep(kept, counts)
    return ValidCells(counts, height, width)


def _kept(path: Path, shape: tuple[int, int]) -> NDArray[np.integer] | None:
    """Counts from the cache, or None where there are none, or what is there is torn or foreign."""
    try:
        counts = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    usable = isinstance(counts, np.ndarray) and counts.shape == shape and counts.dtype == np.uint8
    return counts if usable and counts.max(initial=0) <= CELL * CELL else None


def _keep(path: Path, counts: NDArray[np.integer]) -> None:
    try:
        with atomic_path(path) as temporary:
            np.save(temporary, counts, allow_pickle=False)
    except OSError as error:
        log.warning('The valid pixels will be counted again next time: %s', error)


def streaming_windows(scene: Scene, pixels: int = 4_000_000) -> list[Window]:
    """Windows that cover a scene once, to stream over it: whole blocks where these are small, and whole cells.

    Args:
        scene: Scene.
        pixels: Pixels of a window, about; more only where a row of cells, or a block, has more.

    Returns:
        Windows row by row whose origins are multiples of :data:`CELL`.
    """
    grid, (block_height, block_width) = scene.grid, scene.block_shape
    unit_width = grid.width if block_width >= grid.width else _unit(block_width, grid.width)
    unit_height = _unit(block_height, max(CELL, pixels // unit_width))
    width = min(grid.width, unit_width * max(1, pixels // (unit_width * unit_height)))
    height = unit_height * max(1, pixels // (unit_height * width))
    return [
        Window(row, col, min(height, grid.height - row), min(width, grid.width - col))
        for row in range(0, grid.height, height)
        for col in range(0, grid.width, width)
    ]


def _unit(block: int, largest: int) -> int:
    """Smallest length of whole blocks and whole cells, or of whole cells alone where that would be too large."""
    both = int(np.lcm(CELL, block))
    return both if both <= largest else max(CELL, largest // CELL * CELL)


def _lengths(extent: int) -> NDArray[np.int64]:
    starts = np.arange(0, extent, CELL)
    return np.minimum(CELL, extent - starts)
