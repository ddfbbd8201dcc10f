"""Scenes that are warped to another CRS or resolution as they are read.

Each window is warped by itself, which takes a tenth of the time of a warped dataset of the whole scene. Resampling is
nearest neighbour, as in TorchGeo. GDAL interpolates the projection with an error of up to an eighth of a source pixel,
so a pixel whose centre is that close to the edge of two source pixels may have the value of either.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform, transform_bounds

from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo.datum import report_accuracy
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.nodata import representable, with_data
from torchgeo_msssl.geo.open_datasets import pooled_raster, raster_without_alpha
from torchgeo_msssl.geo.scene import BandFile, Scene, unreadable_error
from torchgeo_msssl.geo.vector.antimeridian import circle

log = logging.getLogger(__name__)

_WGS84 = CRS.from_epsg(4326)
#: Number of pixels from which the resolution must be wrong.
_MOST_PIXELS = 10**13


@dataclass(frozen=True)
class WarpedScene(Scene):
    """A scene that is read on another grid.

    Attributes:
        target: That grid.
    """

    target: PixelGrid

    @property
    def grid(self) -> PixelGrid:
        """The pixel grid of chips."""
        return self.target

    @property
    def block_shape(self) -> tuple[int, int]:
        """One row: nothing is stored in blocks on this grid."""
        return 1, self.target.width

    @property
    def always_valid(self) -> bool:
        """Always false: the corners of a warped scene may be outside the original."""
        return False

    def _read_inside(self, window: Window, bands: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        fill = self.nodata if self.nodata is not None and representable(self.nodata, self.dtype) else 0
        image = np.empty((len(bands), window.height, window.width), dtype=self.dtype)
        valid = np.ones((window.height, window.width), dtype=np.bool_)
        for file, positions in self._by_file(bands):
            wanted = [bands[i] for i in positions]
            pixels, covered = read_warped(file, self.target, window, wanted)
            image[positions] = np.where(covered, pixels, fill)
            valid &= covered & with_data(pixels, wanted, file.nodata, self.nodata)
        return image, valid


def read_warped(
    file: BandFile, grid: PixelGrid, window: Window, bands: Sequence[str], tolerance: float = 0.125
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a file on a window of another grid: each pixel has the source value at its centre.

    Args:
        file: The file.
        grid: Pixel grid in any CRS.
        window: Window on it.
        bands: Canonical names.
        tolerance: Largest error of GDAL's approximate projection, in pixels; the default is GDAL's.

    Returns:
        Values (band, height, width), in which nodata is an ordinary value, and the mask of pixels inside the file that
        are not masked there (height, width).

    Raises:
        SceneReadError: If the file is damaged there.
    """
    image, covered = _read_turned(file, grid, window, bands, tolerance, 0.0)
    for turn in _turns(file.grid):
        more, inside = _read_turned(file, grid, window, bands, tolerance, turn)
        image, covered = np.where(inside, more, image), covered | inside
    return image, covered


def _turns(grid: PixelGrid) -> list[float]:
    """Return the distances by which to move a grid in degrees beyond 180°, so that all of it is found."""
    length = circle(grid.crs)
    if length is None:
        return []
    left, _, right, _ = grid.bounds
    slack = max(grid.res)
    return [length] * (left < -length / 2 - slack) + [-length] * (right > length / 2 + slack)


def _read_turned(
    file: BandFile, grid: PixelGrid, window: Window, bands: Sequence[str], tolerance: float, turn: float
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a file that is moved along x on a window of another grid, see :func:`read_warped`."""
    has_alpha = 'alpha' in file.names
    try:
        with WarpedVRT(
            pooled_raster(file.path) if has_alpha else raster_without_alpha(file.path),
            src_crs=file.grid.crs,
            src_transform=Affine.translation(turn, 0) @ file.grid.transform,
            crs=grid.crs,
            transform=grid.window_transform(window),
            height=window.height,
            width=window.width,
            resampling=Resampling.nearest,
            add_alpha=not has_alpha,
            src_nodata=None,
            nodata=None,
            tolerance=tolerance,
        ) as vrt:
            alpha = file.index('alpha') if has_alpha else vrt.count
            image = vrt.read([*(file.index(band) for band in bands), alpha])
    except (RasterioError, OSError) as error:
        raise unreadable_error(file.path, window, error) from error
    return image[:-1], image[-1] > 0


def warp_scene(scene: Scene, crs: CRS, res: tuple[float, float] | None) -> Scene:
    """Give a scene a grid in another CRS or at another resolution.

    Args:
        scene: Scene on its own grid.
        crs: Target CRS.
        res: Target pixel size ``(x, y)`` in units of ``crs``, or None to keep the pixel size approximately.

    Returns:
        The same object if nothing changes, else a scene that is warped as it is read. A scene that is not north up is
        always warped.

    Raises:
        SceneReadError: If the scene cannot be projected.
    """
    grid = scene.grid
    if grid.is_north_up and grid.crs == crs and (res is None or np.allclose(grid.res, res, rtol=1e-9)):
        return scene
    target = _north_up(grid)
    if target.crs != crs or res is not None:
        target = _projected(scene, target, crs, res)
        if target.crs != grid.crs:
            report_accuracy(scene.path, grid.crs, target)
    if not grid.is_north_up:
        log.info('%s: is not north up and will be warped to north up as it is read (nearest neighbour).', scene.path)
    return WarpedScene(scene.name, scene.files, scene.date, scene.nodata, target)


def _north_up(grid: PixelGrid) -> PixelGrid:
    """Return the north-up grid of the same CRS and pixel size that encloses a grid."""
    if grid.is_north_up:
        return grid
    left, bottom, right, top = grid.bounds
    x, y = grid.res
    if abs(grid.transform.b) > abs(grid.transform.a):  # rotated by about 90°: rows run along y
        x, y = y, x
    # a thousandth of a pixel is rounding and needs no further pixel
    width, height = math.ceil((right - left) / x - 1e-3), math.ceil((top - bottom) / y - 1e-3)
    return PixelGrid(grid.crs, from_origin(left, top, x, y), height, width)


def _projected(scene: Scene, grid: PixelGrid, crs: CRS, res: tuple[float, float] | None) -> PixelGrid:
    try:
        transform, width, height = calculate_default_transform(
            grid.crs, crs, grid.width, grid.height, *grid.bounds, resolution=res
        )
        # a resolution in metres instead of degrees, or vice versa, gives a single pixel or far too many
        pixels = int(width) * int(height)
        usable = min(grid.window.area, 2) <= pixels < _MOST_PIXELS and np.isfinite(list(transform)).all()
        reason = f'it would have {height} × {width} pixels'
        west, _, east, _ = transform_bounds(grid.crs, _WGS84, *grid.bounds)
        if west > east and circle(crs) is not None:
            usable, reason = False, 'it crosses 180° of longitude'
    except (RasterioError, CRSError, ValueError, OverflowError) as error:
        usable, reason = False, str(error)
    if not usable:
        msg = (
            f'{scene.path}: cannot be warped from {grid.crs} to {crs}{f" at {res}" if res else ""} ({reason}); '
            'choose a CRS that covers its area and a resolution in units of that CRS.'
        )
        raise SceneReadError(msg)
    return PixelGrid(crs, transform, int(height), int(width))
