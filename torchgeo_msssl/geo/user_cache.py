"""The cache folder of the package and the keys of its entries.

Everything in the folder can be computed again, so deleting it is safe.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from torchgeo_msssl.geo.scene import Scene

#: Increase when a scene's files decide its pixels in another way.
_VERSION = 3


def cache_folder() -> Path:
    """Return ``$TORCHGEO_MSSSL_CACHE``, or else the package's folder in the cache folder of the user."""
    configured = os.environ.get('TORCHGEO_MSSSL_CACHE')
    if configured:
        return Path(configured).expanduser()
    import platformdirs  # imported here: most processes have no cache to open

    return platformdirs.user_cache_path('torchgeo_msssl', appauthor=False)


def scene_key(scene: Scene, bands: Sequence[str]) -> str:
    """Return a key that changes when the pixels of these bands may have changed.

    Args:
        scene: Scene.
        bands: Canonical names.

    Returns:
        40 hexadecimal digits, which depend on path, size and modification time of every file that decides the pixels
        (masks and the sources of virtual rasters too), on grid, nodata value and bands, and on the file of each band.
    """
    files = [[*map(_state, file.sources or (file.path,)), file.names, repr(file.nodata)] for file in scene.files]
    grid = scene.grid
    place = [str(grid.crs), list(grid.transform), grid.height, grid.width]
    return text_key(json.dumps([_VERSION, files, place, repr(scene.nodata), list(bands)]))


def text_key(text: str) -> str:
    """Return 40 hexadecimal digits that stand for a text in the name of a file."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _state(path: str) -> tuple[str, int, int]:
    try:
        status = os.stat(path)
    except OSError:  # a virtual path has neither size nor time
        return path, 0, 0
    return os.path.abspath(path), status.st_size, status.st_mtime_ns
