"""Preparation of geometries for burning: repair, splitting into parts, buffers in metres."""

import logging
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS as PROJ_CRS
from pyproj import Proj, Transformer
from pyproj.exceptions import ProjError

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.vector.antimeridian import circle, cut_at_antimeridian

log = logging.getLogger(__name__)

type Geometries = NDArray[np.object_]

POINT, POLYGON = 0, 3  # GEOS type numbers; larger ones are collections
#: Largest relative error of scale at which a map is true to scale.
_TRUE_SCALE = 0.01
#: Edges longer than this get vertices before they are reprojected; one of 500 m bends by millimetres.
_STEP_DEGREES, _STEP_METRES = 0.005, 500.0


def simple_parts(geometries: Geometries) -> tuple[Geometries, NDArray[np.int64], int]:
    """Split collections into parts, repair invalid polygons and remove empty geometries.

    Args:
        geometries: Any geometries, also None; shape (n,).

    Returns:
        ``(parts, parent, invalid)``: valid points, lines and polygons; the position of the geometry of each part; the
        number of invalid geometries. Empty geometries are no parents.
    """
    parts, parent = _explode(shapely.force_2d(geometries))
    areal = shapely.get_type_id(parts) == POLYGON
    broken = areal & ~shapely.is_valid(parts)
    invalid = len(np.unique(parent[broken]))
    if invalid:
        # 'structure' keeps both lobes of a bow-tie; buffer(0) loses one.
        parts[broken] = shapely.make_valid(parts[broken], method='structure', keep_collapsed=False)
        parts, index = _explode(parts)
        parent, areal = parent[index], areal[index]
        whole = ~areal | (shapely.get_type_id(parts) == POLYGON)
        parts, parent = parts[whole], parent[whole]
    return parts, parent, invalid


def _explode(geometries: Geometries) -> tuple[Geometries, NDArray[np.int64]]:
    parts, parent = shapely.get_parts(geometries, return_index=True)
    while (shapely.get_type_id(parts) > POLYGON).any():  # collections of collections
        parts, index = shapely.get_parts(parts, return_index=True)
        parent = parent[index]
    # bounds of empty geometries, and of coordinates with NaN, are not finite
    usable = ~shapely.is_empty(parts) & np.isfinite(shapely.bounds(parts)).all(axis=1)
    return parts[usable], parent[usable]


def reprojected(geometries: Geometries, source: PROJ_CRS, target: PROJ_CRS) -> Geometries:
    """Reproject geometries so that their edges keep their course.

    Args:
        geometries: Simple geometries, shape (n,).
        source: Their CRS, in which their edges are straight.
        target: The other CRS.

    Returns:
        Geometries in ``target``, with vertices along long edges, and of several parts where they cross 180° there;
        coordinates outside its area are not finite.

    Raises:
        ConfigurationError: If there is no transformation between the CRS.
    """
    step = _STEP_DEGREES if source.is_geographic else _STEP_METRES / source.axis_info[0].unit_conversion_factor
    left, bottom, right, top = shapely.bounds(geometries).T
    large = np.hypot(right - left, top - bottom) > step
    dense = geometries.copy()
    dense[large] = shapely.segmentize(geometries[large], step)
    try:
        placed = gpd.GeoSeries(dense, crs=source).to_crs(target).to_numpy()
        return cut_at_antimeridian(placed, target)[0]
    except ProjError as error:
        msg = f'crs: no transformation leads from {source.name!r} to {target.name!r}; bring the files into one CRS.'
        raise ConfigurationError(msg) from error


def buffer_metres(geometries: Geometries, crs: Any, distance: float) -> Geometries:
    """Buffer lines and points by metres on the ground, whatever their CRS.

    Args:
        geometries: Lines, which get flat caps, and points, which become discs; shape (n,).
        crs: Their CRS. If it is not true to scale, the UTM zone of the place is used.
        distance: Metres to each side.

    Returns:
        Polygons in ``crs``, shape (n,).
    """
    if len(geometries) == 0:
        return geometries
    series = gpd.GeoSeries(geometries, crs=crs)
    unit = metres_per_unit(series)
    plane = series if unit else series.to_crs(utm_zone(series))
    shapes = plane.to_numpy()
    caps = np.where(shapely.get_type_id(shapes) == POINT, 'round', 'flat')
    wide = shapes.copy()
    for cap in ('round', 'flat'):
        chosen = caps == cap
        wide[chosen] = shapely.buffer(shapes[chosen], distance / (unit or 1.0), cap_style=cap)
    return gpd.GeoSeries(wide, crs=plane.crs).to_crs(series.crs).to_numpy()


