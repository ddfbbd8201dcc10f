"""Windows of an image and the weighted sum of their predictions.

Windows of one size cover the image and may extend beyond its edges, where the image is mirrored, so that every pixel is
predicted with full context. Weights are separable. They are normalized in advance along each axis from the actual
positions of the windows and sum to exactly 1 at every pixel: no weights are accumulated and nothing is divided.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import Window

__all__ = ('Axis', 'Blend', 'FinishedRows', 'RowBandAccumulator', 'Stitching', 'Tiling', 'reflect_indices')

type Blend = Literal['crop', 'hann']


@dataclass(frozen=True)
class Axis:
    """Windows along one axis of an image.

    Attributes:
        extent: Length of the image, in pixels.
        size: Length of a window, in pixels.
        starts: First pixel of each window, ascending; negative where the window extends beyond the image.
        lead: Pixels at the start of a window that are context only.
        span: Pixels after these that count; the rest of the window is context only.
        weights: Weight of each pixel that counts, float32, (window, span). For every pixel of the image, the weights of
            its windows sum to exactly 1 when added in order.
    """

    extent: int
    size: int
    starts: tuple[int, ...]
    lead: int
    span: int
    weights: NDArray[np.float32]

    def counted(self, index: int) -> tuple[int, int]:
        """Return the first and one past the last pixel of the image in which a window counts."""
        first = self.starts[index] + self.lead
        return max(first, 0), min(first + self.span, self.extent)


def crop_axis(extent: int, size: int, margin: int) -> Axis:
    """Cover an axis with windows of which only the middle counts.

    Args:
        extent: Length of the image, in pixels.
        size: Largest length of a window, in pixels.
        margin: Pixels at both ends of a window that are context only.

    Returns:
        The windows.
    """
    core = size - 2 * margin
    count = math.ceil(extent / core)
    starts = tuple(i * core - margin for i in range(count))
    return Axis(extent, size, starts, margin, core, np.ones((count, core), dtype=np.float32))


def hann_axis(extent: int, size: int, stride: int) -> Axis:
    """Cover an axis with windows that are blended.

    The first and the last window extend beyond the image by the overlap, so that pixels at the edges have as many
    windows as others. The weights follow the Hann window at pixel centers and are positive everywhere.

    Args:
        extent: Length of the image, in pixels.
        size: Length of a window, in pixels.
        stride: Distance between windows, in pixels, 1 to ``size``.

    Returns:
        The windows.
    """
    overlap = size - stride
    starts = tuple(i * stride - overlap for i in range(math.ceil((extent + overlap) / stride)))
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    total = np.zeros(starts[-1] + size - starts[0])
    for start in starts:
        total[start - starts[0] : start - starts[0] + size] += window
    return Axis(extent, size, starts, 0, size, _normalized(starts, window, total))


def _normalized(starts: tuple[int, ...], window: NDArray[Any], total: NDArray[Any]) -> NDArray[np.float32]:
    """Divide by the totals; the last window of each pixel gets the remainder to 1, which absorbs rounding."""
    size = len(window)
    weights = np.empty((len(starts), size), dtype=np.float32)
    summed = np.zeros(len(total), dtype=np.float32)
    for index, start in enumerate(starts):
        here = slice(start - starts[0], start - starts[0] + size)
        weights[index] = window / total[here]
        following = starts[index + 1] - start if index + 1 < len(starts) else size
        weights[index, :following] = np.float32(1) - summed[here][:following]
        summed[here] += weights[index]
    return weights


@dataclass(frozen=True)
class Tiling:
    """Windows over an image: the product of windows along both axes.

    Attributes:
        rows: Windows along the rows.
        cols: Windows along the columns.
    """

    rows: Axis
    cols: Axis

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.rows.starts) * len(self.cols.starts)

    def window(self, row: int, col: int) -> Window:
        """Return the window with these indices; it may extend beyond the image."""
        return Window(self.rows.starts[row], self.cols.starts[col], self.rows.size, self.cols.size)

    def first_row_of(self, pixel_row: int) -> int:
        """Return the index of the first row of windows that counts in a pixel row."""
        return next(i for i in range(len(self.rows.starts)) if self.rows.counted(i)[1] > pixel_row)


@dataclass(frozen=True)
class Stitching:
    """How windows are combined into a map, for images of any size.

    Attributes:
        blend: ``crop`` keeps the middle of each window, which equals a single pass over the image and its mirror images
            beyond the edges (not over the image alone, around which layers pad zeros) for convolutional networks whose
            receptive field extends no further than ``margin``; ``hann`` blends overlapping windows, which leaves no
            seams for any network.
        window: Side of a window, in pixels; a multiple of ``stride``.
        margin: Context on each side, in pixels, for ``crop``; it is rounded up to a multiple of ``stride``.
        stride: The network's total stride, in pixels: windows begin at its multiples, so that pooling always covers
            the same pixels.
        overlap: Pixels that neighbouring windows share, for ``hann``; None for half a window.
        reason: Reason for the choice, for messages.

    Raises:
        ConfigurationError: If the options contradict each other.
    """

    blend: Blend
    window: int
    margin: int = 0
    stride: int = 1
    overlap: int | None = None
    reason: str = ''

    def __post_init__(self) -> None:
        """Round the margin and check the options."""
        if self.blend not in get_args(Blend.__value__):
            raise ConfigurationError(f"blend: expected 'crop' or 'hann', got {self.blend!r}.")
        if self.stride < 1 or self.window < 1 or self.window % self.stride:
            msg = f"window: expected a multiple of the network's total stride {self.stride}, got {self.window}."
            raise ConfigurationError(msg)
        if self.margin < 0:
            raise ConfigurationError(f'margin: expected 0 pixels or more, got {self.margin}.')
        object.__setattr__(self, 'margin', math.ceil(self.margin / self.stride) * self.stride)
        least = 2 * self.margin + self.stride
        if self.blend == 'crop' and self.window < least:
            msg = (
                f'window: {self.window} pixels leave nothing between two margins of {self.margin} (the receptive '
                f'field); take a window of {least} or more, better {4 * self.margin}, or blend: hann.'
            )
            raise ConfigurationError(msg)
        if self.overlap is not None and not 0 <= self.overlap < self.window:
            raise ConfigurationError(f'overlap: expected 0 to {self.window - 1} pixels, got {self.overlap}.')

    def tiling(self, height: int, width: int) -> Tiling:
        """Cover an image with windows.

        Args:
            height: Rows, at least 1.
            width: Columns, at least 1.

        Returns:
            The windows. For ``crop`` they are no larger than a small image requires, which does not change the map.
        """
        return Tiling(self._axis(height), self._axis(width))

    def _axis(self, extent: int) -> Axis:
        if self.blend == 'crop':
            needed = math.ceil(extent / self.stride) * self.stride + 2 * self.margin
            return crop_axis(extent, min(self.window, needed), self.margin)
        overlap = self.window // 2 if self.overlap is None else self.overlap
        return hann_axis(extent, self.window, self.window - overlap)


def reflect_indices(start: int, size: int, extent: int) -> NDArray[np.int64]:
    """Return the pixels that a window along an axis contains when the image is mirrored at its edges.

    The outermost pixels are not repeated, as in NumPy's ``reflect``; an axis of one pixel repeats that pixel.

    Args:
        start: First pixel of the window, any integer.
        size: Length of the window, in pixels.
        extent: Length of the image, in pixels.

    Returns:
        Indices from 0 to ``extent - 1``, (size,).
    """
    position = np.arange(start, start + size, dtype=np.int64)
    if extent == 1:
        return np.zeros_like(position)
    period = 2 * (extent - 1)
    folded = position % period
    return np.minimum(folded, period - folded)


@dataclass(frozen=True)
class FinishedRows:
    """Rows of an image to which no further window contributes.

    Attributes:
        first: Index of the first row.
        values: Weighted means, float32, (channel, row, col); a view that the next shift overwrites.
        valid: Valid pixels (row, col); a view as well.
    """

    first: int
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]


class RowBandAccumulator:
    """Weighted sums of predictions for one row of windows at a time.

    For each row of windows: :meth:`add` its windows, take the :meth:`finished` rows, :meth:`shift`. The memory is that
    of the rows in which one row of windows counts, however high the image is. Additions have the same order as in a sum
    over the whole image, and give the same bits.
    """

    def __init__(self, tiling: Tiling, channels: int, first: int = 0) -> None:
        """Start with a row of windows.

        Args:
            tiling: The windows.
            channels: Number of channels.
            first: Index of the row of windows to start with.
        """
        self.tiling = tiling
        self.index = first
        shape = (tiling.rows.span, tiling.cols.extent)
        self._sums = np.zeros((channels, *shape), dtype=np.float32)
        self._valid = np.zeros(shape, dtype=np.bool_)

    def add(self, col: int, values: NDArray[np.float32] | None, valid: NDArray[np.bool_]) -> None:
        """Add a window of the current row of windows.

        Args:
            col: Index of its column of windows.
            values: Its prediction, float32, (channel, height, width); None if no pixel that counts is valid.
            valid: Valid pixels (height, width).
        """
        rows, cols = self.tiling.rows, self.tiling.cols
        own_rows, band_rows = self._overlap(rows, self.index, rows.starts[self.index] + rows.lead)
        own_cols, image_cols = self._overlap(cols, col, 0)
        self._valid[band_rows, image_cols] = valid[own_rows, own_cols]
        if values is None:
            return
        down = rows.weights[self.index][_moved(own_rows, -rows.lead)]
        across = cols.weights[col][_moved(own_cols, -cols.lead)]
        self._sums[:, band_rows, image_cols] += values[:, own_rows, own_cols] * np.outer(down, across)

    @staticmethod
    def _overlap(axis: Axis, index: int, origin: int) -> tuple[slice, slice]:
        """Return the pixels of a window that count inside the image: in the window, and relative to ``origin``."""
        first, end = axis.counted(index)
        start = axis.starts[index]
        return slice(first - start, end - start), slice(first - origin, end - origin)

    def finished(self) -> FinishedRows:
        """Return the rows that are complete after all windows of the current row were added.

        Returns:
            The rows, possibly none, as views that are valid until the next :meth:`shift`.
        """
        rows = self.tiling.rows
        origin = rows.starts[self.index] + rows.lead
        last = self.index + 1 == len(rows.starts)
        end = rows.extent if last else min(rows.starts[self.index + 1] + rows.lead, rows.extent)
        first = max(origin, 0)
        here = slice(first - origin, max(end, first) - origin)
        return FinishedRows(first, self._sums[:, here], self._valid[here])

    def shift(self) -> None:
        """Proceed to the next row of windows; the distance depends on the positions alone."""
        rows = self.tiling.rows
        self.index += 1
        if self.index == len(rows.starts):
            return
        step = rows.starts[self.index] - rows.starts[self.index - 1]
        # Channel by channel, since NumPy copies an array that is assigned to an overlapping part of itself.
        for plane in (*self._sums, self._valid):
            plane[: rows.span - step] = plane[step:]
            plane[rows.span - step :] = 0


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)
