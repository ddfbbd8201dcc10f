"""A scene brought onto another CRS or resolution, window by window.

Each window is warped by itself, which costs a tenth of warping through a grid over the whole scene. Pixels are
taken by nearest neighbour, as TorchGeo does across CRS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform

from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.handles import handle
from torchgeo_msssl.geo.scene import BandFile, Scene, unreadable_error


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
        image = np.empty((len(bands), window.height, window.width), dtype=self.dtype)
        valid = np.ones((window.height, window.width), dtype=np.bool_)
        for file in self.files:
            wanted = [i for i, band in enumerate(bands) if band in file.names]
            if wanted:
                image[wanted], covered = self._warp(file, window, [bands[i] for i in wanted])
                valid &= covered
        return self.mask(image, valid)

    def _warp(self, file: BandFile, window: Window, bands: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        try:
            with WarpedVRT(
                handle(file.path),
                crs=self.target.crs,
                transform=self.target.window_transform(window),
                height=window.height,
                width=window.width,
                add_alpha='alpha' not in file.names,
                nodata=None,
                src_nodata=file.nodata,
            ) as vrt:
                image = vrt.read([*(file.index(band) for band in bands), vrt.count])
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
        The same object where nothing changes, else a scene that is warped as it is read.

    Raises:
        SceneReadError: If the scene cannot be projected there.
    """
    grid = scene.grid
    same = grid.crs == crs and grid.is_north_up
    if same and (res is None or np.allclose(grid.res, res, rtol=1e-9)):
        return scene
    try:
        transform, width, height = calculate_default_transform(
            grid.crs, crs, grid.width, grid.height, *grid.bounds, resolution=res
        )
    except RasterioError as error:
        msg = f'{scene.path}: cannot be brought from {grid.crs} to {crs} ({error}).'
        raise SceneReadError(msg) from error
    target = PixelGrid(crs, transform, int(height), int(width))
    return WarpedScene(scene.name, scene.files, scene.date, scene.nodata, target)
