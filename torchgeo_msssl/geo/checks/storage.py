"""Checks of the storage layout: slow layouts and truncated files."""

from collections.abc import Iterator, Sequence

from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from torchgeo_msssl.geo.checks.finding import Finding, command, rewrite_command
from torchgeo_msssl.geo.checks.speed import CHIP, Speed, measure
from torchgeo_msssl.geo.open_datasets import is_remote
from torchgeo_msssl.geo.truncation import missing_bytes

#: Number of pixels above which a block counts as large.
_LARGE_BLOCK = 1024 * 1024

#: Factors from which a file is reported as slow, if the layout explains it and if not (the measurement is noisy).
_EXPLAINED, _UNEXPLAINED = 1.5, 3.0

#: Loss per chip in seconds that is not reported.
_NEGLIGIBLE = 1e-3

#: Side in pixels from which a scene needs overviews to be displayed fast.
OVERVIEWS_FROM = 8192

_CACHE = '--data.cache disk'


def check_storage(path: str, dataset: DatasetReader, indexes: Sequence[int], measured: bool) -> Iterator[Finding]:
    """Find storage layouts that make reading chips slow.

    Args:
        path: The file.
        dataset: The same file, open.
        indexes: Indexes of the bands that will be used, from 1.
        measured: Whether to measure the time to read a chip. Otherwise a slow layout is reported as a note.

    Yields:
        Findings.

    Raises:
        RasterioError: If the file is damaged.
    """
    topic, message = _slow_layout(dataset, indexes)
    speed = measure(path, indexes) if measured else None
    if speed and not topic and _is_slow(speed, _UNEXPLAINED):  # it may have been noise
        speed = min(speed, measure(path, indexes), key=lambda one: one.factor)
    remedies = (rewrite_command(path, *(('--interleave', 'band') if topic == 'pixel_interleaved' else ())), _CACHE)
    if speed is None:
        if topic:
            yield Finding('note', topic, message, (path,), _layout(dataset), remedies=remedies)
    elif topic and _is_slow(speed, _EXPLAINED):
        yield Finding('slow', topic, message, (path,), f'{_layout(dataset)}: {speed}', speed.factor, remedies)
    elif _is_slow(speed, _UNEXPLAINED):
        message = 'Chips take long to read because of the compression or the number of source files.'
        yield Finding('slow', 'slow_storage', message, (path,), f'{_layout(dataset)}: {speed}', speed.factor, remedies)
    if max(dataset.shape) >= OVERVIEWS_FROM and not dataset.overviews(1):
        message = 'The file has no overviews: training does not use them, but a GIS needs them to display it fast.'
        detail = f'{dataset.height} × {dataset.width} pixels'
        remedy = command('rio', 'overview', '--build', '2,4,8,16,32', '--resampling', 'average', path)
        yield Finding('note', 'no_overviews', message, (path,), detail, remedies=(remedy,))


def _is_slow(speed: Speed, factor: float) -> bool:
    return speed.factor >= factor and speed.own - speed.tiled >= _NEGLIGIBLE


def _slow_layout(dataset: DatasetReader, indexes: Sequence[int]) -> tuple[str, str]:
    """Return topic and message of a layout that is slow by its header, empty texts if there is none."""
    height, width = dataset.block_shapes[0]
    if dataset.driver.startswith('JP2'):
        return 'jpeg2000', 'The file is JPEG 2000, which takes long to decode.'
    if width >= dataset.width > 2 * CHIP and height < dataset.height and height * width <= _LARGE_BLOCK:
        return 'striped', 'The file is stored in strips, so every chip decodes whole rows of the scene.'
    if height * width > _LARGE_BLOCK and dataset.height * dataset.width > _LARGE_BLOCK:
        return 'large_blocks', f'The file is stored in large blocks, so a chip of {CHIP} pixels decodes far too much.'
    if 2 * len(indexes) <= dataset.count and dataset.profile.get('interleave') == 'pixel':
        return 'pixel_interleaved', 'The file is pixel-interleaved, so bands that are not used are decoded too.'
    return '', ''


def _layout(dataset: DatasetReader) -> str:
    height, width = dataset.block_shapes[0]
    compression = dataset.profile.get('compress')
    return f'blocks of {height} × {width} pixels, {compression or "no compression"}'


def check_truncation(path: str) -> Iterator[Finding]:
    """Find a TIFF that ends before its last block, from its tables of blocks."""
    missing = 0 if is_remote(path) else missing_bytes(path)
    if missing:
        yield damaged(path, f'at least {missing:,} bytes of its pixels are missing')


def damaged(path: str, reason: str | BaseException) -> Finding:
    """Return the finding for a file that cannot be read.

    Args:
        path: The file.
        reason: Description of the failure, or the error.
    """
    if isinstance(reason, RasterioError) and reason.__cause__ is not None:
        reason = reason.__cause__
    message = 'The file cannot be read: it is damaged or truncated; copy or download it again, or leave it out.'
    detail = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
    return Finding('error', 'damaged', message, (path,), detail)
