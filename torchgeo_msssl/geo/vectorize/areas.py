"""Connected areas of one class in a raster.

The raster is read in blocks. Pieces that touch the border of a block are joined with their neighbours there, so that
areas are those of the whole raster, and the memory is that of a row of blocks with the areas that are still open.
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

type Pixels = NDArray[Any]
type Mask = NDArray[np.bool_]
#: Function from pixels, and which of them hold data, to classes, and which of them are wanted.
type Translate = Callable[[Pixels, Mask], tuple[Pixels, Mask]]


@dataclass
class Area:
    """Connected pixels of one class that were found so far.

    Attributes:
        value: The class.
        pixels: Number of pixels.
        certainty: Sum of their probabilities.
        pieces: Polygons in pixel coordinates ``(col, row)``, one per block; integers, so that joining is exact.
    """

    value: int
    pixels: int = 0
    certainty: float = 0.0
    pieces: list[BaseGeometry] = field(default_factory=list)

    def join(self, other: 'Area') -> None:
        """Add the pixels of another area."""
        self.pixels += other.pixels
        self.certainty += other.certainty
        self.pieces += other.pieces

    def polygon(self) -> BaseGeometry:
        """Return all pieces as one polygon without corners where blocks meet."""
        if len(self.pieces) == 1:
            return self.pieces[0]
        return _without_collinear_points(shapely.union_all(self.pieces))


def find_areas(
    dataset: Any,
    certain: Any = None,
    translate: Translate | None = None,
    block: int = 512,
    advance: Callable[[float], None] | None = None,
) -> Iterator[Area]:
    """Find all areas of a raster, in the order in which they end.

    Pixels belong together where they share a side (4-connectivity). Nodata and masked pixels belong to no area.

    Args:
        dataset: Open raster of classes.
        certain: Open raster of the probability of the classes on the same grid, or None.
        translate: Function from pixels, and which of them hold data, to classes, and which of them are wanted.
        block: Side of the blocks, in pixels.
        advance: Called with the fraction of the raster that has been read.

    Yields:
        Complete areas.
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
            numbers = _label(dataset, certain, window, translate, components)
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
    """Union-find of areas that may be connected."""

    def __init__(self) -> None:
        self.areas: dict[int, Area] = {}
        self._parents: dict[int, int] = {}

    def add(self, area: Area) -> int:
        """Add an area; return its number."""
        number = len(self._parents)
        self._parents[number] = number
        self.areas[number] = area
        return number

    def find(self, number: int) -> int:
        """Return the number of the area that an area was joined to."""
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def union(self, first: int, second: int) -> None:
        """Join two areas."""
        kept, gone = sorted((self.find(first), self.find(second)))
        if kept != gone:
            self._parents[gone] = kept
            self.areas[kept].join(self.areas.pop(gone))

    def close(self, still_open: NDArray[np.int64]) -> Iterator[Area]:
        """Remove and yield the areas that are not open any more."""
        numbers = {self.find(int(number)) for number in np.unique(still_open[still_open >= 0])}
        for number in [number for number in self.areas if number not in numbers]:
            yield self.areas.pop(number)


def _label(
    dataset: Any, certain: Any, window: RasterioWindow, translate: Translate | None, components: _Components
) -> NDArray[np.int64]:
    """Find the areas within a block; return their numbers, (row, col), -1 for none."""
    values = dataset.read(1, window=window)
    labels = np.zeros(values.shape, dtype=np.int32)
    count, owners = 0, [-1]
    known = _known(dataset, window)
    if dataset.nodata is not None:
        known &= values != dataset.nodata
    if translate is not None:
        values, known = translate(values, known)
    for value in np.unique(values[known]):
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
    """Return where the mask of the raster, internal or in a sidecar, marks data."""
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        return np.asarray(dataset.read_masks(1, window=window) > 0)
    return np.ones((window.height, window.width), dtype=bool)


def _scaled(certain: Any, window: RasterioWindow) -> NDArray[np.float64]:
    values = certain.read(1, window=window).astype(np.float64) * certain.scales[0] + certain.offsets[0]
    return np.nan_to_num(values)


def _join(components: _Components, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
    """Join the areas of one class on both sides of the border between two blocks."""
    pairs = np.unique(np.stack([first, second])[:, (first >= 0) & (second >= 0)], axis=1)
    for one, other in pairs.T:
        one, other = components.find(int(one)), components.find(int(other))
        if components.areas[one].value == components.areas[other].value:
            components.union(one, other)


def _without_collinear_points(polygon: BaseGeometry) -> BaseGeometry:
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
