"""Cutting of chips, one task at a time."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo.band_statistics.moments import pixel_statistics, valid_pixels
from torchgeo_msssl.geo.chipping.options import ALL, ChipOptions
from torchgeo_msssl.geo.chipping.plan import Chip, Facts, Rejection, lacks_data, rejection
from torchgeo_msssl.geo.chipping.write import ChipFormat, encode_mask, write_complete
from torchgeo_msssl.geo.scene import Scene

if TYPE_CHECKING:  # labels import pandas and geopandas, which takes as long as all other imports
    from torchgeo_msssl.geo.chipping.labels import ChipLabels

#: Minimum and maximum size of GDAL's cache of decoded blocks, in bytes.
_LEAST_CACHE, _MOST_CACHE = 32 * 2**20, 128 * 2**20
#: Chips per task: enough that tasks share few blocks, few enough that a killed run loses little.
_TASK = 64
#: Chips per task if tasks share no blocks: few, so that all processes finish at about the same time.
_SMALL_TASK = 8


@dataclass(frozen=True)
class Job:
    """Input of the worker processes.

    Attributes:
        scenes: The scenes.
        formats: Format of the chips of each scene.
        labels: Labels that masks are written from, or None.
        options: Options of the chips.
        folder: The output folder.
        step: Distance in rows and columns of the pixels that statistics are computed from.
    """

    scenes: tuple[Scene, ...]
    formats: tuple[ChipFormat, ...]
    labels: 'ChipLabels | None'
    options: ChipOptions
    folder: Path
    step: int

    @property
    def foreground(self) -> tuple[bool, ...]:
        """Whether each class is not background; empty without labels."""
        return self.labels.foreground if self.labels else ()

    def image(self, chip: Chip) -> str:
        """Return the path of a chip's image, relative to the output folder."""
        return self._path(chip, 'images')

    def mask(self, chip: Chip) -> str:
        """Return the path of a chip's mask, relative to the output folder."""
        return self._path(chip, 'masks')

    def _path(self, chip: Chip, kind: str) -> str:
        name = f'{kind}/{chip.stem(self.scenes[chip.scene])}.tif'
        return name if chip.part == ALL else f'{chip.part}/{name}'

    def rejection(self, chip: Chip, facts: Facts) -> Rejection:
        """See :func:`~torchgeo_msssl.geo.chipping.plan.rejection`."""
        return rejection(chip, self.scenes[chip.scene], facts, self.foreground, self.options)


@dataclass(frozen=True)
class Outcome:
    """Result for a chip.

    Attributes:
        chip: The chip.
        facts: Its content, or None if the scene could not be read.
        size: Size of its image in bytes; 0 if none was written.
        mask_size: Size of its mask in bytes.
        failure: Reason why the scene could not be read, or an empty text.
    """

    chip: Chip
    facts: Facts | None
    size: int = 0
    mask_size: int = 0
    failure: str = ''


def cut(job: Job, chips: Sequence[Chip]) -> list[Outcome]:
    """Write the chips of a task.

    Args:
        job: The job.
        chips: Chips of one scene.

    Returns:
        Outcomes; the last one is the first that cannot be read.

    Raises:
        OutputError: If the disk is full.
        MSSSLError: If labels are damaged, or hold a value that is no class.
    """
    outcomes: list[Outcome] = []
    parent = os.getppid()
    for chip in chips:
        if os.getppid() != parent:  # the run was killed, and may have been resumed already
            break
        outcomes.append(_cut_one(job, chip))
        if outcomes[-1].failure:
            break
    return outcomes


def _cut_one(job: Job, chip: Chip) -> Outcome:
    facts, image, mask = encode(job, chip, always=False)
    if facts is None or image is None:
        return Outcome(chip, facts, failure=mask.decode() if facts is None else '')
    write_complete(job.folder / job.image(chip), image)
    if job.labels is not None:
        write_complete(job.folder / job.mask(chip), mask)
    return Outcome(chip, facts, len(image), len(mask))


