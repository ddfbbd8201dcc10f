"""Labelled chips for segmentation, split by ground."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import shapely
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.datamodules.base import ScenesDataModule
from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.datamodules.split import UNUSED, save_split
from torchgeo_msssl.datasets.labels import LabelledScenes, Labels
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError
from torchgeo_msssl.geo.ground.parts import PARTS, part_names
from torchgeo_msssl.geo.ground.split import split_ground
from torchgeo_msssl.geo.labels.classes import resolve_classes
from torchgeo_msssl.geo.sample import SampleArea
from torchgeo_msssl.runs import run_folder
from torchgeo_msssl.samplers.balanced import BalancedChipSampler
from torchgeo_msssl.samplers.base import ChipSampler
from torchgeo_msssl.samplers.blocks import ground_blocks, ground_of
from torchgeo_msssl.samplers.grid import GridChipSampler
from torchgeo_msssl.samplers.random import RandomChipSampler

log = logging.getLogger(__name__)

SampleLabels = Literal['vines', 'landcover_l1', 'landcover_l2']


class SegmentationDataModule(ScenesDataModule):
    """Chips of scenes with masks; training, validation and test chips share no ground.

    Without ``paths`` the generated sample area is taken: its drone orthomosaics with their vine rows, or its
    Sentinel-2 scenes with their land cover in coarse or fine classes (``sample``).
    """

    def __init__(
        self,
        paths: str | list[str] | None = None,
        labels: str | list[str] | None = None,
        class_names: list[str] | dict[str, int | str | list[int | str]] | None = None,
        column: str | None = None,
        layer: str | None = None,
        buffer: float = 0.0,
        background: bool | None = None,
        extent: str | None = None,
        ignore_index: int = 255,
        priority: list[str] | None = None,
        all_touched: bool = False,
        bands: list[str] | None = None,
        sensor: str | None = None,
        chip_size: int = 128,
        chips_per_epoch: int | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        split: str = 'blocks',
        fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
        block_size: int = 256,
        gap: int = 0,
        label_fraction: float = 1.0,
        shots: int | None = None,
        seed: int = 0,
        class_balance: bool = False,
        min_valid: float = 0.5,
        overlap: int = 0,
        aligned: bool = True,
        offset: float | Literal['auto'] = 'auto',
        cache: Literal['none', 'disk'] = 'none',
        cache_dir: str | None = None,
        predict_paths: str | list[str] | None = None,
        sample_dir: str = 'data/sample',
        sample: SampleLabels = 'vines',
        statistics: str | None = None,
        cache_size: str | None = None,
        chips_per_read: int = 1,
    ) -> None:
        """Note what to read; files are opened when bands or chips are first asked for.

        Args:
            paths: Scenes: files, folders or patterns; None uses the sample area.
            labels: Mask rasters, or polygons and lines (GeoPackage, GeoJSON, Shapefile, GeoParquet).
            class_names: List of names, whose index is the value in a mask; or mapping of names to values of the labels,
                such as ``{forest: 2, built: [8, 9]}``, which numbers classes in its order and leaves other values
                unlabelled. Default: the numbers of ``column``.
            column: Vectors: column with the class.
            layer: Vectors: layer of the file.
            buffer: Vectors: metres by which lines and points are widened to each side.
            background: Whether ground without a label is the background class, else it is unlabelled and ignored.
            extent: Polygons of the surveyed ground; outside of it everything is unlabelled.
            ignore_index: Value of unlabelled pixels in the masks that a task gets.
            priority: Vectors: classes that lie on top of the others, the uppermost first.
            all_touched: Vectors: burn every pixel that is touched.
            bands: Bands by name; None for the spectral bands that the files have.
            sensor: Sensor name, where the files do not tell.
            chip_size: Side of a chip in pixels.
            chips_per_epoch: Training chips of an epoch; None for as many as cover the training ground once.
            batch_size: Chips of a batch on each rank.
            num_workers: Processes that read chips; 0 reads in the main process.
            split: How the ground is divided: ``blocks``; ``scenes``, so that whole scenes are held out; or a file of
                polygons with a column ``split`` that says train, val or test (such as an earlier ``split.geojson``).
            fractions: Shares of the blocks or scenes for training, validation and test.
            block_size: Side of a block of ground in pixels, at least ``chip_size``; blocks begin at the origin of the
                CRS.
            gap: Pixels between the regions; training yields to validation, and both yield to test.
            label_fraction: Share of all training blocks whose labels are used; smaller shares lie within larger ones.
            shots: Number of training blocks whose labels are used, instead of a share.
            seed: Of the deal of blocks, and of the choice among the training blocks.
            class_balance: Show training chips of rare classes as often as those of common ones.
            min_valid: Smallest fraction of valid pixels in a chip.
            overlap: Pixels that neighbouring validation and test chips share.
            aligned: Place training chips so that they touch few stored blocks.
            offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
            cache: ``disk`` decodes every scene once to memory-mapped arrays.
            cache_dir: Folder for these (default: in the user's cache folder).
            cache_size: Most that decoded scenes may take in that folder, such as ``50GB``; those that were used longest
                ago make room.
            chips_per_read: So many consecutive training chips come from one neighbourhood, which is decoded once. That
                is several times as fast, and a batch shows as many times fewer places. Best a divisor of
                ``batch_size``.
            predict_paths: Scenes to map with ``predict``.
            sample_dir: Where the sample area is, or is made.
            sample: Which of its labels are used without ``paths``.
            statistics: YAML of the ``statistics`` command with mean and std (default: they are computed).

        Raises:
            ConfigurationError: If a number is out of range, or options contradict each other.
        """
        super().__init__(
            paths, bands, sensor, chip_size, chips_per_epoch, batch_size, num_workers, min_valid, aligned, offset,
            cache, cache_dir, sample_dir, statistics=statistics, cache_size=cache_size, chips_per_read=chips_per_read,
        )  # fmt: skip
        if paths is not None and labels is None:
            raise ConfigurationError('labels: required with paths; give the label files.')
        if class_balance and chips_per_read > 1:
            msg = 'chips_per_read: chips drawn by class come from anywhere; leave class_balance or chips_per_read out.'
            raise ConfigurationError(msg)
        if block_size < chip_size:
            raise ConfigurationError(f'block_size: expected at least chip_size {chip_size}, got {block_size}.')
        if len(part_names(fractions)) < len(PARTS):
            raise ConfigurationError(f'fractions: expected three positive numbers with a sum of 1, got {fractions}.')
        if not 0 < label_fraction <= 1:
            raise ConfigurationError(f'label_fraction: expected above 0 and at most 1, got {label_fraction}.')
        if shots is not None and (shots < 1 or label_fraction != 1):
            msg = f'shots: expected 1 block or more and no label_fraction, got {shots} and {label_fraction}.'
            raise ConfigurationError(msg)
        self.labels = labels
        self.label_options: dict[str, Any] = {
            'class_names': class_names,
            'column': column,
            'layer': layer,
            'buffer': buffer,
            'background': background,
            'extent': extent,
            'ignore_index': ignore_index,
            'priority': priority or (),
            'all_touched': all_touched,
        }
        self.split = split
        self.fractions = fractions
        self.block_size = block_size
        self.gap = gap
        self.label_fraction = label_fraction
        self.shots = shots
        self.seed = seed
        self.class_balance = class_balance
        self.overlap = overlap
        self.predict_paths = predict_paths
        self.labelled: LabelledScenes | None = None
        self.sample: SampleLabels = sample
        self.regions: dict[str, BaseGeometry] = {}
        self._samplers: dict[str, ChipSampler] = {}

    @property
    def class_names(self) -> Sequence[str] | None:
        """Class names, those of the labels as soon as they are open; the index is the value in a mask."""
        if self.labelled is not None:
            return self.labelled.labels.class_names
        given, background = self.label_options['class_names'], self.label_options['background']
        return None if given is None else resolve_classes(given, self.ignore_index, background).names

    @property
    def ignore_index(self) -> int:
        """Value of unlabelled pixels in a mask."""
        return int(self.label_options['ignore_index'])

    def use_sample_area(self, area: SampleArea) -> None:
        """Take the drone scenes and the canopies of their vine rows, or the Sentinel-2 scenes and their land cover.

        Args:
            area: Its files.
        """
        if self.sample != 'vines':
            coarse = self.sample == 'landcover_l1'
            self.paths = [str(path) for path in area.sentinel2]
            self.labels = [str(path) for path in (area.landcover_coarse if coarse else area.landcover_fine)]
            self._default_classes(area.classes_coarse if coarse else area.classes_fine)
            return
        self.paths = [str(path) for path in area.drone]
        self.sensor = self.sensor or 'micasense_rededge'
        self.labels = str(area.vines)
        self._default_classes(['background', 'vine'])
        self.label_options |= {'layer': 'rows', 'background': True, 'column': None}

    def _default_classes(self, names: Sequence[str]) -> None:
        self.label_options['class_names'] = self.label_options['class_names'] or list(names)

    def setup(self, stage: str) -> None:
        """Split the ground, choose the labels that are used, and find the statistics.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ConfigurationError: If the split leaves a region empty, or an epoch no batch.
            MSSSLError: If scenes or labels do not suit.
        """
        if self.labelled is None:
            scenes = self.scenes
            assert self.labels is not None
            labels = Labels(self.labels, **self.label_options)
            self.labelled = LabelledScenes(scenes, labels)
            self.look_for_valid_pixels()
            self.regions = split_ground(
                ground_of(scenes), self.split, self.fractions, self.block_size, self.seed, labels.source, self.gap
            )
            ground = self.regions['train']
            self.regions['train'] = self._choose(ground)
            self.find_statistics()
            folder = run_folder(self.trainer)
            if folder is not None and self.trainer is not None and self.trainer.is_global_zero:
                save_split(folder, {**self.regions, UNUSED: ground.difference(self.regions['train'])}, scenes)
        if stage == 'fit' and 'train' not in self._samplers:
            chips = RandomChipSampler(
                self.scenes, self.chip_size, self.chips_per_epoch, self.min_valid, self.aligned,
                roi=self.regions['train'], chips_per_read=self.chips_per_read,
            )  # fmt: skip
            self.check_epoch(chips)
            balanced = self.class_balance
            self._samplers['train'] = BalancedChipSampler(chips, self.labelled.labels) if balanced else chips
            self._count_classes()
            self.decode_scenes()
        for name, stages in (('val', ('fit', 'validate')), ('test', ('test',))):
            if stage in stages and name not in self._samplers:
                self._samplers[name] = GridChipSampler(
                    self.scenes, self.chip_size, self.overlap, self.regions[name], min_valid=1e-6
                )

    def _choose(self, ground: BaseGeometry) -> BaseGeometry:
        """The first of the training blocks that have labels, in an order that depends on the seed alone."""
        assert self.labelled is not None
        blocks = ground_blocks(self.scenes, self.block_size, ground, self.seed)
        wanted = self.shots or max(1, round(self.label_fraction * len(blocks)))
        if wanted > len(blocks):
            raise ConfigurationError(f'shots: there are {len(blocks)} training blocks, {wanted} were asked for.')
        if wanted == len(blocks):
            return ground
        chosen = []
        for block in blocks:
            # a block whose labels are all unknown would count and teach nothing
            if self.labelled.labels.is_labelled(self.scenes, block):
                chosen.append(block)
            if len(chosen) == wanted:
                break
        if not chosen:
            raise EmptyIntersectionError('labels: no training block has a labelled pixel; use other blocks or labels.')
        if len(chosen) < wanted:
            told = f'{wanted} of {len(blocks)} training blocks were asked for, and only {len(chosen)} have labels'
            if self.shots is not None:
                raise ConfigurationError(f'shots: {told}; ask for fewer, or use smaller blocks.')
            log.warning('label_fraction: %s.', told)
        log.info('Labels of %d of %d training blocks are used.', len(chosen), len(blocks))
        return shapely.union_all(chosen)

    def _count_classes(self) -> None:
        assert self.labelled is not None
        assert self.class_names is not None
        counts = self.labelled.labels.class_counts(self.scenes, self.regions['train'])
        shares = ', '.join(f'{name} {n:,}' for name, n in zip(self.class_names, counts, strict=True))
        log.info('Labelled training pixels: %s.', shares)
        absent = [name for name, n in zip(self.class_names, counts, strict=True) if n == 0]
        if absent:
            log.warning('No training pixel is %s; the network cannot learn it (counts: %s).', ', '.join(absent), shares)

    def train_dataloader(self) -> ChipLoader:
        """Random training chips with masks.

        Returns:
            A loader that can go on in the middle of an epoch.
        """
        return self.training_loader(self._samplers['train'], self.labelled)

    def val_dataloader(self) -> ChipLoader:
        """Validation chips, which cover their blocks.

        Returns:
            The loader.
        """
        return self.loader(self._samplers['val'], self.labelled)

    def test_dataloader(self) -> ChipLoader:
        """Test chips, which cover their blocks.

        Returns:
            The loader.
        """
        return self.loader(self._samplers['test'], self.labelled)

    def region_loader(self, part: str) -> ChipLoader:
        """Labelled chips that cover a part of the ground, in order, whatever the stage; all of them on every rank.

        Args:
            part: ``train`` (where labels are used), ``val`` or ``test``.

        Returns:
            The loader.
        """
        sampler = GridChipSampler(
            self.scenes, self.chip_size, self.overlap, self.regions[part], min_valid=1e-6, all_ranks=True
        )
        return self.loader(sampler, self.labelled)
