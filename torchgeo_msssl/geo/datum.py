"""Accuracy of placing data of one CRS in another.

Transformations between datums often need a grid file. Without it, PROJ uses the next best one, which may be metres off
(https://proj.org/en/stable/operations/operations_computation.html), or none at all.
"""

import functools
import logging
import math
import warnings
from dataclasses import dataclass
from typing import Any

from pyproj import CRS as PROJ_CRS
from pyproj import Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.exceptions import ProjError
from pyproj.transformer import TransformerGroup

from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.ground_size import pixel_size

log = logging.getLogger(__name__)

#: Accuracy of WGS 84 itself, in metres: it is a name for several datums.
_WGS84 = 2.0
#: How PROJ names a transformation that leaves the difference between the datums out.
_BALLPARK = 'Ballpark'
#: Half the side of the place that is considered, in degrees.
_NEAR = 0.01


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the transformation that is used, and of a better one whose grid is missing.

    Attributes:
        metres: Its accuracy, or None if that is unknown because the difference between the datums is left out.
        grid: Name of the missing grid file, or an empty string.
        better: Accuracy in metres with that grid.
    """

    metres: float | None
    grid: str = ''
    better: float = 0.0


def transformation_accuracy(source: Any, target: Any, place: tuple[float, float]) -> Accuracy | None:
    """Return the accuracy of the transformation between two CRS at a place.

    Args:
        source: A CRS.
        target: Another CRS.
        place: x and y in ``target``.

    Returns:
        The accuracy, or None if no transformation between datums is needed or known.
    """
    first, second = (PROJ_CRS.from_user_input(crs) for crs in (source, target))
    if first.geodetic_crs is None or second.geodetic_crs is None or first.geodetic_crs == second.geodetic_crs:
        return None
    to_degrees = Transformer.from_crs(second, second.geodetic_crs, always_xy=True)
    longitude, latitude = to_degrees.transform(*place)
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        return None
    # known for the whole area of a survey: the nearest tenth of a degree is enough
    return _accuracy(first.to_wkt(), second.to_wkt(), round(longitude, 1), round(latitude, 1))


@functools.lru_cache(maxsize=64)
def _accuracy(source: str, target: str, longitude: float, latitude: float) -> Accuracy | None:
    longitude = (longitude + 180) % 360 - 180
    near = AreaOfInterest(longitude - _NEAR, latitude - _NEAR, longitude + _NEAR, latitude + _NEAR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)  # of the missing grid, which is reported below
            group = TransformerGroup(source, target, always_xy=True, area_of_interest=near)  # type: ignore[arg-type]
    except ProjError:
        return None
    if not group.transformers:
        return None
    used = group.transformers[0]
    metres = None if _BALLPARK in used.description else max(used.accuracy or 0.0, 0.0)
    better = [
        (operation.accuracy, grid.short_name)
        for operation in group.unavailable_operations
        for grid in operation.grids
        if not grid.available and 0 <= operation.accuracy < (math.inf if metres is None else metres)
    ]
    if not better:
        return Accuracy(metres)
    least, name = min(better)
    return Accuracy(metres, name, least)


def report_accuracy(what: str, source: Any, grid: PixelGrid) -> None:
    """Log how far data of another CRS may lie from their place on a grid, if that is more than a pixel.

    Args:
        what: The data, for the message.
        source: Their CRS.
        grid: The grid that they are placed on.
    """
    accuracy = transformation_accuracy(source, grid.crs, grid.centre)
    side = pixel_size(grid)
    if accuracy is None or side is None or (accuracy.metres is not None and accuracy.metres <= side):
        return
    first, second = (PROJ_CRS.from_user_input(crs).name for crs in (source, grid.crs))
    if accuracy.metres is None:
        shift = 'leaves the difference between their datums out, which may be hundreds of metres'
    else:
        shift = f'is accurate to {accuracy.metres:g} m, or {accuracy.metres / side:.2g} pixels'
    if accuracy.grid:
        remedy = (
            f'the one accurate to {accuracy.better:g} m needs the grid {accuracy.grid}: run `pyproj sync --file '
            f'{accuracy.grid}` or set PROJ_NETWORK=ON'
        )
    else:
        remedy = 'compare both in a GIS, or bring them into one CRS'
    known = accuracy.metres is not None and accuracy.metres <= _WGS84 and not accuracy.grid
    log.log(
        logging.INFO if known else logging.WARNING,
        '%s: the transformation from %s to %s %s; %s.',
        what,
        first,
        second,
        shift,
        remedy,
    )
