"""Chips without labels, for pretraining."""

import warnings
from typing import Any, Literal

from torchgeo_msssl.contract import Positives
from torchgeo_msssl.datamodules.base import SpectralDataModule
from torchgeo_msssl.datamodules.folder_reader import FolderReader
from torchgeo_msssl.datamodules.sample_data import sample_chips
from torchgeo_msssl.datamodules.scene_reader import ChipSampling, Division, SceneReader
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.plain_images import require_crs
from torchgeo_msssl.geo.sample import SampleArea
from torchgeo_msssl.samplers.blocks import split_blocks, split_scenes
from torchgeo_msssl.samplers.order import ShuffledChips
from torchgeo_msssl.samplers.random import RandomChipSampler


class PretrainingDataModule(SpectralDataModule):
    """Random chips of scenes, or chips of a folder, without labels.

    Without ``paths`` the generated sample area is used: its Sentinel-2 scenes, or its drone scenes (``sample: drone``).
    It satisfies :class:`torchgeo_msssl.contract.PretrainingData`.
    """

    def __init__(
        self,
        paths: str | list[str] | None = None,
        bands: list[str] | None = None,
        positives: Positives = 'same',
        val_fraction: float = 0.0,
        block_size: int = 256,
        seed: int = 0,
        part: str | None = None,
        labels: str | list[str] | None = None,
        sample: Literal['s2', 'drone'] = 's2',
        **kwargs: Any,
    ) -> None:
        """Check the options; files are opened when bands or chips are first used.

        Args:
            paths: Scenes: files, folders or patterns such as ``'dir/*.tif'``; or a folder of chips; None uses the
                generated sample area.
            bands: Bands by name; None for all spectral bands of the files.
            positives: Scenes: what half of the views are cut from: the ``same`` chip, the same place on any other
                (``temporal``), an ``earlier`` or a ``later`` date, or a chip close by (``nearby``).
            val_fraction: Fraction of the blocks of ground (or of the images, where several have no CRS) held out for
                validation, for methods that have scores; 0 trains on all ground. A folder of chips is divided
                already: any value above 0 validates on its ``val`` chips.
            block_size: Scenes: side of a block of ground in pixels, at least ``chip_size``; for ``val_fraction``.
            seed: Scenes: seed of the choice of these blocks.
            part: Chips: part to train on, ``train``, ``val``, ``test`` or ``all``; None for ``train`` if the folder is
                divided, else ``all``.
            labels: Scenes: class rasters of the same ground, for the frozen probe; the sample area brings its own.
            sample: Scenes of the sample area to use without ``paths``.
            **kwargs: The other options of :class:`~torchgeo_msssl.datamodules.base.SpectralDataModule`, with its
                defaults; ``chip_size`` is 64 for scenes.

        Raises:
            ConfigurationError: If a number is out of range.
        """
        super().__init__(paths=paths, bands=bands, **kwargs)
        if not 0 <= val_fraction < 1:
            raise ConfigurationError(f'val_fraction: expected 0 or more and below 1, got {val_fraction}.')
        self.size = self.wanted_chip_size or 64
        # most methods have nothing to validate, and Lightning would warn at each start of chips that remain unused
        warnings.filterwarnings('ignore', 'You passed in a `val_dataloader` but have no `validation_step`')
        self.positives: Positives = positives
        self.val_fraction = val_fraction
        self.block_size = block_size
        self.seed = seed
        self.part = part
        self.labels = labels
        self.sample: Literal['s2', 'drone'] = sample
        self.only_scenes |= {'positives': positives, 'block_size': block_size, 'seed': seed, 'labels': labels}
        self.only_chips |= {'part': part}

    @property
    def epoch_chips(self) -> int | None:
        """Chips per epoch over all ranks, None where unknown before ``setup('fit')``."""
        sampler = self.sampler
        return sampler.length if isinstance(sampler, RandomChipSampler | ShuffledChips) else self.chips_per_epoch

    @property
    def holds_out(self) -> bool:
        """Whether some chips are held out for validation."""
        return self.val_fraction > 0

    def _use_sample_area(self, area: SampleArea, chips: bool) -> None:
        if chips:
            self.paths = sample_chips(area, self.sample)
        elif self.sample == 'drone':
            # no labels: vine rows are polygons and too narrow for a probe of whole chips
            self.paths = [str(path) for path in area.drone]
            self.sensor = self.sensor or 'micasense_rededge'
        else:
            self.paths = [str(path) for path in area.sentinel2]
            self.labels = self.labels or [str(path) for path in area.landcover_fine]

    def _scene_reader(self) -> SceneReader:
        if self.holds_out and self.block_size < self.size:
            raise ConfigurationError(f'block_size: expected at least chip_size {self.size}, got {self.block_size}.')
        sampling = ChipSampling(
            self.size,
            self.chips_per_epoch,
            self.min_valid,
            self.aligned,
            self.chips_per_read,
            self.positives,
            covering_min_valid=self.min_valid,
        )
        return SceneReader(self.scene_options(), sampling, self._divide)

    def _divide(self, scenes: Scenes) -> Division:
        if self.labels is not None:
            require_crs(scenes.scenes, 'labels')
        if not self.holds_out:
            return Division({'train': None})
        fractions = (1 - self.val_fraction, self.val_fraction)
        if scenes.plain and len(scenes) > 1:
            train, val = split_scenes(scenes, fractions, self.seed)
        else:
            train, val = split_blocks(scenes, fractions, self.block_size, self.seed)
        return Division({'train': train, 'val': val})

    def _chip_reader(self) -> FolderReader:
        return FolderReader(self.folder_options(masks=False), self.part, self.wanted_chip_size, self.chips_per_epoch)

    def parts_of(self, stage: str) -> tuple[str, ...]:
        """Return the parts that a stage evaluates on.

        Args:
            stage: ``fit``, ``validate`` or ``test``.

        Raises:
            ConfigurationError: If nothing is held out for validation.
        """
        if stage == 'validate' and not self.holds_out:
            raise ConfigurationError(
                'val_fraction: nothing is held out for validation; set it to the value of the training run.'
            )
        return ('val',) if self.holds_out and stage in ('fit', 'validate') else ()
