"""The layer of rows of a vectorized map."""

from collections.abc import Callable

import numpy as np
import shapely
from numpy.typing import DTypeLike
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.geo.vectorize.centrelines import Midline, elongation, midlines
from torchgeo_msssl.geo.vectorize.layers import LayerWriter
from torchgeo_msssl.geo.vectorize.measure import Plane
from torchgeo_msssl.geo.vectorize.rows import LONG, link_rows, row_midlines

ROW_COLUMNS: dict[str, DTypeLike] = {
    'row': np.int64,
    'class': np.int64,
    'name': object,
    'pieces': np.int64,
    'length_m': np.float64,
    'gaps': np.int64,
    'gap_length_m': np.float64,
}


class RowCollector:
    """Collector of the pieces of rows, which keeps the midlines of long pieces instead of their polygons."""

    def __init__(self, plane: Plane) -> None:
        """Start without pieces.

        Args:
            plane: Conversion of map coordinates to metres.
        """
        self._plane = plane
        self._lines: list[Midline] = []
        self._classes: list[int] = []
        self._short: list[tuple[int, BaseGeometry]] = []

    def add(self, value: int, polygon: BaseGeometry) -> None:
        """Add a piece.

        Args:
            value: Its class.
            polygon: Polygon in map coordinates.
        """
        flat = shapely.transform(polygon, self._plane.to_metres)
        if elongation(flat) >= LONG:
            self._keep(value, midlines(flat))
        else:
            self._short.append((value, flat))

    def write(
        self, layer: LayerWriter, name: Callable[[int], str], min_gap: float, max_gap: float
    ) -> tuple[int, float, int, float]:
        """Join the pieces to rows and write them.

        Args:
            layer: Layer with :data:`ROW_COLUMNS`.
            name: Function from a class to its name.
            min_gap: Shortest gap, in metres.
            max_gap: Longest gap, in metres.

        Returns:
            Number of rows, their length in metres, number of gaps and their length.

        Raises:
            OutputError: If the file cannot be written.
        """
        found = row_midlines([polygon for _, polygon in self._short], self._lines)
        for (value, _), lines in zip(self._short, found, strict=True):
            self._keep(value, lines)
        rows = link_rows(self._lines, self._classes, min_gap, max_gap)
        for number, row in enumerate(rows, start=1):
            value = self._classes[row.numbers[0]]
            line = shapely.MultiLineString([self._plane.to_map(points) for points in row.pieces])
            layer.add(line, number, value, name(value), len(row.pieces), row.length, len(row.gaps), sum(row.gaps))
        layer.close()
        gaps = [gap for row in rows for gap in row.gaps]
        return len(rows), sum(row.length for row in rows), len(gaps), sum(gaps)

    def _keep(self, value: int, lines: list[Midline]) -> None:
        self._lines += lines
        self._classes += [value] * len(lines)
