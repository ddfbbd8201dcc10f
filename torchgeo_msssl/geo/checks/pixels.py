"""Checks of sampled pixels: frames without a nodata value, NaN."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.io import DatasetReader

from torchgeo_msssl.geo.checks.finding import Finding, command, edit_command
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.nodata import LARGEST_VALUE, has_data

#: Number and side of the inner windows, and length and depth of the strips along the borders, in pixels.
_INNER, _INNER_SIDE = 9, 96
_BORDER_LENGTH, _BORDER_DEPTH = 32, 4

#: An integer raster of one band with at most this number of different values counts as a map of classes.
_CLASSES = 32

#: Number of border strips (of 12) with one value that make a frame.
_FRAME_STRIPS = 2

#: Fraction of inner pixels with the value of the frame in some bands, above which it cannot be the nodata value.
_AFFECTED = 1e-3

#: Values this near to black or white are a collar, from this number of pixels along an edge and this fraction of them.
_COLLAR, _EDGE_PIXELS, _COLLAR_FRACTION = 15, 50, 0.3


@dataclass(frozen=True)
class PixelSample:
    """Sampled pixels of a file.

    Attributes:
        inner: Values and masks of windows spread over the scene, shapes (band, height, width) and (height, width).
        borders: Values and masks of strips at the corners and along the edges.
    """

    inner: list[tuple[NDArray[Any], NDArray[np.bool_]]]
    borders: list[tuple[NDArray[Any], NDArray[np.bool_]]]

    @property
    def is_classes(self) -> bool:
        """Whether the file looks like a map of classes: one band with few different integers."""
        first = self.inner[0][0]
        if len(first) > 1 or not np.issubdtype(first.dtype, np.integer):
            return False
        return len(np.unique(np.concatenate([image.ravel() for image, _ in self.inner]))) <= _CLASSES


def sample_pixels(dataset: DatasetReader, indexes: Sequence[int]) -> PixelSample:
    """Read windows across a file and strips along its borders.

    Args:
        dataset: Open dataset.
        indexes: Indexes, from 1, of all bands but alpha.

    Returns:
        The pixels.

    Raises:
        RasterioError: If the file is damaged there.
    """

    def read(window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        image = dataset.read(indexes, window=window.to_rasterio())
        if is_mask:
            valid = (dataset.read_masks(indexes, window=window.to_rasterio()) > 0).all(axis=0)
        else:
            valid = np.ones(image.shape[1:], dtype=np.bool_)
        for index in alpha:  # GDAL's masks ignore some alpha bands of 16 bits
            valid &= dataset.read(index, window=window.to_rasterio()) > 0
        return image, valid

    marked = [i for i, colour in zip(dataset.indexes, dataset.colorinterp, strict=True) if colour == ColorInterp.alpha]
    alpha = [index for index in marked if index not in indexes]
    # GDAL also takes spectral bands that are marked as alpha for masks
    is_mask = bool(alpha) or not any(MaskFlags.alpha in dataset.mask_flag_enums[index - 1] for index in indexes)
    return PixelSample([read(window) for window in _inner(dataset)], [read(window) for window in _borders(dataset)])


def _inner(dataset: DatasetReader) -> list[Window]:
    height, width = min(_INNER_SIDE, dataset.height), min(_INNER_SIDE, dataset.width)
    side = round(_INNER**0.5)
    rows, cols = (np.linspace(0, extent, side + 2)[1:-1] for extent in (dataset.height - height, dataset.width - width))
    return [Window(int(row), int(col), height, width) for row in rows for col in cols]


def _borders(dataset: DatasetReader) -> list[Window]:
    """Return strips along each edge: at both corners and in the middle."""
    rows, cols = dataset.shape
    depth = [min(_BORDER_DEPTH, extent) for extent in (rows, cols)]
    length = [min(_BORDER_LENGTH, extent) for extent in (rows, cols)]
    along_rows = [0, (rows - length[0]) // 2, rows - length[0]]
    along_cols = [0, (cols - length[1]) // 2, cols - length[1]]
    return [
        *(Window(row, col, depth[0], length[1]) for row in (0, rows - depth[0]) for col in along_cols),
        *(Window(row, col, length[0], depth[1]) for row in along_rows for col in (0, cols - depth[1])),
    ]


def check_border(path: str, dataset: DatasetReader, sample: PixelSample, assumed: float | None) -> Iterator[Finding]:
    """Find a frame of one value that is not declared as nodata, or only assumed to be by the sensor."""
    if sample.is_classes:
        return
    seen = Counter(value for image, valid in sample.borders if (value := _only_value(image, valid)) is not None)
    value, number = seen.most_common(1)[0] if seen else (0.0, 0)
    if number < _FRAME_STRIPS or _inner_is(sample, value):
        return
    affected = np.mean([_partly(image[:, valid], value) for image, valid in sample.inner if valid.any()] or [0.0])
    declared = 'no nodata value' if dataset.nodata is None else f'{dataset.nodata:g} as its nodata value'
    detail = f'{value:g} in all bands at {number} of {len(sample.borders)} places along the border; declares {declared}'
    remedy = edit_command(path, '--nodata', f'{value:g}')
    if affected > _AFFECTED:
        detail += f'; nodata {value:g} would also remove {affected:.1%} of the inner pixels, so a mask is better'
        if set(dataset.dtypes) == {'uint8'}:  # GDAL's tool for this supports no other type
            target = Path(path).with_name(f'masked_{Path(path).stem}.tif')
            colour = ','.join([f'{value:g}'] * dataset.count)
            remedy = command(
                'nearblack', '-near', 0, '-nb', 0, '-color', colour, '-setmask', '-of', 'GTiff', '-o', target, path
            )
    if assumed == value:
        message = (
            'The file has a frame of one value and no nodata value: this package knows the value from the sensor, '
            'TorchGeo does not.'
        )
        yield Finding('note', 'frame_known_from_sensor', message, (path,), detail, remedies=(remedy,))
        return
    message = 'The file has a frame of one value that is not declared as nodata: training would treat it as ground.'
    yield Finding('error', 'frame_without_nodata', message, (path,), detail, remedies=(remedy,))


def check_collar(path: str, dataset: DatasetReader, sample: PixelSample) -> Iterator[Finding]:
    """Find almost black or white pixels along the edge of the data, which lossy compression leaves next to nodata."""
    if sample.is_classes or set(dataset.dtypes) != {'uint8'}:
        return
    edge = dark = bright = 0
    for image, valid in (*sample.inner, *sample.borders):
        data = valid & has_data(image, dataset.nodata)
        along = data & _grown(~data)
        edge += int(along.sum())
        dark += int((along & (image <= _COLLAR).all(axis=0)).sum())
        bright += int((along & (image >= 255 - _COLLAR).all(axis=0)).sum())
    number, near = max((dark, 'black'), (bright, 'white'))
    if edge < _EDGE_PIXELS or number < _COLLAR_FRACTION * edge:
        return
    message = (
        f'Pixels along the edge of the data are almost {near}, as lossy compression leaves them next to nodata: '
        'training would treat them as ground.'
    )
    target = Path(path).with_name(f'masked_{Path(path).stem}.tif')
    white = ('-white',) if near == 'white' else ()
    remedy = command('nearblack', *white, '-near', _COLLAR, '-nb', 5, '-setmask', '-of', 'GTiff', '-o', target, path)
    yield Finding('note', 'collar', message, (path,), f'{number / edge:.0%} of {edge:,} pixels', remedies=(remedy,))


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask with the two pixels around it."""
    wide = np.pad(mask, 2)
    height, width = mask.shape
    return np.logical_or.reduce([wide[i : i + height, j : j + width] for i in range(5) for j in range(5)])


