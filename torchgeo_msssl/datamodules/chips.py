"""Chips that were cut beforehand, for pretraining."""

import logging
import os
import warnings
from typing import Any, Literal

from torch import Tensor

from torchgeo_msssl.bands import Sensor
from torchgeo_msssl.datamodules.chip_sample import SampleScenes, sample_chips
from torchgeo_msssl.datamodules.chip_statistics import chip_statistics, manifest_statistics
from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.datamodules.spectral import (
    SpectralDataModule,
    check_at_least,
    check_spread,
    spectral_bands,
    warn_of_numbers,
)
from torchgeo_msssl.datasets.chip_files import Channels
from torchgeo_msssl.datasets.chips import Chips, chip_splits
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.band_statistics.file import unit_of
from torchgeo_msssl.geo.chipping.options import ALL, PARTS
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.progress import progress_bar
from torchgeo_msssl.samplers.order import OrderedChips, ShuffledChips

TRAIN, VAL, _ = PARTS

log = logging.getLogger(__name__)


class ChipsDataModule(SpectralDataModule):
    """Chips without labels for pretraining, in an order that depends on seed and epoch alone."""

    #: Whether masks are read.
    reads_masks = False

    def __init__(
        self,
        root: str | None = None,
        bands: list[str] | None = None,
        sensor: str | None = None,
        split: str | None = None,
        chip_size: int | None = None,
        chips_per_epoch: int | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        channels: Channels | None = None,
        band_names: list[str] | None = None,
        offset: float | Literal['auto'] = 'auto',
        statistics: str | None = None,
        validation: bool = False,
        predict_paths: str | list[str] | None = None,
        sample_dir: str = 'data/sample',
        sample: SampleScenes = 's2',
    ) -> None:
        """Note what to read; files are opened when bands or chips are first asked for.

        Args:
            root: Folder that the command ``chip`` wrote, or another one with chips (see
                :class:`~torchgeo_msssl.datasets.Chips`); None cuts chips out of the sample area.
            bands: Bands by name; None for all that the chips have.
            sensor: Sensor name, where the files do not tell (see :data:`torchgeo_msssl.bands.SENSORS`).
            split: Chips to train on; None for ``train`` where the chips are divided, else ``all``.
            chip_size: Side of the windows that are cut from the chips at random, in pixels; None for whole chips.
            chips_per_epoch: Chips of an epoch over all ranks; None for each chip once.
            batch_size: Chips of a batch on each rank.
            num_workers: Processes that read chips; 0 reads in the main process.
            channels: ``.npy`` files: which axis holds the bands, ``first`` or ``last``.
            band_names: Names of the bands in order, where the files do not tell.
            offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
            statistics: YAML of the command ``statistics``; None for what the manifest says, else they are measured.
            validation: Whether the chips of ``val`` are for validation, for methods that restore pixels.
            predict_paths: Scenes to restore with ``predict``.
            sample_dir: Where the sample area is, or is made.
            sample: Which of its scenes are cut where there is no ``root``.

        Raises:
            ConfigurationError: If a number is out of range.
        """
        super().__init__(Chips, batch_size, num_workers)
        if chip_size is not None:
            check_at_least('chip_size', chip_size, 1)
        if chips_per_epoch is not None and chips_per_epoch < batch_size:
            msg = f'chips_per_epoch: {chips_per_epoch} chips make no batch of batch_size {batch_size}.'
            raise ConfigurationError(msg)
        # most methods have nothing to validate, and would be told at each start that they leave chips unused
        warnings.filterwarnings('ignore', 'You passed in a `val_dataloader` but have no `validation_step`')
        self.root = root
        self.split = split
        self.sensor = sensor
        self.window_size = chip_size
        self.chips_per_epoch = chips_per_epoch
        self.offset_option: float | Literal['auto'] = offset
        self.statistics = statistics
        self.validation = validation
        self.predict_paths = predict_paths
        self.sample_dir = sample_dir
        self.sample = sample
        self.options: dict[str, Any] = {
            'bands': bands, 'sensor': sensor, 'channels': channels, 'band_names': band_names or (), 'offset': offset,
        }  # fmt: skip
        self._chips: dict[str, Chips] = {}
        self.sampler: ShuffledChips | None = None

    def chips(self, part: str) -> Chips:
        """The chips of a part, opened at first use (their manifest or first header).

        Args:
            part: ``train``, ``val`` or ``test``.

        Returns:
            The dataset.

        Raises:
            MSSSLError: If the chips do not suit.
        """
        if part not in self._chips:
            chips = self._open(part)
            first = next(iter(self._chips.values()), chips)
            if (chips.bands, chips.size) != (first.bands, first.size):
                msg = (
                    f'root: the {chips.split} chips in {chips.root} have {chips.size[0]} × {chips.size[1]} pixels of '
                    f'{", ".join(chips.bands)}, the {first.split} chips {first.size[0]} × {first.size[1]} of '
                    f'{", ".join(first.bands)}; cut them alike.'
                )
                raise ConfigurationError(msg)
            self._chips[part] = chips
        return self._chips[part]

    def _open(self, part: str) -> Chips:
        if self.root is None:
            self.root = sample_chips(self.sample_dir, self.sample)
        known = chip_splits(os.path.expanduser(self.root))
        split = part if part != TRAIN else self.split or (TRAIN if TRAIN in known else ALL)
        if part != TRAIN and part not in known:
            msg = f'root: there are no {part} chips in {self.root}; cut them with `chip --split`, or add the folder.'
            raise ConfigurationError(msg)
        chips = Chips(self.root, split, masks=self.reads_masks, **self.options)
        if self.options['bands'] is None:
            self.options['bands'] = spectral_bands(chips.bands, chips.root)
            if self.options['bands'] != chips.bands:
                chips = Chips(self.root, split, masks=self.reads_masks, **self.options)
        self.check(chips)
        if part == TRAIN:
            _describe(chips)
        return chips

    def check(self, chips: Chips) -> None:
        """See that chips have what is needed besides their pixels; without labels that is nothing.

        Args:
            chips: Chips of a part.
        """

    @property
    def bands(self) -> tuple[str, ...]:
        """Canonical names of the bands of a chip, in order."""
        return self.chips(TRAIN).bands

    @property
    def band_sensor(self) -> Sensor | None:
        """The sensor of the chips, or None where it is not known."""
        return self.chips(TRAIN).sensor

    @property
    def chip_size(self) -> int:
        """Side of what a batch holds, in pixels.

        Raises:
            ConfigurationError: If chips are not square and nobody said what to cut from them.
        """
        if self.window_size is not None:
            return self.window_size
        height, width = self.chips(TRAIN).size
        if height != width:
            raise ConfigurationError(
                f'chip_size: the chips have {height} × {width} pixels; set it to {min(height, width)}.'
            )
        return height

    @property
    def scale(self) -> tuple[float, ...]:
        """Reflectance per digital number of each band, of the first chip."""
        return self.chips(TRAIN).source.radiometry(0).scale

    @property
    def offset(self) -> tuple[float, ...]:
        """What is added to digital numbers first, for each band of the first chip."""
        return self.chips(TRAIN).source.radiometry(0).offset

    @property
    def epoch_chips(self) -> int | None:
        """Chips per epoch over all ranks, None where unknown before ``setup('fit')``."""
        return self.sampler.length if self.sampler is not None else self.chips_per_epoch

    @property
    def holds_out(self) -> bool:
        """Whether some chips are held out for validation."""
        return self.validation

    def setup(self, stage: str) -> None:
        """Open the chips of a stage, and find their statistics.

        Args:
            stage: ``fit``, ``validate`` or ``test``.

        Raises:
            ConfigurationError: If the chips of an epoch make no batch, or there are none for the stage.
            MSSSLError: If the chips do not suit.
        """
        if stage == 'fit' and self.sampler is None:
            self.sampler = ShuffledChips(self.chips(TRAIN), self.window_size, self.chips_per_epoch)
            self.check_epoch(self.sampler)
            self.find_statistics()
        for part in self.parts_of(stage):
            self.chips(part)

    def parts_of(self, stage: str) -> tuple[str, ...]:
        """Parts of the split that a stage needs besides training chips.

        Args:
            stage: ``fit``, ``validate`` or ``test``.

        Returns:
            Some of ``val`` and ``test``.

        Raises:
            ConfigurationError: If nothing was to be validated.
        """
        if stage == 'validate' and not self.validation:
            raise ConfigurationError('validation: no chips are kept for it; set data.validation to true.')
        return (VAL,) if self.validation and stage in ('fit', 'validate') else ()

    def find_statistics(self) -> None:
        """Take the statistics from the file given, or from the manifest, or measure the training chips.

        Raises:
            BandError: If a band has one value everywhere, or the file given lacks it.
            ConfigurationError: If the file given cannot be used.
            ValidDataError: If no pixel has data in all bands.
        """
        given = self.statistics
        self.keep_statistics(self.given_statistics(given) if given is not None else self._own_statistics())

    def _own_statistics(self) -> dict[str, Any]:
        chips = self.chips(TRAIN)
        found = manifest_statistics(chips)
        if found is None:
            with progress_bar('Band statistics') as advance:
                found = chip_statistics(chips, on_progress=lambda done: advance(0, done))
        moments, radiometries = found
        check_spread(moments, self.bands, radiometries)
        return {
            'bands': list(self.bands),
            'mean': moments.mean.tolist(),
            'std': moments.std.tolist(),
            'pixels': moments.count,
            'unit': unit_of(self.band_sensor),
            'chips': len(chips),
        }

    def train_dataloader(self) -> ChipLoader:
        """The chips of an epoch in batches.

        Returns:
            A loader that can go on in the middle of an epoch.
        """
        assert self.sampler is not None, 'setup() comes first'
        return self.training_loader(self.sampler)

    def val_dataloader(self) -> ChipLoader | list[ChipLoader]:
        """Validation chips in their order.

        Returns:
            The loader, or nothing where there are none.
        """
        return self.covering_loader(VAL) if VAL in self._chips else []

    def covering_loader(self, part: str, all_ranks: bool = False) -> ChipLoader:
        """Make a loader of the windows that cover the chips of a part, in their order.

        Args:
            part: ``train``, ``val`` or ``test``.
            all_ranks: Give every rank of a distributed run all of them, not its share.

        Returns:
            The loader.
        """
        return self.loader(OrderedChips(self.chips(part), self.window_size, all_ranks))

    def describe_chips(self, batch: dict[str, Tensor]) -> list[str]:
        """Say where the chips of a training batch come from.

        Args:
            batch: Batch with ``chip`` and ``window``.

        Returns:
            File and window of each chip.
        """
        source = self.chips(TRAIN).source
        return [
            f'{source.describe(int(chip))} ({Window(*window)})'
            for chip, window in zip(batch['chip'], batch['window'].tolist(), strict=True)
        ]


def _describe(chips: Chips) -> None:
    """Log what the chips are taken to be, so that no assumption stays silent."""
    sensor = chips.sensor.name if chips.sensor else 'unknown'
    height, width = chips.size
    log.info(
        '%d chips of %d × %d pixels, sensor %s, bands %s.', len(chips), height, width, sensor, ', '.join(chips.bands)
    )
    log.info('Reflectance of the first one: %s.', chips.source.radiometry(0).reason)
    warn_of_numbers(chips.bands)
