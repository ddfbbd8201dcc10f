"""Polygons and rows of plants from a class map."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import DTypeLike
from rasterio.errors import RasterioError
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError, MissingCRSError, SceneReadError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.labels.classes import resolve_classes
from torchgeo_msssl.geo.open_datasets import block_cache
from torchgeo_msssl.geo.vectorize.areas import Area, Translate, find_areas
from torchgeo_msssl.geo.vectorize.layers import LayerWriter
from torchgeo_msssl.geo.vectorize.measure import Plane, area_measure, pixels_to_map
from torchgeo_msssl.geo.vectorize.options import VectorizeOptions
from torchgeo_msssl.geo.vectorize.row_layer import ROW_COLUMNS, RowCollector
from torchgeo_msssl.geo.vectorize.simplify import simplify_coverage
from torchgeo_msssl.progress import progress_bar

#: Names of classes that are no objects; without ``class_names`` they have no polygons.
_BACKGROUND = frozenset({'background', 'other', 'none', 'rest'})
#: Memory of GDAL's block cache, in bytes; its default is a share of the machine's.
_GDAL_CACHE = 64 * 2**20


@dataclass(frozen=True)
class Vectorized:
    """Summary of what was written.

    Attributes:
        polygons: Number of polygons of each class.
        areas: Their area, in m².
        small: Number of areas left out because they are smaller than ``min_area``.
        left_out: Background values that were left out, with their names.
        rows: Number of rows, their length in metres, number of gaps and their length; None without ``centrelines``.
        corner: Smallest ``simplify`` that changes anything, that of the corner of a pixel, in metres.
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
    options: VectorizeOptions | None = None,
    *,
    confidence: str | os.PathLike[str] | None = None,
    tags: Mapping[str, str] | None = None,
    block: int = 512,
    progress: bool = True,
) -> Vectorized:
    """Write the areas of a map as polygons (layer ``classes``), and rows of them as lines (layer ``centrelines``).

    Pixels belong together where they share a side (4-connectivity). The map is read in blocks and no polygon is cut
    between them. The memory is that of a row of blocks with the areas that are still open; with ``simplify`` it is that
    of all polygons, with ``centrelines`` that of all lines.

    Args:
        class_map: Raster with one band of integers; nodata belongs to no class.
        output: GeoPackage to write. ``classes`` has the columns ``class``, ``name`` and ``area_m2``, and with
            ``confidence`` ``probability``, the mean over the polygon; ``centrelines`` has ``row``, ``class``, ``name``,
            ``pieces``, ``length_m``, ``gaps`` and ``gap_length_m``.
        options: What is written.
        confidence: Raster of the probability of the mapped class on the same grid; its declared scale is applied.
        tags: Metadata of the layer ``classes``, see :func:`~torchgeo_msssl.geo.vectorize.layers.read_tags`.
        block: Side of the blocks in which the map is read, in pixels.
        progress: Whether to show a progress bar.

    Returns:
        Summary of what was written.

    Raises:
        ConfigurationError: If the map is no map of classes, holds a value that a list of class names does not have, or
            is on another grid than ``confidence``.
        MissingCRSError: If it has no CRS.
        SceneReadError: If it cannot be read.
        OutputError: If the GeoPackage cannot be written.
    """
    options = options or VectorizeOptions()
    try:
        with ExitStack() as stack:
            stack.enter_context(block_cache(_GDAL_CACHE))
            dataset = stack.enter_context(rasterio.open(class_map))
            _check_map(dataset)
            certain = None if confidence is None else stack.enter_context(rasterio.open(confidence))
            if certain is not None:
                _check_grid(dataset, certain)
            selection = _select(dataset, options)
            temporary = stack.enter_context(atomic_path(output))
            advance = stack.enter_context(progress_bar(Path(output).name)) if progress else None
            areas = find_areas(dataset, certain, selection.translate, block, advance and partial(advance, 0))
            return _Run(dataset, temporary, options, selection, certain is not None, tags).result(areas)
    except RasterioError as error:
        msg = f'{class_map}: cannot be read as a map ({error.__cause__ or error!s}); check the path and the file.'
        raise SceneReadError(msg) from error


