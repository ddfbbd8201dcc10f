"""Chips of unlabelled scenes for pretraining."""

import hashlib
import json
import logging
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
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.sample import sample_area, write_sample_area
from torchgeo_msssl.geo.statistics import scene_statistics
from torchgeo_msssl.geo.valid import cache_folder, scene_key
from torchgeo_msssl.progress import progress_bar
from torchgeo_msssl.samplers.random import RandomChipSampler

log = logging.getLogger(__name__)


class PretrainingDataModule(BaseDataModule):
    """Random chips of scenes, without labels, with the statistics that normalise them.

    Without ``paths`` the Sentinel-2 scenes of the generated sample area are taken.

    A task reads from it, once it is set up: ``bands``, ``in_channels``, ``wavelengths``, ``sensor_name``,
    ``rgb_index``, ``mean``, ``std``, ``scale`` and ``offset``.
    """

    def __init__(
        self,
        paths: str | list[str] | None = None,
        bands: list[str] | None = None,
        sensor: str | None = None,
        chip_size: int = 64,
        chips_per_epoch: int | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        min_valid: float = 0.9,
        positives: Literal['same', 'temporal', 'nearby'] = 'same',
        aligned: bool = True,
        crs: str | None = None,
        res: float | None = None,
        offset: float | Literal['auto'] = 'auto',
        cache: Literal['none', 'disk'] = 'none',
        cache_dir: str | None = None,
        labels: str | list[str] | None = None,
        sample_dir: str = 'data/sample',
    ) -> None:
        """Note what to read; files are opened when bands or chips are first asked for.

        Args:
            paths: Scenes: files, folders or patterns such as ``'dir/*.tif'``; None makes the sample area.
            bands: Bands by name; None for the spectral bands that the files have.
            sensor: Sensor name, where the files do not tell (see :data:`torchgeo_msssl.bands.SENSORS`).
            chip_size: Side of a chip in pixels.
            chips_per_epoch: Chips of an epoch over all ranks; None for as many as cover the valid pixels once.
            batch_size: Chips of a batch on each rank.
            num_workers: Processes that read chips; 0 reads in the main process.
            min_valid: Smallest fraction of valid pixels in a chip.
            positives: What half of the views are cut from: the ``same`` chip, the same place on another date
                (``temporal``), or a chip close by (``nearby``).
            aligned: Place chips so that they touch few stored blocks.
            crs: Bring all scenes to this CRS (default: each chip stays on its scene's own grid).
            res: Bring all scenes to this pixel size, in units of the CRS.
            offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
            cache: ``disk`` decodes every scene once to memory-mapped arrays.
            cache_dir: Folder for these (default: in the user's cache folder).
            labels: Class rasters of the same ground, for the frozen probe; the sample area brings its own.
            sample_dir: Where the sample area is, or is made.

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
        self.positives: Literal['same', 'temporal', 'nearby'] = positives
        self.aligned = aligned
        self.crs = crs
        self.res = res
        self.offset_option: float | Literal['auto'] = offset
        self.cache = cache
        self.cache_dir = cache_dir
        self.labels = labels
        self.sample_dir = sample_dir
        self._scenes: Scenes | None = None
        self.sampler: RandomChipSampler | None = None
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

    def _open(self) -> Scenes:
        if self.paths is None:
            area = sample_area(self.sample_dir)
            if area is None:
                print(f'No paths given: generating the synthetic sample area in {self.sample_dir} …')
                area = write_sample_area(self.sample_dir)
            else:
                print(f'No paths given: using the synthetic sample area in {self.sample_dir}.')
            self.paths = [str(path) for path in area.sentinel2]
            self.labels = self.labels or [str(path) for path in area.landcover_fine]
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

    def setup(self, stage: str) -> None:
        """Find out where chips can be, and what their statistics are.

        Args:
            stage: ``fit`` is the only one that this data module serves.

        Raises:
            ConfigurationError: If the chips of an epoch make no batch.
            MSSSLError: If the scenes do not suit, see :class:`~torchgeo_msssl.samplers.RandomChipSampler`.
        """
        if self.sampler is not None:
            return
        scenes = self.scenes
        if not all(scene.always_valid for scene in scenes.scenes):
            with progress_bar('Looking for valid pixels', len(scenes)) as advance:
                for i in range(len(scenes)):
                    scenes.valid_cells(i, lambda done, i=i: advance(i, done))  # type: ignore[misc]
                    advance(i, 1.0)
        self.sampler = RandomChipSampler(
            scenes,
            self.chip_size,
            self.chips_per_epoch,
            min_valid=self.min_valid,
            aligned=self.aligned,
            positives=self.positives,
        )
        if len(self.sampler) < self.batch_size:
            msg = (
                f'chips_per_epoch: the scenes give {len(self.sampler)} chips an epoch, fewer than batch_size '
                f'{self.batch_size}; set chips_per_epoch, or use smaller batches or chips.'
            )
            raise ConfigurationError(msg)
        self._find_statistics()
        if self.cache == 'disk':
            with progress_bar('Decoding scenes', len(scenes)) as advance:
                for i in range(len(scenes)):
                    scenes.decode(i, lambda done, i=i: advance(i, done))  # type: ignore[misc]
                    advance(i, 1.0)

    def _find_statistics(self) -> None:
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
                msg = (
                    f'bands: {", ".join(constant)} has one value everywhere, so it tells nothing; leave it out, with '
                    f'`bands: [{", ".join(band for band in self.bands if band not in constant)}]`.'
                )
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
                _write_json(kept, found)
            except OutputError as error:
                log.warning('The statistics will be computed again next time: %s', error)
        self.mean, self.std = tuple(found['mean']), tuple(found['std'])
        folder = self.trainer.log_dir if self.trainer else None
        if folder and self.trainer and self.trainer.is_global_zero:
            _write_json(Path(folder) / 'statistics.json', found)

    def train_dataloader(self) -> ChipLoader:
        """The chips of an epoch in batches.

        Returns:
            A loader that can go on in the middle of an epoch.
        """
        assert self.sampler is not None, 'setup() comes first'
        self._loader = ChipLoader(
            self.sampler,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=collate,
            drop_last=True,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )
        if self._loader_state:
            self._loader.load_state_dict(self._loader_state)
            self._loader_state = {}
        return self._loader

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


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2), encoding='utf-8')