def _only_value(image: NDArray[Any], valid: NDArray[np.bool_]) -> float | None:
    """Return the value of all bands of a strip if it is the same everywhere and counts as data."""
    first = image.flat[0]
    return float(first) if valid.all() and (image == first).all() and has_data(image, None).all() else None


def _inner_is(sample: PixelSample, value: float) -> bool:
    """Whether all inner pixels have this value too: an empty scene has no frame."""
    return all((image == value).all() for image, _ in sample.inner)


def _partly(pixels: NDArray[Any], value: float) -> float:
    """Return the fraction of pixels, shape (band, pixel), with a value in some bands but not in all."""
    same = pixels == value
    return float((same.any(axis=0) & ~same.all(axis=0)).mean())


def check_finite(path: str, dataset: DatasetReader, sample: PixelSample) -> Iterator[Finding]:
    """Find NaN, infinite and excessive values that are not declared as nodata."""
    odd = [~has_data(image, None) & valid for image, valid in (*sample.inner, *sample.borders)]
    number, pixels = sum(int(places.sum()) for places in odd), sum(places.size for places in odd)
    if number:
        message = (
            f'The file has NaN or infinite pixels, or some beyond ±{LARGEST_VALUE:g}: this package excludes them, '
            'TorchGeo includes them in the loss.'
        )
        detail = f'{number:,} of {pixels:,} sampled pixels'
        remedies = (edit_command(path, '--nodata', 'nan'),) if dataset.nodata is None else ()
        yield Finding('note', 'not_finite', message, (path,), detail, remedies=remedies)
