"""Chips of unlabelled scenes for pretraining."""

from typing import Literal

from torchgeo_msssl.datamodules.base import ScenesDataModule
from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.geo.sample import SampleArea
from torchgeo_msssl.samplers.random import RandomChipSampler


class PretrainingDataModule(ScenesDataModule):
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
        super().__init__(
            paths, bands, sensor, chip_size, chips_per_epoch, batch_size, num_workers, min_valid, aligned, offset,
            cache, cache_dir, sample_dir, crs, res,
        )  # fmt: skip
        self.positives: Literal['same', 'temporal', 'nearby'] = positives
        self.labels = labels
        self.sampler: RandomChipSampler | None = None

    def use_sample_area(self, area: SampleArea) -> None:
        """Take the Sentinel-2 scenes, with their land cover for the frozen probe.

        Args:
            area: Its files.
        """
        self.paths = [str(path) for path in area.sentinel2]
        self.labels = self.labels or [str(path) for path in area.landcover_fine]

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
        self.look_for_valid_pixels()
        self.sampler = RandomChipSampler(
            self.scenes,
            self.chip_size,
            self.chips_per_epoch,
            min_valid=self.min_valid,
            aligned=self.aligned,
            positives=self.positives,
        )
        self.check_epoch(self.sampler)
        self.find_statistics()
        self.decode_scenes()

    def train_dataloader(self) -> ChipLoader:
        """The chips of an epoch in batches.

        Returns:
            A loader that can go on in the middle of an epoch.
        """
        assert self.sampler is not None, 'setup() comes first'
        return self.training_loader(self.sampler)
