"""How a file is stored: what costs time at each chip."""

import os
from collections.abc import Iterator, Sequence

from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from torchgeo_msssl.geo.checks.finding import Finding, command, mend_command
from torchgeo_msssl.geo.checks.speed import CHIP, Speed, measure

#: Pixels of a block above which most of what is decoded is thrown away.
_LARGE_BLOCK = 1024 * 1024

#: Slowness worth telling where the storage explains it, and where it does not (some of it is chance then).
_EXPLAINED, _UNEXPLAINED = 1.5, 3.0

#: Time for each chip that is lost, in seconds, which nobody need care about (small files).
_NEGLIGIBLE = 1e-3

#: Side of a scene from which a GIS is slow without overviews, in pixels.
OVERVIEWS_FROM = 8192

#: Blocks of a TIFF whose places are compared with the size of the file, at most.
_MOST_BLOCKS = 50_000

_CACHE = '--data.cache disk'


def check_storage(path: str, dataset: DatasetReader, indexes: Sequence[int], measured: bool) -> Iterator[Finding]:
    """Find what makes reading chips slow.

    Args:
        path: The file.
        dataset: The same, open.
        indexes: GDAL's numbers of the bands that are wanted.
        measured: Whether to read some chips and tell the factor; without, what is suspicious is told as a note.

    Yields:
        Findings.

    Raises:
        RasterioError: If the file is damaged.
    """
    topic, message = _suspicion(dataset, indexes)
    speed = measure(path, indexes) if measured else None
    if speed and not topic and _is_slow(speed, _UNEXPLAINED):  # nothing explains it, so it may have been chance
        speed = min(speed, measure(path, indexes), key=lambda one: one.factor)
    remedies = (mend_command(path, *(('--interleave', 'band') if topic == 'pixel_interleaved' else ())), _CACHE)
    if speed is None:
        if topic:
            yield Finding('note', topic, message, (path,), _layout(dataset), None, remedies)
    elif topic and _is_slow(speed, _EXPLAINED):
        yield Finding('slow', topic, message, (path,), f'{_layout(dataset)}: {speed}', speed.factor, remedies)
    elif _is_slow(speed, _UNEXPLAINED):
        message = 'Chips take long to read, as the compression or the number of source files makes them.'
        yield Finding('slow', 'slow_storage', message, (path,), f'{_layout(dataset)}: {speed}', speed.factor, remedies)
    if max(dataset.shape) >= OVERVIEWS_FROM and not dataset.overviews(1):
        message = 'Has no overviews: training does not use them, but a GIS takes long to show the whole of it.'
        remedy = command('rio', 'overview', '--build', '2,4,8,16,32', '--resampling', 'average', path)
        yield Finding(
            'note', 'no_overviews', message, (path,), f'{dataset.height} × {dataset.width} pixels', None, (remedy,)
        )


def _is_slow(speed: Speed, factor: float) -> bool:
    return speed.factor >= factor and speed.own - speed.tiled >= _NEGLIGIBLE


def _suspicion(dataset: DatasetReader, indexes: Sequence[int]) -> tuple[str, str]:
    """Topic and message of what should be slow by the header; empty where nothing is."""
    height, width = dataset.block_shapes[0]
    if dataset.driver.startswith('JP2'):
        return 'jpeg2000', 'Is a JPEG 2000, which takes long to decode.'
    if width >= dataset.width > 2 * CHIP and height < dataset.height and height * width <= _LARGE_BLOCK:
        return 'striped', 'Is stored in strips: each chip decodes whole rows of the scene.'
    if height * width > _LARGE_BLOCK and dataset.height * dataset.width > _LARGE_BLOCK:
        return 'large_blocks', f'Is stored in large blocks: a chip of {CHIP} pixels decodes far more than it needs.'
    if 2 * len(indexes) <= dataset.count and dataset.profile.get('interleave') == 'pixel':
        return 'pixel_interleaved', 'Is stored pixel by pixel: the bands that are not wanted are decoded all the same.'
    return '', ''


def _layout(dataset: DatasetReader) -> str:
    height, width = dataset.block_shapes[0]
    compression = dataset.profile.get('compress')
    return f'blocks of {height} × {width} pixels, {compression or "no compression"}'


def check_whole(path: str, dataset: DatasetReader) -> Iterator[Finding]:
    """Find a TIFF that ends before its last block does, from its table of blocks alone.

    Args:
        path: The file.
        dataset: The same, open.

    Yields:
        A finding, or none.
    """
    if dataset.driver != 'GTiff' or not os.path.isfile(path):
        return
    size, end = os.path.getsize(path), 0
    for index, row, col in _blocks(dataset):
        offset = dataset.get_tag_item(f'BLOCK_OFFSET_{col}_{row}', 'TIFF', bidx=index)
        length = dataset.get_tag_item(f'BLOCK_SIZE_{col}_{row}', 'TIFF', bidx=index)
        if offset is not None and length is not None:  # a block that was never written has neither
            end = max(end, int(offset) + int(length))
    if end > size:
        yield damaged(path, f'its blocks reach to byte {end:,}, the file ends at {size:,}')


def _blocks(dataset: DatasetReader) -> Iterator[tuple[int, int, int]]:
    """Band, row and column of the blocks; the last ones where there are too many, for these are at the end."""
    height, width = dataset.block_shapes[0]
    rows, cols = -(-dataset.height // height), -(-dataset.width // width)
    indexes = dataset.indexes if dataset.profile.get('interleave') == 'band' else dataset.indexes[:1]
    total = rows * cols
    first = max(0, total - _MOST_BLOCKS // len(indexes))
    for index in indexes:
        for number in range(first, total):
            yield index, number // cols, number % cols


def damaged(path: str, what: str | BaseException) -> Finding:
    """The finding for a file that cannot be read.

    Args:
        path: The file.
        what: What went wrong.

    Returns:
        The finding.
    """
    if isinstance(what, RasterioError) and what.__cause__ is not None:
        what = what.__cause__
    message = 'Cannot be read: the file is damaged or was cut short; copy or download it again, or leave it out.'
    return Finding(
        'wrong', 'damaged', message, (path,), str(what).splitlines()[0] if str(what) else type(what).__name__
    )
