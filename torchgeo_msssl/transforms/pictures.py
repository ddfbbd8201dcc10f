"""Pictures of the network's input."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.errors import BandError
from torchgeo_msssl.validation import check_at_least

NODATA_GRAY = 128
SEPARATOR_WHITE = 255
#: Smallest half range of a stretch, as a fraction of its center. A homogeneous chip (bare soil, water) stretched
#: further would turn black, white or blue under an ordinary gain of 20 %.
MIN_CONTRAST = 0.25


def contact_sheet(
    chip: Tensor,
    views: Sequence[Tensor] | Tensor,
    rgb_index: Sequence[int],
    chip_valid: Tensor | None = None,
    views_valid: Sequence[Tensor | None] | Tensor | None = None,
    rows: int = 8,
    zoom: int = 1,
    separator: int = 2,
) -> NDArray[np.uint8]:
    """Draw one row per chip: the chip, then its views, which may differ in size.

    Each band is stretched from the 2nd to the 98th percentile of the chip's valid pixels, and the chip's stretch is
    applied to its views, so that a gain is visible as such. Chips with little contrast are stretched less, so that a
    gain does not drive their views out of range. Nodata is a uniform gray.

    Args:
        chip: Reflectance or any other unit, (batch, band, height, width).
        views: Its views in the same unit, (batch, band, view height, view width) each.
        rgb_index: Indices of the bands drawn red, green and blue, or of the one band drawn in gray.
        chip_valid: Mask of the chip's valid pixels (batch, 1, height, width), bool; None for all.
        views_valid: Masks of the views' valid pixels (batch, 1, view height, view width), bool; None for all pixels.
        rows: Maximum number of chips.
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
    check_at_least(1, rows=rows, zoom=zoom)
    check_at_least(0, separator=separator)
    valid = [None] * len(views) if views_valid is None else list(views_valid)
    pictures = []
    for row in range(min(rows, len(chip))):
        cells = [
            (_colors(images[row], index), _mask(masks, images, row))
            for images, masks in zip([chip, *views], [chip_valid, *valid], strict=True)
        ]
        low, high = _stretch(*cells[0])
        pictures.append([_paint(values, mask, low, high, zoom) for values, mask in cells])
    return _arrange(pictures, separator)


def _colors(image: Tensor, index: list[int]) -> NDArray[np.float32]:
    """(band, height, width) to (height, width, 3)."""
    red_green_blue = index * 3 if len(index) == 1 else index
    values: NDArray[np.float32] = image[red_green_blue].detach().float().movedim(0, -1).cpu().numpy()
    return values


def _mask(valid: Tensor | None, images: Tensor, row: int) -> NDArray[np.bool_]:
    if valid is None:
        return np.ones(images.shape[-2:], dtype=bool)
    mask: NDArray[np.bool_] = valid[row, 0].detach().cpu().numpy().astype(bool)
    return mask


def _stretch(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper end of each color: percentiles 2 and 98 over valid pixels; 0 and 1 without valid pixels."""
    inside = values[valid & np.isfinite(values).all(axis=-1)]
    if len(inside) == 0:
        return np.zeros(values.shape[-1]), np.ones(values.shape[-1])
    low, high = np.percentile(inside.astype(np.float64), [2, 98], axis=0)
    center = (low + high) / 2
    half = np.maximum((high - low) / 2, MIN_CONTRAST * np.abs(center))
    return center - half, center + half


def _paint(
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    zoom: int,
) -> NDArray[np.uint8]:
    # a band that is 0 everywhere has no range: it is drawn in medium gray
    flat = high <= low
    stretched = np.where(flat, values - low + 0.5, (values - low) / np.where(flat, 1.0, high - low))
    shown = valid & np.isfinite(stretched).all(axis=-1)
    picture = np.full(values.shape, NODATA_GRAY, dtype=np.uint8)
    picture[shown] = np.rint(np.clip(stretched[shown], 0, 1) * 255).astype(np.uint8)
    return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _arrange(pictures: list[list[NDArray[np.uint8]]], separator: int) -> NDArray[np.uint8]:
    """Arrange pictures in cells of one size, each in the center of its cell."""
    all_pictures = [picture for row in pictures for picture in row]
    height, width = max(len(picture) for picture in all_pictures), max(picture.shape[1] for picture in all_pictures)
    shape = (
        len(pictures) * (height + separator) - separator,
        len(pictures[0]) * (width + separator) - separator,
        all_pictures[0].shape[-1],
    )
    sheet = np.full(shape, SEPARATOR_WHITE, dtype=np.uint8)
    for row, line in enumerate(pictures):
        for column, picture in enumerate(line):
            top = row * (height + separator) + (height - picture.shape[0]) // 2
            left = column * (width + separator) + (width - picture.shape[1]) // 2
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet
