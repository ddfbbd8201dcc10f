"""Pixel grids with integer windows.

A grid holds CRS, transform and size in one object, so that they stay consistent. Windows are integers in ``(row,
col)``; map coordinates are float64 in ``(x, y)``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from affine import Affine
from rasterio.crs import CRS
from rasterio.windows import Window as RasterioWindow

from torchgeo_msssl.errors import ConfigurationError

#: CRS of images without one: a pixel is 1 × 1, and the top of the image is north.
PIXELS = CRS.from_wkt('LOCAL_CS["pixels of plain images",UNIT["pixel",1]]')


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of whole pixels.

    Attributes:
        row: First row, from the top; negative outside the grid.
        col: First column, from the left; negative outside the grid.
        height: Number of rows.
        width: Number of columns.
    """

    row: int
    col: int
    height: int
    width: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def intersection(self, other: 'Window') -> 'Window | None':
        """Return the pixels that are in both windows, or None if there are none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row + self.height, other.row + other.height) - row
        width = min(self.col + self.width, other.col + other.width) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def to_rasterio(self) -> RasterioWindow:
        """Return the same rectangle for rasterio's read and write methods."""
        return RasterioWindow(self.col, self.row, self.width, self.height)

    def __str__(self) -> str:
        """Rows and columns for messages."""
        return f'rows {self.row}:{self.row + self.height}, columns {self.col}:{self.col + self.width}'


@dataclass(frozen=True)
class PixelGrid:
    """CRS, geotransform and size of a raster.

    Attributes:
        crs: Coordinate reference system.
        transform: Map coordinates of pixel corners: ``(x, y) = transform * (col, row)``.
        height: Number of rows.
        width: Number of columns.
    """

    crs: CRS
    transform: Affine
    height: int
    width: int

    @property
    def window(self) -> Window:
        """The whole grid as a window."""
        return Window(0, 0, self.height, self.width)

    @property
    def res(self) -> tuple[float, float]:
        """Width and height of a pixel along a row and along a column, in units of the CRS."""
        t = self.transform
        return math.hypot(t.a, t.d), math.hypot(t.b, t.e)

    @property
    def is_georeferenced(self) -> bool:
        """Whether the grid has a place on the ground, which plain images have not."""
        return bool(self.crs) and self.crs != PIXELS

    @property
    def is_north_up(self) -> bool:
        """Whether rows run from north to south and columns from west to east, without rotation."""
        t = self.transform
        return t.b == 0 and t.d == 0 and t.a > 0 and t.e < 0

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """``(left, bottom, right, top)`` in map coordinates, float64."""
        return self.window_bounds(self.window)

    @property
    def centre(self) -> tuple[float, float]:
        """``(x, y)`` of the middle of the grid in map coordinates."""
        left, bottom, right, top = self.bounds
        return (left + right) / 2, (bottom + top) / 2

    def window_bounds(self, window: Window) -> tuple[float, float, float, float]:
        """Return ``(left, bottom, right, top)`` of a window in map coordinates, float64.

        Args:
            window: A window of this grid, which may extend beyond it.
        """
        rows = (window.row, window.row + window.height)
        cols = (window.col, window.col + window.width)
        corners = [self.transform @ (col, row) for row in rows for col in cols]
        xs, ys = [corner[0] for corner in corners], [corner[1] for corner in corners]
        return min(xs), min(ys), max(xs), max(ys)

    def cut(self, window: Window) -> 'PixelGrid':
        """Return the grid of a window, which may extend beyond this one."""
        return PixelGrid(self.crs, self.window_transform(window), window.height, window.width)

    def window_transform(self, window: Window) -> Affine:
        """Return the geotransform of a window of this grid."""
        return self.transform @ Affine.translation(window.col, window.row)


def covering_offsets(extent: int, size: int, stride: int) -> list[int]:
    """Return the offsets of the fewest windows at a stride that cover an axis without leaving it.

    The last window is shifted back to end at the border. An axis that is shorter than a window gets the single offset
    0, whose window extends beyond it and has to be padded.

    Args:
        extent: Length of the axis, in pixels, at least 1.
        size: Length of a window, in pixels.
        stride: Distance between windows, in pixels, 1 to ``size``.

    Returns:
        Increasing offsets.

    Raises:
        ConfigurationError: If the stride is 0 or would leave gaps.
    """
    if not 1 <= stride <= size:
        msg = f'stride: expected 1 to the window size {size}, got {stride}; a larger stride would leave gaps.'
        raise ConfigurationError(msg)
    if extent <= size:
        return [0]
    count = math.ceil((extent - size) / stride)
    return [*(i * stride for i in range(count)), extent - size]


def covering_windows(grid: PixelGrid, size: tuple[int, int], overlap: int = 0) -> Iterator[Window]:
    """Yield windows that cover a grid exactly, row by row from the north.

    Args:
        grid: The grid to cover.
        size: ``(height, width)`` of a window, in pixels.
        overlap: Pixels that neighbours share, less than either side.

    Yields:
        Windows inside the grid. If the grid is smaller than a window, windows that start at its edge and extend beyond
        it.

    Raises:
        ConfigurationError: If the overlap is negative or not smaller than a window.
    """
    if not 0 <= overlap < min(size):
        msg = f'overlap: expected 0 to {min(size) - 1} pixels for windows of {size[0]}×{size[1]}, got {overlap}.'
        raise ConfigurationError(msg)
    rows = covering_offsets(grid.height, size[0], size[0] - overlap)
    cols = covering_offsets(grid.width, size[1], size[1] - overlap)
    for row in rows:
        for col in cols:
            yield Window(row, col, *size)


def spaced_windows(grid: PixelGrid, size: tuple[int, int], stride: int) -> Iterator[Window]:
    """Yield windows at a distance from each other, row by row from the north, which leave gaps.

    Args:
        grid: The grid.
        size: ``(height, width)`` of a window, in pixels.
        stride: Distance between the first pixels of neighbours, at least either side.

    Yields:
        Windows inside the grid; at least one along each axis, which extends beyond a smaller grid.
    """
    for row in range(0, max(grid.height - size[0], 0) + 1, stride):
        for col in range(0, max(grid.width - size[1], 0) + 1, stride):
            yield Window(row, col, *size)
