"""Counts and moments of a portion of a scene, to be added up."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.geo.band_statistics.histograms import HALF, TABLE_SIZE, Halves, count_values, ordered_keys
from torchgeo_msssl.geo.band_statistics.moments import BandStatistics, block_statistics, no_statistics
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.nodata import with_data
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.warp import WarpedScene


@dataclass(frozen=True)
class Portion:
    """Some windows of a scene, which one process reads.

    Attributes:
        index: Number of the scene.
        scene: The scene.
        radiometry: Its scale and offset.
        windows: Windows on its grid.
    """

    index: int
    scene: Scene
    radiometry: Radiometry
    windows: tuple[Window, ...]

    @property
    def area(self) -> int:
        """Number of pixels in its windows."""
        return sum(window.area for window in self.windows)


@dataclass
class Accumulator:
    """Counts and moments of one portion, or of several together.

    Attributes:
        counts: Occurrences of each value, or of each upper half, in each band, shape (band, value).
        band_pixels: Number of pixels at which each band has data, shape (band,).
        moments: Moments of the pixels that are valid in all bands.
        least: Smallest values, shape (band,).
        most: Largest values, shape (band,).
        pixels: Number of pixels that are valid in all bands.
    """

    counts: NDArray[np.int64]
    band_pixels: NDArray[np.int64]
    moments: BandStatistics
    least: NDArray[np.float64]
    most: NDArray[np.float64]
    pixels: int = 0


def empty_accumulator(bands: int, values: int) -> Accumulator:
    """Return an accumulator of no pixels.

    Args:
        bands: Number of bands.
        values: Number of different values, or upper halves, that are counted.
    """
    return Accumulator(
        np.zeros((bands, values), np.int64),
        np.zeros(bands, np.int64),
        no_statistics(bands),
        np.full(bands, np.inf),
        np.full(bands, -np.inf),
    )


def _pixels(portion: Portion, bands: Sequence[str]) -> Iterator[tuple[Window, NDArray[np.generic], NDArray[np.bool_]]]:
    """Read the windows of a portion one by one."""
    for window in portion.windows:
        yield window, *portion.scene.read(window, bands)
    close_datasets()  # which empties GDAL's block cache, by default 5 % of the memory


def count_every_value(portion: Portion, bands: Sequence[str]) -> Accumulator:
    """Count every digital number of a portion of integers of at most 16 bits; the moments stay empty."""
    total = empty_accumulator(len(bands), TABLE_SIZE)
    for window, image, valid in _pixels(portion, bands):
        total.band_pixels += _band_pixels(portion.scene, window, bands, image)
        total.pixels += int(valid.sum())
        for k in range(len(bands)):
            total.counts[k] += count_values(image[k][valid])
    return total


def count_upper_halves(portion: Portion, bands: Sequence[str]) -> Accumulator:
    """Count the upper halves of the reflectance of a portion, with its moments and extremes, in the first pass."""
    total = empty_accumulator(len(bands), HALF)
    for window, image, valid in _pixels(portion, bands):
        total.band_pixels += _band_pixels(portion.scene, window, bands, image)
        total.pixels += int(valid.sum())
        total.moments = total.moments.merge(block_statistics(image, valid))
        for k, values in enumerate(_reflectance(image, valid, portion.radiometry)):
            if len(values):
                total.least[k] = min(total.least[k], float(values.min()))
                total.most[k] = max(total.most[k], float(values.max()))
                total.counts[k] += np.bincount(ordered_keys(values) >> np.uint32(16), minlength=HALF)
    total.moments = total.moments.to_reflectance(portion.radiometry)
    return total


def count_lower_halves(
    portion: Portion, bands: Sequence[str], halves: Sequence[Halves], edges: Sequence[NDArray[np.float64]]
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Count the lower halves that contain percentiles, and the bins of the histograms, in the second pass.

    Args:
        portion: Windows to read.
        bands: Canonical names.
        halves: Upper halves that contain percentiles, of each band.
        edges: Bin edges of the histogram of each band.

    Returns:
        Counts of lower halves and counts of bins of each band.
    """
    lower = [np.zeros((len(half.halves), HALF), np.int64) for half in halves]
    histogram = [np.zeros(len(edge) - 1, np.int64) for edge in edges]
    for _, image, valid in _pixels(portion, bands):
        for k, values in enumerate(_reflectance(image, valid, portion.radiometry)):
            lower[k] += halves[k].count_lower(ordered_keys(values))
            histogram[k] += np.histogram(values, edges[k])[0]
    return lower, histogram


def _reflectance(
    image: NDArray[np.generic], valid: NDArray[np.bool_], radiometry: Radiometry
) -> Iterator[NDArray[np.float32]]:
    """Yield the valid values of each band."""
    for band, scale, offset in zip(image, radiometry.scale, radiometry.offset, strict=True):
        yield ((band[valid].astype(np.float64) + offset) * scale).astype(np.float32)


def _band_pixels(scene: Scene, window: Window, bands: Sequence[str], image: NDArray[np.generic]) -> NDArray[np.int64]:
    """Count the pixels at which each band has data."""
    file = scene.files[0]
    if len(scene.files) > 1 or file.masked or isinstance(scene, WarpedScene):  # not decided by the values alone
        return np.array([scene.read(window, [band])[1].sum() for band in bands])
    alone = [with_data(image[k : k + 1], [band], file.nodata, scene.nodata) for k, band in enumerate(bands)]
    return np.array([valid.sum() for valid in alone])
