"""What data modules of scenes share: the scenes themselves, and the statistics of all their pixels."""

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from torchgeo_msssl.bands import Sensor
from torchgeo_msssl.datamodules.spectral import (
    SpectralDataModule,
    check_at_least,
    check_spread,
    spectral_bands,
    warn_of_numbers,
)
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError, OutputError
from torchgeo_msssl.files import write_json
from torchgeo_msssl.geo.band_statistics.file import unit_of
from torchgeo_msssl.geo.band_statistics.moments import scene_statistics
from torchgeo_msssl.geo.eviction import parse_size
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.sample import SampleArea, sample_area, write_sample_area
from torchgeo_msssl.geo.user_cache import cache_folder, scene_key
from torchgeo_msssl.progress import progress_bar

log = logging.getLogger(__name__)


class ScenesDataModule(SpectralDataModule):
    """Chips of scenes with the statistics that normalise them."""

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
        statistics: str | None = None,
        cache_size: str | None = None,
        chips_per_read: int = 1,
    ) -> None:
        """Note what to read; see the subclasses for what the arguments mean.

        Raises:
            ConfigurationError: If a number is out of range.
        """
        super().__init__(Scenes, batch_size, num_workers)
        check_at_least('chip_size', chip_size, 1)
        if cache_size is not None:
            parse_size(cache_size)
        if not 1 <= chips_per_read <= batch_size:
            msg = f'chips_per_read: expected 1 to batch_size {batch_size} chips, got {chips_per_read}.'
            raise ConfigurationError(msg)
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
        self.cache_size = cache_size
        self.chips_per_read = chips_per_read
        self.sample_dir = sample_dir
        self.statistics = statistics
        self._scenes: Scenes | None = None

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
    def band_sensor(self) -> Sensor | None:
        """The sensor of the scenes, or None where it is not known."""
        return self.scenes.sensor

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
            self.use_sample_area(find_sample_area(self.sample_dir))
        assert self.paths is not None
        options: dict[str, Any] = {
            'sensor': self.sensor, 'crs': self.crs, 'res': self.res, 'offset': self.offset_option,
            'cache': self.cache, 'cache_dir': self.cache_dir, 'cache_size': self.cache_size,
        }  # fmt: skip
        scenes = Scenes(self.paths, self.wanted_bands, **options)
        if self.wanted_bands is None:
            spectral = spectral_bands(scenes.bands, scenes.scenes[0].path)
            scenes = scenes if spectral == scenes.bands else Scenes(self.paths, spectral, **options)
        if self.cache == 'disk':  # too little room is told of now, not when everything else has been computed
            scenes.claim_cache()
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

    def find_statistics(self) -> None:
        """Take the statistics from the file given, or from the cache, or compute them; leave a copy beside the run.

        Raises:
            BandError: If a band has one value everywhere, or the file given lacks it.
            ConfigurationError: If the file given cannot be used.
        """
        given, scenes = self.statistics, self.scenes
        self.keep_statistics(
            self._own_statistics() if given is None else self.given_statistics(given, scenes.scenes, scenes.radiometry)
        )

    def _own_statistics(self) -> dict[str, Any]:
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
            check_spread(moments, self.bands, scenes.radiometry)
            found = {
                'bands': list(self.bands),
                'mean': moments.mean.tolist(),
                'std': moments.std.tolist(),
                'pixels': moments.count,
                'unit': unit_of(scenes.sensor),
                'scenes': len(scenes),
            }
            try:
                write_json(kept, found)
            except OutputError as error:
                log.warning('The statistics will be computed again next time: %s', error)
        return found

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


def find_sample_area(directory: str) -> SampleArea:
    """Find the synthetic sample area, or generate it, and say so.

    Args:
        directory: Where it is, or is made.

    Returns:
        Its files.

    Raises:
        OutputError: If it cannot be written.
    """
    area = sample_area(directory)
    if area is not None:
        print(f'No paths given: using the synthetic sample area in {directory}.')
        return area
    print(f'No paths given: generating the synthetic sample area in {directory} …')
    return write_sample_area(directory)


def _describe(scenes: Scenes) -> None:
    """Log what the scenes are taken to be, so that no assumption stays silent."""
    sensor = scenes.sensor.name if scenes.sensor else 'unknown'
    log.info('%d scene(s), sensor %s, bands %s.', len(scenes), sensor, ', '.join(scenes.bands))
    for reason in sorted({how.reason for how in scenes.radiometry}):
        number = sum(how.reason == reason for how in scenes.radiometry)
        log.info('Reflectance of %d scene(s): %s.', number, reason)
    warn_of_numbers(scenes.bands)


def _read_statistics(path: Path, bands: Sequence[str]) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        usable = found['bands'] == list(bands) and len(found['mean']) == len(found['std']) == len(bands)
        return found if usable and np.isfinite(found['mean'] + found['std']).all() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
