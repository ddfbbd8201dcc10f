"""Chips of unlabelled scenes for pretraining."""

import warnings
from typing import Literal

from torchgeo_msssl.datamodules.base import ScenesDataModule
from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.sample import SampleArea
from torchgeo_msssl.samplers.blocks import split_blocks
from torchgeo_msssl.samplers.grid import GridChipSampler
from torchgeo_msssl.samplers.random import RandomChipSampler


class PretrainingDataModule(ScenesDataModule):
    """Random chips of scenes, without labels, with the statistics that normalise them.

    Without ``paths`` the scenes of the generated sample area are taken: Sentinel-2, or the drone's (``sample: drone``).
    With ``val_fraction`` some blocks of ground are kept apart, for methods that measure how well they restore pixels.

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
        sample: Literal['s2', 'drone'] = 's2',
        val_fraction: float = 0.0,
        block_size: int = 256,
        predict_paths: str | list[str] | None = None,
        statistics: str | None = None,
        cache_size: str | None = None,
        chips_per_read: int = 1,
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
            cache_size: Most that decoded scenes may take in that folder, such as ``50GB``; those that were used longest
                ago make room.
            chips_per_read: So many consecutive training chips come from one neighbourhood, which is decoded once. That
                is several times as fast, and a batch shows as many times fewer places. Best a divisor of
                ``batch_size``.
            labels: Class rasters of the same ground, for the frozen probe; the sample area brings its own.
            sample_dir: Where the sample area is, or is made.
            sample: Which of its scenes are taken where there are no ``paths``.
            val_fraction: Share of the blocks of ground for validation chips; 0 trains on all ground.
            block_size: Side of a block of ground in pixels, at least ``chip_size``; for ``val_fraction`` only.
            predict_paths: Scenes to restore with ``predict``.
            statistics: YAML of the ``statistics`` command with mean and std (default: they are computed).

        Raises:
            ConfigurationError: If a number is out of range.
        """
        super().__init__(
            paths, bands, sensor, chip_size, chips_per_epoch, batch_size, num_workers, min_valid, aligned, offset,
            cache, cache_dir, sample_dir, crs, res, statistics=statistics, cache_size=cache_size,
            chips_per_read=chips_per_read,
        )  # fmt: skip
        if not 0 <= val_fraction < 1:
            raise ConfigurationError(f'val_fraction: expected 0 or more and below 1, got {val_fraction}.')
        if val_fraction > 0 and block_size < chip_size:
            raise ConfigurationError(f'block_size: expected at least chip_size {chip_size}, got {block_size}.')
        # most methods have nothing to validate, and would be told at each start that they leave chips unused
        warnings.filterwarnings('ignore', 'You passed in a `val_dataloader` but have no `validation_step`')
        self.positives: Literal['same', 'temporal', 'nearby'] = positives
        self.labels = labels
        self.sample: Literal['s2', 'drone'] = sample
        self.val_fraction = val_fraction
        self.block_size = block_size
        self.predict_paths = predict_paths
        self.sampler: RandomChipSampler | None = None
        self.val_sampler: GridChipSampler | None = None

    @property
    def epoch_chips(self) -> int | None:
        """Chips per epoch over all ranks, None where unknown before ``setup('fit')``."""
        return self.sampler.length if self.sampler is not None else self.chips_per_epoch

    @property
    def holds_out(self) -> bool:
        """Whether some chips are held out for validation."""
        return self.val_fraction > 0

    def use_sample_area(self, area: SampleArea) -> None:
        """Take the Sentinel-2 scenes, with their land cover for the frozen probe, or the drone scenes.

        Args:
            area: Its files.
        """
        if self.sample == 'drone':
            # the vine rows are polygons and narrow: a probe of whole chips would tell nothing
            self.paths = [str(path) for path in area.drone]
            self.sensor = self.sensor or 'micasense_rededge'
            return
        self.paths = [str(path) for path in area.sentinel2]
        self.labels = self.labels or [str(path) for path in area.landcover_fine]

    def setup(self, stage: str) -> None:
        """Find out where chips can be, and what their statistics are.

        Args:
            stage: ``fit``; or ``validate``, where ground is kept apart.

        Raises:
            ConfigurationError: If the chips of an epoch make no batch, or no ground is kept apart for validation.
            MSSSLError: If the scenes do not suit, see :class:`~torchgeo_msssl.samplers.RandomChipSampler`.
        """
        if stage == 'validate' and self.val_fraction == 0:
            raise ConfigurationError(
                'val_fraction: no ground is kept apart for validation; set it to that of the training run.'
            )
        if self.sampler is not None:
            return
        self.look_for_valid_pixels()
        train, val = None, None
        if self.val_fraction > 0:
            shares = (1 - self.val_fraction, self.val_fraction)
            train, val = split_blocks(self.scenes, shares, self.block_size, seed=0)
        self.sampler = RandomChipSampler(
            self.scenes,
            self.chip_size,
            self.chips_per_epoch,
            min_valid=self.min_valid,
            aligned=self.aligned,
            positives=self.positives,
            roi=train,
            chips_per_read=self.chips_per_read,
        )
        self.check_epoch(self.sampler)
        if val is not None:
            self.val_sampler = GridChipSampler(self.scenes, self.chip_size, roi=val, min_valid=self.min_valid)
        self.find_statistics()
        self.decode_scenes()

    def train_dataloader(self) -> ChipLoader:
        """The chips of an epoch in batches.

        Returns:
            A loader that can go on in the middle of an epoch.
        """
        assert self.sampler is not None, 'setup() comes first'
        return self.training_loader(self.sampler)

    def val_dataloader(self) -> ChipLoader | list[ChipLoader]:
        """The chips that cover the validation ground, in batches.

        Returns:
            A loader, or nothing where no ground was kept apart.
        """
        return self.loader(self.val_sampler) if self.val_sampler is not None else []
