"""What a portion of a scene adds to a survey: counts of values, moments, pixels with data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.geo.band_statistics.histograms import HALF, TABLE_SIZE, Halves, count_values, ordered_keys
from torchgeo_msssl.geo.band_statistics.moments import BandStatistics, block_statistics
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene, with_data
from torchgeo_msssl.geo.warp import WarpedScene


@dataclass(frozen=True)
class Portion:
    """Some windows of a scene, to be read by one process.

    Attributes:
        index: Number of the scene.
        scene: The scene.
        how: Its scale and offset.
        windows: Windows on its grid.
    """

    index: int
    scene: Scene
    how: Radiometry
    windows: tuple[Window, ...]

    @property
    def area(self) -> int:
        """Pixels in its windows."""
        return sum(window.area for window in self.windows)


@dataclass
class Tally:
    """What one portion tells, or several together.

    Attributes:
        counts: How often each value, or each upper half, occurs in each band, shape (band, place).
        own: Pixels at which each band for itself has data, shape (band,).
        moments: Of the pixels that are valid in all bands.
        least: Smallest values, shape (band,).
        most: Largest values, shape (band,).
        pixels: Pixels that are valid in all bands.
    """

    counts: NDArray[np.int64]
    own: NDArray[np.int64]
    moments: BandStatistics
    least: NDArray[np.float64]
    most: NDArray[np.float64]
    pixels: int = 0


def empty_tally(bands: int, places: int) -> Tally:
    """A tally of nothing.

    Args:
        bands: Number of bands.
        places: Number of different values, or upper halves, that are counted.

    Returns:
        The tally.
    """
    return Tally(
        np.zeros((bands, places), np.int64),
        np.zeros(bands, np.int64),
        no_moments(bands),
        np.full(bands, np.inf),
        np.full(bands, -np.inf),
    )


def no_moments(bands: int) -> BandStatistics:
    """Moments of no pixel."""
    return BandStatistics(0, np.zeros(bands), np.zeros(bands))


def _pixels(portion: Portion, bands: Sequence[str]) -> Iterator[tuple[Window, NDArray[np.generic], NDArray[np.bool_]]]:
    """Read the windows of a portion one by one."""
    for window in portion.windows:
        yield window, *portion.scene.read(window, bands)
    close_datasets()  # with them go the decoded blocks, of which GDAL keeps as many as a twentieth of the memory holds


def count_every_value(portion: Portion, bands: Sequence[str]) -> Tally:
    """Count the digital numbers of a portion of a scene with integers of at most 16 bits.

    Args:
        portion: What to read.
        bands: Canonical names.

    Returns:
        Counts of every value; the moments follow from these and stay empty.

    Raises:
        SceneReadError: If the scene is damaged there.
    """
    tally = empty_tally(len(bands), TABLE_SIZE)
    for window, image, valid in _pixels(portion, bands):
        tally.own += _own(portion.scene, window, bands, image)
        tally.pixels += int(valid.sum())
        for k in range(len(bands)):
            tally.counts[k] += count_values(image[k][valid])
    return tally


def count_upper_halves(portion: Portion, bands: Sequence[str]) -> Tally:
    """Count the upper halves of the reflectance of a portion, as the first of two passes.

    Args:
        portion: What to read.
        bands: Canonical names.

    Returns:
        Counts of upper halves, moments and extremes in reflectance.

    Raises:
        SceneReadError: If the scene is damaged there.
    """
    tally = empty_tally(len(bands), HALF)
    for window, image, valid in _pixels(portion, bands):
        tally.own += _own(portion.scene, window, bands, image)
        tally.pixels += int(valid.sum())
        tally.moments = tally.moments.merge(block_statistics(image, valid))
        for k, values in enumerate(_reflectance(image, valid, portion.how)):
            if len(values):
                tally.least[k] = min(tally.least[k], float(values.min()))
                tally.most[k] = max(tally.most[k], float(values.max()))
                tally.counts[k] += np.bincount(ordered_keys(values) >> np.uint32(16), minlength=HALF)
    tally.moments = tally.moments.to_reflectance(portion.how)
    return tally


def count_lower_halves(
    portion: Portion, bands: Sequence[str], halves: Sequence[Halves], edges: Sequence[NDArray[np.float64]]
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Count, as the second pass, the lower halves in which percentiles lie, with the bins of the histograms.

    Args:
        portion: What to read.
        bands: Canonical names.
        halves: Of each band, where the percentiles lie.
        edges: Of the histogram of each band.

    Returns:
        Counts of lower halves, and of bins, for each band.

    Raises:
        SceneReadError: If the scene is damaged there.
    """
    lower = [np.zeros((len(half.halves), HALF), np.int64) for half in halves]
    histogram = [np.zeros(len(edge) - 1, np.int64) for edge in edges]
    for _, image, valid in _pixels(portion, bands):
        for k, values in enumerate(_reflectance(image, valid, portion.how)):
            lower[k] += halves[k].count_lower(ordered_keys(values))
            histogram[k] += np.histogram(values, edges[k])[0]
    return lower, histogram


def _reflectance(
    image: NDArray[np.generic], valid: NDArray[np.bool_], how: Radiometry
) -> Iterator[NDArray[np.float32]]:
    """The valid values of each band."""
    for band, scale, offset in zip(image, how.scale, how.offset, strict=True):
        yield ((band[valid].astype(np.float64) + offset) * scale).astype(np.float32)


def _own(scene: Scene, window: Window, bands: Sequence[str], image: NDArray[np.generic]) -> NDArray[np.int64]:
    """Pixels at which each band for itself has data."""
    file = scene.files[0]
    if len(scene.files) > 1 or file.masked or isinstance(scene, WarpedScene):  # more than the values decides
        return np.array([scene.read(window, [band])[1].sum() for band in bands])
    alone = [with_data(image[k : k + 1], [band], file.nodata, scene.nodata) for k, band in enumerate(bands)]
    return np.array([valid.sum() for valid in alone])
