"""Geometries across 180° of longitude.

A polygon from 179° to −179° is two degrees wide, but as a plain list of coordinates it covers the rest of the world. It
is cut at 180°, as RFC 7946 (https://www.rfc-editor.org/rfc/rfc7946#section-3.1.9) prescribes for GeoJSON. An edge
between 180° and 360° long is taken for one that crosses; one of 360° is the edge of a map of the world.
"""

import math
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError

type Geometries = NDArray[np.object_]

#: Method of the projection of web maps.
_WEB_MERCATOR = 'Popular Visualisation Pseudo Mercator'
#: Fraction of the circle by which coordinates may pass it: rounding.
_ROUNDING = 1e-9


def circle(crs: Any) -> float | None:
    """Return the length of the equator in units of x, if x ends at 180° and starts again at −180°.

    Args:
        crs: A CRS.

    Returns:
        360 for degrees, 2π times the radius for web maps, None for all other projections, which have no such edge near
        the ground they are for.
    """
    from pyproj import CRS as PROJ_CRS  # imported here: it takes longer than cutting a small scene into chips

    known = PROJ_CRS.from_user_input(crs)
    if known.is_geographic:
        return float(2 * math.pi / known.axis_info[0].unit_conversion_factor)
    method = known.coordinate_operation.method_name if known.coordinate_operation else ''
    if method == _WEB_MERCATOR and known.ellipsoid is not None:
        return float(2 * math.pi * known.ellipsoid.semi_major_metre / known.axis_info[0].unit_conversion_factor)
    return None


def cut_at_antimeridian(geometries: Geometries, crs: Any) -> tuple[Geometries, int]:
    """Cut geometries that cross 180°, and bring those beyond it to the other side.

    Args:
        geometries: Any geometries, also None; shape (n,).
        crs: Their CRS.

    Returns:
        Geometries of which all coordinates lie between −180° and 180°, shape (n,), the same array if none had to be
        changed; and the number of geometries that were changed.

    Raises:
        ConfigurationError: If a polygon encloses a pole without an edge along it.
    """
    length = circle(crs)
    if length is None or len(geometries) == 0:
        return geometries, 0
    left, _, right, _ = shapely.bounds(geometries).T
    half = length / 2 * (1 + _ROUNDING)
    with np.errstate(invalid='ignore'):  # bounds of empty geometries are NaN
        suspects = (right - left > half) | (left < -half) | (right > half)
    changed = 0
    result = geometries
    for i in np.flatnonzero(suspects & np.isfinite(left) & np.isfinite(right)).tolist():
        pieces = [piece for part in _parts(geometries[i]) for piece in _cut(part, length)]
        united = pieces[0] if len(pieces) == 1 else shapely.union_all(pieces)
        if not shapely.equals_exact(united, geometries[i], normalize=True):
            result = geometries.copy() if result is geometries else result
            result[i] = united
            changed += 1
    return result, changed


def crosses_antimeridian(geometry: BaseGeometry, crs: Any) -> bool:
    """Return whether a geometry crosses 180°, or lies beyond it.

    Args:
        geometry: A geometry.
        crs: Its CRS.
    """
    return cut_at_antimeridian(np.array([geometry], dtype=object), crs)[1] > 0


def shifted(geometry: Any, distance: float) -> Any:
    """Move a geometry, or an array of them, along x.

    Args:
        geometry: Geometry, or array of any shape.
        distance: Distance in units of the CRS.

    Returns:
        The same in its new place.
    """
    return shapely.transform(geometry, lambda xy: xy + np.array([distance, 0.0]))


def _parts(geometry: BaseGeometry) -> list[BaseGeometry]:
    """Return points, lines and polygons of a geometry that may be nested."""
    parts = shapely.get_parts(geometry)
    return [simple for part in parts for simple in ([part] if part.geom_type in _SIMPLE else _parts(part))]


_SIMPLE = frozenset({'Point', 'LineString', 'LinearRing', 'Polygon'})


def _cut(part: BaseGeometry, length: float) -> list[BaseGeometry]:
    """Return the pieces of a point, line or polygon within ±180°."""
    whole = _unwrapped(part, length)
    if not shapely.is_valid(whole):
        whole = shapely.make_valid(whole, method='structure', keep_collapsed=False)
    if whole.is_empty:
        return [part]
    left, bottom, right, top = whole.bounds
    slack = length * _ROUNDING
    first = math.floor((left + slack) / length + 0.5)
    last = max(first, math.ceil((right - slack) / length - 0.5))
    pieces = []
    for turn in range(first, last + 1):
        edges = [(turn - 0.5) * length, (turn + 0.5) * length]
        inside = whole if first == last else shapely.intersection(whole, shapely.box(edges[0], bottom, edges[1], top))
        if not inside.is_empty and inside.geom_type.removeprefix('Multi') == part.geom_type:
            pieces.append(shifted(inside, -turn * length))
    return pieces or [part]


def _unwrapped(part: BaseGeometry, length: float) -> BaseGeometry:
    """Return a geometry whose edges go the short way, also beyond 180°."""
    if part.geom_type != 'Polygon':
        return shapely.transform(part, lambda xy: _short_way(xy, length))
    shell = _ring(part.exterior, length)
    holes = [_ring(hole, length) for hole in part.interiors]
    solid = shapely.Polygon(shell)
    return shapely.Polygon(shell, [_inside(hole, solid, length) for hole in holes])


def _ring(ring: BaseGeometry, length: float) -> NDArray[np.float64]:
    """Return the coordinates of a ring, shape (n, 2)."""
    xy = _short_way(shapely.get_coordinates(ring), length)
    if abs(xy[0, 0] - xy[-1, 0]) > length / 2:
        latitudes = f'{xy[:, 1].min():g} to {xy[:, 1].max():g}'
        msg = (
            f'crs: a polygon encloses a pole (y from {latitudes}), which has no outline in degrees; bring the file '
            'into a polar projection, for example with `ogr2ogr -t_srs EPSG:3031` or EPSG:3413.'
        )
        raise ConfigurationError(msg)
    return xy


def _short_way(xy: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    """Move coordinates by whole turns so that no edge is longer than half of one, but for edges of a whole turn."""
    steps = np.diff(xy[:, 0])
    turns = np.where(np.abs(steps) < length * (1 - _ROUNDING), np.round(steps / length), 0)
    moved = xy.copy()
    moved[1:, 0] -= length * np.cumsum(turns)
    return moved


def _inside(hole: NDArray[np.float64], shell: shapely.Polygon, length: float) -> NDArray[np.float64]:
    """Move a hole by whole turns into its polygon."""
    centre = shapely.Polygon(hole).representative_point()
    turn = next((k for k in (0, 1, -1) if shell.covers(shifted(centre, k * length))), 0)
    return hole + np.array([turn * length, 0.0])
