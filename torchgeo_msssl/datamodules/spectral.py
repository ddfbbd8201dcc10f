"""What every data module tells a task: bands, statistics, and loaders that go on where they stopped."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchgeo.datamodules import BaseDataModule

from torchgeo_msssl.bands import Sensor, is_auxiliary, rgb_names
from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.datasets.scenes import collate
from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.files import write_json
from torchgeo_msssl.geo.band_statistics.file import read_statistics, unit_of
from torchgeo_msssl.geo.band_statistics.moments import BandStatistics
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.runs import run_folder
from torchgeo_msssl.samplers.base import ChipSampler

log = logging.getLogger(__name__)


class SpectralDataModule(BaseDataModule):
    """What a task reads from a data module, and loaders that go on where they stopped.

    That is, once it is set up: ``bands``, ``in_channels``, ``wavelengths``, ``sensor_name``, ``rgb_index``,
    ``chip_size``, ``mean``, ``std``, ``scale`` and ``offset``.
    """

    def __init__(self, dataset_class: type[Dataset[Any]], batch_size: int, num_workers: int) -> None:
        """Check the numbers.

        Args:
            dataset_class: Class of the dataset.
            batch_size: Chips of a batch on each rank.
            num_workers: Processes that read chips; 0 reads in the main process.

        Raises:
            ConfigurationError: If a number is out of range.
        """
        super().__init__(dataset_class, batch_size, num_workers)
        check_at_least('batch_size', batch_size, 1)
        check_at_least('num_workers', num_workers, 0)
        self._loader: ChipLoader | None = None
        self._loader_state: dict[str, int] = {}
        self.mean: tuple[float, ...] = ()  # type: ignore[assignment]
        self.std: tuple[float, ...] = ()  # type: ignore[assignment]

    @property
    @abstractmethod
    def bands(self) -> tuple[str, ...]:
        """Canonical names of the bands of a chip, in order."""

    @property
    @abstractmethod
    def band_sensor(self) -> Sensor | None:
        """The sensor of the bands, or None where it is not known."""

    @property
    def in_channels(self) -> int:
        """Number of bands."""
        return len(self.bands)

    @property
    def sensor_name(self) -> str | None:
        """Key of the sensor in :data:`torchgeo_msssl.bands.SENSORS`, or None where it is not known."""
        return self.band_sensor.name if self.band_sensor else None

    @property
    def wavelengths(self) -> tuple[float | None, ...]:
        """Central wavelength of each band in nanometres, None where it is not known."""
        found = [self.band_sensor.find(band) if self.band_sensor else None for band in self.bands]
        return tuple(band.wavelength if band else None for band in found)

    @property
    def rgb_index(self) -> tuple[int, int, int]:
        """Positions of the bands of a picture, red first."""
        red, green, blue = rgb_names(self.bands, self.band_sensor)
        return self.bands.index(red), self.bands.index(green), self.bands.index(blue)

    def given_statistics(
        self, path: str, scenes: Sequence[Scene] = (), radiometries: Sequence[Radiometry] = ()
    ) -> dict[str, Any]:
        """Read statistics that were measured before.

        Args:
            path: What the command ``statistics`` wrote.
            scenes: Scenes that may be among those measured.
            radiometries: Scale and offset of the bands of each.

        Returns:
            What :meth:`keep_statistics` takes.

        Raises:
            BandError: If the file lacks a band.
            ConfigurationError: If the file cannot be used, or a scene was measured with another scale or offset.
        """
        kept = read_statistics(path, self.bands, unit_of(self.band_sensor))
        if kept.sensor != self.sensor_name:
            log.warning(
                'statistics: %s is of sensor %s, these scenes are of %s: mean and std are taken by band name alone.',
                path, kept.sensor, self.sensor_name,
            )  # fmt: skip
        for scene, how in zip(scenes, radiometries, strict=True):
            kept.check_scene(path, scene.path, how)
        return {
            'bands': list(self.bands),
            'mean': list(kept.mean),
            'std': list(kept.std),
            'pixels': kept.pixels,
            'unit': unit_of(self.band_sensor),
            'scenes': kept.scenes,
            'file': path,
        }

    def keep_statistics(self, found: dict[str, Any]) -> None:
        """Take statistics over, and leave a copy beside the run.

        Args:
            found: ``mean`` and ``std`` of each band, with whatever else is to be known.

        Raises:
            OutputError: If the copy cannot be written.
        """
        self.mean, self.std = tuple(found['mean']), tuple(found['std'])
        folder = run_folder(self.trainer)
        if folder is not None and self.trainer is not None and self.trainer.is_global_zero:
            write_json(folder / 'statistics.json', found)

    def check_epoch(self, sampler: ChipSampler) -> None:
        """See that the chips of an epoch make a batch.

        Args:
            sampler: Of the training chips.

        Raises:
            ConfigurationError: If they do not.
        """
        if len(sampler) < self.batch_size:
            msg = (
                f'chips_per_epoch: the scenes give {len(sampler)} chips an epoch, fewer than batch_size '
                f'{self.batch_size}; set chips_per_epoch, or use smaller batches or chips.'
            )
            raise ConfigurationError(msg)

    def training_loader(self, sampler: ChipSampler, dataset: Any = None) -> ChipLoader:
        """Make the loader of the training chips, and let it go on where a checkpoint was written.

        Args:
            sampler: Of the training chips.
            dataset: What the chips are read from (default: what the sampler is of).

        Returns:
            The loader.
        """
        self._loader = self.loader(sampler, dataset, drop_last=True)
        if self._loader_state:
            self._loader.load_state_dict(self._loader_state)
            self._loader_state = {}
        return self._loader

    def loader(self, sampler: ChipSampler, dataset: Any = None, drop_last: bool = False) -> ChipLoader:
        """Make a loader.

        Args:
            sampler: Of the chips.
            dataset: What the chips are read from (default: what the sampler is of).
            drop_last: Whether to leave a last batch out that is not full.

        Returns:
            The loader.
        """
        return ChipLoader(
            sampler,
            dataset,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=collate,
            drop_last=drop_last,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    # Lightning restores the state of a loader only where the loader is made after the optimizer. A schedule that
    # needs the length of an epoch makes it before, so the state also travels with the data module, which is restored
    # first.

    def state_dict(self) -> dict[str, Any]:
        """Where in the epoch the chips are."""
        return {'loader': self._loader.state_dict()} if self._loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there.

        Args:
            state_dict: What :meth:`state_dict` gave.
        """
        self._loader_state = dict(state_dict.get('loader', {}))

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Leave the batch as it is: the task normalises, with the constants it keeps with its weights.

        Args:
            batch: Batch on the device.
            dataloader_idx: Ignored.

        Returns:
            The same batch.
        """
        return batch


def check_at_least(name: str, value: int, least: int) -> None:
    """See that a number is not too small.

    Args:
        name: Option.
        value: What was given.
        least: Smallest value.

    Raises:
        ConfigurationError: If it is smaller.
    """
    if value < least:
        raise ConfigurationError(f'{name}: expected at least {least}, got {value}.')


def check_spread(moments: BandStatistics, bands: Sequence[str], radiometries: Sequence[Radiometry]) -> None:
    """See that every band has more than one value.

    Args:
        moments: Statistics in reflectance.
        bands: Canonical names.
        radiometries: Scales and offsets of what was measured.

    Raises:
        BandError: If one has not.
    """
    # equal numbers have a mean that is off by a rounding error, and so a spread of that size
    size = np.abs(moments.mean) + np.max([np.abs(np.multiply(how.scale, how.offset)) for how in radiometries])
    constant = [band for band, std in zip(bands, moments.std > 1e-9 * size, strict=True) if not std]
    if constant:
        others = ', '.join(band for band in bands if band not in constant)
        advice = f'leave it out, with `bands: [{others}]`' if others else 'look at the files'
        msg = f'bands: {", ".join(constant)} has one value everywhere, so it tells nothing; {advice}.'
        raise BandError(msg)


def spectral_bands(bands: Sequence[str], path: str) -> tuple[str, ...]:
    """Leave out layers that are no spectral bands, and say so.

    Args:
        bands: Canonical names.
        path: What they are of, for the message.

    Returns:
        The others, in their order.

    Raises:
        BandError: If there are no others.
    """
    layers = [band for band in bands if is_auxiliary(band)]
    spectral = tuple(band for band in bands if band not in layers)
    if not spectral:
        msg = f'bands: {path} has only {", ".join(layers)}, none of which is a spectral band.'
        raise BandError(msg)
    if layers:
        log.info('Left out %s: no spectral bands (name them in `bands` to keep them).', ', '.join(layers))
    return spectral


def warn_of_numbers(bands: Sequence[str]) -> None:
    """Say that bands have no names, where that is so.

    Args:
        bands: Canonical names.
    """
    if any(band.startswith('band_') for band in bands):
        log.warning(
            'The bands have no names in the files and are numbered by position; say with `sensor` what they are.'
        )
