"""Open raster files, one handle for each process and thread.

GDAL handles must not cross a fork (two processes would move one file offset) nor be used by two threads at
once. Handles are therefore opened lazily where they are used, keyed by process and thread, and the least
recently used one is closed when there are too many.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from torchgeo_msssl.errors import SceneReadError

#: Open files a thread keeps; well below the usual limit of 1,024 descriptors for a process.
MAX_HANDLES = 128

_handles: dict[tuple[int, int], OrderedDict[str, DatasetReader]] = {}


def is_remote(path: str) -> bool:
    """Whether GDAL fetches the path over a network (or out of an archive)."""
    return path.startswith('/vsi') or '://' in path


def open_raster(path: str) -> DatasetReader:
    """Open a raster with its sidecar files (``.msk``, ``.aux.xml``, world files), whatever the environment says.

    TorchGeo's command line sets ``GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR``, which is right for object stores but
    hides the sidecars of local files.

    Args:
        path: Local path or GDAL virtual path.

    Returns:
        An open dataset; the caller closes it.

    Raises:
        SceneReadError: If GDAL cannot open it.
    """
    readdir = 'EMPTY_DIR' if is_remote(path) else 'FALSE'
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=readdir):
            dataset = rasterio.open(path)
            # GDAL looks for a .msk file when a mask is first asked for; ask while sidecars are in sight.
            _ = dataset.mask_flag_enums
            return dataset
    except (RasterioError, OSError) as error:
        msg = f'{path}: cannot be opened as a raster ({_first_line(error)}); repair or remove the file.'
        raise SceneReadError(msg) from error


def handle(path: str) -> DatasetReader:
    """The open handle of a path that belongs to this process and thread.

    Args:
        path: Local path or GDAL virtual path.

    Returns:
        An open dataset; it stays the pool's and must not be closed.

    Raises:
        SceneReadError: If GDAL cannot open it.
    """
    return pooled(path, lambda: open_raster(path))


def pooled(key: str, opener: Callable[[], DatasetReader]) -> DatasetReader:
    """The open handle of a key that belongs to this process and thread.

    Args:
        key: Identifies what ``opener`` opens.
        opener: Opens it where this process and thread has not yet.

    Returns:
        An open dataset; it stays the pool's and must not be closed.
    """
    mine = _handles.setdefault((os.getpid(), threading.get_ident()), OrderedDict())
    dataset = mine.get(key)
    if dataset is None:
        dataset = mine[key] = opener()
        while len(mine) > MAX_HANDLES:
            _, oldest = mine.popitem(last=False)
            oldest.close()
    mine.move_to_end(key)
    return dataset


def close_handles() -> None:
    """Close every handle that this thread opened in this process."""
    for dataset in _handles.pop((os.getpid(), threading.get_ident()), {}).values():
        dataset.close()


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
