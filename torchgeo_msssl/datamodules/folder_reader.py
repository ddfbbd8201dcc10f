"""Chips read from a folder in which they were cut beforehand."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from torchgeo_msssl.bands import Sensor
from torchgeo_msssl.datamodules.chip_statistics import chip_statistics, manifest_statistics
from torchgeo_msssl.datamodules.labelled_chips import choose_labelled_chips
from torchgeo_msssl.datamodules.reader import (
    file_statistics,
    measured_statistics,
    warn_of_numbered_bands,
)
from torchgeo_msssl.datasets.chip_files import Channels
from torchgeo_msssl.datasets.chips import Chips, chip_splits
from torchgeo_msssl.datasets.paired import BatchDataset
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.band_choice import spectral_bands
from torchgeo_msssl.geo.chipping.options import ALL
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.ground.parts import PARTS
from torchgeo_msssl.geo.ground_size import pixel_size
from torchgeo_msssl.geo.labels.classes import ClassNames
from torchgeo_msssl.geo.labels.values import check_foreground, name_values
from torchgeo_msssl.geo.radiometry import Radiometry, warn_of_guesses
from torchgeo_msssl.progress import progress_bar
from torchgeo_msssl.samplers.base import ChipSampler
from torchgeo_msssl.samplers.order import OrderedChips, ShuffledChips

log = logging.getLogger(__name__)

TRAIN = PARTS[0]
#: Name of the only class of masks that name none.
_FOREGROUND = 'class_1'


@dataclass(frozen=True)
class FolderOptions:
    """Chips to read, see :class:`~torchgeo_msssl.datasets.Chips`."""

    root: str
    bands: tuple[str, ...] | None
    sensor: str | None
    offset: float | Literal['auto']
    channels: Channels | None
    band_names: tuple[str, ...]
    masks: bool
    class_names: ClassNames | None = None
    ignore_index: int | tuple[int, ...] = 255

    def open(self, split: str) -> Chips:
        """Open the chips of a split."""
        return Chips(split=split, **vars(self))


class FolderReader:
    """Reads chips from a folder, see :class:`~torchgeo_msssl.datamodules.reader.ChipReader`."""

    def __init__(
        self,
        options: FolderOptions,
        part: str | None = None,
        window_size: int | None = None,
        length: int | None = None,
        count: Callable[[int], int] | None = None,
        seed: int = 0,
    ) -> None:
        """Open nothing yet.

        Args:
            options: Chips to read.
            part: Part of the folder to train on; None for ``train`` if the folder is divided, else ``all``.
            window_size: Side of the windows that are cut from chips, in pixels; None for whole chips.
            length: Training chips per epoch; None for each chip once.
            count: How many training chips of so many are used; None for all.
            seed: Seed of the choice among training chips.
        """
        self._options = options
        self._part = part
        self._window_size = window_size
        self._length = length
        self._count = count
        self._seed = seed
        self._chips: dict[str, Chips] = {}
        self._chosen_chips: list[int] | None = None

    def chips(self, part: str) -> Chips:
        """Return the chips of a part, opened at first use: their manifest or first header.

        Args:
            part: ``train``, ``val`` or ``test``.

        Raises:
            ConfigurationError: If there are no such chips, or they differ from those of another part.
            MSSSLError: If they cannot be read.
        """
        if part not in self._chips:
            chips = self._open(part)
            first = next(iter(self._chips.values()), chips)
            if (chips.bands, chips.size) != (first.bands, first.size):
                raise ConfigurationError(
                    f'paths: the {chips.split} chips in {chips.root} have {chips.size[0]} × {chips.size[1]} pixels of '
                    f'{", ".join(chips.bands)}, the {first.split} chips {first.size[0]} × {first.size[1]} of '
                    f'{", ".join(first.bands)}; cut them alike.'
                )
            self._chips[part] = chips
        return self._chips[part]

    def _open(self, part: str) -> Chips:
        root = self._options.root
        known = chip_splits(root)
        split = part if part != TRAIN else self._part or (TRAIN if TRAIN in known else ALL)
        if part != TRAIN and part not in known:
            raise ConfigurationError(
                f'paths: there are no {part} chips in {root}; cut them with `chip --split`, or add the folder.'
            )
        chips = self._options.open(split)
        if self._options.bands is None:
            self._options = replace(self._options, bands=spectral_bands(chips.bands, chips.root))
            if self._options.bands != chips.bands:
                chips = self._options.open(split)
        if self._options.masks:
            _check_masks(chips)
            if not chips.class_names:
                names = name_values(chips.mask_values(), _FOREGROUND, self._options.ignore_index)
                self._options = replace(self._options, class_names=names)
                return self._open(part)
            if part == TRAIN and chips.classes is not None:
                check_foreground(chips.mask_values(), chips.classes, 'paths')
        if part == TRAIN:
            _describe(chips)
        return chips

    @property
    def splits(self) -> tuple[str, ...]:
        """Those of ``train``, ``val`` and ``test`` that have chips, else ``all``."""
        return chip_splits(self._options.root)

    @property
    def bands(self) -> tuple[str, ...]:
        """Canonical names of the bands of a chip, in order."""
        return self.chips(TRAIN).bands

    @property
    def sensor(self) -> Sensor | None:
        """The sensor of the chips, None where unknown."""
        return self.chips(TRAIN).sensor

    @property
    def radiometry(self) -> Radiometry:
        """Scale and offset of the first chip."""
        return self.chips(TRAIN).source.radiometry(0)

    @property
    def chip_size(self) -> int:
        """Side of what a batch holds, in pixels.

        Raises:
            ConfigurationError: If chips are not square and no size was given.
        """
        if self._window_size is not None:
            return self._window_size
        height, width = self.chips(TRAIN).size
        if height != width:
            raise ConfigurationError(
                f'chip_size: the chips have {height} × {width} pixels; set it to {min(height, width)}.'
            )
        return height

    @property
    def pixel_size(self) -> float | None:
        """Side of a pixel of the first chip on the ground in metres, None where unknown."""
        return pixel_size(self.chips(TRAIN).source.origin(0)[1])

    def prepare(self) -> None:
        """Do nothing: a folder is divided already."""

    def before_training(self) -> None:
        """Do nothing: chips are read as they are."""

    def train_sampler(self) -> ChipSampler:
        """Return the sampler of training chips in random order."""
        return ShuffledChips(self.chips(TRAIN), self._window_size, self._length, chosen=self._chosen())

    def unlabelled_sampler(self, length: int) -> ChipSampler:
        """Return the sampler of all training chips in random order."""
        return ShuffledChips(self.chips(TRAIN), self._window_size, length)

    def _chosen(self) -> list[int] | None:
        """Training chips whose labels are used, see :func:`.labelled_chips.choose_labelled_chips`."""
        if self._count is not None and self._chosen_chips is None:
            self._chosen_chips = choose_labelled_chips(self.chips(TRAIN), self._count, self._seed)
        return self._chosen_chips

    def covering_sampler(self, part: str, all_ranks: bool = False) -> ChipSampler:
        """Return a sampler of the windows that cover the chips of a part, in order."""
        chosen = self._chosen() if part == TRAIN else None
        return OrderedChips(self.chips(part), self._window_size, all_ranks, chosen)

    def dataset(self, part: str) -> BatchDataset:
        """Return the chips of a part."""
        return self.chips(part)

    def unlabelled_dataset(self) -> BatchDataset:
        """Return the training chips."""
        return self.chips(TRAIN)

    def given_statistics(self, path: str) -> dict[str, Any]:
        """Return statistics from a file of the ``statistics`` command."""
        return file_statistics(path, self.bands, self.sensor)

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of the training chips, from their manifest or by reading them."""
        chips = self.chips(TRAIN)
        found = manifest_statistics(chips)
        if found is None:
            with progress_bar('Band statistics') as advance:
                found = chip_statistics(chips, on_progress=lambda done: advance(0, done))
        moments, radiometries = found
        return measured_statistics(moments, self.bands, radiometries, self.sensor) | {'chips': len(chips)}

    def describe(self, batch: dict[str, Tensor]) -> list[str]:
        """Return file and window of each chip of a training batch with ``chip`` and ``window``."""
        source = self.chips(TRAIN).source
        return [
            f'{source.describe(int(chip))} ({Window(*window)})'
            for chip, window in zip(batch['chip'], batch['window'].tolist(), strict=True)
        ]


def _check_masks(chips: Chips) -> None:
    if not chips.labelled:
        raise ConfigurationError(
            f'paths: the chips in {chips.root} have no masks; cut them with `chip --labels`, or add masks.'
        )


def _describe(chips: Chips) -> None:
    """Log what the chips are taken to be, so that no assumption stays silent."""
    sensor = chips.sensor.name if chips.sensor else 'unknown'
    height, width = chips.size
    log.info(
        '%d chips of %d × %d pixels, sensor %s, bands %s.', len(chips), height, width, sensor, ', '.join(chips.bands)
    )
    log.info('Reflectance of the first one: %s.', chips.source.radiometry(0).reason)
    warn_of_guesses([chips.source.radiometry(0)])
    warn_of_numbered_bands(chips.bands)
