"""Size of pixels on the ground."""

import math

from pyproj import CRS as PROJ_CRS

from torchgeo_msssl.geo.grid import PixelGrid


def ground_size(grid: PixelGrid) -> tuple[float, float]:
    """Return width and height of a pixel on the ground, in metres, at the centre of a grid in any CRS."""
    crs = PROJ_CRS.from_user_input(grid.crs)
    unit = float(
        crs.axis_info[0].unit_conversion_factor
    )  # in metres or radians; rasterio does not know it for every CRS
    if not grid.crs.is_geographic:
        return grid.res[0] * unit, grid.res[1] * unit
    geod = crs.get_geod()
    assert geod is not None, 'a geographic CRS has an ellipsoid'
    degrees = math.degrees(unit)
    x, y, width, height = (degrees * value for value in (*grid.centre, *grid.res))
    return float(geod.inv(x, y, x + width, y)[2]), float(geod.inv(x, y, x, y + height)[2])


def pixel_size(grid: PixelGrid) -> float | None:
    """Return the square root of a pixel's area on the ground, in metres; None for images without a place."""
    return math.sqrt(math.prod(ground_size(grid))) if grid.is_georeferenced else None
