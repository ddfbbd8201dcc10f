"""Simplification of polygons of pixels that share edges.

An edge between two polygons is simplified once, for both, so that neither gaps nor overlaps appear. This requires all
polygons in memory.
"""

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

#: Largest width of a map, so that a corner can be encoded as one integer.
_MAX_WIDTH = 2**31


def simplify_coverage(
    polygons: NDArray[np.object_], tolerance: float, pixel: tuple[float, float] = (1.0, 1.0)
) -> NDArray[np.object_]:
    """Simplify polygons of pixels, shared edges together.

    GEOS's CoverageSimplifier removes corners whose triangle with their neighbours is smaller than the square of the
    tolerance (Visvalingam and Whyatt, https://doi.org/10.1179/000870493786962263), and never lets edges cross.

    Args:
        polygons: Polygons in pixels, integers ``(col, row)``, which do not overlap; shape (n,).
        tolerance: Tolerance in the units of ``pixel``.
        pixel: Width and height of a pixel.

    Returns:
        The polygons in pixels, shape (n,). Corners where three or more polygons meet keep their place.
    """
    scale = np.asarray(pixel)
    placed = shapely.transform(share_corners(polygons), lambda xy: xy * scale)
    simple = shapely.coverage_simplify(placed, tolerance)
    return np.asarray(shapely.transform(simple, lambda xy: xy / scale), dtype=object)


def share_corners(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """Add to polygons of pixels the corners of their neighbours that lie on their edges.

    Without them, an edge that is one edge here and two there would not be recognized as shared.

    Args:
        polygons: Polygons in pixels, integers ``(col, row)``; shape (n,).

    Returns:
        The same polygons, with more points on straight edges; shape (n,).
    """
    corners = np.unique(_encoded(shapely.get_coordinates(polygons)))
    return np.array([_noded(polygon, corners) for polygon in polygons], dtype=object)


def _noded(polygon: BaseGeometry, corners: NDArray[np.int64]) -> BaseGeometry:
    rings = [shapely.LinearRing(_dense(ring, corners)) for ring in _rings(polygon)]
    return shapely.Polygon(rings[0], rings[1:])


def _rings(polygon: BaseGeometry) -> Iterator[NDArray[np.float64]]:
    for ring in (polygon.exterior, *polygon.interiors):
        yield shapely.get_coordinates(ring)


def _dense(ring: NDArray[np.float64], corners: NDArray[np.int64]) -> NDArray[np.float64]:
    """Add the corners that lie on a ring."""
    starts, ends = ring[:-1], ring[1:]
    steps = np.abs(ends - starts).sum(axis=1).astype(np.int64)  # edges run along rows and columns
    first = np.cumsum(steps) - steps
    along = np.arange(int(steps.sum())) - np.repeat(first, steps)
    points = np.repeat(starts, steps, axis=0) + along[:, None] * np.repeat(np.sign(ends - starts), steps, axis=0)
    numbers = _encoded(points)
    at = np.searchsorted(corners, numbers)
    there = corners[np.minimum(at, len(corners) - 1)] == numbers
    return points[there]


def _encoded(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Encode points as integers."""
    whole = points.astype(np.int64)
    return whole[:, 1] * _MAX_WIDTH + whole[:, 0]
