"""Burning of geometries into windows of a grid.

A pixel gets the value of the geometry that contains its centre. Geometries are never clipped to the window. They are
converted to pixels of the whole grid as GDAL does it, and then shifted by whole pixels: a mask made of windows equals
that of ``gdal_rasterize`` for the whole grid, pixel for pixel. (Only with ``all_touched``, a line that runs exactly
through the corner of a pixel may touch other neighbours, as it also does between versions of GDAL.)
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS as PROJ_CRS
from rasterio.crs import CRS
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError, ScenesNotFoundError
from torchgeo_msssl.geo.datum import report_accuracy
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.open_datasets import is_remote
from torchgeo_msssl.geo.vector.antimeridian import circle, shifted
from torchgeo_msssl.geo.vector.files import layer_names, read_vector, split_layer
from torchgeo_msssl.geo.vector.geometries import POLYGON, Geometries, reprojected, simple_parts

log = logging.getLogger(__name__)

#: Distance from a window in pixels within which geometries matter: lines burn pixels next to their path at most.
_REACH = 2


def burn(
    geometries: Geometries,
    values: NDArray[np.uint8],
    grid: PixelGrid,
    window: Window,
    fill: int = 0,
    all_touched: bool = False,
) -> NDArray[np.uint8]:
    """Burn geometries into a window of a grid.

    Args:
        geometries: Geometries in the grid's CRS, the last one on top; shape (n,).
        values: Their values, shape (n,).
        grid: The grid.
        window: Window on it; it may reach outside.
        fill: Value of pixels without a geometry.
        all_touched: Burn every pixel that is touched, not only those whose centre is covered. Rows of 0.6 m become
            1.2 times as wide on pixels of 10 cm and twice as wide on pixels of 50 cm.

    Returns:
        Shape (height, width).
    """
    mask = np.full((window.height, window.width), fill, dtype=np.uint8)
    if len(geometries) == 0:
        return mask
    t = _inverse(grid.transform)
    # Which of two pixels GDAL assigns an edge between them to depends on whether rows run against the map's y.
    flip = -1.0 if grid.transform.determinant < 0 else 1.0

    def to_pixels(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        cols = t.c + xy[:, 0] * t.a + xy[:, 1] * t.b
        rows = t.f + xy[:, 0] * t.d + xy[:, 1] * t.e
        # subtracting integers is exact
        return np.column_stack([cols - window.col, flip * (rows - window.row)])

    shapes = shapely.transform(geometries, to_pixels)
    rasterize(
        zip(shapes, values.tolist(), strict=True), out=mask, all_touched=all_touched, transform=Affine.scale(1, flip)
    )
    return mask


def _inverse(transform: Affine) -> Affine:
    """Return the inverse with the rounding of GDALInvGeoTransform, which decides on edges through pixel centres."""
    a, b, c, d, e, f = transform[:6]
    return Affine(1 / a, 0, -c / a, 0, 1 / e, -f / e) if b == d == 0 else ~transform


@dataclass(frozen=True)
class _Placed:
    """Geometries in the CRS of a grid.

    Attributes:
        geometries: Shape (n,).
        values: Shape (n,).
        tree: Their spatial index.
        turns: Distances along x at which they come again: a grid in degrees may continue beyond 180°.
    """

    geometries: Geometries
    values: NDArray[np.uint8]
    tree: shapely.STRtree
    turns: tuple[float, ...]


class GeometryIndex:
    """Spatial index of geometries with values, on grids of any CRS.

    Reprojected geometries are kept for each CRS.
    """

    def __init__(self, geometries: Geometries, values: NDArray[np.uint8], crs: Any, option: str = 'labels') -> None:
        """Keep the geometries.

        Args:
            geometries: Points, lines and polygons, the last one on top; shape (n,).
            values: Their values, shape (n,).
            crs: Their CRS.
            option: Option that named them, for messages.
        """
        self.geometries = geometries
        self._option = option
        self.values = values
        self.crs = PROJ_CRS.from_user_input(crs)
        self._placed: dict[CRS, _Placed] = {}
        self._reported: set[CRS] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the reprojected geometries."""
        return self.__dict__ | {'_placed': {}}

    def bounds(self, crs: Any | None = None) -> tuple[float, float, float, float]:
        """Return ``(left, bottom, right, top)`` of all geometries in a CRS (default: their own)."""
        geometries = self.geometries if crs is None else self._on(CRS.from_user_input(crs)).geometries
        left, bottom, right, top = shapely.total_bounds(geometries).tolist()
        return left, bottom, right, top

    def touches(self, grid: PixelGrid) -> bool:
        """Return whether a geometry intersects a grid.

        The log says once for each CRS if the transformation to it is less accurate than a pixel.
        """
        placed = self._on(grid.crs)
        if grid.crs not in self._reported:
            self._reported.add(grid.crs)
            report_accuracy(self._option, self.crs, grid)
        outline = shapely.Polygon([grid.transform @ corner for corner in _corners(grid.window)])
        shapes = [shifted(outline, -turn) for turn in placed.turns]
        return any(len(placed.tree.query(shape, predicate='intersects')) > 0 for shape in shapes)

    def burn(self, grid: PixelGrid, window: Window, fill: int = 0, all_touched: bool = False) -> NDArray[np.uint8]:
        """Burn the geometries at a window, see :func:`burn`; shape (height, width)."""
        placed = self._on(grid.crs)
        wide = Window(window.row - _REACH, window.col - _REACH, window.height + 2 * _REACH, window.width + 2 * _REACH)
        left, bottom, right, top = grid.window_bounds(wide)
        found = [placed.tree.query(shapely.box(left - turn, bottom, right - turn, top)) for turn in placed.turns]
        hits = np.concatenate(found)
        order = np.argsort(hits, kind='stable')
        pieces = [placed.geometries[some] for some in found]
        moved = [shifted(some, x) if x and len(some) else some for some, x in zip(pieces, placed.turns, strict=True)]
        return burn(np.concatenate(moved)[order], placed.values[hits[order]], grid, window, fill, all_touched)

    def _on(self, crs: CRS) -> '_Placed':
        if crs not in self._placed:
            geometries, values = self.geometries, self.values
            wanted = PROJ_CRS.from_user_input(crs)
            if not wanted.equals(self.crs, ignore_axis_order=True):  # coordinates are always x, y
                geometries = reprojected(geometries, self.crs, wanted)
                # geometries outside the area of a projection lose their coordinates
                there = np.isfinite(shapely.bounds(geometries)).all(axis=1)
                if not there.all():
                    log.warning(
                        '%d of %d geometries lie outside the area of %s and were left out.',
                        int((~there).sum()),
                        len(there),
                        wanted.name,
                    )
                geometries, values = geometries[there], values[there]
            length = circle(wanted)
            turns = (0.0,) if length is None else (0.0, length, -length)
            self._placed[crs] = _Placed(geometries, values, shapely.STRtree(geometries), turns)
        return self._placed[crs]


