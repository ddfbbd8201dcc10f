"""Files among scenes that are no scenes of their own: masks of labels, and bands that a stack repeats."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError

from torchgeo_msssl.errors import BandError, MSSSLError, SceneReadError
from torchgeo_msssl.geo.checks.pixels import sample_pixels
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.open_datasets import open_raster
from torchgeo_msssl.geo.scene import Scene, read_file

log = logging.getLogger(__name__)

#: Side in pixels of the window in which pixels are compared.
_SIDE = 64


def looks_like_labels(scene: Scene) -> bool:
    """Return whether a scene has one band of few whole numbers, or the tag of a mask of ``rasterize``.

    Args:
        scene: Scene, of which some windows are read.
    """
    if len(scene.bands) > 1 or scene.dtype.kind not in 'iu':
        return False
    file = scene.files[0]
    if 'CLASS_NAMES' in file.tags:
        return True
    try:
        with open_raster(file.path) as dataset:
            return sample_pixels(dataset, [file.index(scene.bands[0])]).is_classes
    except (RasterioError, MSSSLError):  # a damaged file is reported where it is read
        return False


def check_no_labels(scenes: Sequence[Scene]) -> None:
    """Check that no mask of labels is among scenes of several bands.

    Args:
        scenes: The scenes.

    Raises:
        BandError: If one is.
    """
    most = max(scenes, key=lambda scene: len(scene.bands))
    if len(most.bands) < 2:
        return
    masks = [scene.path for scene in scenes if looks_like_labels(scene)]
    if masks:
        others = f' and {len(masks) - 1} others look' if len(masks) > 1 else ' looks'
        msg = (
            f'paths: {masks[0]}{others} like labels (one band of few whole numbers) among scenes of several bands '
            f'({most.path}); move them to another folder, or choose the scenes with a quoted pattern.'
        )
        raise BandError(msg)


def repeated_bands(scenes: Sequence[Scene]) -> dict[int, int]:
    """Find scenes whose pixels another scene of the same folder has too, as single bands next to their stack.

    Args:
        scenes: Scenes. One window of those that may be the same is read.

    Returns:
        Index of the scene to read by the index of each one that repeats it: that with more bands, else the stack.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for i, scene in enumerate(scenes):
        places.setdefault((os.path.dirname(scene.path), str(scene.grid.crs)), []).append(i)
    found: dict[int, int] = {}
    for members in places.values():
        split = [i for i in members if _is_split(scenes[i])]
        stacks = [i for i in members if not _is_split(scenes[i]) and len(scenes[i].bands) > 1]
        for one in split:
            for other in stacks:
                if one not in found and other not in found and _are_same(scenes[one], scenes[other]):
                    keep, drop = (one, other) if len(scenes[one].bands) > len(scenes[other].bands) else (other, one)
                    found[drop] = keep
    return found


def without_repeats(scenes: Sequence[Scene]) -> list[Scene]:
    """Leave out scenes whose pixels another one has too, and log which.

    Args:
        scenes: Scenes.

    Returns:
        The others, in their order.
    """
    repeats = repeated_bands(scenes)
    for drop, keep in repeats.items():
        log.warning(
            '%s and %s hold the same bands of the same ground; the pixels are read once, from %s.',
            scenes[drop].path,
            scenes[keep].path,
            Path(scenes[keep].path).name,
        )
    return [scene for i, scene in enumerate(scenes) if i not in repeats]


def _is_split(scene: Scene) -> bool:
    """Whether the bands of a scene are in several files, or it is one band that has its name from the file."""
    return len(scene.files) > 1 or (len(scene.bands) == 1 and not scene.bands[0].startswith('band_'))


def _are_same(split: Scene, stack: Scene) -> bool:
    """Whether two scenes show one place at one time, and a band that both have is the same, and not constant."""
    smaller, larger = sorted((split, stack), key=lambda scene: len(scene.bands))
    if not set(smaller.bands) <= set(larger.bands):
        return False
    if split.date != stack.date:
        return False
    alike = [band for band in smaller.bands if _same_grid(split.file_of(band).grid, stack.grid)]
    if not alike:
        return False
    grid = stack.grid
    window = Window(grid.height // 2 - _SIDE // 2, grid.width // 2 - _SIDE // 2, _SIDE, _SIDE).intersection(grid.window)
    assert window is not None, 'the middle of a grid lies on it'
    files = [scene.file_of(alike[0]) for scene in (split, stack)]
    try:
        first, second = (read_file(file, window, alike[:1], file.grid)[0] for file in files)
    except SceneReadError:  # a damaged file is reported where it is read
        return False
    known = first[~np.isnan(first)] if first.dtype.kind == 'f' else first
    # nodata, or open water, says nothing
    varied = known.size > 0 and bool((known != known.flat[0]).any())
    return varied and bool(np.array_equal(first, second, equal_nan=first.dtype.kind == 'f'))


def _same_grid(one: PixelGrid, other: PixelGrid) -> bool:
    """Whether two grids of one CRS have the same pixels, but for rounding."""
    near = one.transform.almost_equals(other.transform, precision=1e-3 * min(one.res))
    return near and (one.height, one.width) == (other.height, other.width)
