"""A threshold on a vegetation index, the simplest baseline of vegetation maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.errors import BandError

#: Number of steps in which indices are counted, from −2 to 2, the range of both of them.
STEPS = 4000
_LOW, _HIGH = -2.0, 2.0
#: Wavelengths in nanometres, and the maximum distance of a band from them.
_RED, _NIR, _NEAR = 665.0, 840.0, 60.0


@dataclass(frozen=True)
class Threshold:
    """A threshold on an index.

    Attributes:
        index: ``NDVI`` or ``ExG``.
        value: The threshold.
        above: Whether the class lies above it.
    """

    index: str
    value: float
    above: bool

    def __str__(self) -> str:
        """The rule, such as ``NDVI > 0.412``."""
        return f'{self.index} {">" if self.above else "≤"} {self.value:.3f}'


def find_bands(bands: Sequence[str], wavelengths: Sequence[float | None]) -> tuple[str, tuple[int, ...]]:
    """Choose an index that can be computed from bands.

    Args:
        bands: Names of the bands.
        wavelengths: Central wavelength of each in nanometres, None where unknown.

    Returns:
        ``('NDVI', (red, nir))``, or ``('ExG', (red, green, blue))`` without near infrared, with channel indices.

    Raises:
        BandError: If neither can be computed.
    """
    known = {i: wavelength for i, wavelength in enumerate(wavelengths) if wavelength is not None}

    def nearest(aim: float) -> int | None:
        best = min(known, key=lambda i: abs(known[i] - aim), default=None)
        return best if best is not None and abs(known[best] - aim) <= _NEAR else None

    red, nir = nearest(_RED), nearest(_NIR)
    if red is not None and nir is not None and red != nir:
        return 'NDVI', (red, nir)
    if {'red', 'green', 'blue'} <= set(bands):
        return 'ExG', (bands.index('red'), bands.index('green'), bands.index('blue'))
    raise BandError(f'bands: {", ".join(bands)} allow neither NDVI (red, near infrared) nor ExG (red, green, blue).')


def vegetation_index(reflectance: Tensor, index: str, positions: Sequence[int]) -> Tensor:
    """Compute NDVI (Rouse et al. 1974) or excess green (Woebbecke et al. 1995, https://doi.org/10.13031/2013.27838).

    Args:
        reflectance: (batch, band, height, width).
        index: ``NDVI``: (nir − red) / (nir + red); ``ExG``: (2 green − red − blue) / (red + green + blue).
        positions: Channels of the bands, see :func:`find_bands`.

    Returns:
        The index (batch, height, width), 0 without any reflectance.
    """
    parts = [reflectance[:, position] for position in positions]
    above, below = (
        (parts[1] - parts[0], parts[1] + parts[0])
        if index == 'NDVI'
        else (2 * parts[1] - parts[0] - parts[2], parts[0] + parts[1] + parts[2])
    )
    return torch.where(below.abs() > 1e-6, above / below.where(below.abs() > 1e-6, 1.0), 0.0)


def best_threshold(counts: NDArray[np.int64], index: str = 'NDVI') -> Threshold:
    """Find the threshold with the highest IoU.

    Args:
        counts: Pixels by class and step of the index, (2, step): other classes, then the class to find.
        index: Name of the index.

    Returns:
        The threshold.
    """
    others, wanted = counts.astype(np.float64)
    found = []
    for above in (True, False):
        order = slice(None, None, -1) if above else slice(None)
        hit, miss = wanted[order].cumsum(), others[order].cumsum()
        iou = hit / np.maximum(wanted.sum() + miss, 1)
        best = int(iou.argmax())
        edge = STEPS - 1 - best if above else best + 1
        found.append((iou[best], Threshold(index, _LOW + (_HIGH - _LOW) * edge / STEPS, above)))
    return max(found, key=lambda pair: pair[0])[1]


def index_steps(values: Tensor) -> Tensor:
    """Quantize index values for :func:`best_threshold`.

    Args:
        values: Index values.

    Returns:
        Integers from 0 to ``STEPS - 1`` in the same shape.
    """
    return ((values - _LOW) / (_HIGH - _LOW) * STEPS).floor().clamp(0, STEPS - 1).long()


def threshold_confusion(counts: NDArray[np.int64], threshold: Threshold) -> Tensor:
    """Count the pixels on each side of a threshold.

    Args:
        counts: Pixels by class and step of the index, (2, step).
        threshold: The threshold.

    Returns:
        Confusion matrix (2, 2); rows are labels, columns are predictions.
    """
    edge = round((threshold.value - _LOW) / (_HIGH - _LOW) * STEPS)
    low, high = counts[:, :edge].sum(axis=1), counts[:, edge:].sum(axis=1)
    columns = (low, high) if threshold.above else (high, low)
    return torch.from_numpy(np.stack(columns, axis=1))
