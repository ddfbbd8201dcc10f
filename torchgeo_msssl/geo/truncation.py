"""Detection of GeoTIFFs that were cut short.

GDAL opens such a file without an error and fails at the first block that is missing, which may be an hour later.
"""

import os
import struct
import warnings
from pathlib import Path

import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import DatasetReader

from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo.open_datasets import is_remote
from torchgeo_msssl.geo.scene import Scene

#: More images (masks, overviews of both) than files have; a longer chain is damaged.
_MOST_DIRECTORIES = 64


def check_complete(scene: Scene) -> None:
    """Check that no local file of a scene was cut short.

    Args:
        scene: The scene.

    Raises:
        SceneReadError: If one was.
    """
    for file in scene.files:
        missing = 0 if is_remote(file.path) else missing_bytes(file.path)
        if missing:
            msg = (
                f'{file.path}: was cut short, at least {missing:,} bytes of its pixels are missing; copy or download '
                'it again, or leave it out.'
            )
            raise SceneReadError(msg)


def missing_bytes(path: str | Path) -> int:
    """Count how many bytes a file lacks at least to hold all blocks that its directories list.

    Args:
        path: Local file that GDAL opens.

    Returns:
        The bytes; 0 if nothing is missing, and for files that are no GeoTIFF.
    """
    with rasterio.open(path) as dataset:
        if dataset.driver != 'GTiff' or not os.path.isfile(path):
            return 0
    size = os.path.getsize(path)
    end = following = 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)  # masks and overviews have no place of their own
        for number in range(1, _MOST_DIRECTORIES + 1):
            try:
                with rasterio.open(f'GTIFF_DIR:{number}:{path}') as directory:
                    end = max(end, _end_of_blocks(directory))
                    following = _next_directory(path, int(directory.get_tag_item('IFD_OFFSET', 'TIFF', bidx=1)))
            except RasterioIOError:
                return max(end - size, 1)  # the directory is missing, which GDAL ignores
            if following == 0:
                break
    return max(0, end - size)


def _end_of_blocks(directory: DatasetReader) -> int:
    """Where the last block of an image ends in the file."""
    height, width = directory.block_shapes[0]
    rows, columns = range(-(-directory.height // height)), range(-(-directory.width // width))
    pixel_interleaved = directory.interleaving is not None and directory.interleaving.name == 'pixel'
    end = 0
    for band in (1,) if pixel_interleaved else directory.indexes:
        for row in rows:
            for column in columns:
                offset = directory.get_tag_item(f'BLOCK_OFFSET_{column}_{row}', 'TIFF', bidx=band)
                if offset is not None:  # blocks without data may be left out
                    length = directory.get_tag_item(f'BLOCK_SIZE_{column}_{row}', 'TIFF', bidx=band)
                    end = max(end, int(offset) + int(length))
    return end


def _next_directory(path: str | Path, offset: int) -> int:
    """Where the directory after one at an offset begins; 0 after the last one, size of the file if it is cut short."""
    with open(path, 'rb') as file:
        head = file.read(4)
        order, big = '<' if head[:2] == b'II' else '>', 43 in head[2:]
        count, entry, pointer = (f'{order}Q', 20, f'{order}Q') if big else (f'{order}H', 12, f'{order}I')
        try:
            file.seek(offset)
            (number,) = struct.unpack(count, file.read(struct.calcsize(count)))
            file.seek(entry * number, os.SEEK_CUR)
            (following,) = struct.unpack(pointer, file.read(struct.calcsize(pointer)))
        except struct.error:
            return os.path.getsize(path)
    return int(following)
