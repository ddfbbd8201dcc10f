"""Polygons of a class map, cut nowhere.

The map is read in blocks. Pieces that touch the seam to another block are joined with their neighbours there; so the
polygons are those of the whole map at once, and the memory is that of a row of blocks with what is still open.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.features import shapes
from rasterio.windows import Window as RasterioWindow
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError, OutputError, SceneReadError
from torchgeo_msssl.files import atomic_path

__all__ = ('polygonize', 'read_tags')

#: Polygons that are written together.
_AT_ONCE = 10_000


def polygonize(
    class_map: str | os.PathLike[str],
    output: str | os.PathLike[str],
    class_names: Sequence[str],
    *,
    confidence: str | os.PathLike[str] | None = None,
    classes: Sequence[int] | None = None,
    sieve: float = 0.0,
    block: int = 512,
    tags: Mapping[str, str] | None = None,
) -> int:
    """Write the areas of one class each as polygons of a GeoPackage.

    Pixels belong together where they share a side (4-connectivity). Areas of a geographic CRS are measured on its
    ellipsoid.

    Args:
        class_map: Raster of classes with its nodata value declared.
        output: GeoPackage to write, with the columns ``class``, ``name``, ``area_m2`` and ``probability`` (mean of the
            confidence, empty without one).
        class_names: Names of the classes in order.
        confidence: Raster of the probability of the mapped class on the same grid; its declared scale is applied.
        classes: Classes to write; None for all.
        sieve: Polygons smaller than this are left out, in m².
        block: Side of the blocks, in pixels.
        tags: Kept with the layer, see :func:`read_tags`.

    Returns:
        Number of polygons.

    Raises:
        ConfigurationError: If an option is out of its range, the rasters do not lie on each other, or the map holds a
            class without a name.
        SceneReadError: If a raster cannot be read.
        OutputError: If the GeoPackage cannot be written.
    """
    if block < 1 or sieve < 0:
        msg = f'polygons: expected a block of 1 pixel or more and a sieve of 0 m² or more, got {block} and {sieve}.'
        raise ConfigurationError(msg)
    try:
        with rasterio.open(class_map) as dataset:
            if confidence is None:
                areas = _areas(dataset, None, classes, block)
                return _write(areas, Path(output), dataset.crs, dataset.transform, class_names, sieve, tags)
            with rasterio.open(confidence) as certain:
                _check_alike(dataset, certain)
                areas = _areas(dataset, certain, classes, block)
                return _write(areas, Path(output), dataset.crs, dataset.transform, class_names, sieve, tags)
    except RasterioError as error:
        msg = f'{class_map}: cannot be read for polygons ({error.__cause__ or error!s}); predict the scene again.'
        raise SceneReadError(msg) from error


def read_tags(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what :func:`polygonize` was told to keep with its layer.

    Args:
        path: GeoPackage; it need not exist.

    Returns:
        The tags; empty where there are none.
    """
    if not Path(path).is_file():
        return {}
    try:
        return dict(pyogrio.read_info(path, layer='classes').get('layer_metadata') or {})
    except (DataSourceError, DataLayerError):  # no GeoPackage of ours
        return {}


@dataclass
class _Area:
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

    def join(self, other: '_Area') -> None:
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


class _Components:
    """Areas that may turn out to be one, with union-find."""

    def __init__(self) -> None:
        self.areas: dict[int, _Area] = {}
        self._parents: dict[int, int] = {}

    def add(self, area: _Area) -> int:
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

    def close(self, still_open: NDArray[np.int64]) -> Iterator[_Area]:
        """Give away the areas to which nothing can be added."""
        numbers = {self.find(int(number)) for number in np.unique(still_open[still_open >= 0])}
        for number in [number for number in self.areas if number not in numbers]:
            yield self.areas.pop(number)


def _areas(dataset: Any, certain: Any, classes: Sequence[int] | None, block: int) -> Iterator[_Area]:
    """All areas of a class map, those that end first first."""
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
            numbers = _label(dataset, certain, window, classes, components)
            _join(components, above[col : col + width], numbers[0])
            if left is not None:
                _join(components, left, numbers[:, 0])
            left = numbers[:, -1]
            below[col : col + width] = numbers[-1]
        above = below
        yield from components.close(above)
    yield from components.close(np.empty(0, dtype=np.int64))