def encode(job: Job, chip: Chip, always: bool) -> tuple[Facts | None, bytes | None, bytes]:
    """Encode the files of a chip in memory.

    Args:
        job: The job.
        chip: The chip.
        always: Whether to encode them even if the chip is rejected.

    Returns:
        Content of the chip, its image (None if it is rejected) and its mask (empty without labels); for a scene that
        cannot be read, None, None and the reason.
    """
    scene, form = job.scenes[chip.scene], job.formats[chip.scene]
    inside = chip.window.intersection(scene.grid.window)
    most = inside.area if inside is not None else 0
    if not always and lacks_data(chip, most, job.options):
        return Facts(most), None, b''  # so far beyond the border that no pixel has to be read
    try:
        image, valid = form.read(chip.window)
    except SceneReadError as error:
        return None, None, str(error).encode()
    mask = job.labels.mask(scene, chip.window) if job.labels else None
    classes = job.labels.count(mask, valid) if job.labels and mask is not None else ()
    step = slice(None, None, job.step)
    facts = Facts(int(np.count_nonzero(valid)), classes, _moments(image[:, step, step], valid[step, step]))
    if not always and job.rejection(chip, facts):
        return facts, None, b''
    encoded = b'' if mask is None else encode_mask(mask, scene.grid.cut(chip.window), job.options.compress)
    return facts, form.encode(image, valid, chip.window), encoded


def _moments(image: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Count, mean, sum of squared deviations, minimum and maximum of each band, shape (5, band)."""
    pixels = valid_pixels(image, valid)
    moments = np.zeros((5, len(image)))
    moments[3], moments[4] = np.inf, -np.inf
    if pixels.size:
        found = pixel_statistics(pixels)
        moments[0], moments[1], moments[2] = found.count, found.mean, found.m2
        pixels.min(axis=1, out=moments[3])
        pixels.max(axis=1, out=moments[4])
    return moments


def tasks_of(scene: Scene, bands: int, chips: Sequence[Chip], workers: int) -> Iterator[list[Chip]]:
    """Divide the chips of a scene into tasks that share few stored blocks.

    Args:
        scene: The scene.
        bands: Number of bands to read.
        chips: Its chips, row by row.
        workers: Number of processes.

    Yields:
        Whole rows of neighbouring chips, at most as wide as the cache of blocks; parts of rows if chips share no
        blocks.
    """
    if not chips:
        return
    size = chips[0].window.height
    per_column = _cache_need(scene, bands, size, 1)
    width = max(size, _MOST_CACHE // per_column)
    if scene.block_shape[1] >= scene.grid.width:  # strips are decoded as a whole
        width = scene.grid.width
    ordered = sorted(chips, key=lambda chip: (chip.window.col // width, chip.window))
    rows_apart, apart = _are_apart(scene, chips)
    length = max(1, min(_SMALL_TASK if rows_apart else _TASK, -(-len(chips) // (4 * workers))))
    task: list[Chip] = []
    for chip, following in zip(ordered, [*ordered[1:], None], strict=True):
        task.append(chip)
        if following is None or (len(task) >= length and (apart or following.window.row != chip.window.row)):
            yield task
            task = []


def _are_apart(scene: Scene, chips: Sequence[Chip]) -> tuple[bool, bool]:
    """Whether no two rows of chips share a stored block, and whether no two chips do."""
    height, width = min(scene.block_shape[0], scene.grid.height), min(scene.block_shape[1], scene.grid.width)
    windows = [chip.window for chip in chips]
    rows = all(window.row % height == 0 and window.height % height == 0 for window in windows)
    return rows, rows and all(window.col % width == 0 and window.width % width == 0 for window in windows)


def cache_bytes(scenes: Sequence[Scene], bands: int, size: int) -> int:
    """Compute the cache size with which each block is decoded once, that of the blocks under a row of chips.

    Args:
        scenes: The scenes.
        bands: Number of bands to read.
        size: Side of a chip in pixels.

    Returns:
        Bytes, for ``GDAL_CACHEMAX``.
    """
    need = max((_cache_need(scene, bands, size, scene.grid.width) for scene in scenes), default=0)
    return min(max(need, _LEAST_CACHE), _MOST_CACHE)


def _cache_need(scene: Scene, bands: int, size: int, width: int) -> int:
    height = min(scene.block_shape[0], scene.grid.height)
    stored = max(bands, len(scene.files[0].names))
    return (size + height) * width * stored * scene.dtype.itemsize * 5 // 4
