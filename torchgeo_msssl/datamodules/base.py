"""What data modules of scenes share: bands, statistics, and loaders that go on where they stopped."""

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchgeo.datamodules import BaseDataModule

from torchgeo_msssl.bands import is_auxiliary, rgb_names
from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.datasets.scenes import Scenes, collate
from torchgeo_msssl.errors import BandError, ConfigurationError, OutputError
from torchgeo_msssl.files import write_json
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.sample import SampleArea, sample_area, write_sample_area
from torchgeo_msssl.geo.statistics import scene_statistics
from torchgeo_msssl.geo.valid import cache_folder, scene_key
from torchgeo_msssl.progress import progress_bar
from torchgeo_msssl.samplers.base import ChipSampler

log = logging.getLogger(__name__)


class ScenesDataModule(BaseDataModule):
    """Chips of scenes with the statistics that normalise them.

    A task reads from it, once it is set up: ``bands``, ``in_channels``, ``wavelengths``, ``sensor_name``,
    ``rgb_index``, ``chip_size``, ``mean``, ``std``, ``scale`` and ``offset``.
    """

    def __init__(
        self,
        paths: str | list[str] | None,
        bands: list[str] | None,
        sensor: str | None,
        chip_size: int,
        chips_per_epoch: int | None,
        batch_size: int,
        num_workers: int,
        min_valid: float,
        aligned: bool,
        offset: float | Literal['auto'],
        cache: Literal['none', 'disk'],
        cache_dir: str | None,
        sample_dir: str,
        crs: str | None = None,
        res: float | None = None,
    ) -> None:
        """Note what to read; see the subclasses for what the arguments mean.

        Raises:
            ConfigurationError: If a number is out of range.
        """
        super().__init__(Scenes, batch_size, num_workers)
        for name, value, least in (
            ('chip_size', chip_size, 1), ('batch_size', batch_size, 1), ('num_workers', num_workers, 0)
        ):  # fmt: skip
            if value < least:
                raise ConfigurationError(f'{name}: expected at least {least}, got {value}.')
        if chips_per_epoch is not None and chips_per_epoch < batch_size:
            msg = f'chips_per_epoch: {chips_per_epoch} chips make no batch of batch_size {batch_size}.'
            raise ConfigurationError(msg)
        self.paths = paths
        self.wanted_bands = bands
        self.sensor = sensor
        self.chip_size = chip_size
        self.chips_per_epoch = chips_per_epoch
        self.min_valid = min_valid
        self.aligned = aligned
        self.crs = crs
        self.res = res
        self.offset_option: float | Literal['auto'] = offset
        self.cache = cache
        self.cache_dir = cache_dir
        self.sample_dir = sample_dir
        self._scenes: Scenes | None = None
        self._loader: ChipLoader | None = None
        self._loader_state: dict[str, int] = {}
        self.mean: tuple[float, ...] = ()  # type: ignore[assignment]
        self.std: tuple[float, ...] = ()  # type: ignore[assignment]

    @property
    def scenes(self) -> Scenes:
        """The scenes, opened at first use (their headers, not their pixels)."""
        if self._scenes is None:
            self._scenes = self._open()
        return self._scenes

    @property
    def bands(self) -> tuple[str, ...]:
        """Canonical names of the bands of a chip, in order."""
        return self.scenes.bands

    @property
    def in_channels(self) -> int:
        """Number of bands."""
        return len(self.bands)

    @property
    def sensor_name(self) -> str | None:
        """Key of the sensor in :data:`torchgeo_msssl.bands.SENSORS`, or None where it is not known."""
        return self.scenes.sensor.name if self.scenes.sensor else None

    @property
    def wavelengths(self) -> tuple[float | None, ...]:
        """Central wavelength of each band in nanometres, None where it is not known."""
        found = [self.scenes.sensor.find(band) if self.scenes.sensor else None for band in self.bands]
        return tuple(band.wavelength if band else None for band in found)

    @property
    def rgb_index(self) -> tuple[int, int, int]:
        """Positions of the bands of a picture, red first."""
        red, green, blue = rgb_names(self.bands, self.scenes.sensor)
        return self.bands.index(red), self.bands.index(green), self.bands.index(blue)

    @property
    def scale(self) -> tuple[float, ...]:
        """Reflectance per digital number of each band, of the first scene."""
        return self.scenes.radiometry[0].scale

    @property
    def offset(self) -> tuple[float, ...]:
        """What is added to digital numbers first, for each band of the first scene."""
        return self.scenes.radiometry[0].offset

    @abstractmethod
    def use_sample_area(self, area: SampleArea) -> None:
        """Take scenes (and labels) from the sample area, where the user gave none.

        Args:
            area: Its files.
        """

    def _open(self) -> Scenes:
        if self.paths is None:
            area = sample_area(self.sample_dir)
            if area is None:
                print(f'No paths given: generating the synthetic sample area in {self.sample_dir} …')
                area = write_sample_area(self.sample_dir)
            else:
                print(f'No paths given: using the synthetic sample area in {self.sample_dir}.')
            self.use_sample_area(area)
        assert self.paths is not None
        options: dict[str, Any] = {
            'sensor': self.sensor, 'crs': self.crs, 'res': self.res, 'offset': self.offset_option,
            'cache': self.cache, 'cache_dir': self.cache_dir,
        }  # fmt: skip
        scenes = Scenes(self.paths, self.wanted_bands, **options)
        layers = [band for band in scenes.bands if is_auxiliary(band)]
        if self.wanted_bands is None and layers:
            spectral = [band for band in scenes.bands if band not in layers]
            if not spectral:
                msg = f'bands: {scenes.scenes[0].path} has only {", ".join(layers)}, none of which is a spectral band.'
                raise BandError(msg)
            log.info('Left out %s: no spectral bands (name them in `bands` to keep them).', ', '.join(layers))
            scenes = Scenes(self.paths, spectral, **options)
        _describe(scenes)
        return scenes

    def look_for_valid_pixels(self) -> None:
        """Count the valid pixels of all scenes, with a progress bar."""
        scenes = self.scenes
        if not all(scene.always_valid for scene in scenes.scenes):
            with progress_bar('Looking for valid pixels', len(scenes)) as advance:
                for i in range(len(scenes)):
                    scenes.valid_cells(i, lambda done, i=i: advance(i, done))  # type: ignore[misc]
                    advance(i, 1.0)

    def decode_scenes(self) -> None:
        """Decode all scenes to memory maps where the cache is to be used, with a progress bar."""
        scenes = self.scenes
        if self.cache == 'disk':
            with progress_bar('Decoding scenes', len(scenes)) as advance:
                for i in range(len(scenes)):
                    scenes.decode(i, lambda done, i=i: advance(i, done))  # type: ignore[misc]
                    advance(i, 1.0)

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

    def find_statistics(self) -> None:
        """Take the statistics of these scenes from the cache, or compute them; leave a copy beside the run."""
        scenes = self.scenes
        text = json.dumps(
            [[scene_key(scene, self.bands), how.scale, how.offset]
             for scene, how in zip(scenes.scenes, scenes.radiometry, strict=True)]
        )  # fmt: skip
        kept = cache_folder() / 'statistics' / f'{hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()}.json'
        found = _read_statistics(kept, self.bands)
        if found is None:
            with progress_bar('Band statistics') as advance:
                moments = scene_statistics(
                    scenes.scenes, self.bands, scenes.radiometry, on_progress=lambda done: advance(0, done)
                )
            # equal numbers have a mean that is off by a rounding error, and so a spread of that size
            size = np.abs(moments.mean) + np.max([np.abs(np.multiply(h.scale, h.offset)) for h in scenes.radiometry])
            constant = [band for band, std in zip(self.bands, moments.std > 1e-9 * size, strict=True) if not std]
            if constant:
                others = ', '.join(band for band in self.bands if band not in constant)
                advice = f'leave it out, with `bands: [{others}]`' if others else 'look at the files'
                msg = f'bands: {", ".join(constant)} has one value everywhere, so it tells nothing; {advice}.'
                raise BandError(msg)
            found = {
                'bands': list(self.bands),
                'mean': moments.mean.tolist(),
                'std': moments.std.tolist(),
                'pixels': moments.count,
                'unit': 'reflectance' if scenes.sensor else 'digital number',
                'scenes': len(scenes),
            }
            try:
                write_json(kept, found)
            except OutputError as error:
                log.warning('The statistics will be computed again next time: %s', error)
        self.mean, self.std = tuple(found['mean']), tuple(found['std'])
        folder = self.trainer.log_dir if self.trainer else None  # asked on every rank: it is a broadcast
        if folder and self.trainer and self.trainer.is_global_zero:
            write_json(Path(folder) / 'statistics.json', found)

    def training_loader(self, sampler: ChipSampler, dataset: Any = None) -> ChipLoader:
        """Make the loader of the training chips, and let it go on where a checkpoint was written.

        Args:
            sampler: Of the training chips.
            dataset: What the chips are read from (default: the scenes).

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
            dataset: What the chips are read from (default: the scenes).
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

    def describe_chips(self, batch: dict[str, Tensor]) -> list[str]:
        """Say where the chips of a batch come from.

        Args:
            batch: Batch with ``scene`` and ``window``.

        Returns:
            File and window of each chip.
        """
        return [
            f'{self.scenes.scenes[int(scene)].path} ({Window(*window)})'
            for scene, window in zip(batch['scene'], batch['window'].tolist(), strict=True)
        ]


def _describe(scenes: Scenes) -> None:
    """Log what the scenes are taken to be, so that no assumption stays silent."""
    sensor = scenes.sensor.name if scenes.sensor else 'unknown'
    log.info('%d scene(s), sensor %s, bands %s.', len(scenes), sensor, ', '.join(scenes.bands))
    for reason in sorted({how.reason for how in scenes.radiometry}):
        number = sum(how.reason == reason for how in scenes.radiometry)
        log.info('Reflectance of %d scene(s): %s.', number, reason)
    if any(band.startswith('band_') for band in scenes.bands):
        log.warning(
            'The bands have no names in the files and are numbered by position; say with `sensor` what they are.'
        )


def _read_statistics(path: Path, bands: Sequence[str]) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        usable = found['bands'] == list(bands) and len(found['mean']) == len(found['std']) == len(bands)
        return found if usable and np.isfinite(found['mean'] + found['std']).all() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
