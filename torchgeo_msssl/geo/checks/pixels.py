"""What a look at some pixels of a file tells: borders without a nodata value, NaN."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from torchgeo_msssl.geo.checks.finding import Finding, command, edit_command
from torchgeo_msssl.geo.grid import Window

#: Windows in the middle of the scene and at each of its borders; their sides in pixels.
_INNER, _INNER_SIDE = 9, 96
_BORDER_LENGTH, _BORDER_DEPTH = 32, 4

#: Integers of one band with no more different values than this are taken for classes, not for a picture.
_CLASSES = 32

#: Borders (of 12) that must hold one value to speak of a frame.
_BORDERS = 2

#: Share of pixels inside which hold a border's value in some bands, above which it cannot be the nodata value.
_HARMED = 1e-3


@dataclass(frozen=True)
class Look:
    """Some pixels of a file.

    Attributes:
        inner: Values of windows spread over the scene, with their masks; shapes (band, height, width), (height, width).
        borders: The same of strips at the corners and along the edges.
    """

    inner: list[tuple[NDArray[Any], NDArray[np.bool_]]]
    borders: list[tuple[NDArray[Any], NDArray[np.bool_]]]

    @property
    def is_classes(self) -> bool:
        """Whether this looks like a map of classes: one band of few integers."""
        first = self.inner[0][0]
        if len(first) > 1 or not np.issubdtype(first.dtype, np.integer):
            return False
        return len(np.unique(np.concatenate([image.ravel() for image, _ in self.inner]))) <= _CLASSES


def look_at(dataset: DatasetReader, indexes: Sequence[int]) -> Look:
    """Read some pixels.

    Args:
        dataset: Open file.
        indexes: GDAL's numbers of the bands to look at.

    Returns:
        The pixels.

    Raises:
        RasterioError: If the file is damaged there.
    """

    def read(window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        image = dataset.read(indexes, window=window.to_rasterio())
        valid = (dataset.read_masks(indexes, window=window.to_rasterio()) > 0).all(axis=0)
        for index in alpha:  # GDAL itself overlooks some alpha bands of 16 bits
            valid &= dataset.read(index, window=window.to_rasterio()) > 0
        return image, valid

    alpha = [i for i, colour in zip(dataset.indexes, dataset.colorinterp, strict=True) if colour == ColorInterp.alpha]
    return Look([read(window) for window in _inner(dataset)], [read(window) for window in _borders(dataset)])


def _inner(dataset: DatasetReader) -> list[Window]:
    height, width = min(_INNER_SIDE, dataset.height), min(_INNER_SIDE, dataset.width)
    side = round(_INNER**0.5)
    rows, cols = (np.linspace(0, extent, side + 2)[1:-1] for extent in (dataset.height - height, dataset.width - width))
    return [Window(int(row), int(col), height, width) for row in rows for col in cols]


def _borders(dataset: DatasetReader) -> list[Window]:
    """Strips along each edge: at both corners and in the middle."""
    rows, cols = dataset.shape
    depth = [min(_BORDER_DEPTH, extent) for extent in (rows, cols)]
    length = [min(_BORDER_LENGTH, extent) for extent in (rows, cols)]
    along_rows = [0, (rows - length[0]) // 2, rows - length[0]]
    along_cols = [0, (cols - length[1]) // 2, cols - length[1]]
    return [
        *(Window(row, col, depth[0], length[1]) for row in (0, rows - depth[0]) for col in along_cols),
        *(Window(row, col, length[0], depth[1]) for row in along_rows for col in (0, cols - depth[1])),
    ]


def check_border(path: str, dataset: DatasetReader, look: Look, assumed: float | None) -> Iterator[Finding]:
    """Find a frame of one value that nothing declares to be without data.

    Args:
        path: The file.
        dataset: The same, open.
        look: Some of its pixels.
        assumed: Nodata value that the scene's sensor is known for, or None.

    Yields:
        A finding, or none.
    """
    if look.is_classes:
        return
    seen = Counter(value for image, valid in look.borders if (value := _only_value(image, valid)) is not None)
    value, number = seen.most_common(1)[0] if seen else (0.0, 0)
    if number < _BORDERS or _inner_is(look, value):
        return
    harmed = np.mean([_partly(image[:, valid], value) for image, valid in look.inner if valid.any()] or [0.0])
    declared = 'no nodata value' if dataset.nodata is None else f'{dataset.nodata:g} as its nodata value'
    detail = f'{value:g} in all bands at {number} of {len(look.borders)} places along the border; declares {declared}'
    remedy = edit_command(path, '--nodata', f'{value:g}')
    if harmed > _HARMED:
        detail += f'; as nodata value {value:g} would also take {harmed:.1%} of the pixels inside, so a mask is better'
        if set(dataset.dtypes) == {'uint8'}:  # GDAL's tool for this knows no other type
            target = Path(path).with_name(f'masked_{Path(path).stem}.tif')
            colour = ','.join([f'{value:g}'] * dataset.count)
            remedy = command(
                'nearblack', '-near', 0, '-nb', 0, '-color', colour, '-setmask', '-of', 'GTiff', '-o', target, path
            )
    if assumed == value:
        message = (
            'Has a frame of one value and no nodata value: this package knows it from the sensor, TorchGeo does not.'
        )
        yield Finding('note', 'frame_known_from_sensor', message, (path,), detail, None, (remedy,))
        return
    message = 'Has a frame of one value that is not declared to be without data: it would be learnt as ground.'
    yield Finding('wrong', 'frame_without_nodata', message, (path,), detail, None, (remedy,))


def _only_value(image: NDArray[Any], valid: NDArray[np.bool_]) -> float | None:
    """The value that all bands of a strip hold throughout, where it counts as data."""
    first = image.flat[0]
    return float(first) if valid.all() and (image == first).all() else None


def _inner_is(look: Look, value: float) -> bool:
    """Whether the inside holds nothing but this value either: a blank scene has no frame."""
    return all((image == value).all() for image, _ in look.inner)


def _partly(pixels: NDArray[Any], value: float) -> float:
    """Share of pixels that hold a value in some bands and not in others; shape (band, pixel)."""
    same = pixels == value
    return float((same.any(axis=0) & ~same.all(axis=0)).mean())


def check_finite(path: str, dataset: DatasetReader, look: Look) -> Iterator[Finding]:
    """Find NaN and infinite numbers that are not declared to be without data.

    Args:
        path: The file.
        dataset: The same, open.
        look: Some of its pixels.

    Yields:
        A finding, or none.
    """
    odd = [~np.isfinite(image).all(axis=0) & valid for image, valid in (*look.inner, *look.borders)]
    number, pixels = sum(int(places.sum()) for places in odd), sum(places.size for places in odd)
    if number:
        message = 'Has pixels that are NaN or infinite: this package leaves them out, TorchGeo lets them into the loss.'
        detail = f'{number:,} of {pixels:,} pixels looked at'
        remedies = (edit_command(path, '--nodata', 'nan'),) if dataset.nodata is None else ()
        yield Finding('note', 'not_finite', message, (path,), detail, None, remedies)