def _corners(window: Window) -> list[tuple[float, float]]:
    """Return ``(col, row)`` of the corners, in the order of a ring."""
    top, left, bottom, right = window.row, window.col, window.row + window.height, window.col + window.width
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def read_extent(source: str | os.PathLike[str], labels: str | None = None) -> GeometryIndex:
    """Read the outline of the surveyed ground.

    Args:
        source: Vector file with polygons, ``file.gpkg|layername=parcels``, or the name of another layer of ``labels``.
        labels: The vector file with the labels, if any.

    Returns:
        The polygons, with the value 1.

    Raises:
        ScenesNotFoundError: If there is no such file or layer.
        ConfigurationError: If it holds no polygons.
        MissingCRSError: If it has no CRS.
        SceneReadError: If it cannot be read.
    """
    file, layer = split_layer(source)
    if labels is not None and layer is None and not os.path.exists(file) and not is_remote(file):
        home = split_layer(labels)[0]
        layers = layer_names(home)
        if file not in layers:
            msg = f'extent: {file!r} is neither a file nor a layer of {home} ({", ".join(layers)}); correct it.'
            raise ScenesNotFoundError(msg)
        file, layer = home, file
    frame = read_vector(file, layer)
    parts, _, invalid = simple_parts(frame.geometry.to_numpy())
    parts = parts[shapely.get_type_id(parts) == POLYGON]
    if len(parts) == 0:
        raise ConfigurationError(f'extent: {source} holds no polygons; draw the outline of the surveyed ground.')
    if invalid:
        log.warning('%s: %d of %d geometries were invalid and were repaired.', source, invalid, len(frame))
    return GeometryIndex(parts, np.ones(len(parts), dtype=np.uint8), frame.crs, 'extent')


def set_outside(
    mask: NDArray[np.uint8], extent: GeometryIndex | None, grid: PixelGrid, window: Window, value: int
) -> NDArray[np.uint8]:
    """Set pixels outside the surveyed ground to a value, in place.

    Args:
        mask: Classes, shape (height, width).
        extent: The surveyed ground, or None if all ground was surveyed.
        grid: Grid of the window.
        window: Window of the mask.
        value: Value of pixels outside.

    Returns:
        The same array.
    """
    if extent is not None:
        mask[extent.burn(grid, window) == 0] = value
    return mask


def region_index(region: BaseGeometry, crs: Any) -> GeometryIndex:
    """Return the index of one region.

    Args:
        region: Polygon or multipolygon.
        crs: Its CRS.

    Returns:
        Its parts, with the value 1.
    """
    parts, _, _ = simple_parts(np.array([region], dtype=object))
    return GeometryIndex(parts, np.ones(len(parts), dtype=np.uint8), crs)
