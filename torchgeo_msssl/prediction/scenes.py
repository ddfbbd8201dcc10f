"""Scenes of a prediction: opening, checking and reading them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from torchgeo_msssl.bands import Sensor, get_sensor
from torchgeo_msssl.geo.bad_scenes import BadScenes
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.scene import Scene, missing_bands_error
from torchgeo_msssl.geo.warp import warp_scene
from torchgeo_msssl.prediction.stitch import reflect_indices

__all__ = ('check_bands', 'open_scenes', 'read_mirrored')


def open_scenes(
    paths: str | Sequence[str],
    sensor: str | None,
    trained_on: str | None,
    plain: bool = False,
    crs: str | None = None,
    res: float | None = None,
    bad: BadScenes | None = None,
) -> tuple[list[Scene], Sensor | None]:
    """Open the scenes of a prediction.

    Args:
        paths: Files, folders or patterns.
        sensor: Sensor of the scenes, for files that do not name it; None for that of the training.
        trained_on: Sensor of the training, or None.
        plain: Accept images without a CRS.
        crs: CRS to bring the scenes to; None for that of each scene.
        res: Pixel size to bring them to, in units of the CRS; None for that of each scene.
        bad: What to do about scenes that cannot be opened; None raises.

    Returns:
        The scenes, and their sensor where it is known.

    Raises:
        MSSSLError: If there is no scene, or one cannot be opened.
    """
    name = sensor or trained_on
    known = get_sensor(name) if name else None
    scenes = find_scenes(paths, known, plain, bad)
    if crs is not None or res is not None:
        size = None if res is None else (float(res), float(res))
        target = CRS.from_user_input(crs) if crs is not None else scenes[0].grid.crs
        scenes = [warp_scene(scene, target, size) for scene in scenes]
    return scenes, known


def check_bands(scene: Scene, bands: Sequence[str]) -> None:
    """Check that a scene has the bands of a network.

    Args:
        scene: The scene.
        bands: Canonical names.

    Raises:
        BandError: If the scene lacks one.
    """
    if missing := [band for band in bands if band not in scene.bands]:
        raise missing_bands_error(scene, missing)


def read_mirrored(scene: Scene, window: Window, bands: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a window of a scene; beyond the edges of the scene, its mirror image.

    Args:
        scene: The scene.
        window: Any window; it may be larger than the scene.
        bands: Canonical names, in the order required.

    Returns:
        ``(image, valid)``, (band, height, width) in the scene's dtype and (height, width).

    Raises:
        BandError: If a band is missing.
        SceneReadError: If the scene is damaged.
    """
    grid = scene.grid
    if window.intersection(grid.window) == window:
        return scene.read(window, bands)
    rows = reflect_indices(window.row, window.height, grid.height)
    cols = reflect_indices(window.col, window.width, grid.width)
    row, col = int(rows.min()), int(cols.min())
    source = Window(row, col, int(rows.max()) - row + 1, int(cols.max()) - col + 1)
    image, valid = scene.read(source, bands)
    place = np.ix_(rows - row, cols - col)
    return image[(slice(None), *place)], valid[place]
