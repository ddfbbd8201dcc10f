"""Open raster files, one handle for each process and thread.

GDAL handles must not cross a fork (two processes would move one file offset) nor be used by two threads at
once. Handles are therefore opened lazily where they are used, keyed by process and thread, and the least
recently used one is closed when there are too many.
"""

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Callable

import rasterio
from rasterio._env import get_gdal_config, set_gdal_config
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from torchgeo_msssl.errors import SceneReadError

#: Open files a thread keeps; well below the usual limit of 1,024 descriptors for a process.
MAX_HANDLES = 128

#: Memory for decoded blocks that a process has at least, in bytes.
_LEAST_BLOCK_CACHE = 64 * 2**20

#: Prefixes of what GDAL reads from memory or out of a local archive; any other virtual path is on a network.
_LOCAL_VIRTUAL = ('/vsimem/', '/vsizip/', '/vsitar/', '/vsigzip/', '/vsi7z/', '/vsirar/', 'zip://', 'tar://', 'file://')

type Signature = tuple[int, int, int] | None


class _Pool(threading.local):
    """The handles of one thread; they are closed when the thread ends."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.open: OrderedDict[str, tuple[Signature, DatasetReader]] = OrderedDict()

    def mine(self) -> OrderedDict[str, tuple[Signature, DatasetReader]]:
        if self.process != os.getpid():
            # A child of a fork. Its parent's handles are neither used nor closed: GDAL's locks may be held there.
            _inherited.append(self.open)
            self.process, self.open = os.getpid(), OrderedDict()
        return self.open


_inherited: list[OrderedDict[str, tuple[Signature, DatasetReader]]] = []
_pool = _Pool()


def is_remote(path: str) -> bool:
    """Whether GDAL opens the path by itself: over a network, out of an archive or from memory."""
    return path.startswith('/vsi') or '://' in path


def _on_network(path: str) -> bool:
    return is_remote(path) and not path.startswith(_LOCAL_VIRTUAL)


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
    readdir = 'EMPTY_DIR' if _on_network(path) else 'FALSE'
    try:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN=readdir):
            dataset = rasterio.open(path)
            # GDAL looks for a .msk file when a mask is first asked for; ask while sidecars are in sight.
            _ = dataset.mask_flag_enums
            return dataset
    except (RasterioError, OSError) as error:
        msg = f'{path}: cannot be opened as a raster ({_first_line(error)}); repair or remove the file.'
        raise SceneReadError(msg) from error


def block_cache(size: int) -> rasterio.Env:
    """Keep GDAL's cache of decoded blocks to a size, unless the user says another in the environment.

    Args:
        size: Bytes; by itself GDAL takes a share of the machine's memory.

    Returns:
        A context manager.
    """
    return rasterio.Env(**({} if 'GDAL_CACHEMAX' in os.environ else {'GDAL_CACHEMAX': size}))


def divide_block_cache(processes: int) -> None:
    """Keep GDAL's cache of decoded blocks to one of several processes' part, unless the user says its size.

    By itself GDAL takes 5 % of the machine's memory in each process.

    Args:
        processes: How many share what one would take; each has 64 MB at least.
    """
    if 'GDAL_CACHEMAX' not in os.environ:
        set_gdal_config('GDAL_CACHEMAX', max(get_gdal_config('GDAL_CACHEMAX') // processes, _LEAST_BLOCK_CACHE))


def pooled_raster(path: str) -> DatasetReader:
    """The open handle of a path that belongs to this process and thread.

    Args:
        path: Local path or GDAL virtual path.

    Returns:
        An open dataset; it stays the pool's and must not be closed.

    Raises:
        SceneReadError: If GDAL cannot open it.
    """
    return pooled_dataset(path, lambda: open_raster(path))


def pooled_dataset(key: str, opener: Callable[[], DatasetReader]) -> DatasetReader:
    """The open handle of a key that belongs to this process and thread.

    Args:
        key: Identifies what ``opener`` opens; where it is the path of a file, a handle goes with the file it was
            opened on, and is not used for another that has taken the path.
        opener: Opens it where this process and thread has not yet.

    Returns:
        An open dataset; it stays the pool's and must not be closed.
    """
    mine = _pool.mine()
    signature = signature_of(key)
    known = mine.get(key)
    if known is not None and known[0] == signature:
        mine.move_to_end(key)
        return known[1]
    if known is not None:  # another file has taken the path since
        mine.pop(key)[1].close()
    dataset = opener()
    mine[key] = signature, dataset
    while len(mine) > MAX_HANDLES:
        _, (_, oldest) = mine.popitem(last=False)
        oldest.close()
    return dataset


def close_datasets() -> None:
    """Close every handle that this thread opened in this process."""
    mine = _pool.mine()
    while mine:
        mine.popitem()[1][1].close()


# A worker that was spawned ends like any process, and GDAL says of handles that it closes after the end of Python what
# nobody can hear.
atexit.register(close_datasets)


def signature_of(path: str) -> Signature:
    """What changes when a file is replaced or rewritten; None for what is no local file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
