"""Polygons of pixels with fewer corners that still share their edges.

An edge between two polygons is simplified once, for both, so that neither gaps nor overlaps appear. That takes all
polygons at a time: they are held in memory, unlike the pixels they come from.
"""

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

__all__ = ('share_corners', 'simplify_coverage')

#: Columns a map can have at most, so that a corner becomes one whole number.
_WIDEST = 2**31


def simplify_coverage(
    polygons: NDArray[np.object_], tolerance: float, pixel: tuple[float, float] = (1.0, 1.0)
) -> NDArray[np.object_]:
    """Simplify the edges of polygons of pixels, those that two share together.

    GEOS's CoverageSimplifier takes away corners whose triangle with their neighbours is smaller than the square of the
    tolerance (Visvalingam and Whyatt, https://doi.org/10.1179/000870493786962263) and never lets edges cross.

    Args:
        polygons: Polygons in pixels, whole numbers ``(col, row)``, which do not overlap; shape (n,).
        tolerance: In the units of ``pixel``.
        pixel: Width and height of a pixel, so that it means the same across and along.

    Returns:
        The polygons in pixels, shape (n,). Where three or more meet, corners stay where they are.
    """
    scale = np.asarray(pixel)
    placed = shapely.transform(share_corners(polygons), lambda xy: xy * scale)
    simple = shapely.coverage_simplify(placed, tolerance)
    return np.asarray(shapely.transform(simple, lambda xy: xy / scale), dtype=object)


def share_corners(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """Give polygons of pixels the corners that their neighbours have on their edges.

    Without them an edge that is one here and two there would not be taken for the same.

    Args:
        polygons: Polygons in pixels, whole numbers ``(col, row)``; shape (n,).

    Returns:
        The same polygons, with more points on straight edges; shape (n,).
    """
    corners = np.unique(_number(shapely.get_coordinates(polygons)))
    return np.array([_noded(polygon, corners) for polygon in polygons], dtype=object)


def _noded(polygon: BaseGeometry, corners: NDArray[np.int64]) -> BaseGeometry:
    rings = [shapely.LinearRing(_dense(ring, corners)) for ring in _rings(polygon)]
    return shapely.Polygon(rings[0], rings[1:])


def _rings(polygon: BaseGeometry) -> Iterator[NDArray[np.float64]]:
    for ring in (polygon.exterior, *polygon.interiors):
        yield shapely.get_coordinates(ring)


def _dense(ring: NDArray[np.float64], corners: NDArray[np.int64]) -> NDArray[np.float64]:
    """A ring with the corners that lie on it."""
    starts, ends = ring[:-1], ring[1:]
    steps = np.abs(ends - starts).sum(axis=1).astype(np.int64)  # edges run along rows and columns
    first = np.cumsum(steps) - steps
    along = np.arange(int(steps.sum())) - np.repeat(first, steps)
    points = np.repeat(starts, steps, axis=0) + along[:, None] * np.repeat(np.sign(ends - starts), steps, axis=0)
    numbers = _number(points)
    at = np.searchsorted(corners, numbers)
    there = corners[np.minimum(at, len(corners) - 1)] == numbers
    return points[there]


def _number(points: NDArray[np.float64]) -> NDArray[np.int64]:
    whole = points.astype(np.int64)
    return whole[:, 1] * _WIDEST + whole[:, 0]
