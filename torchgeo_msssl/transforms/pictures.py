"""Pictures of what the network sees."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.errors import BandError, ConfigurationError

NODATA_GREY = 128
SEPARATOR_WHITE = 255
#: Smallest half range of a stretch, as a share of its middle. An even chip (bare soil, water) stretched any further
#: would turn plain black, white or blue under an ordinary gain of 20 %.
LEAST_CONTRAST = 0.25


def contact_sheet(
    chip: Tensor,
    views: Tensor,
    rgb_index: Sequence[int],
    chip_valid: Tensor | None = None,
    views_valid: Tensor | None = None,
    rows: int = 8,
    zoom: int = 1,
    separator: int = 2,
) -> NDArray[np.uint8]:
    """Draw chips beside their views: a row a chip, first the chip, then its views.

    Each band is stretched from the 2nd to the 98th percentile of the chip's valid pixels, and the chip's stretch
    is applied to its views, so that a gain looks like one. Chips with next to no contrast are stretched less, so that a
    gain does not drive their views out of the range. Nodata is a flat grey.

    Args:
        chip: Reflectance or any other unit, (batch, band, height, width).
        views: Its views in the same unit, (view, batch, band, view height, view width).
        rgb_index: Indices of the bands drawn red, green and blue, or of the one band drawn in grey.
        chip_valid: Mask of the chip's valid pixels (batch, 1, height, width), bool; None means all.
        views_valid: Mask of the views' valid pixels (view, batch, 1, view height, view width), bool; None means all.
        rows: Largest number of chips drawn.
        zoom: Side of a pixel in the picture.
        separator: Width of the lines between pictures, in pixels.

    Returns:
        Picture (height, width, 3), uint8.

    Raises:
        BandError: If ``rgb_index`` names a band that the image lacks, or a number of bands other than 1 or 3.
        ConfigurationError: If ``rows`` or ``zoom`` is below 1 or ``separator`` below 0.
    """
    index, bands = list(rgb_index), chip.shape[1]
    if len(index) not in (1, 3) or not all(0 <= band < bands for band in index):
        raise BandError(f'rgb_index must name 1 or 3 of the {bands} bands by index from 0, got {index}.')
    if rows < 1 or zoom < 1 or separator < 0:
        raise ConfigurationError(
            f'rows and zoom must be 1 or more and separator 0 or more, got {rows}, {zoom} and {separator}.'
        )
    count = min(rows, len(chip))
    pictures = []
    for row in range(count):
        original = _colours(chip[row], index), _mask(chip_valid, chip[row], (row,))
        low, high = _stretch(*original)
        cells = [original]
        cells += [
            (_colours(view[row], index), _mask(views_valid, view[row], (number, row)))
            for number, view in enumerate(views)
        ]
        pictures.append([_paint(values, valid, low, high, zoom) for values, valid in cells])
    return _arrange(pictures, separator)


def _colours(image: Tensor, index: list[int]) -> NDArray[np.float32]:
    """(band, height, width) to (height, width, 3)."""
    red_green_blue = index * 3 if len(index) == 1 else index
    values: NDArray[np.float32] = image[red_green_blue].detach().float().movedim(0, -1).cpu().numpy()
    return values


def _mask(valid: Tensor | None, image: Tensor, position: tuple[int, ...]) -> NDArray[np.bool_]:
    if valid is None:
        return np.ones(image.shape[-2:], dtype=bool)
    mask: NDArray[np.bool_] = valid[position][0].detach().cpu().numpy().astype(bool)
    return mask


def _stretch(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper end of each colour: its percentiles 2 and 98 over valid pixels; 0 and 1 where there are none."""
    inside = values[valid & np.isfinite(values).all(axis=-1)]
    if len(inside) == 0:
        return np.zeros(values.shape[-1]), np.ones(values.shape[-1])
    low, high = np.percentile(inside.astype(np.float64), [2, 98], axis=0)
    middle = (low + high) / 2
    half = np.maximum((high - low) / 2, LEAST_CONTRAST * np.abs(middle))
    return middle - half, middle + half


def _paint(
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    zoom: int,
) -> NDArray[np.uint8]:
    # a band that is 0 all over has no range: it is drawn in mid grey wherever it keeps its value
    flat = high <= low
    stretched = np.where(flat, values - low + 0.5, (values - low) / np.where(flat, 1.0, high - low))
    seen = valid & np.isfinite(stretched).all(axis=-1)
    picture = np.full(values.shape, NODATA_GREY, dtype=np.uint8)
    picture[seen] = np.rint(np.clip(stretched[seen], 0, 1) * 255).astype(np.uint8)
    return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _arrange(pictures: list[list[NDArray[np.uint8]]], separator: int) -> NDArray[np.uint8]:
    """Put pictures into cells of one size, each in the middle of its cell."""
    every = [picture for row in pictures for picture in row]
    height, width = max(len(picture) for picture in every), max(picture.shape[1] for picture in every)
    shape = (
        len(pictures) * (height + separator) - separator,
        len(pictures[0]) * (width + separator) - separator,
        every[0].shape[-1],
    )
    sheet = np.full(shape, SEPARATOR_WHITE, dtype=np.uint8)
    for row, line in enumerate(pictures):
        for column, picture in enumerate(line):
            top = row * (height + separator) + (height - picture.shape[0]) // 2
            left = column * (width + separator) + (width - picture.shape[1]) // 2
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet
