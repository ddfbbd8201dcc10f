"""Distribution of the values of each band of scenes, in one or two passes over all pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo.band_statistics.accumulator import (
    Portion,
    count_every_value,
    count_lower_halves,
    count_upper_halves,
    empty_accumulator,
)
from torchgeo_msssl.geo.band_statistics.histograms import (
    HALF,
    LEAST_VALUE,
    PERCENTILES,
    TABLE_SIZE,
    Halves,
    SortedValues,
    bin_edges,
    interpolate,
    is_narrow,
    ranks_of,
    values_of,
)
from torchgeo_msssl.geo.band_statistics.moments import BandStatistics, no_statistics, no_valid_pixel_error
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.valid_counts import streaming_windows
from torchgeo_msssl.processes import WorkerPool

#: Approximate number of pixels of a window, and number of windows of a portion.
_PIXELS, _WINDOWS = 500_000, 8

type Key = tuple[tuple[float, ...], tuple[float, ...]]

#: Percentiles that a histogram always includes.
_SHOWN = (0.1, 99.9)


@dataclass(frozen=True)
class BandSummary:
    """Distribution of the values of each band, in reflectance (in digital numbers if the sensor is unknown).

    All but ``valid_fraction`` concern the pixels that are valid in all bands, those that training sees.

    Attributes:
        moments: Count, mean and standard deviation.
        least: Smallest values, shape (band,).
        most: Largest values, shape (band,).
        percentiles: Percentiles :data:`~torchgeo_msssl.geo.band_statistics.histograms.PERCENTILES`, shape
            (percentile, band).
        valid_fraction: Fraction of all pixels at which the band has data, shape (band,).
        scene_pixels: Number of valid pixels of each scene.
        edges: Bin edges of the histogram of each band.
        histogram: Number of pixels in each bin of each band.
    """

    moments: BandStatistics
    least: NDArray[np.float64]
    most: NDArray[np.float64]
    percentiles: NDArray[np.float64]
    valid_fraction: NDArray[np.float64]
    scene_pixels: tuple[int, ...]
    edges: tuple[NDArray[np.float64], ...]
    histogram: tuple[NDArray[np.int64], ...]


class UnreadableScenesError(SceneReadError):
    """Some scenes cannot be read; the message is that of the first one.

    Args:
        failed: Reason by the number of the scene.
    """

    def __init__(self, failed: dict[int, SceneReadError]) -> None:
        """Take over the message of the first scene."""
        super().__init__(str(failed[min(failed)]))
        self.failed = failed


@dataclass(frozen=True)
class ValueCounts:
    """Counts of all values of scenes of integers of at most 16 bits.

    Attributes:
        tables: Occurrences of each value in each band, shape (band, value), by scale and offset.
        band_pixels: Number of pixels at which each band has data, shape (band,).
        pixels: Number of pixels of each scene that are valid in all bands.
    """

    tables: dict[Key, NDArray[np.int64]]
    band_pixels: NDArray[np.int64]
    pixels: list[int]

    def merge(self, other: 'ValueCounts') -> 'ValueCounts':
        """Return the counts of these scenes, followed by those of other scenes."""
        tables = dict(self.tables)
        for key, counts in other.tables.items():
            tables[key] = tables[key] + counts if key in tables else counts
        return ValueCounts(tables, self.band_pixels + other.band_pixels, [*self.pixels, *other.pixels])


def count_values_of(
    scenes: Sequence[Scene],
    bands: Sequence[str],
    radiometries: Sequence[Radiometry],
    num_workers: int = 1,
    on_progress: Callable[[float], None] | None = None,
    find_all: bool = False,
) -> ValueCounts:
    """Count the values of scenes of integers of at most 16 bits.

    Args:
        scenes: Scenes; none gives empty counts.
        bands: Canonical names.
        radiometries: Scale and offset of each scene.
        num_workers: Number of processes that read.
        on_progress: Called with the fraction done after each portion.
        find_all: Look for all scenes that cannot be read before the error is raised.

    Returns:
        The counts.

    Raises:
        UnreadableScenesError: If a scene is damaged.
    """
    total = ValueCounts({}, np.zeros(len(bands), dtype=np.int64), [0] * len(scenes))
    passes = _Passes(scenes, radiometries, num_workers, 1, on_progress, find_all)
    for portion, part in passes.run(partial(count_every_value, bands=tuple(bands))):
        key = portion.radiometry.scale, portion.radiometry.offset
        total.tables[key] = total.tables[key] + part.counts if key in total.tables else part.counts
        total.band_pixels[...] += part.band_pixels
        total.pixels[portion.index] += part.pixels
    return total


def summarize_bands(
    scenes: Sequence[Scene],
    bands: Sequence[str],
    radiometries: Sequence[Radiometry],
    bins: int = 256,
    num_workers: int = 1,
    on_progress: Callable[[float], None] | None = None,
    find_all: bool = False,
) -> BandSummary:
    """Read every pixel of scenes and summarize the values of each band.

    Args:
        scenes: Scenes.
        bands: Canonical names.
        radiometries: Scale and offset of each scene.
        bins: Largest number of bins of a histogram.
        num_workers: Number of processes that read; 1 reads in this process. The result does not depend on it.
        on_progress: Called with the fraction done after each portion.
        find_all: Look for all scenes that cannot be read before the error is raised.

    Returns:
        The summary.

    Raises:
        ValidDataError: If no pixel is valid in all bands.
        UnreadableScenesError: If a scene is damaged.
    """
    if all(is_narrow(scene.dtype) for scene in scenes):
        counts = count_values_of(scenes, bands, radiometries, num_workers, on_progress, find_all)
        return summarize_counts(counts, scenes, bands, bins)
    return _summarize_wide(_Passes(scenes, radiometries, num_workers, 2, on_progress, find_all), bands, bins)


class _Passes:
    """Passes over all portions of the scenes, with progress."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        radiometries: Sequence[Radiometry],
        num_workers: int,
        number: int,
        on_progress: Callable[[float], None] | None,
        find_all: bool,
    ) -> None:
        self.find_all = find_all
        self.scenes, self.num_workers, self.on_progress = scenes, num_workers, on_progress
        self.portions = [
            Portion(i, scene, radiometry, tuple(windows[start : start + _WINDOWS]))
            for i, (scene, radiometry) in enumerate(zip(scenes, radiometries, strict=True))
            for windows in [streaming_windows(scene, _PIXELS)]
            for start in range(0, len(windows), _WINDOWS)
        ]
        self.area, self.done = sum(scene.grid.window.area for scene in scenes), 0
        self.total = number * self.area

    def run[T](self, function: Callable[[Portion], T]) -> Iterator[tuple[Portion, T]]:
        """Yield each portion and the function's result for it, in order."""
        failed: dict[int, SceneReadError] = {}
        with WorkerPool(self.num_workers) as pool:
            results = pool.map(partial(_attempt, function), self.portions, ordered=True)
            for portion, result in zip(self.portions, results, strict=True):
                self.done += portion.area
                if self.on_progress:
                    self.on_progress(self.done / self.total)
                if not isinstance(result, SceneReadError):
                    yield portion, result
                    continue
                failed.setdefault(portion.index, result)
                if not self.find_all:
                    break
        if failed:
            raise UnreadableScenesError(failed)


def _attempt[T](function: Callable[[Portion], T], portion: Portion) -> T | SceneReadError:
    """Return the error of a scene that cannot be read, so that the others are read."""
    try:
        return function(portion)
    except SceneReadError as error:
        return error


def summarize_counts(
    counts: ValueCounts, scenes: Sequence[Scene], bands: Sequence[str], bins: int = 256
) -> BandSummary:
    """Summarize integers of at most 16 bits whose values have been counted.

    Args:
        counts: Counts of all scenes.
        scenes: The scenes.
        bands: Canonical names.
        bins: Largest number of bins of a histogram.

    Returns:
        The summary.

    Raises:
        ValidDataError: If no pixel is valid in all bands.
    """
    tables = counts.tables
    _check_valid(scenes, bands, counts.band_pixels, sum(counts.pixels))
    moments = no_statistics(len(bands))
    for (scale, offset), table in tables.items():
        moments = moments.merge(_table_moments(table).to_reflectance(Radiometry(scale, offset, '')))
    columns = [
        SortedValues.of_tables([(table[k], scale[k], offset[k]) for (scale, offset), table in tables.items()])
        for k in range(len(bands))
    ]
    steps = [min(abs(scale[k]) for scale, _ in tables) for k in range(len(bands))]
    edges = tuple(_edges(column, moments.count, bins, step) for column, step in zip(columns, steps, strict=True))
    return BandSummary(
        moments,
        np.array([column.values[0] for column in columns]),
        np.array([column.values[-1] for column in columns]),
        np.array([[interpolate(moments.count, q, column.at) for column in columns] for q in PERCENTILES]),
        counts.band_pixels / sum(scene.grid.window.area for scene in scenes),
        tuple(counts.pixels),
        edges,
        tuple(
            np.histogram(column.values, edge, weights=column.counts)[0].astype(np.int64)
            for column, edge in zip(columns, edges, strict=True)
        ),
    )


def _edges(column: SortedValues, count: int, bins: int, step: float) -> NDArray[np.float64]:
    low, high = (interpolate(count, q, column.at) for q in _SHOWN)
    return bin_edges(float(column.values[0]), low, high, float(column.values[-1]), bins, step)


def _summarize_wide(passes: _Passes, bands: Sequence[str], bins: int) -> BandSummary:
    """Summarize in two passes: count the upper halves of all values, then the lower halves of some of them."""
    first, pixels = empty_accumulator(len(bands), HALF), [0] * len(passes.scenes)
    for portion, part in passes.run(partial(count_upper_halves, bands=tuple(bands))):
        first.counts += part.counts
        first.band_pixels += part.band_pixels
        first.moments = first.moments.merge(part.moments)
        first.least, first.most = (
            np.minimum(first.least, part.least),
            np.maximum(first.most, part.most),
        )
        pixels[portion.index] += part.pixels
    _check_valid(passes.scenes, bands, first.band_pixels, sum(pixels))
    count = first.moments.count
    halves = tuple(Halves.find(counts, ranks_of(count, PERCENTILES)) for counts in first.counts)
    edges = tuple(
        bin_edges(first.least[k], *_rough(first.counts[k], count), first.most[k], bins) for k in range(len(bands))
    )
    lower = [np.zeros((len(half.halves), HALF), np.int64) for half in halves]
    histogram = [np.zeros(len(edge) - 1, np.int64) for edge in edges]
    for _, (some, inside) in passes.run(partial(count_lower_halves, bands=tuple(bands), halves=halves, edges=edges)):
        for k in range(len(bands)):
            lower[k] += some[k]
            histogram[k] += inside[k]
    columns = [partial(half.at, lower=counts) for half, counts in zip(halves, lower, strict=True)]
    return BandSummary(
        first.moments,
        first.least,
        first.most,
        np.array([[interpolate(count, q, column) for column in columns] for q in PERCENTILES]),
        first.band_pixels / passes.area,
        tuple(pixels),
        edges,
        tuple(histogram),
    )


def _table_moments(counts: NDArray[np.int64]) -> BandStatistics:
    """Return the moments of the digital numbers in a table, shape (band, TABLE_SIZE)."""
    number = int(counts[0].sum())
    if number == 0:
        return no_statistics(len(counts))
    values = np.arange(TABLE_SIZE) + LEAST_VALUE
    mean = (counts @ values) / number  # a sum of integers, exact
    m2 = np.array([(row * (values - middle) ** 2).sum() for row, middle in zip(counts, mean, strict=True)])
    return BandStatistics(number, mean, m2)


def _rough(counts: NDArray[np.int64], count: int) -> tuple[float, float]:
    """Return approximate percentiles that a histogram includes, from the counts of upper halves."""
    ends = np.cumsum(counts)
    low, high = (int(np.searchsorted(ends, (count - 1) * (q / 100), side='right')) for q in _SHOWN)
    below, above = values_of(np.array([low * HALF, high * HALF + HALF - 1], dtype=np.uint32))
    return float(below), float(above)


def _check_valid(scenes: Sequence[Scene], bands: Sequence[str], band_pixels: NDArray[np.int64], pixels: int) -> None:
    if not pixels:
        empty = [band for band, number in zip(bands, band_pixels, strict=True) if number == 0]
        reason = f' ({", ".join(empty)} has no data at all)' if empty else ' (the data of the bands do not overlap)'
        raise no_valid_pixel_error(scenes, bands, reason)
