"""What data modules read chips from: scenes, or a folder of chips that were cut beforehand."""

import logging
import os
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from torchgeo_msssl.bands import Sensor
from torchgeo_msssl.datasets.chip_folders import is_chip_folder
from torchgeo_msssl.datasets.paired import BatchDataset
from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.geo.band_statistics.file import read_statistics, unit_of
from torchgeo_msssl.geo.band_statistics.moments import BandStatistics
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.samplers.base import ChipSampler

log = logging.getLogger(__name__)

#: How ``paths`` are read.
ReaderName = Literal['auto', 'scenes', 'chips']


class ChipReader(Protocol):
    """Source of the chips of a data module.

    Files are opened when bands or chips are first used, their headers only.
    """

    @property
    def bands(self) -> tuple[str, ...]:
        """Canonical names of the bands of a chip, in order."""

    @property
    def sensor(self) -> Sensor | None:
        """The sensor of the bands, None where unknown."""

    @property
    def radiometry(self) -> Radiometry:
        """Scale and offset of the first scene or chip."""

    @property
    def pixel_size(self) -> float | None:
        """Side of a pixel on the ground in metres, None where unknown."""

    @property
    def chip_size(self) -> int:
        """Side of a chip in pixels."""

    def prepare(self) -> None:
        """Find out where chips can be, before the first sampler is made."""

    def train_sampler(self) -> ChipSampler:
        """Return the sampler of random training chips."""

    def unlabelled_sampler(self, length: int) -> ChipSampler:
        """Return the sampler of random chips of all training ground, whether its labels are used or not.

        Args:
            length: Chips per epoch over all ranks.
        """

    def covering_sampler(self, part: str, all_ranks: bool = False) -> ChipSampler:
        """Return a sampler that covers a part once, in order.

        Args:
            part: ``train``, ``val`` or ``test``.
            all_ranks: Give every rank of a distributed run all chips instead of its share.
        """

    def dataset(self, part: str) -> BatchDataset:
        """Return the dataset that the queries of a part's samplers index."""

    def unlabelled_dataset(self) -> BatchDataset:
        """Return the dataset that the queries of :meth:`unlabelled_sampler` index."""

    def before_training(self) -> None:
        """Do what only training needs, such as decoding scenes to a cache."""

    def statistics(self) -> dict[str, Any]:
        """Return ``mean`` and ``std`` of each band in reflectance, with what else is known about them."""

    def given_statistics(self, path: str) -> dict[str, Any]:
        """Return the same from a file of the ``statistics`` command."""

    def describe(self, batch: dict[str, Tensor]) -> list[str]:
        """Return file and window of each chip of a training batch."""


def reads_chips(paths: str | Sequence[str] | None, reader: ReaderName) -> bool:
    """Decide whether paths are a folder of chips or scenes, and log it.

    Args:
        paths: Files, folders or patterns; None for the sample area.
        reader: ``scenes``, ``chips``, or ``auto`` to recognize a folder of chips by its content.

    Returns:
        Whether to read chips.

    Raises:
        ConfigurationError: If there is no such reader, or more than one folder of chips.
    """
    if reader not in ('auto', 'scenes', 'chips'):
        raise ConfigurationError(f"reader: expected 'auto', 'scenes' or 'chips', got {reader!r}.")
    if paths is None:
        return reader == 'chips'
    listed = [os.path.expanduser(path) for path in ([paths] if isinstance(paths, str) else paths)]
    chips = reader == 'chips' or (reader == 'auto' and any(map(is_chip_folder, listed)))
    if chips and len(listed) > 1:
        raise ConfigurationError(
            f'paths: chips are read from one folder, got {len(listed)} paths ({listed[0]}, …); give one folder, or set '
            'reader to scenes if they are scenes.'
        )
    kind, other = ('a folder of chips', 'scenes') if chips else ('scenes', 'chips')
    how = f'set reader to {other} if that is wrong' if reader == 'auto' else f'reader: {reader}'
    log.info('Reading %s as %s (%s).', paths if isinstance(paths, str) else ', '.join(listed[:3]), kind, how)
    return chips


def file_statistics(
    path: str,
    bands: Sequence[str],
    sensor: Sensor | None,
    scenes: Sequence[Scene] = (),
    radiometries: Sequence[Radiometry] = (),
) -> dict[str, Any]:
    """Read statistics that the ``statistics`` command measured.

    Args:
        path: Its YAML file.
        bands: Canonical names of the bands.
        sensor: Their sensor, None where unknown.
        scenes: Scenes that may be among those measured.
        radiometries: Scale and offset of the bands of each scene.

    Returns:
        See :meth:`ChipReader.statistics`.

    Raises:
        BandError: If the file lacks a band.
        ConfigurationError: If the file cannot be used, or a scene was measured with another scale or offset.
    """
    known = read_statistics(path, bands, unit_of(sensor))
    name = sensor.name if sensor else None
    if known.sensor != name:
        log.warning(
            'statistics: %s was measured on sensor %s, the data are from %s: mean and std are matched by name only.',
            path,
            known.sensor,
            name,
        )
    for scene, radiometry in zip(scenes, radiometries, strict=True):
        known.check_scene(path, scene.path, radiometry)
    return {
        'bands': list(bands),
        'mean': list(known.mean),
        'std': list(known.std),
        'pixels': known.pixels,
        'unit': unit_of(sensor),
        'scenes': known.scenes,
        'file': path,
    }


def measured_statistics(
    moments: BandStatistics, bands: Sequence[str], radiometries: Sequence[Radiometry], sensor: Sensor | None
) -> dict[str, Any]:
    """Check statistics that were measured just now and describe them.

    Args:
        moments: Statistics in reflectance.
        bands: Canonical names of the bands.
        radiometries: Scale and offset of what was measured.
        sensor: Sensor of the bands, None where unknown.

    Returns:
        See :meth:`ChipReader.statistics`.

    Raises:
        BandError: If a band has one value everywhere.
    """
    # the mean of equal numbers is off by a rounding error, which is then their standard deviation
    magnitude = np.abs(moments.mean) + np.max([np.abs(np.multiply(how.scale, how.offset)) for how in radiometries])
    constant = [band for band, varies in zip(bands, moments.std > 1e-9 * magnitude, strict=True) if not varies]
    if constant:
        others = ', '.join(band for band in bands if band not in constant)
        remedy = f'leave it out with `bands: [{others}]`' if others else 'check the files'
        raise BandError(f'bands: {", ".join(constant)} has one value everywhere and carries no information; {remedy}.')
    return {
        'bands': list(bands),
        'mean': moments.mean.tolist(),
        'std': moments.std.tolist(),
        'pixels': moments.count,
        'unit': unit_of(sensor),
    }


def warn_of_numbered_bands(bands: Sequence[str]) -> None:
    """Warn if bands have no names.

    Args:
        bands: Canonical names.
    """
    if any(band.startswith('band_') for band in bands):
        log.warning('The files do not name their bands, which are numbered by position; set `sensor` to name them.')
