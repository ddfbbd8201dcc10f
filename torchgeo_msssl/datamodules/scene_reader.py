"""Chips read from scenes when they are needed."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from shapely.geometry.base import BaseGeometry
from torch import Tensor

from torchgeo_msssl.bands import Sensor
from torchgeo_msssl.contract import Positives
from torchgeo_msssl.datamodules.reader import (
    file_statistics,
    measured_statistics,
    warn_of_numbered_bands,
)
from torchgeo_msssl.datasets.labels import LabelledScenes
from torchgeo_msssl.datasets.paired import BatchDataset
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.files import write_json
from torchgeo_msssl.geo.bad_scenes import OnBadScene
from torchgeo_msssl.geo.band_choice import spectral_bands
from torchgeo_msssl.geo.band_statistics.moments import scene_statistics
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.ground_size import pixel_size
from torchgeo_msssl.geo.radiometry import Radiometry, warn_of_guesses
from torchgeo_msssl.geo.user_cache import cache_folder, scene_key
from torchgeo_msssl.progress import progress_bar
from torchgeo_msssl.samplers.balanced import BalancedChipSampler
from torchgeo_msssl.samplers.base import ChipSampler
from torchgeo_msssl.samplers.grid import GridChipSampler
from torchgeo_msssl.samplers.ground import GroundSampler
from torchgeo_msssl.samplers.random import RandomChipSampler

log = logging.getLogger(__name__)

#: Number of scenes whose pixel size is computed at most.
_SIZED_SCENES = 32


@dataclass(frozen=True)
class SceneOptions:
    """Scenes to read, see :class:`~torchgeo_msssl.datasets.Scenes`."""

    paths: str | Sequence[str]
    bands: Sequence[str] | None
    sensor: str | None
    crs: str | None
    res: float | None
    offset: float | Literal['auto']
    cache: Literal['none', 'disk']
    cache_dir: str | None
    cache_size: str | None
    on_bad_scene: OnBadScene = 'raise'

    def open(self) -> Scenes:
        """Open the scenes with the bands wanted, or else with their spectral bands, and log what they are."""
        scenes = Scenes(**vars(self))
        if self.bands is None:
            spectral = spectral_bands(scenes.bands, scenes.scenes[0].path)
            scenes = scenes if spectral == scenes.bands else Scenes(**vars(self) | {'bands': spectral})
        if self.cache == 'disk':  # too little space is reported now instead of after everything else
            scenes.claim_cache()
        sensor = scenes.sensor.name if scenes.sensor else 'unknown'
        log.info('%d scene(s), sensor %s, bands %s.', len(scenes), sensor, ', '.join(scenes.bands))
        for reason in sorted({how.reason for how in scenes.radiometry}):
            number = sum(how.reason == reason for how in scenes.radiometry)
            log.info('Reflectance of %d scene(s): %s.', number, reason)
        warn_of_guesses(scenes.radiometry)
        warn_of_numbered_bands(scenes.bands)
        return scenes


@dataclass(frozen=True)
class ChipSampling:
    """How chips are placed in scenes.

    Attributes:
        size: Side of a chip in pixels.
        length: Training chips per epoch; None for as many as cover the valid pixels once.
        min_valid: Minimum fraction of valid pixels per training chip.
        aligned: Place training chips so that they touch few stored blocks.
        chips_per_read: Consecutive training chips from one neighbourhood.
        positives: Second chip of a training chip, see :class:`~torchgeo_msssl.samplers.RandomChipSampler`.
        balanced: Draw training chips of all classes equally often.
        overlap: Pixels that neighbouring chips of a covering share.
        covering_min_valid: Minimum fraction of valid pixels per chip of a covering.
    """

    size: int
    length: int | None
    min_valid: float
    aligned: bool
    chips_per_read: int
    positives: Positives = 'same'
    balanced: bool = False
    overlap: int = 0
    covering_min_valid: float = 1e-6


@dataclass(frozen=True)
class Division:
    """Ground of scenes, divided into parts.

    Attributes:
        regions: Region of each part in the scenes' CRS; None for all ground.
        labelled: The scenes with their labels, or None without labels.
        training_ground: All ground for training, whether its labels are used or not; None for that of ``train``.
    """

    regions: Mapping[str, BaseGeometry | None]
    labelled: LabelledScenes | None = None
    training_ground: BaseGeometry | None = None


class SceneReader:
    """Reads chips from scenes, see :class:`~torchgeo_msssl.datamodules.reader.ChipReader`."""

    def __init__(self, options: SceneOptions, sampling: ChipSampling, divide: Callable[[Scenes], Division]) -> None:
        """Open nothing yet.

        Args:
            options: Scenes to read.
            sampling: How chips are placed in them.
            divide: Divides their ground into parts.
        """
        self.sampling = sampling
        self._options = options
        self._divide = divide
        self._scenes: Scenes | None = None
        self._division: Division | None = None

    @property
    def scenes(self) -> Scenes:
        """The scenes, opened at first use."""
        if self._scenes is None:
            self._scenes = self._options.open()
        return self._scenes

    @property
    def division(self) -> Division:
        """The divided ground, after :meth:`prepare`."""
        assert self._division is not None, 'prepare() comes first'
        return self._division

    @property
    def bands(self) -> tuple[str, ...]:
        """Canonical names of the bands of a chip, in order."""
        return self.scenes.bands

    @property
    def sensor(self) -> Sensor | None:
        """The sensor of the scenes, None where unknown."""
        return self.scenes.sensor

    @property
    def radiometry(self) -> Radiometry:
        """Scale and offset of the first scene."""
        return self.scenes.radiometry[0]

    @property
    def chip_size(self) -> int:
        """Side of a chip in pixels."""
        return self.sampling.size

    @property
    def pixel_size(self) -> float | None:
        """Side of a pixel on the ground in metres: the median of some scenes, None where unknown."""
        scenes = self.scenes.scenes
        sizes = [pixel_size(scene.grid) for scene in scenes[:: -(-len(scenes) // _SIZED_SCENES)]]
        known = [size for size in sizes if size is not None]
        return float(np.median(known)) if known else None

    def prepare(self) -> None:
        """Count valid pixels and divide the ground, once."""
        if self._division is None:
            self.count_valid_pixels()
            self._division = self._divide(self.scenes)

    def count_valid_pixels(self) -> None:
        """Count the valid pixels of all scenes, with a progress bar."""
        scenes = self.scenes
        if not all(scene.always_valid for scene in scenes.scenes):
            with progress_bar('Counting valid pixels', len(scenes)) as advance:
                for i in range(len(scenes)):
                    scenes.valid_cells(i, lambda done, i=i: advance(i, done))  # type: ignore[misc]
                    advance(i, 1.0)

    def before_training(self) -> None:
        """Decode all scenes to memory maps if they are cached on disk, with a progress bar."""
        scenes = self.scenes
        if self._options.cache == 'disk':
            with progress_bar('Decoding scenes', len(scenes)) as advance:
                for i in range(len(scenes)):
                    scenes.decode(i, lambda done, i=i: advance(i, done))  # type: ignore[misc]
                    advance(i, 1.0)

    def train_sampler(self) -> ChipSampler:
        """Return the sampler of random training chips."""
        chips = self._random_chips(self.division.regions['train'], self.sampling.length)
        if not self.sampling.balanced:
            return chips
        assert self.division.labelled is not None
        return BalancedChipSampler(chips, self.division.labelled.labels)

    def unlabelled_sampler(self, length: int) -> ChipSampler:
        """Return the sampler of random chips of all training ground."""
        return self._random_chips(self.division.training_ground or self.division.regions['train'], length)

    def _random_chips(self, region: BaseGeometry | None, length: int | None) -> RandomChipSampler:
        how = self.sampling
        return RandomChipSampler(
            self.scenes,
            how.size,
            length,
            min_valid=how.min_valid,
            aligned=how.aligned,
            positives=how.positives,
            roi=region,
            chips_per_read=how.chips_per_read,
        )

    def covering_sampler(self, part: str, all_ranks: bool = False) -> ChipSampler:
        """Return a sampler of the chips that cover the ground of a part: each test pixel once, else whole chips."""
        how = self.sampling
        if part == 'test':
            return self.test_sampler(all_ranks=all_ranks)
        return GridChipSampler(
            self.scenes,
            how.size,
            how.overlap,
            self.division.regions[part],
            min_valid=how.covering_min_valid,
            all_ranks=all_ranks,
        )

    def test_sampler(self, context: int = 0, all_ranks: bool = False) -> ChipSampler:
        """Return a sampler of windows that show each pixel of the test ground once, apart from their context."""
        region = self.division.regions['test']
        assert region is not None
        return GroundSampler(self.scenes, self.sampling.size, region, context, all_ranks)

    def test_dataset(self, context: int = 0) -> BatchDataset:
        """Return the scenes, labelled on the test ground only and not in the context of a window."""
        labelled, region = self.division.labelled, self.division.regions['test']
        assert labelled is not None
        assert region is not None
        return labelled.inside(region, context)

    def dataset(self, part: str) -> BatchDataset:
        """Return the scenes, with their labels if there are any."""
        return self.test_dataset() if part == 'test' else self.division.labelled or self.scenes

    def unlabelled_dataset(self) -> BatchDataset:
        """Return the scenes without their labels."""
        return self.scenes

    def given_statistics(self, path: str) -> dict[str, Any]:
        """Return statistics from a file of the ``statistics`` command."""
        scenes = self.scenes
        return file_statistics(path, scenes.bands, scenes.sensor, scenes.scenes, scenes.radiometry)

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of all pixels of the scenes, from the cache or by reading them."""
        scenes = self.scenes
        key = json.dumps(
            [
                [scene_key(scene, scenes.bands), how.scale, how.offset]
                for scene, how in zip(scenes.scenes, scenes.radiometry, strict=True)
            ]
        )
        name = hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()
        cached = cache_folder() / 'statistics' / f'{name}.json'
        found = _read_statistics(cached, scenes.bands)
        if found is None:
            with progress_bar('Band statistics') as advance:
                moments = scene_statistics(
                    scenes.scenes, scenes.bands, scenes.radiometry, on_progress=lambda done: advance(0, done)
                )
            found = measured_statistics(moments, scenes.bands, scenes.radiometry, scenes.sensor)
            found |= {'scenes': len(scenes)}
            try:
                write_json(cached, found)
            except OutputError as error:
                log.warning('The statistics will be computed again next time: %s', error)
        return found

    def describe(self, batch: dict[str, Tensor]) -> list[str]:
        """Return file and window of each chip of a batch with ``scene`` and ``window``."""
        return [
            f'{self.scenes.scenes[int(scene)].path} ({Window(*window)})'
            for scene, window in zip(batch['scene'], batch['window'].tolist(), strict=True)
        ]


def _read_statistics(path: Path, bands: Sequence[str]) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding='utf-8'))
        usable = found['bands'] == list(bands) and len(found['mean']) == len(found['std']) == len(bands)
        return found if usable and np.isfinite(found['mean'] + found['std']).all() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
