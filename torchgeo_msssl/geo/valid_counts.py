"""Exact counts of a scene's valid pixels in small cells.

The full-resolution mask is read once, in a stream, and cached as one count per cell. The counts bound the number of
valid pixels of any window from below and above without reading a pixel.
"""

import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.user_cache import cache_folder, scene_key

log = logging.getLogger(__name__)

#: Side of a cell in pixels, small compared to a chip, so that the bounds are tight. A Sentinel-2 tile has 1.9 million.
CELL = 8

#: Number of cells that are processed together.
_CELLS_AT_ONCE = 1_000_000


class ValidCells:
    """Counts of valid pixels in cells of :data:`CELL` × :data:`CELL` pixels.

    Args:
        counts: Shape (ceil(height / CELL), ceil(width / CELL)).
        height: Rows of the scene, pixels.
        width: Columns of the scene, pixels.
    """

    def __init__(self, counts: NDArray[np.integer], height: int, width: int) -> None:
        self.counts, self.height, self.width = counts, height, width

    @property
    def total(self) -> int:
        """Number of valid pixels of the scene."""
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
            ``(at_least, at_most)``, shape (n,) each. They are equal if the window's edges lie on cell edges, or if the
            cells that it cuts are full or empty.
        """
        # In portions, because each window touches (size / CELL)² cells and there may be thousands of windows.
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
    """Return index, overlap and length of the cells that each window touches along one axis, shape (n, cells)."""
    touched = size // CELL + 2
    last = (extent - 1) // CELL
    raw = starts[:, None].astype(np.int64) // CELL + np.arange(touched)
    cells = np.minimum(raw, last)
    lengths = np.minimum((cells + 1) * CELL, extent) - cells * CELL
    first = np.maximum(cells * CELL, starts[:, None])
    end = np.minimum(cells * CELL + lengths, starts[:, None] + size)
    # beyond the last cell of the window or of the scene there is nothing to count
    overlap = np.where(raw > last, 0, np.maximum(end - first, 0))
    return cells, overlap, np.where(overlap > 0, lengths, 0)


def count_valid(
    scene: Scene, bands: Sequence[str], on_progress: Callable[[float], None] | None = None, cache: bool = True
) -> ValidCells:
    """Count the valid pixels of every cell of a scene, reading it once in a stream.

    Args:
        scene: Scene.
        bands: Bands that must all have data for a pixel to count.
        on_progress: Called with the fraction done after each window.
        cache: Use the cached counts, and cache new ones.

    Returns:
        The counts.

    Raises:
        SceneReadError: If the scene is damaged.
    """
    height, width = scene.grid.height, scene.grid.width
    if scene.always_valid:
        return ValidCells(np.outer(_lengths(height), _lengths(width)), height, width)
    path = cache_folder() / 'valid' / f'{scene_key(scene, bands)}.npy'
    shape = (len(_lengths(height)), len(_lengths(width)))
    counts = _load(path, shape) if cache else None
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
            _save(path, counts)
    return ValidCells(counts, height, width)


def _load(path: Path, shape: tuple[int, int]) -> NDArray[np.integer] | None:
    """Return cached counts, or None if there are none or the file is damaged."""
    try:
        counts = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    usable = isinstance(counts, np.ndarray) and counts.shape == shape and counts.dtype == np.uint8
    return counts if usable and counts.max(initial=0) <= CELL * CELL else None


def _save(path: Path, counts: NDArray[np.integer]) -> None:
    try:
        with atomic_path(path) as temporary:
            np.save(temporary, counts, allow_pickle=False)
    except OSError as error:
        log.warning('The counts of valid pixels are not cached and will be computed again next time: %s', error)


def streaming_windows(scene: Scene, pixels: int = 4_000_000) -> list[Window]:
    """Return windows that cover a scene once, of whole blocks where these are small and of whole cells.

    Args:
        scene: Scene.
        pixels: Approximate number of pixels of a window. It is larger only if a row of cells, or a block, is.

    Returns:
        Windows row by row, whose origins are multiples of :data:`CELL`.
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
    """Return the smallest length of whole blocks and whole cells, or of whole cells if that would be too large."""
    both = int(np.lcm(CELL, block))
    return both if both <= largest else max(CELL, largest // CELL * CELL)


def _lengths(extent: int) -> NDArray[np.int64]:
    starts = np.arange(0, extent, CELL)
    return np.minimum(CELL, extent - starts)
