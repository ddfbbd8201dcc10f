"""Lengths and areas on the ground of geometries of a map."""

from collections.abc import Callable
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS as PROJ_CRS
from pyproj import Transformer
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.geo.vector.geometries import metres_per_unit, utm_zone


class Plane:
    """Conversion between map coordinates and metres on the ground."""

    def __init__(self, crs: Any, place: BaseGeometry) -> None:
        """Choose the plane: that of the map if it is true to scale, otherwise the UTM zone of the place.

        Args:
            crs: CRS of the map.
            place: A geometry around what is measured, in ``crs``.

        Raises:
            ConfigurationError: If no transformation leads to a UTM zone.
        """
        series = gpd.GeoSeries([place], crs=PROJ_CRS.from_user_input(crs))
        self._unit = metres_per_unit(series)
        if self._unit is None:
            zone = utm_zone(series)
            self._forward = Transformer.from_crs(series.crs, zone, always_xy=True)
            self._inverse = Transformer.from_crs(zone, series.crs, always_xy=True)

    def to_metres(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert map coordinates ``(x, y)``, shape (n, 2), to metres."""
        return xy * self._unit if self._unit else np.column_stack(self._forward.transform(xy[:, 0], xy[:, 1]))

    def to_map(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert metres, shape (n, 2), to map coordinates ``(x, y)``."""
        return xy / self._unit if self._unit else np.column_stack(self._inverse.transform(xy[:, 0], xy[:, 1]))


def pixels_to_map(geometry: BaseGeometry, transform: Affine) -> BaseGeometry:
    """Convert a geometry from pixel coordinates ``(col, row)`` to map coordinates.

    Args:
        geometry: Any geometry.
        transform: Geotransform of the pixels.

    Returns:
        The geometry in map coordinates.
    """
    return shapely.transform(geometry, lambda xy: np.column_stack(transform @ xy.T))


def area_measure(crs: CRS, place: BaseGeometry) -> Callable[[BaseGeometry], float]:
    """Return a function that measures polygons of a map in m².

    Args:
        crs: CRS of the map.
        place: A geometry of the map.

    Returns:
        Function from a polygon in ``crs`` to its area: in the plane of the map if it is true to scale, otherwise on
        the ellipsoid.
    """
    known = PROJ_CRS.from_user_input(crs)
    geod = known.get_geod()
    if geod is None:
        unit: float | None = float(known.axis_info[0].unit_conversion_factor)
    else:
        unit = metres_per_unit(gpd.GeoSeries([place], crs=known))
    if unit is not None:
        return lambda polygon: float(polygon.area) * unit**2
    assert geod is not None, 'a map without an ellipsoid has its unit'
    to_degrees = Transformer.from_crs(known, known.geodetic_crs, always_xy=True)

    def ellipsoidal_area(polygon: BaseGeometry) -> float:
        degrees = shapely.transform(polygon, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1])))
        return abs(float(geod.geometry_area_perimeter(shapely.orient_polygons(degrees))[0]))

    return ellipsoidal_area
