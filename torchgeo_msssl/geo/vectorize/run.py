"""A map of classes as polygons, with the rows of plants that they are pieces of."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from rasterio.errors import RasterioError
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError, MissingCRSError, SceneReadError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.open_datasets import block_cache
from torchgeo_msssl.geo.vector.geometries import Plane
from torchgeo_msssl.geo.vectorize.areas import find_areas
from torchgeo_msssl.geo.vectorize.layers import LayerWriter
from torchgeo_msssl.geo.vectorize.polygons import area_measure, on_the_map
from torchgeo_msssl.geo.vectorize.row_layer import ROW_COLUMNS, RowCollector
from torchgeo_msssl.geo.vectorize.simplify import simplify_coverage
from torchgeo_msssl.progress import progress_bar

__all__ = ('VectorOptions', 'Vectorized', 'vectorize')

#: Names of what is not looked for, and so has no polygons unless it is asked for.
_BACKGROUND = frozenset({'background', 'other', 'none', 'rest'})
#: Memory for blocks that GDAL keeps, in bytes; its default is a share of the machine's.
_GDAL_CACHE = 64 * 2**20


@dataclass(frozen=True)
class VectorOptions:
    """What becomes of the areas of a map.

    Attributes:
        classes: Value of each class to write by name; None for all but nodata and a background (class 0 without a
            name, or named so).
        min_area: Areas smaller than this are left out, in m².
        simplify: Corners whose triangle with their neighbours is smaller than the square of this go, in metres.
        centrelines: Whether the rows are written too.
        min_gap: Breaks in a row shorter than this are no gaps, in metres.
        max_gap: Pieces farther apart than this are different rows, in metres.
        block: Side of the blocks in which the map is read, in pixels.
    """

    classes: Mapping[str, int] | None = None
    min_area: float = 0.0
    simplify: float = 0.0
    centrelines: bool = False
    min_gap: float = 0.5
    max_gap: float = 5.0
    block: int = 512

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        for option in ('min_area', 'simplify', 'min_gap'):
            value = getattr(self, option)
            if not (np.isfinite(value) and value >= 0):
                raise ConfigurationError(f'{option}: expected 0 or more, got {value}.')
        if not (np.isfinite(self.max_gap) and self.max_gap >= self.min_gap):
            raise ConfigurationError(f'max_gap: expected {self.min_gap} m (min_gap) or more, got {self.max_gap}.')
        if self.block < 1:
            raise ConfigurationError(f'block: expected 1 pixel or more, got {self.block}.')


@dataclass(frozen=True)
class Vectorized:
    """What was written.

    Attributes:
        polygons: Number of polygons of each class.
        areas: Their area, in m².
        small: Areas left out because they are small.
        left_out: Values that were not looked at, with their names.
        rows: Number of rows, their metres, their gaps and the metres of these; None where none were asked for.
        corner: Smallest ``simplify`` that changes anything: that of the corner of a pixel, in metres.
    """

    polygons: dict[str, int]
    areas: dict[str, float]
    small: int
    left_out: list[str]
    rows: tuple[int, float, int, float] | None
    corner: float


def vectorize(
    class_map: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: VectorOptions | None = None,
    progress: bool = True,
) -> Vectorized:
    """Write the areas of a map as polygons (layer ``classes``), and rows of them as lines (layer ``centrelines``).

    The map is read in blocks and no polygon is cut between them. The memory is that of a row of blocks with the areas
    that are still open; with ``simplify`` it is that of all polygons, with ``centrelines`` that of all lines.

    Args:
        class_map: Raster with one band of whole numbers; nodata belongs to no class. Its tag CLASS_NAMES, as this
            package writes it, has the names.
        output: GeoPackage to write. ``classes`` has the columns ``class``, ``name`` and ``area_m2``; ``centrelines``
            has ``row``, ``class``, ``name``, ``pieces``, ``length_m``, ``gaps`` and ``gap_length_m``.
        options: What is written.
        progress: Whether to show a progress bar.

    Returns:
        What was written.

    Raises:
        ConfigurationError: If the map is no map of classes.
        MissingCRSError: If it has no CRS.
        SceneReadError: If it cannot be read.
        OutputError: If the GeoPackage cannot be written.
    """
    options = options or VectorOptions()
    try:
        with block_cache(_GDAL_CACHE), rasterio.open(class_map) as dataset:
            _check_map(dataset)
            selection = _Selection(dataset, options.classes)
            with atomic_path(output) as temporary, _shown(Path(output).name, progress) as advance:
                return _Run(dataset, temporary, options, selection).result(advance)
    except RasterioError as error:
        msg = f'{class_map}: cannot be read as a map ({error.__cause__ or error!s}); check the path and the file.'
        raise SceneReadError(msg) from error


class _Run:
    """One map on its way into a file."""

    def __init__(self, dataset: Any, path: Path, options: VectorOptions, selection: '_Selection') -> None:
        self.dataset, self.path, self.options, self.selection = dataset, path, options, selection
        place = shapely.box(*dataset.bounds)
        self.plane = Plane(dataset.crs, place)
        self.measure = area_measure(dataset.crs, place)
        self.small = 0

    def result(self, advance: Callable[[float], None] | None) -> Vectorized:
        columns = {'class': np.int64, 'name': object, 'area_m2': np.float64}
        layer = LayerWriter(self.path, 'classes', columns, 'Polygon', self.dataset.crs)
        rows = RowCollector(self.plane) if self.options.centrelines else None
        count: dict[str, int] = defaultdict(int)
        total: dict[str, float] = defaultdict(float)
        found = self._kept(rows, advance)
        for value, polygon in self._simplified(found) if self.options.simplify else found:
            placed, name = on_the_map(polygon, self.dataset.transform), self.selection.name(value)
            area = self.measure(placed)
            layer.add(placed, value, name, area)
            count[name] += 1
            total[name] += area
        layer.close()
        lengths = None
        if rows is not None:
            layer = LayerWriter(self.path, 'centrelines', ROW_COLUMNS, 'MultiLineString', self.dataset.crs)
            lengths = rows.write(layer, self.selection.name, self.options.min_gap, self.options.max_gap)
        corner = math.sqrt(math.prod(self._pixel()) / 2)
        return Vectorized(dict(count), dict(total), self.small, self.selection.left_out, lengths, corner)

    def _kept(
        self, rows: RowCollector | None, advance: Callable[[float], None] | None
    ) -> Iterator[tuple[int, BaseGeometry]]:
        """Polygons in pixels with their classes; what is too small is counted."""
        for area in find_areas(self.dataset, None, self.selection.wants, self.options.block, advance):
            polygon = area.polygon()
            placed = on_the_map(polygon, self.dataset.transform)
            if self.measure(placed) < self.options.min_area:
                self.small += 1
                continue
            if rows is not None:
                rows.add(area.value, placed)
            yield area.value, polygon

    def _simplified(self, found: Iterator[tuple[int, BaseGeometry]]) -> Iterator[tuple[int, BaseGeometry]]:
        values: list[int] = []
        polygons: list[BaseGeometry] = []
        for value, polygon in found:
            values.append(value)
            polygons.append(polygon)
        simple = simplify_coverage(np.array(polygons, dtype=object), self.options.simplify, self._pixel())
        yield from zip(values, simple, strict=True)

    def _pixel(self) -> tuple[float, float]:
        """Width and height of a pixel in the middle of the map, in metres."""
        t, (height, width) = self.dataset.transform, self.dataset.shape
        cols, rows = np.array([0, 1, 0]) + width / 2, np.array([0, 0, 1]) + height / 2
        points = np.column_stack([t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f])
        corner, right, below = self.plane.to_metres(points)
        return math.dist(corner, right), math.dist(corner, below)


class _Selection:
    """Which values are looked at, and what they are called."""

    def __init__(self, dataset: Any, classes: Mapping[str, int] | None) -> None:
        self._classes = classes
        names = _names(dataset)
        self._names = names if classes is None else {value: name for name, value in classes.items()}
        nameless = {0: 'background'} if 0 not in names else {}
        named = (nameless | names).items()
        self._background = [value for value, name in named if name.strip().lower() in _BACKGROUND]

    def wants(self, value: int) -> bool:
        return value in self._names if self._classes is not None else value not in self._background

    def name(self, value: int) -> str:
        return self._names.get(value, str(value))

    @property
    def left_out(self) -> list[str]:
        if self._classes is not None:
            return []
        return [f'{value} ({self._names[value]})' if value in self._names else f'{value}' for value in self._background]


def _names(dataset: Any) -> dict[int, str]:
    """Names by value, as the map's own tag says them."""
    text = dataset.tags().get('CLASS_NAMES', '[]')
    try:
        listed = json.loads(text)
    except json.JSONDecodeError:
        listed = None
    if not isinstance(listed, list):
        msg = f'{dataset.name}: its tag CLASS_NAMES is {text!r} and no list of names in JSON; mend or remove the tag.'
        raise ConfigurationError(msg)
    return {value: str(name) for value, name in enumerate(listed) if name}


def _check_map(dataset: Any) -> None:
    if dataset.crs is None:
        msg = (
            f'{dataset.name}: has no coordinate reference system, so its polygons would lie nowhere; assign one, for '
            'example with `gdal_edit.py -a_srs EPSG:32631`.'
        )
        raise MissingCRSError(msg)
    if dataset.count != 1 or np.dtype(dataset.dtypes[0]).kind not in 'iu':
        msg = (
            f'{dataset.name}: expected one band of whole numbers, the classes, got {dataset.count} of '
            f'{dataset.dtypes[0]}; choose the map.'
        )
        raise ConfigurationError(msg)


@contextmanager
def _shown(name: str, progress: bool) -> Iterator[Callable[[float], None] | None]:
    if not progress:
        yield None
        return
    with progress_bar(name) as advance:
        yield lambda fraction: advance(0, fraction)
