"""Open raster datasets, pooled per process and thread.

A GDAL dataset must not cross a fork (two processes would move one file offset) nor be used by two threads at once.
Datasets are therefore opened where they are first used, pooled per process and thread, and the least recently used one
is closed when there are too many.
"""

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Callable

import rasterio
from rasterio.enums import ColorInterp
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.shutil import copy

from torchgeo_msssl.errors import SceneReadError

#: Open datasets per thread, well below the usual limit of 1,024 file descriptors per process.
MAX_DATASETS = 128

#: Smallest size of GDAL's block cache in a process, in bytes.
_LEAST_BLOCK_CACHE = 64 * 2**20

#: Prefixes of paths in memory or in a local archive; any other virtual path is on a network.
_LOCAL_VIRTUAL = ('/vsimem/', '/vsizip/', '/vsitar/', '/vsigzip/', '/vsi7z/', '/vsirar/', 'zip://', 'tar://', 'file://')

type Signature = tuple[int, int, int] | None


class _Pool(threading.local):
    """The open datasets of one thread; they are closed when the thread ends."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.open: OrderedDict[str, tuple[Signature, DatasetReader]] = OrderedDict()

    def own(self) -> OrderedDict[str, tuple[Signature, DatasetReader]]:
        if self.process != os.getpid():
            # A forked child neither uses nor closes the datasets of its parent, which may have held GDAL's locks.
            _inherited.append(self.open)
            self.process, self.open = os.getpid(), OrderedDict()
        return self.open


_inherited: list[OrderedDict[str, tuple[Signature, DatasetReader]]] = []
_pool = _Pool()


def is_remote(path: str) -> bool:
    """Whether a path is not of the local file system: on a network, in an archive or in memory."""
    return path.startswith('/vsi') or '://' in path


def _on_network(path: str) -> bool:
    return is_remote(path) and not path.startswith(_LOCAL_VIRTUAL)


def open_raster(path: str) -> DatasetReader:
    """Open a raster with its sidecar files (``.msk``, ``.aux.xml``, world files).

    TorchGeo's command line sets ``GDAL_DISABLE_READDIR_ON_OPEN=EMPTY_DIR``, which is right for object stores but
    hides the sidecar files of local rasters.

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
            # GDAL searches for a .msk file at the first request of a mask, which therefore comes within this Env.
            _ = dataset.mask_flag_enums
            return dataset
    except (RasterioError, OSError) as error:
        msg = f'{path}: cannot be opened as a raster ({_first_line(error)}); repair or remove the file.'
        raise SceneReadError(msg) from error


def block_cache(size: int) -> rasterio.Env:
    """Limit GDAL's block cache, unless the environment variable ``GDAL_CACHEMAX`` sets its size.

    Args:
        size: Bytes. ``rasterio.Env`` takes any number as bytes, unlike the environment variable.

    Returns:
        A context manager. GDAL's default is 5 % of the memory of the machine.
    """
    return rasterio.Env(**({} if 'GDAL_CACHEMAX' in os.environ else {'GDAL_CACHEMAX': size}))


def divide_block_cache(processes: int) -> None:
    """Divide GDAL's block cache among processes, unless the environment variable ``GDAL_CACHEMAX`` sets its size.

    To be called once in each worker process. GDAL's default is 5 % of the memory of the machine in every process.

    Args:
        processes: Number of processes that share the default size of one; each has at least 64 MB.
    """
    if 'GDAL_CACHEMAX' not in os.environ:
        set_gdal_config('GDAL_CACHEMAX', max(get_gdal_config('GDAL_CACHEMAX') // processes, _LEAST_BLOCK_CACHE))


def pooled_raster(path: str) -> DatasetReader:
    """Return the dataset of a path that this process and thread has open, or open it.

    Args:
        path: Local path or GDAL virtual path.

    Returns:
        An open dataset, which belongs to the pool and must not be closed.

    Raises:
        SceneReadError: If GDAL cannot open it.
    """
    return pooled_dataset(path, lambda: open_raster(path))


def raster_without_alpha(path: str) -> DatasetReader:
    """Return a dataset in which no band is marked as alpha: GDAL's warper would take such a band for the mask.

    Args:
        path: Local path or GDAL virtual path.

    Returns:
        An open dataset, which belongs to the pool and must not be closed; the file itself if it has no such band.

    Raises:
        SceneReadError: If GDAL cannot open it.
    """
    dataset = pooled_raster(path)
    if ColorInterp.alpha not in dataset.colorinterp:
        return dataset

    def unmarked() -> DatasetReader:
        with MemoryFile(ext='.vrt') as memory:
            copy(dataset, memory.name, driver='VRT')
            text = memory.read().decode().replace('<ColorInterp>Alpha</ColorInterp>', '')
        return rasterio.open(text)

    return pooled_dataset(f'{path} without alpha {signature_of(path)}', unmarked)


def pooled_dataset(key: str, opener: Callable[[], DatasetReader]) -> DatasetReader:
    """Return the dataset of a key that this process and thread has open, or open it.

    Args:
        key: Identifies the dataset. If it is a path, the dataset is opened again once the file has been replaced.
        opener: Opens the dataset.

    Returns:
        An open dataset, which belongs to the pool and must not be closed.
    """
    mine = _pool.own()
    signature = signature_of(key)
    known = mine.get(key)
    if known is not None and known[0] == signature:
        mine.move_to_end(key)
        return known[1]
    if known is not None:  # the file was replaced
        mine.pop(key)[1].close()
    dataset = opener()
    mine[key] = signature, dataset
    while len(mine) > MAX_DATASETS:
        _, (_, oldest) = mine.popitem(last=False)
        oldest.close()
    return dataset


def close_datasets() -> None:
    """Close all pooled datasets of this thread."""
    mine = _pool.own()
    while mine:
        mine.popitem()[1][1].close()


# If GDAL closed datasets after the end of Python, its messages would have no handler and Python would complain.
atexit.register(close_datasets)


def signature_of(path: str) -> Signature:
    """Return values that change when a file is replaced or rewritten, or None if there is no such local file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
