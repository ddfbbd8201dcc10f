"""Images without a coordinate reference system: JPEG, PNG and plain TIFF files.

Their pixels stand in for the ground. Each image lies in a place of its own, so that no two share ground.
"""

import hashlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from affine import Affine
from rasterio.errors import NotGeoreferencedWarning

from torchgeo_msssl.errors import MissingCRSError
from torchgeo_msssl.geo.grid import PIXELS, PixelGrid
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.unplaced import how_to_place

log = logging.getLogger(__name__)


def image_grid(height: int, width: int, left: int = 0) -> PixelGrid:
    """Return the grid of an image without a CRS; its lower left corner is ``(left, 0)`` and a pixel 1 × 1.

    Args:
        height: Number of rows.
        width: Number of columns.
        left: Coordinate of its left edge.
    """
    return PixelGrid(PIXELS, Affine(1.0, 0.0, float(left), 0.0, -1.0, float(height)), height, width)


def ignore_missing_georeference() -> None:
    """Silence rasterio's warning of files without a georeference, which it gives whenever one is opened."""
    warnings.filterwarnings('ignore', category=NotGeoreferencedWarning)


def are_plain(scenes: Sequence[Scene]) -> bool:
    """Return whether scenes are images without a CRS.

    Args:
        scenes: Scenes of :func:`place_images`, which are all plain or all georeferenced.
    """
    return not scenes[0].grid.is_georeferenced


def place_images(scenes: Sequence[Scene]) -> list[Scene]:
    """Give each image without a CRS a place of its own, and log that there are such images.

    Args:
        scenes: Scenes.

    Returns:
        The scenes, unchanged if all are georeferenced; otherwise side by side, one pixel apart.

    Raises:
        MissingCRSError: If some are georeferenced and others are not.
    """
    plain = [scene for scene in scenes if not scene.grid.is_georeferenced]
    if not plain:
        return list(scenes)
    if len(plain) < len(scenes):
        other = next(scene for scene in scenes if scene.grid.is_georeferenced)
        msg = (
            f'paths: {plain[0].path} has no coordinate reference system and {other.path} has one; '
            f'{how_to_place(plain[0].path)}, or keep plain images apart.'
        )
        raise MissingCRSError(msg)
    log.info(
        '%d image(s) without a coordinate reference system (the first is %s): each is ground of its own, splits hold '
        'out whole images, and neither maps nor labels by place are possible.',
        len(plain),
        plain[0].path,
    )
    placed, left = [], 0
    for scene in scenes:
        grid = scene.grid
        files = tuple(
            replace(file, grid=replace(file.grid, transform=Affine.translation(left, 0) @ file.grid.transform))
            for file in scene.files
        )
        placed.append(replace(scene, files=files))
        left += grid.width + 1
    return placed


def image_number(path: str) -> int:
    """Return a number that depends on the name of an image and its folder alone, for splits by image.

    Args:
        path: The image.

    Returns:
        A number below 2⁴⁸.
    """
    text = '/'.join(Path(path).parts[-2:])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest())


def require_crs(scenes: Sequence[Scene], purpose: str) -> None:
    """Check that scenes are georeferenced.

    Args:
        scenes: Scenes.
        purpose: Option or command that needs their place, for the message.

    Raises:
        MissingCRSError: If they have no CRS.
    """
    if are_plain(scenes):
        msg = (
            f'{purpose}: {scenes[0].path} has no coordinate reference system and therefore no place; '
            f'{how_to_place(scenes[0].path)}, or give a folder with `images` and `masks` of the same names, which '
            'needs none.'
        )
        raise MissingCRSError(msg)
