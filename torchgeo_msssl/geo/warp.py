"""A scene brought onto another CRS or resolution, window by window.

Each window is warped by itself, which costs a tenth of warping through a grid over the whole scene. Pixels are
taken by nearest neighbour, as TorchGeo does across CRS. GDAL interpolates the projection to an eighth of a source
pixel, so that a pixel whose centre falls that close to the edge of two may come from either.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform

from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.open_datasets import pooled_raster
from torchgeo_msssl.geo.scene import BandFile, Scene, representable, unreadable_error, with_data

log = logging.getLogger(__name__)

#: A larger grid is a mistake in the resolution.
_MOST_PIXELS = 10**13


@dataclass(frozen=True)
class WarpedScene(Scene):
    """A scene that is read on a grid other than its own.

    Attributes:
        target: The grid to read on.
    """

    target: PixelGrid

    @property
    def grid(self) -> PixelGrid:
        """The grid chips are cut on."""
        return self.target

    @property
    def block_shape(self) -> tuple[int, int]:
        """Nothing is stored on this grid, so any origin is as good as another."""
        return 1, self.target.width

    @property
    def always_valid(self) -> bool:
        """The corners of a warped scene may lie outside the original."""
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
    """Read a file on a window of another grid: each pixel takes the value under its centre.

    Nodata is an ordinary value here, found by whoever asks which pixels have data.

    Args:
        file: The file.
        grid: Pixel grid in any CRS.
        window: Window on it.
        bands: Canonical names.
        tolerance: Error that GDAL may make in placing a pixel, in pixels; its own default.

    Returns:
        Values (band, height, width), and where there are pixels of the file that are not masked (height, width).

    Raises:
        SceneReadError: If the file is damaged there.
    """
    has_alpha = 'alpha' in file.names
    try:
        with WarpedVRT(
            pooled_raster(file.path),
            src_crs=file.grid.crs,
            src_transform=file.grid.transform,
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
    """Give a scene the grid it would have in another CRS or at another resolution.

    Args:
        scene: Scene on its own grid.
        crs: Wanted CRS.
        res: Wanted pixel size ``(x, y)`` in units of ``crs``, or None for what keeps the pixels about as large.

    Returns:
        The same object where nothing changes, else a scene that is warped as it is read. A scene whose rows do not
        run from west to east and columns from north to south changes in any case: it is turned.

    Raises:
        SceneReadError: If the scene cannot be projected there.
    """
    grid = scene.grid
    if grid.is_north_up and grid.crs == crs and (res is None or np.allclose(grid.res, res, rtol=1e-9)):
        return scene
    target = _turned(grid)
    if target.crs != crs or res is not None:
        target = _projected(scene, target, crs, res)
    if not grid.is_north_up:
        log.info('%s: is not north up, so its pixels are brought onto a grid that is (nearest neighbour).', scene.path)
    return WarpedScene(scene.name, scene.files, scene.date, scene.nodata, target)


def _turned(grid: PixelGrid) -> PixelGrid:
    """The grid of the same CRS and pixel size that is north up and encloses all of another one."""
    if grid.is_north_up:
        return grid
    left, bottom, right, top = grid.bounds
    x, y = grid.res
    if abs(grid.transform.b) > abs(grid.transform.a):  # nearer to a quarter turn: rows run along y
        x, y = y, x
    # a thousandth of a pixel is rounding and asks for no further pixel
    width, height = math.ceil((right - left) / x - 1e-3), math.ceil((top - bottom) / y - 1e-3)
    return PixelGrid(grid.crs, from_origin(left, top, x, y), height, width)


def _projected(scene: Scene, grid: PixelGrid, crs: CRS, res: tuple[float, float] | None) -> PixelGrid:
    try:
        transform, width, height = calculate_default_transform(
            grid.crs, crs, grid.width, grid.height, *grid.bounds, resolution=res
        )
        # Metres taken for degrees, or degrees for metres, give a single pixel or more than any disk holds.
        pixels = int(width) * int(height)
        usable = min(grid.window.area, 2) <= pixels < _MOST_PIXELS and np.isfinite(list(transform)).all()
        reason = f'it would have {height} × {width} pixels there'
    except (RasterioError, CRSError, ValueError, OverflowError) as error:
        usable, reason = False, str(error)
    if not usable:
        msg = (
            f'{scene.path}: cannot be brought from {grid.crs} to {crs}{f" at {res}" if res else ""} ({reason}); '
            'choose a CRS that covers its ground and a resolution in units of that CRS.'
        )
        raise SceneReadError(msg)
    return PixelGrid(crs, transform, int(height), int(width))
