"""The ground that scenes cover."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.vector.antimeridian import crosses_antimeridian
from torchgeo_msssl.geo.warp import warp_scene

type Polygons = NDArray[np.object_]

#: Points along each side of an outline that is brought to another CRS.
_POINTS = 16


@dataclass(frozen=True)
class Ground:
    """Ground that scenes cover.

    Attributes:
        crs: CRS of everything that is split.
        pixel: Sides of a pixel along x and y, in units of the CRS.
        outlines: Outline of each scene's files in the CRS, shape (scene,).
        paths: Path of each scene.
    """

    crs: CRS
    pixel: tuple[float, float]
    outlines: Polygons
    paths: tuple[str, ...]

    @classmethod
    def of(cls, scenes: Sequence[Scene], crs: CRS | None = None, pixel: tuple[float, float] | None = None) -> 'Ground':
        """Find the ground of scenes; no pixel is read.

        Args:
            scenes: The scenes, on their own grids or warped.
            crs: CRS of the split; None for that of the first scene.
            pixel: Sides of a pixel in that CRS; None for those of the first scene.

        Returns:
            The ground.

        Raises:
            ConfigurationError: If a scene cannot be placed in the CRS.
        """
        first = scenes[0]
        crs = crs or first.grid.crs
        if pixel is None:
            # a rotated scene has the pixel that it is warped to where it has to be north up
            upright = first if first.grid.is_north_up else warp_scene(first, first.grid.crs, None)
            pixel = upright.grid.res
        # a warped scene covers no more than its file does
        outlines = [outline(scene.files[0].grid, crs, scene.path) for scene in scenes]
        return cls(crs, pixel, np.array(outlines, dtype=np.object_), tuple(scene.path for scene in scenes))

    @cached_property
    def union(self) -> BaseGeometry:
        """The ground of all scenes as one geometry."""
        return shapely.union_all(self.outlines)

    def within(self, region: BaseGeometry) -> 'Ground':
        """Return the ground inside a region."""
        pieces = cut_to(self.outlines, region)
        return replace(self, outlines=pieces[shapely.area(pieces) > 0])

    @cached_property
    def groups(self) -> Polygons:
        """Ground of each group of scenes that overlap, shape (group,)."""
        parts: Polygons = shapely.get_parts(self.union)
        return parts


def cut_to(polygons: Polygons, region: BaseGeometry) -> Polygons:
    """Cut polygons to a region, without the lines and points in which they only touch it; shape (polygon,)."""
    pieces: Polygons = shapely.intersection(polygons, region)
    mixed = shapely.get_type_id(pieces) == shapely.GeometryType.GEOMETRYCOLLECTION
    pieces[mixed] = shapely.buffer(pieces[mixed], 0)
    return pieces


def outline(grid: PixelGrid, crs: CRS, path: str) -> BaseGeometry:
    """Return the outline of a grid in a CRS.

    Args:
        grid: The grid.
        crs: The CRS.
        path: What lies on the grid, for the message.

    Returns:
        The polygon.

    Raises:
        ConfigurationError: If the grid cannot be placed in the CRS, or crosses 180° of longitude there.
    """
    corners = np.array([(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)], dtype=np.float64)
    if grid.crs == crs:
        return shapely.Polygon(_to_map(grid.transform, corners))
    steps = np.arange(_POINTS)[:, None] / _POINTS
    sides = [start + steps * (end - start) for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    x, y = transform(grid.crs, crs, *_to_map(grid.transform, np.concatenate(sides)).T)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise unplaceable(path, grid.crs, crs)
    placed = shapely.Polygon(np.column_stack([x, y]))
    if crosses_antimeridian(placed, crs):
        raise unplaceable(path, grid.crs, crs)
    return placed


def unplaceable(path: str, own: CRS, crs: CRS) -> ConfigurationError:
    """Return the error about a scene that has no place in a CRS.

    Args:
        path: The scene.
        own: Its CRS.
        crs: The CRS of the split.

    Returns:
        The error.
    """
    return ConfigurationError(
        f'crs: {path} (in {own}) cannot be placed in {crs}, so distances to it cannot be measured; bring the scenes '
        'to one CRS with crs, or process distant places separately.'
    )


def _to_map(transform: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map coordinates of points given as (column, row), shape (point, 2)."""
    matrix = np.array([[transform.a, transform.b], [transform.d, transform.e]])
    return points @ matrix.T + np.array([transform.c, transform.f])