def _label(
    dataset: Any, certain: Any, window: RasterioWindow, classes: Sequence[int] | None, components: _Components
) -> NDArray[np.int64]:
    """Find the areas within a block; returns their numbers, (row, col), -1 for none."""
    values = dataset.read(1, window=window)
    labels = np.zeros(values.shape, dtype=np.int32)
    count, owners = 0, [-1]
    for value in np.unique(values):
        if value == dataset.nodata or (classes is not None and value not in classes):
            continue
        here, found = ndimage.label(values == value)
        labels[here > 0] = here[here > 0] + count
        owners += [components.add(_Area(int(value))) for _ in range(found)]
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


def _write(
    areas: Iterator[_Area],
    output: Path,
    crs: CRS,
    transform: Affine,
    class_names: Sequence[str],
    sieve: float,
    tags: Mapping[str, str] | None,
) -> int:
    count = 0
    rows: list[tuple[int, str, float, float, BaseGeometry]] = []
    with atomic_path(output) as temporary:
        measure = _measure(crs, transform)
        for area in areas:
            if area.value >= len(class_names):
                msg = f'class_names: the map holds class {area.value}, but there are only {len(class_names)} names.'
                raise ConfigurationError(msg)
            polygon = shapely.transform(area.polygon(), lambda points: _placed(points, transform))
            size = measure(area.pixels, polygon)
            if size >= sieve:
                mean = area.certainty / area.pixels
                rows.append((area.value, class_names[area.value], size, mean, polygon))
            if len(rows) == _AT_ONCE:
                _append(rows, temporary, crs, count, tags)
                count += len(rows)
                rows = []
        if rows or count == 0:
            _append(rows, temporary, crs, count, tags)
    return count + len(rows)


def _placed(points: NDArray[np.float64], transform: Affine) -> NDArray[np.float64]:
    col, row = points[:, 0], points[:, 1]
    t = transform
    return np.stack([t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f], axis=1)


def _measure(crs: CRS, transform: Affine) -> Any:
    """A function from the number of pixels and the polygon to an area in m²."""
    if crs is None or not crs.is_geographic:
        factor = 1.0 if crs is None else crs.linear_units_factor[1]
        pixel = abs(transform.determinant) * factor**2
        return lambda pixels, polygon: pixels * pixel
    geod = Geod(ellps='WGS84')
    return lambda pixels, polygon: abs(geod.geometry_area_perimeter(shapely.orient_polygons(polygon))[0])


def _append(
    rows: list[tuple[int, str, float, float, BaseGeometry]],
    path: Path,
    crs: CRS,
    written: int,
    tags: Mapping[str, str] | None,
) -> None:
    columns = list(zip(*rows, strict=True)) if rows else [()] * 5
    frame = gpd.GeoDataFrame(
        {
            'class': np.asarray(columns[0], dtype=np.int32),
            'name': np.asarray(columns[1], dtype=object),
            'area_m2': np.asarray(columns[2], dtype=np.float64),
            'probability': np.asarray(columns[3], dtype=np.float64),
        },
        geometry=list(columns[4]),
        crs=None if crs is None else crs.to_wkt(),
    )
    mode = 'a' if written else 'w'
    try:
        # Without a name the layer would be called after the temporary file.
        frame.to_file(
            path, driver='GPKG', layer='classes', mode=mode, engine='pyogrio', geometry_type='Polygon',
            layer_metadata=dict(tags or {}) if mode == 'w' else None,
        )  # fmt: skip
    except RuntimeError as error:  # the root of what pyogrio raises
        raise OutputError(f'{path.parent}: polygons cannot be written there ({error}); make room there.') from error


def _check_alike(first: Any, second: Any) -> None:
    if (first.shape, first.transform, first.crs) != (second.shape, second.transform, second.crs):
        msg = (
            f'{second.name}: expected the grid of {first.name} ({first.width} × {first.height} pixels), '
            f'got {second.width} × {second.height} at {tuple(second.transform)[:6]}; predict the scene again.'
        )
        raise ConfigurationError(msg)
