"""Areas of one class each in a raster, cut nowhere.

The raster is read in blocks. Pieces that touch the seam to another block are joined with their neighbours there; so the
areas are those of the whole raster at once, and the memory is that of a row of blocks with what is still open.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.features import shapes
from rasterio.windows import Window as RasterioWindow
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

__all__ = ('Area', 'find_areas')


@dataclass
class Area:
    """Pixels of one class that belong together, as far as they are known.

    Attributes:
        value: The class.
        pixels: Their number.
        certainty: Sum of their probabilities.
        pieces: Polygons in pixel coordinates ``(col, row)``, one a block; whole numbers, so that joining is exact.
    """

    value: int
    pixels: int = 0
    certainty: float = 0.0
    pieces: list[BaseGeometry] = field(default_factory=list)

    def join(self, other: 'Area') -> None:
        """Take over another one's pixels."""
        self.pixels += other.pixels
        self.certainty += other.certainty
        self.pieces += other.pieces

    def polygon(self) -> BaseGeometry:
        """All pieces as one polygon without corners where blocks met."""
        if len(self.pieces) == 1:
            return self.pieces[0]
        # On whole numbers, simplifying by nothing takes away just the points in the middle of straight sides.
        return _without_needless_points(shapely.union_all(self.pieces))


def find_areas(
    dataset: Any,
    certain: Any = None,
    wanted: Callable[[int], bool] | None = None,
    block: int = 512,
    advance: Callable[[float], None] | None = None,
) -> Iterator[Area]:
    """Find all areas of a raster, those that end first first.

    Pixels belong together where they share a side (4-connectivity). What is nodata or masked belongs to no area.

    Args:
        dataset: Open raster of classes.
        certain: Open raster of the probability of the classes on the same grid, or None.
        wanted: Says whether a class is to be found; None for all.
        block: Side of the blocks, in pixels.
        advance: Called with the fraction of the raster that has been read.

    Yields:
        Areas to which nothing can be added.
    """
    components = _Components()
    # Numbers of the areas along the last pixel row of the blocks above, and their classes; -1 for none.
    above = np.full(dataset.width, -1, dtype=np.int64)
    for row in range(0, dataset.height, block):
        height = min(block, dataset.height - row)
        below = np.full(dataset.width, -1, dtype=np.int64)
        left: NDArray[np.int64] | None = None
        for col in range(0, dataset.width, block):
            width = min(block, dataset.width - col)
            window = RasterioWindow(col, row, width, height)
            numbers = _label(dataset, certain, window, wanted, components)
            _join(components, above[col : col + width], numbers[0])
            if left is not None:
                _join(components, left, numbers[:, 0])
            left = numbers[:, -1]
            below[col : col + width] = numbers[-1]
        above = below
        yield from components.close(above)
        if advance is not None:
            advance((row + height) / dataset.height)
    yield from components.close(np.empty(0, dtype=np.int64))


class _Components:
    """Areas that may turn out to be one, with union-find."""

    def __init__(self) -> None:
        self.areas: dict[int, Area] = {}
        self._parents: dict[int, int] = {}

    def add(self, area: Area) -> int:
        """Take an area up; returns its number."""
        number = len(self._parents)
        self._parents[number] = number
        self.areas[number] = area
        return number

    def find(self, number: int) -> int:
        """Number under which an area is kept by now."""
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def union(self, first: int, second: int) -> None:
        """Make two areas one."""
        kept, gone = sorted((self.find(first), self.find(second)))
        if kept != gone:
            self._parents[gone] = kept
            self.areas[kept].join(self.areas.pop(gone))

    def close(self, still_open: NDArray[np.int64]) -> Iterator[Area]:
        """Give away the areas to which nothing can be added."""
        numbers = {self.find(int(number)) for number in np.unique(still_open[still_open >= 0])}
        for number in [number for number in self.areas if number not in numbers]:
            yield self.areas.pop(number)


def _label(
    dataset: Any, certain: Any, window: RasterioWindow, wanted: Callable[[int], bool] | None, components: _Components
) -> NDArray[np.int64]:
    """Find the areas within a block; returns their numbers, (row, col), -1 for none."""
    values = dataset.read(1, window=window)
    labels = np.zeros(values.shape, dtype=np.int32)
    count, owners = 0, [-1]
    known = _known(dataset, window)
    for value in np.unique(values[known]):
        if value == dataset.nodata or (wanted is not None and not wanted(int(value))):
            continue
        here, found = ndimage.label((values == value) & known)
        labels[here > 0] = here[here > 0] + count
        owners += [components.add(Area(int(value))) for _ in range(found)]
        count += found
    if count == 0:
        return np.full(values.shape, -1, dtype=np.int64)
    pixels = np.bincount(labels.ravel(), minlength=count + 1)
    certainty = np.full(count + 1, np.nan)
    if certain is not None:
        certainty = np.bincount(labels.ravel(), weights=_scaled(certain, window).ravel(), minlength=count + 1)
    place = Affine.translation(window.col_off, window.row_off)
    for geometry, label in shapes(labels, mask=labels > 0, connectivity=4, transform=place):
        area = components.areas[owners[int(label)]]
        area.pieces.append(shapely.geometry.shape(geometry))
        area.pixels, area.certainty = int(pixels[int(label)]), float(certainty[int(label)])
    return np.asarray(owners, dtype=np.int64)[labels]


def _known(dataset: Any, window: RasterioWindow) -> NDArray[np.bool_]:
    """Where a mask inside or beside the raster, if there is one, says that there is data."""
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        return np.asarray(dataset.read_masks(1, window=window) > 0)
    return np.ones((window.height, window.width), dtype=bool)


def _scaled(certain: Any, window: RasterioWindow) -> NDArray[np.float64]:
    values = certain.read(1, window=window).astype(np.float64) * certain.scales[0] + certain.offsets[0]
    return np.nan_to_num(values)


def _join(components: _Components, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
    """Unite the areas on both sides of a seam that are of one class."""
    pairs = np.unique(np.stack([first, second])[:, (first >= 0) & (second >= 0)], axis=1)
    for one, other in pairs.T:
        one, other = components.find(int(one)), components.find(int(other))
        if components.areas[one].value == components.areas[other].value:
            components.union(one, other)


def _without_needless_points(polygon: BaseGeometry) -> BaseGeometry:
    def ring(line: Any) -> NDArray[np.float64]:
        points = shapely.get_coordinates(line)[:-1]
        before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
        turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
        return points[turns]

    parts = [
        shapely.Polygon(ring(part.exterior), [ring(hole) for hole in part.interiors])
        for part in shapely.get_parts(polygon)
    ]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
