"""Chips on a grid that covers every pixel of every scene."""

import math
from dataclasses import replace

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError
from torchgeo_msssl.geo.grid import PixelGrid, Window, covering_windows, spaced_windows
from torchgeo_msssl.samplers.base import FixedSampler

#: Tolerance for rounded coordinates, in pixels.
_TOLERANCE = 1e-6


class GridChipSampler(FixedSampler):
    """Yields the fewest chips at a stride that cover each scene, from north to south and west to east.

    Chips lie inside their scene; a scene smaller than a chip is padded with nodata. With a region, each of its polygons
    has a grid of its own, which begins in the north-west corner.
    """

    def __init__(
        self,
        dataset: Scenes,
        size: int | tuple[int, int],
        overlap: int = 0,
        roi: BaseGeometry | None = None,
        min_valid: float = 0.0,
        all_ranks: bool = False,
    ) -> None:
        """Lay out the grid.

        Args:
            dataset: Scenes to cover.
            size: Chip size in pixels, one side or ``(height, width)``.
            overlap: Pixels that neighbouring chips share (more in the last row and column, which end at the border);
                negative for that many pixels between them, without a region.
            roi: Only chips wholly inside this region (in the dataset's CRS).
            min_valid: Minimum fraction of valid pixels per chip; 0 keeps all chips.
            all_ranks: Give every rank of a distributed run all chips instead of its share.

        Raises:
            ConfigurationError: If the overlap is not smaller than the chip, or ``min_valid`` is not a fraction.
            EmptyIntersectionError: If no chip is left.
        """
        super().__init__(dataset, size, roi, all_ranks)
        if not 0 <= min_valid <= 1:
            raise ConfigurationError(f'min_valid: expected a fraction from 0 to 1, got {min_valid}.')
        if overlap >= min(self.size) or (overlap < 0 and roi is not None):
            raise ConfigurationError(f'overlap: expected 0 to {min(self.size) - 1} pixels, got {overlap}.')
        for i, scene in enumerate(dataset.scenes):
            region = self.region_of(i)
            if region is None and overlap < 0:
                windows = list(spaced_windows(scene.grid, self.size, max(self.size) - overlap))
            elif region is None:
                windows = list(covering_windows(scene.grid, self.size, overlap))
            else:
                windows = _windows_inside(scene.grid, region, self.size, overlap)
            if min_valid > 0 and windows:
                origins = np.array([(window.row, window.col) for window in windows])
                at_least, _ = dataset.valid_cells(i).bounds(origins[:, 0], origins[:, 1], self.size)
                enough = at_least >= min_valid * self.size[0] * self.size[1] - 1e-9
                windows = [window for window, keep in zip(windows, enough, strict=True) if keep]
            self.places.extend((i, window) for window in windows)
        if not self.places:
            msg = (
                f'roi, min_valid: no chip of {self.size[0]}×{self.size[1]} pixels lies inside the region with at least '
                f'{min_valid:.0%} valid data; use a smaller chip, larger blocks or a smaller min_valid.'
            )
            raise EmptyIntersectionError(msg)


def _windows_inside(grid: PixelGrid, region: BaseGeometry, size: tuple[int, int], overlap: int) -> list[Window]:
    """Return the windows that lie inside a region in the CRS of the grid."""
    inverse = ~grid.transform
    windows: dict[Window, None] = {}
    for part in shapely.get_parts(shapely.intersection(region, shapely.box(*grid.bounds))):
        if part.area == 0:  # the region only touches the scene
            continue
        points = shapely.get_coordinates(part)
        cols, rows = inverse @ (points[:, 0], points[:, 1])
        top, left = math.ceil(rows.min() - _TOLERANCE), math.ceil(cols.min() - _TOLERANCE)
        bottom, right = math.floor(rows.max() + _TOLERANCE), math.floor(cols.max() + _TOLERANCE)
        # a part that spans a scene smaller than a chip gets a padded chip, as without a region
        spans = bottom - top >= min(size[0], grid.height) and right - left >= min(size[1], grid.width)
        if not spans:
            continue
        piece = replace(grid, height=bottom - top, width=right - left)
        windows |= {
            Window(window.row + top, window.col + left, *size): None
            for window in covering_windows(piece, size, overlap)
        }
    if not windows:
        return []
    shown = [window.intersection(grid.window) or window for window in windows]
    boxes = shapely.box(*np.array([grid.window_bounds(window) for window in shown]).T)
    return [window for window, keep in zip(windows, shapely.covers(region, boxes), strict=True) if keep]