def utm_zone(series: gpd.GeoSeries) -> PROJ_CRS:
    """Return the UTM zone of geometries, in which metres on the ground are measured.

    Args:
        series: Geometries with their CRS.

    Returns:
        CRS of the zone.

    Raises:
        ConfigurationError: If no transformation leads to one.
    """
    try:
        zone = _in_one_piece(series).estimate_utm_crs()
        Transformer.from_crs(series.crs, zone)  # degrees of another body give a zone too, but no way leads there
        return zone
    except (ProjError, RuntimeError) as error:
        msg = (
            f'crs: no transformation leads from {series.crs.name!r} to a UTM zone, in which metres are measured; bring '
            'the file into a projected CRS.'
        )
        raise ConfigurationError(msg) from error


def _in_one_piece(series: gpd.GeoSeries) -> gpd.GeoSeries:
    """Return the middle of geometries of which some lie on the other side of 180°, or else the geometries."""
    length = circle(series.crs)
    left, bottom, right, top = series.total_bounds
    if length is None or right - left <= length / 2:
        return series
    boxes = shapely.bounds(series.to_numpy())
    middles = (boxes[:, 0] + boxes[:, 2]) / 2 % length
    x = (middles.min() + middles.max()) / 2
    return gpd.GeoSeries([shapely.Point(x - length * (x > length / 2), (bottom + top) / 2)], crs=series.crs)


def metres_per_unit(series: gpd.GeoSeries) -> float | None:
    """Return the metres on the ground per unit of a map, or None if it is not true to scale at the geometries.

    Args:
        series: Geometries with their CRS.
    """
    crs = PROJ_CRS.from_user_input(series.crs)
    if crs.geodetic_crs is None:  # a local plane
        return float(crs.axis_info[0].unit_conversion_factor)
    if not crs.is_projected:
        return None
    left, bottom, right, top = series.total_bounds
    to_degrees = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    try:
        factors = Proj(crs).get_factors(*to_degrees.transform((left + right) / 2, (bottom + top) / 2))
    except ProjError:
        return None
    true = max(abs(factors.meridional_scale - 1), abs(factors.parallel_scale - 1)) < _TRUE_SCALE
    return float(crs.axis_info[0].unit_conversion_factor) if true else None


def _widened(parts: Geometries, crs: Any, buffer: float, path: str) -> Geometries:
    """Buffer lines and points, and check that the buffer suits the geometries."""
    kinds = shapely.get_type_id(parts)
    points, thin = kinds == POINT, kinds != POLYGON
    if buffer == 0:
        if points.any():
            msg = (
                f'{path}: holds {int(points.sum())} points, which cover no ground; give their radius in metres with '
                '`buffer`, or use polygons.'
            )
            raise ConfigurationError(msg)
        if thin.any():
            log.warning(
                '%s: holds %d lines, which become one pixel wide; give half their width in metres with `buffer`.',
                path,
                int(thin.sum()),
            )
        return parts
    if len(parts) and not thin.any():
        raise ConfigurationError(f'buffer: widens lines and points, and {path} holds polygons only; leave it out.')
    wide = parts.copy()
    wide[thin] = buffer_metres(parts[thin], crs, buffer)
    return wide


@dataclass(frozen=True)
class Parts:
    """Parts of the geometries of a table.

    Attributes:
        geometries: Valid lines and polygons, shape (n,).
        parent: Row of the table of each part, shape (n,).
        repaired: Number of rows that were invalid.
        dropped: Number of rows that were empty.
    """

    geometries: Geometries
    parent: NDArray[np.int64]
    repaired: int
    dropped: int


def solid_parts(frame: gpd.GeoDataFrame, buffer: float, path: str) -> Parts:
    """Repair the geometries of a table, split them into parts and buffer lines and points.

    Args:
        frame: The table, with its CRS.
        buffer: Metres to each side of lines and points, see :func:`buffer_metres`; with 0 lines stay one pixel wide.
        path: Its file, for messages.

    Returns:
        The parts.

    Raises:
        ConfigurationError: If nothing is left, if there are points without a buffer, or a buffer and only polygons.
    """
    if not (np.isfinite(buffer) and buffer >= 0):
        raise ConfigurationError(f'buffer: expected 0 metres or more, got {buffer}.')
    parts, parent, invalid = simple_parts(frame.geometry.to_numpy())
    parts = _widened(parts, frame.crs, buffer, path)
    parts, index = _explode(cut_at_antimeridian(parts, frame.crs)[0])  # of lines, and of discs around points
    parent = parent[index]
    dropped = len(frame) - len(np.unique(parent))
    if invalid:
        log.warning('%s: %d of %d geometries were invalid and were repaired.', path, invalid, len(frame))
    if dropped:
        log.warning('%s: %d of %d geometries were empty and were left out.', path, dropped, len(frame))
    if len(parts) == 0:
        msg = f'{path}: all of its {len(frame)} geometries are empty; choose the layer or file with the labels.'
        raise ConfigurationError(msg)
    return Parts(parts, parent, invalid, dropped)
