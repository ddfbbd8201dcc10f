"""Labelled chips for segmentation, split by ground."""

import logging
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from shapely.geometry import MultiPolygon

from torchgeo_msssl.datamodules.base import ScenesDataModule
from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.datasets.labels import LabelledScenes, Labels
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.sample import SampleArea
from torchgeo_msssl.samplers.base import ChipSampler
from torchgeo_msssl.samplers.blocks import split_blocks
from torchgeo_msssl.samplers.grid import GridChipSampler
from torchgeo_msssl.samplers.random import RandomChipSampler

log = logging.getLogger(__name__)

_COLOURS = {'train': 'tab:green', 'train, label not used': 'lightgrey', 'val': 'tab:orange', 'test': 'tab:blue'}


class SegmentationDataModule(ScenesDataModule):
    """Chips of scenes with masks; training, validation and test chips share no ground.

    Without ``images`` the drone orthomosaics of the generated sample area are taken, with their vine rows.
    """

    def __init__(
        self,
        images: str | list[str] | None = None,
        labels: str | list[str] | None = None,
        class_names: list[str] | None = None,
        label_column: str | None = None,
        layer: str | None = None,
        buffer: float = 0.0,
        background: bool | None = None,
        label_extent: str | None = None,
        ignore_index: int = 255,
        bands: list[str] | None = None,
        sensor: str | None = None,
        chip_size: int = 128,
        chips_per_epoch: int | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
        block_size: int = 256,
        label_fraction: float = 1.0,
        shots: int | None = None,
        split_seed: int = 0,
        min_valid: float = 0.5,
        overlap: int = 0,
        aligned: bool = True,
        offset: float | Literal['auto'] = 'auto',
        cache: Literal['none', 'disk'] = 'none',
        cache_dir: str | None = None,
        predict_paths: str | list[str] | None = None,
        sample_dir: str = 'data/sample',
    ) -> None:
        """Note what to read; files are opened when bands or chips are first asked for.

        Args:
            images: Scenes: files, folders or patterns; None takes the drone scenes of the sample area.
            labels: Mask rasters, or polygons and lines (GeoPackage, GeoJSON, Shapefile, GeoParquet).
            class_names: Names of the classes; the index is the value in a mask.
            label_column: Vectors: column with the class.
            layer: Vectors: layer of the file.
            buffer: Vectors: metres by which lines and points are widened to each side.
            background: Whether ground without a label is class 0, or unlabelled and ignored.
            label_extent: Polygons of the surveyed ground; outside of it everything is unlabelled.
            ignore_index: Value of unlabelled pixels in the masks that a task gets.
            bands: Bands by name; None for the spectral bands that the files have.
            sensor: Sensor name, where the files do not tell.
            chip_size: Side of a chip in pixels.
            chips_per_epoch: Training chips of an epoch; None for as many as cover the training ground once.
            batch_size: Chips of a batch on each rank.
            num_workers: Processes that read chips; 0 reads in the main process.
            fractions: Shares of the blocks for training, validation and test.
            block_size: Side of a block of ground in pixels, at least ``chip_size``.
            label_fraction: Share of the training blocks whose labels are used; smaller shares lie within larger ones.
            shots: Number of training blocks whose labels are used, instead of a share.
            split_seed: Of the deal of blocks, and of the choice among the training blocks.
            min_valid: Smallest fraction of valid pixels in a chip.
            overlap: Pixels that neighbouring validation and test chips share.
            aligned: Place training chips so that they touch few stored blocks.
            offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
            cache: ``disk`` decodes every scene once to memory-mapped arrays.
            cache_dir: Folder for these (default: in the user's cache folder).
            predict_paths: Scenes to map with ``predict``.
            sample_dir: Where the sample area is, or is made.

        Raises:
            ConfigurationError: If a number is out of range, or options contradict each other.
        """
        super().__init__(
            images, bands, sensor, chip_size, chips_per_epoch, batch_size, num_workers, min_valid, aligned, offset,
            cache, cache_dir, sample_dir,
        )  # fmt: skip
        if images is not None and (labels is None or class_names is None):
            raise ConfigurationError('labels, class_names: both go with images; give the label files and the classes.')
        if block_size < chip_size:
            raise ConfigurationError(f'block_size: expected at least chip_size {chip_size}, got {block_size}.')
        if not 0 < label_fraction <= 1:
            raise ConfigurationError(f'label_fraction: expected above 0 and at most 1, got {label_fraction}.')
        if shots is not None and (shots < 1 or label_fraction != 1):
            msg = f'shots: expected 1 block or more and no label_fraction, got {shots} and {label_fraction}.'
            raise ConfigurationError(msg)
        self.labels = labels
        self.class_names = class_names
        self.label_options: dict[str, Any] = {
            'label_column': label_column, 'layer': layer, 'buffer': buffer, 'background': background,
            'label_extent': label_extent, 'ignore_index': ignore_index,
        }  # fmt: skip
        self.fractions = fractions
        self.block_size = block_size
        self.label_fraction = label_fraction
        self.shots = shots
        self.split_seed = split_seed
        self.overlap = overlap
        self.predict_paths = predict_paths
        self.labelled: LabelledScenes | None = None
        self.regions: dict[str, MultiPolygon] = {}
        self._samplers: dict[str, ChipSampler] = {}

    def use_sample_area(self, area: SampleArea) -> None:
        """Take the drone scenes and the canopies of their vine rows.

        Args:
            area: Its files.
        """
        self.paths = [str(path) for path in area.drone]
        self.sensor = self.sensor or 'micasense_rededge'
        self.labels = str(area.vines)
        self.class_names = self.class_names or ['background', 'vine']
        self.label_options |= {'layer': 'rows', 'background': True, 'label_column': None}

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
            assert self.class_names is not None
            labels = Labels(self.labels, self.class_names, **self.label_options)
            self.labelled = LabelledScenes(scenes, labels)
            self.look_for_valid_pixels()
            train, val, test = split_blocks(scenes, self.fractions, self.block_size, self.split_seed)
            self.regions = {'train': self._choose(train), 'val': val, 'test': test}
            unused = train.difference(self.regions['train'])
            self.find_statistics()
            self._write_split(unused)
        if stage == 'fit' and 'train' not in self._samplers:
            self._samplers['train'] = RandomChipSampler(
                self.scenes, self.chip_size, self.chips_per_epoch, self.min_valid, self.aligned,
                roi=self.regions['train'],
            )  # fmt: skip
            self.check_epoch(self._samplers['train'])
            self._count_classes()
            self.decode_scenes()
        for name, stages in (('val', ('fit', 'validate')), ('test', ('test',))):
            if stage in stages and name not in self._samplers:
                self._samplers[name] = GridChipSampler(
                    self.scenes, self.chip_size, self.overlap, self.regions[name], min_valid=1e-6
                )

    def _choose(self, train: MultiPolygon) -> MultiPolygon:
        """The first of the training blocks that have labels, in an order that depends on the seed alone."""
        assert self.labelled is not None
        blocks = np.array(list(train.geoms))
        order = np.random.default_rng(self.split_seed).permutation(len(blocks))
        wanted = self.shots or max(1, round(self.label_fraction * len(blocks)))
        if wanted > len(blocks):
            raise ConfigurationError(f'shots: there are {len(blocks)} training blocks, {wanted} were asked for.')
        if wanted == len(blocks):
            return train
        chosen = []
        for i in order:
            # a block whose labels are all unknown would count and teach nothing
            if self.labelled.labels.class_counts(self.scenes, blocks[i], progress=False).sum() > 0:
                chosen.append(blocks[i])
            if len(chosen) == wanted:
                break
        if not chosen:
            raise EmptyIntersectionError('labels: no training block has a labelled pixel; use other blocks or labels.')
        return MultiPolygon(chosen)

    def _count_classes(self) -> None:
        assert self.labelled is not None
        assert self.class_names is not None
        counts = self.labelled.labels.class_counts(self.scenes, self.regions['train'])
        shares = ', '.join(f'{name} {n:,}' for name, n in zip(self.class_names, counts, strict=True))
        log.info('Labelled training pixels: %s.', shares)
        absent = [name for name, n in zip(self.class_names, counts, strict=True) if n == 0]
        if absent:
            log.warning('No training pixel is %s; the network cannot learn it (counts: %s).', ', '.join(absent), shares)

    def _write_split(self, unused: Any) -> None:
        folder = self.trainer.log_dir if self.trainer else None  # asked on every rank: it is a broadcast
        if not folder or not self.trainer or not self.trainer.is_global_zero:
            return
        parts = {**self.regions} | ({'train, label not used': unused} if not unused.is_empty else {})
        frame = gpd.GeoDataFrame({'split': list(parts)}, geometry=list(parts.values()), crs=self.scenes.crs)
        with atomic_path(Path(folder) / 'split.geojson') as temporary:
            frame.to_crs('EPSG:4326').to_file(temporary, driver='GeoJSON')
        figure = Figure(figsize=(6, 6), layout='constrained')
        axes = figure.subplots()
        for name, region in parts.items():
            for block in region.geoms if hasattr(region, 'geoms') else [region]:
                axes.fill(*block.exterior.xy, facecolor=_COLOURS[name], edgecolor='white', linewidth=0.5)
        for box in self.scenes.index.geometry:
            axes.plot(*box.exterior.xy, color='black', linewidth=1)
        axes.legend(handles=[Patch(color=_COLOURS[name], label=name) for name in parts], loc='upper right')
        axes.set_aspect('equal')
        axes.set_title('split of the ground')
        with atomic_path(Path(folder) / 'split.png') as temporary:
            figure.savefig(temporary, dpi=100)

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