class _Run:
    """One map on its way into a file."""

    def __init__(
        self,
        dataset: Any,
        path: Path,
        options: VectorizeOptions,
        selection: '_Selection',
        certain: bool,
        tags: Mapping[str, str] | None,
    ) -> None:
        self.dataset, self.path, self.options, self.selection = dataset, path, options, selection
        self.certain, self.tags = certain, tags
        place = shapely.box(*dataset.bounds)
        self.plane = Plane(dataset.crs, place)
        self.measure = area_measure(dataset.crs, place)
        self.small = 0

    def result(self, areas: Iterator[Area]) -> Vectorized:
        columns: dict[str, DTypeLike] = {'class': np.int64, 'name': object, 'area_m2': np.float64}
        columns |= {'probability': np.float64} if self.certain else {}
        layer = LayerWriter(self.path, 'classes', columns, 'Polygon', self.dataset.crs, self.tags)
        rows = RowCollector(self.plane) if self.options.centrelines else None
        count: dict[str, int] = defaultdict(int)
        total: dict[str, float] = defaultdict(float)
        kept = self._kept(areas, rows)
        for area, polygon in self._simplified(kept) if self.options.simplify else kept:
            placed, name = pixels_to_map(polygon, self.dataset.transform), self.selection.name(area.value)
            size = self.measure(placed)
            layer.add(placed, area.value, name, size, *([area.certainty / area.pixels] if self.certain else []))
            count[name] += 1
            total[name] += size
        layer.close()
        lengths = None
        if rows is not None:
            layer = LayerWriter(self.path, 'centrelines', ROW_COLUMNS, 'MultiLineString', self.dataset.crs)
            lengths = rows.write(layer, self.selection.name, self.options.min_gap, self.options.max_gap)
        corner = math.sqrt(math.prod(self._pixel()) / 2)
        return Vectorized(dict(count), dict(total), self.small, self.selection.left_out, lengths, corner)

    def _kept(self, areas: Iterator[Area], rows: RowCollector | None) -> Iterator[tuple[Area, BaseGeometry]]:
        """Yield areas with their polygons in pixels; count those that are too small."""
        for area in areas:
            polygon = area.polygon()
            placed = pixels_to_map(polygon, self.dataset.transform)
            if self.measure(placed) < self.options.min_area:
                self.small += 1
                continue
            if rows is not None:
                rows.add(area.value, placed)
            yield area, polygon

    def _simplified(self, kept: Iterator[tuple[Area, BaseGeometry]]) -> Iterator[tuple[Area, BaseGeometry]]:
        areas: list[Area] = []
        polygons: list[BaseGeometry] = []
        for area, polygon in kept:
            areas.append(area)
            polygons.append(polygon)
        simple = simplify_coverage(np.array(polygons, dtype=object), self.options.simplify, self._pixel())
        yield from zip(areas, simple, strict=True)

    def _pixel(self) -> tuple[float, float]:
        """Return width and height of a pixel in the middle of the map, in metres."""
        t, (height, width) = self.dataset.transform, self.dataset.shape
        cols, rows = np.array([0, 1, 0]) + width / 2, np.array([0, 0, 1]) + height / 2
        points = np.column_stack([t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f])
        corner, right, below = self.plane.to_metres(points)
        return math.dist(corner, right), math.dist(corner, below)


@dataclass(frozen=True)
class _Selection:
    """Values to vectorize, and their names.

    Attributes:
        translate: Function from pixels, and which of them hold data, to classes, and which of them are wanted.
        names: Name of each class that has one.
        left_out: Background values, with their names.
    """

    translate: Translate
    names: Mapping[int, str]
    left_out: list[str]

    def name(self, value: int) -> str:
        return self.names.get(value, str(value))


def _select(dataset: Any, options: VectorizeOptions) -> _Selection:
    if options.class_names is not None:
        classes = resolve_classes(options.class_names)
        return _Selection(
            lambda values, known: classes.of_pixels(values, known, dataset.name), dict(enumerate(classes.names)), []
        )
    names = _tagged_names(dataset)
    named = (({0: 'background'} if 0 not in names else {}) | names).items()
    background = [value for value, name in named if name.strip().lower() in _BACKGROUND]
    left_out = [f'{value} ({names[value]})' if value in names else f'{value}' for value in background]
    return _Selection(lambda values, known: (values, known & ~np.isin(values, background)), names, left_out)


def _tagged_names(dataset: Any) -> dict[int, str]:
    """Return names by value from the map's own tag."""
    text = dataset.tags().get('CLASS_NAMES', '[]')
    try:
        names = json.loads(text)
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list):
        msg = f'{dataset.name}: its tag CLASS_NAMES is {text!r}, not a list of names in JSON; correct or remove it.'
        raise ConfigurationError(msg)
    return {value: str(name) for value, name in enumerate(names) if name}


def _check_map(dataset: Any) -> None:
    if dataset.crs is None:
        msg = (
            f'{dataset.name}: has no coordinate reference system, so its polygons cannot be placed; assign one, for '
            'example with `gdal_edit.py -a_srs EPSG:32631`.'
        )
        raise MissingCRSError(msg)
    if dataset.count != 1 or np.dtype(dataset.dtypes[0]).kind not in 'iu':
        msg = (
            f'{dataset.name}: expected one band of integers, the classes, got {dataset.count} of {dataset.dtypes[0]}; '
            'choose the map.'
        )
        raise ConfigurationError(msg)


def _check_grid(first: Any, second: Any) -> None:
    if (first.shape, first.transform, first.crs) != (second.shape, second.transform, second.crs):
        msg = (
            f'{second.name}: expected the grid of {first.name} ({first.width} × {first.height} pixels), '
            f'got {second.width} × {second.height} at {tuple(second.transform)[:6]}; predict the scene again.'
        )
        raise ConfigurationError(msg)
