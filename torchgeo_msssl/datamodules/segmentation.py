"""Chips with masks, for segmentation."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any, Literal

from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.datamodules.base import SpectralDataModule
from torchgeo_msssl.datamodules.folder_reader import FolderReader
from torchgeo_msssl.datamodules.labelled_ground import choose_labelled_blocks, log_class_counts, wanted_count
from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.datamodules.sample_data import sample_chips
from torchgeo_msssl.datamodules.scene_reader import ChipSampling, Division, SceneReader
from torchgeo_msssl.datamodules.split import UNUSED, save_split
from torchgeo_msssl.datasets.labels import LabelledScenes, Labels
from torchgeo_msssl.datasets.paired import PairedChips, collate_pairs
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.ground.parts import PARTS, part_names
from torchgeo_msssl.geo.ground.split import split_ground
from torchgeo_msssl.geo.labels.classes import resolve_classes, unlabelled_values
from torchgeo_msssl.geo.labels.options import MissingClass
from torchgeo_msssl.geo.plain_images import require_crs
from torchgeo_msssl.geo.sample import SampleArea
from torchgeo_msssl.runs import run_folder
from torchgeo_msssl.samplers.base import ChipSampler
from torchgeo_msssl.samplers.blocks import ground_of
from torchgeo_msssl.samplers.paired import PairedChipSampler

log = logging.getLogger(__name__)

#: Parts that a file of a split must have.
_NEEDED = ('train', 'test')


class SegmentationDataModule(SpectralDataModule):
    """Chips with masks from scenes or from a folder; training, validation and test chips share no ground.

    Without ``paths`` the generated sample area is used: its drone orthomosaics with their vine rows, or its Sentinel-2
    scenes with their land cover in coarse or fine classes (``sample``). It satisfies
    :class:`torchgeo_msssl.contract.LabelledData`.
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
        ignore_index: int | list[int] = 255,
        priority: list[str] | None = None,
        all_touched: bool = False,
        missing_class: MissingClass = 'refuse',
        batch_size: int = 8,
        min_valid: float = 0.5,
        split: str = 'blocks',
        fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
        block_size: int = 256,
        gap: int = 0,
        label_fraction: float = 1.0,
        shots: int | None = None,
        seed: int = 0,
        class_balance: bool = False,
        overlap: int = 0,
        sample: Literal['vines', 'landcover_l1', 'landcover_l2'] = 'vines',
        **kwargs: Any,
    ) -> None:
        """Check the options; files are opened when bands or chips are first used.

        Args:
            paths: Scenes: files, folders or patterns; or a folder of chips with masks, divided into ``train``, ``val``
                and ``test``; None uses the generated sample area.
            labels: Scenes: mask rasters, or polygons and lines (GeoPackage, GeoJSON, Shapefile, GeoParquet).
            class_names: List of names, whose index is the value in a mask; or mapping of names to values of the labels,
                such as ``{forest: 2, built: [8, 9]}``, which numbers classes in its order and leaves other values
                unlabelled. Default: those that the labels name in a manifest or tag, or the values that they hold;
                polygons without ``column`` are one class, named after their file.
            column: Vector labels: column with the class.
            layer: Vector labels: layer of the file.
            buffer: Vector labels: metres by which lines and points are widened to each side.
            background: Scenes: whether ground without a label is the background class, else it is unlabelled and
                ignored. Default: true for vector labels unless class 0 is drawn, false for rasters.
            extent: Scenes: polygons of the surveyed ground; everything outside is unlabelled.
            ignore_index: Value of unlabelled pixels, such as -1, or several. The masks of a batch have the first one
                from 0 to 255, else 255.
            priority: Vector labels: classes that lie on top of the others, the uppermost first.
            all_touched: Vector labels: burn every pixel that is touched.
            missing_class: Vector labels: whether geometries without a value in ``column`` are refused, or unlabelled.
            batch_size: Chips per batch on each rank.
            min_valid: Scenes: minimum fraction of valid pixels per training chip.
            split: Scenes: how the ground is divided: ``blocks``; ``scenes`` to hold out whole scenes; or a file of
                polygons with a column ``split`` of train, val and test (such as an earlier ``split.geojson``); or a
                CSV table with the columns ``file`` and ``split``. Without val there is no validation.
            fractions: Scenes: fractions of the blocks or scenes for training, validation and test.
            block_size: Scenes: side of a block of ground in pixels, at least ``chip_size``; blocks begin at the origin
                of the CRS.
            gap: Scenes: pixels between the regions; training yields to validation, and both yield to test.
            label_fraction: Fraction of all training blocks (or chips of a folder) whose labels are used; smaller
                fractions lie within larger ones.
            shots: Number of training blocks (or chips of a folder) whose labels are used, instead of a fraction. The
                first ones hold every class of the training ground; which they are depends on ``seed``.
            seed: Seed of the split and of the choice among the training blocks or chips.
            class_balance: Scenes: draw training chips of rare classes as often as those of common ones.
            overlap: Scenes: pixels that neighbouring validation chips share.
            sample: Labels of the sample area to use without ``paths``.
            **kwargs: The other options of :class:`~torchgeo_msssl.datamodules.base.SpectralDataModule`, with its
                defaults; ``chip_size`` is 128 for scenes.

        Raises:
            ConfigurationError: If a number is out of range, or options contradict each other.
        """
        super().__init__(paths=paths, batch_size=batch_size, min_valid=min_valid, **kwargs)
        self.size = self.wanted_chip_size or 128
        if class_balance and self.chips_per_read > 1:
            raise ConfigurationError(
                'chips_per_read: chips drawn by class come from anywhere; leave class_balance or chips_per_read out.'
            )
        if len(part_names(fractions)) < len(PARTS):
            raise ConfigurationError(f'fractions: expected three positive numbers with a sum of 1, got {fractions}.')
        if not 0 < label_fraction <= 1:
            raise ConfigurationError(f'label_fraction: expected above 0 and at most 1, got {label_fraction}.')
        if shots is not None and (shots < 1 or label_fraction != 1):
            raise ConfigurationError(
                f'shots: expected 1 or more and no label_fraction, got {shots} and {label_fraction}.'
            )
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
            'missing_class': missing_class,
        }
        self.ignore_index, _ = unlabelled_values(ignore_index)
        self._labels: Labels | None = None
        self.split = split
        self.fractions = fractions
        self.block_size = block_size
        self.gap = gap
        self.label_fraction = label_fraction
        self.shots = shots
        self.seed = seed
        self.class_balance = class_balance
        self._with_unlabelled = False
        self.overlap = overlap
        self.sample: Literal['vines', 'landcover_l1', 'landcover_l2'] = sample
        self.only_scenes |= {
            'labels': labels,
            'column': column,
            'layer': layer,
            'buffer': buffer,
            'background': background,
            'extent': extent,
            'priority': priority,
            'all_touched': all_touched,
            'missing_class': missing_class,
            'split': split,
            'fractions': tuple(fractions),
            'block_size': block_size,
            'gap': gap,
            'class_balance': class_balance,
            'overlap': overlap,
        }

    @property
    def class_names(self) -> Sequence[str] | None:
        """Names of the classes, those of the labels as soon as they are open; the index is the value in a mask."""
        if isinstance(self.reader, FolderReader):
            return self.reader.chips('train').class_names
        if self._labels is not None:
            return self._labels.class_names
        given, background = self.label_options['class_names'], self.label_options['background']
        return None if given is None else resolve_classes(given, self.label_options['ignore_index'], background).names

    @property
    def num_classes(self) -> int:
        """Number of classes, for which the labels are opened.

        Raises:
            MSSSLError: If they cannot be used.
        """
        names = self.class_names if self.reads_chips else self.open_labels().class_names
        assert names is not None
        return len(names)

    @property
    def labelled(self) -> LabelledScenes | None:
        """The scenes with their labels, None for a folder of chips."""
        return self.reader.division.labelled if isinstance(self.reader, SceneReader) else None

    @property
    def regions(self) -> dict[str, BaseGeometry]:
        """Ground of each part in the scenes' CRS, after ``setup``; of training, that whose labels are used."""
        return {name: region for name, region in self.scene_reader.division.regions.items() if region is not None}

    def _check_options(self, chips: bool) -> None:
        super()._check_options(chips)
        if self.paths is None and self.labels is not None:  # before the sample area is generated
            raise ConfigurationError(
                f'paths: the scenes of labels {self.labels} are not given; set paths, or leave labels out to use the '
                'sample area.'
            )

    def _use_sample_area(self, area: SampleArea, chips: bool) -> None:
        if chips:
            if self.sample != 'vines':
                raise ConfigurationError(
                    f'sample: chips are cut with vine rows only; expected vines, got {self.sample}.'
                )
            self.paths = sample_chips(area, 'drone')
        elif self.sample == 'vines':
            self.paths = [str(path) for path in area.drone]
            self.sensor = self.sensor or 'micasense_rededge'
            self.labels = str(area.vines)
            self._default_classes(['background', 'vine'])
            self.label_options |= {'layer': 'rows', 'background': True, 'column': None}
        else:
            coarse = self.sample == 'landcover_l1'
            self.paths = [str(path) for path in area.sentinel2]
            self.labels = [str(path) for path in (area.landcover_coarse if coarse else area.landcover_fine)]
            self._default_classes(area.classes_coarse if coarse else area.classes_fine)

    def _default_classes(self, names: Sequence[str]) -> None:
        self.label_options['class_names'] = self.label_options['class_names'] or list(names)

    def open_labels(self) -> Labels:
        """Return the labels of scenes, opened at first use.

        Raises:
            ConfigurationError: If there are none.
        """
        _ = self.reader  # which may set those of the sample area
        if self.labels is None:
            raise ConfigurationError('labels: required with scenes; give the label files.')
        if self._labels is None:
            self._labels = Labels(self.labels, **self.label_options)
            _check_several(self._labels.class_names)
        return self._labels

    def _scene_reader(self) -> SceneReader:
        if self.block_size < self.size:
            raise ConfigurationError(f'block_size: expected at least chip_size {self.size}, got {self.block_size}.')
        sampling = ChipSampling(
            self.size,
            self.chips_per_epoch,
            self.min_valid,
            self.aligned,
            self.chips_per_read,
            balanced=self.class_balance,
            overlap=self.overlap,
        )
        return SceneReader(self.scene_options(), sampling, self._divide)

    def _divide(self, scenes: Scenes) -> Division:
        require_crs(scenes.scenes, 'labels')
        labelled = LabelledScenes(scenes, self.open_labels())
        source = labelled.labels.source
        regions = split_ground(
            ground_of(scenes), self.split, self.fractions, self.block_size, self.seed, source, self.gap, _NEEDED
        )
        ground = regions['train']
        regions['train'] = choose_labelled_blocks(
            labelled, ground, self.block_size, self.label_fraction, self.shots, self.seed
        )
        folder = run_folder(self.trainer)
        if folder is not None and self.trainer is not None and self.trainer.is_global_zero:
            save_split(folder, {**regions, UNUSED: ground.difference(regions['train'])}, scenes)
        return Division(regions, labelled, ground)

    def _chip_reader(self) -> FolderReader:
        few = self.shots is not None or self.label_fraction < 1
        return FolderReader(
            self.folder_options(
                masks=True,
                class_names=self.label_options['class_names'],
                ignore_index=self.label_options['ignore_index'],
            ),
            None,
            self.wanted_chip_size,
            self.chips_per_epoch,
            (lambda total: wanted_count(total, self.label_fraction, self.shots, 'training chips')) if few else None,
            self.seed,
        )

    def setup(self, stage: str) -> None:
        """Split the ground, choose the labels that are used, and find the statistics.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ConfigurationError: If the split leaves a region empty, or an epoch has fewer chips than a batch.
            MSSSLError: If scenes, chips or labels cannot be used.
        """
        self.reader.prepare()
        first = stage == 'fit' and self.sampler is None
        super().setup(stage)
        if first and self.labelled is not None:
            names = self.labelled.labels.class_names
            log_class_counts(self.labelled, self.regions['train'], names)
            if 'val' in self.regions:
                log_class_counts(self.labelled, self.regions['val'], names, 'validation')

    def parts_of(self, stage: str) -> tuple[str, ...]:
        """Return the parts that a stage evaluates on.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ConfigurationError: If nothing is held out for validation.
        """
        if stage == 'fit' and not self.holds_out:
            log.warning(
                'Nothing is held out for validation, so that there is no best checkpoint: the last one is taken.'
            )
            for message in ('.*could not find the monitored key', 'Total length of `list` across ranks is zero'):
                warnings.filterwarnings('ignore', message)
            return ()
        if stage == 'validate' and not self.holds_out:
            raise ConfigurationError('split: nothing is held out for validation; add a part val, or use test.')
        return {'fit': ('val',), 'validate': ('val',), 'test': ('test',)}.get(stage, ())

    @property
    def mapped_ground(self) -> tuple[Scenes, BaseGeometry] | None:
        """Scenes whose map a test scores, with the test ground in their CRS; None for a folder of chips."""
        return None if self.reads_chips else (self.scenes, self.regions['test'])

    @property
    def holds_out(self) -> bool:
        """Whether some ground or chips are held out for validation."""
        if isinstance(self.reader, SceneReader):
            return 'val' in self.reader.division.regions
        assert isinstance(self.reader, FolderReader)
        splits = self.reader.splits
        return 'val' in splits or 'train' not in splits

    def add_unlabelled(self) -> None:
        """Add unlabelled chips of all training ground to training batches, as many as they have labelled ones.

        A task that trains on unlabelled chips calls this before loaders are made.
        """
        self._with_unlabelled = True

    def _train_loader(self, sampler: ChipSampler) -> ChipLoader:
        if not self._with_unlabelled:
            return super()._train_loader(sampler)
        unlabelled = self.reader.unlabelled_sampler(len(sampler) * sampler.ranks()[1])
        chips = PairedChips(self.reader.dataset('train'), self.reader.unlabelled_dataset())
        return self._make_loader(
            'train', PairedChipSampler(sampler, unlabelled), dataset=chips, collate_fn=collate_pairs, drop_last=True
        )

    def test_dataloader(self) -> ChipLoader:
        """Return the loader of test chips; of scenes, windows that show each pixel of the test ground once."""
        return self._make_loader('test', self._samplers['test'])

    def region_loader(self, part: str, context: int = 0) -> ChipLoader:
        """Return a loader of the labelled chips that cover a part, in order, all of them on every rank.

        Args:
            part: ``train`` (where labels are used), ``val`` or ``test``.
            context: Pixels around each test chip of scenes that are read too, without labels.
        """
        self.reader.prepare()
        if part == 'test' and isinstance(self.reader, SceneReader):
            sampler, dataset = self.reader.test_sampler(context, all_ranks=True), self.reader.test_dataset(context)
            return self._make_loader(part, sampler, dataset=dataset)
        return self._make_loader(part, self.reader.covering_sampler(part, all_ranks=True))


def _check_several(names: Sequence[str]) -> None:
    if len(names) < 2:
        (name,) = names
        raise ConfigurationError(
            f'class_names: {name} alone leaves nothing to tell it from; name the background too, as in [background, '
            f'{name}] or {{background: 0, {name}: 1}}, or set background to true.'
        )
