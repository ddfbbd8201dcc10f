"""What the data modules share: options, bands, statistics, and loaders that resume within an epoch."""

import inspect
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torchgeo.datamodules import BaseDataModule

from torchgeo_msssl.bands import rgb_names
from torchgeo_msssl.datamodules.folder_reader import FolderOptions, FolderReader
from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.datamodules.reader import ChipReader, ReaderName, reads_chips
from torchgeo_msssl.datamodules.sample_data import find_sample_area
from torchgeo_msssl.datamodules.scene_reader import SceneOptions, SceneReader
from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.datasets.chip_files import Channels
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.files import write_json
from torchgeo_msssl.geo.bad_scenes import OnBadScene
from torchgeo_msssl.geo.eviction import parse_size
from torchgeo_msssl.geo.labels.classes import ClassNames
from torchgeo_msssl.geo.sample import SampleArea
from torchgeo_msssl.runs import run_folder
from torchgeo_msssl.samplers.base import ChipSampler


class SpectralDataModule(BaseDataModule):
    """Chips of known bands, from scenes or from a folder of chips, with the statistics that normalize them.

    It satisfies :class:`torchgeo_msssl.contract.SpectralData`.
    """

    def __init__(
        self,
        paths: str | list[str] | None = None,
        bands: list[str] | None = None,
        sensor: str | None = None,
        chip_size: int | None = None,
        chips_per_epoch: int | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        reader: ReaderName = 'auto',
        min_valid: float = 0.9,
        aligned: bool = True,
        chips_per_read: int = 1,
        crs: str | None = None,
        res: float | None = None,
        offset: float | Literal['auto'] = 'auto',
        statistics: str | None = None,
        cache: Literal['none', 'disk'] = 'none',
        cache_dir: str | None = None,
        cache_size: str | None = None,
        on_bad_scene: OnBadScene = 'raise',
        channels: Channels | None = None,
        band_names: list[str] | None = None,
        predict_paths: str | list[str] | None = None,
        sample_dir: str = 'data/sample',
    ) -> None:
        """Check the options; files are opened when bands or chips are first used.

        Args:
            paths: Scenes: files, folders or patterns such as ``'dir/*.tif'``; or a folder of chips; None uses the
                generated sample area.
            bands: Bands by name; None for all spectral bands of the files.
            sensor: Sensor name where the files do not say (see :data:`torchgeo_msssl.bands.SENSORS`).
            chip_size: Side of a chip in pixels. From a folder of chips, windows of this size are cut at random for
                training and side by side for validation and test; None uses whole chips.
            chips_per_epoch: Training chips per epoch over all ranks; None for as many as cover the valid pixels once,
                or for each chip of a folder once.
            batch_size: Chips per batch on each rank.
            num_workers: Processes that read chips; 0 reads in the main process.
            reader: ``scenes`` or ``chips``; ``auto`` recognizes a folder of chips by the manifest of the ``chip``
                command, by folders ``images``, or by ``.npy`` files.
            min_valid: Scenes: minimum fraction of valid pixels per training chip.
            aligned: Scenes: place training chips so that they touch few stored blocks.
            chips_per_read: Scenes: number of consecutive training chips from one neighbourhood, which is decoded once.
                Reading is several times as fast, and a batch shows that many times fewer places. Best a divisor of
                ``batch_size``.
            crs: Scenes: bring all scenes to this CRS (default: each chip stays on the grid of its scene).
            res: Scenes: bring all scenes to this pixel size, in units of the CRS.
            offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
            statistics: YAML file of the ``statistics`` command with mean and std (default: from the manifest of a
                folder of chips, else computed).
            cache: Scenes: ``disk`` decodes every scene once to memory-mapped arrays.
            cache_dir: Scenes: folder of these arrays (default: in the user's cache folder).
            cache_size: Scenes: maximum size of that folder, such as ``50GB``; the scenes used longest ago are removed
                first.
            on_bad_scene: Scenes: whether one that cannot be opened, or whose file was cut short, is an error
                (``raise``), or is left out with a warning and counted (``skip``). With ``skip``, ``predict`` also
                leaves out those that cannot be read completely.
            channels: Chips in ``.npy`` files: axis of the bands, ``first`` or ``last``.
            band_names: Chips: names of the bands in order, where the files do not say.
            predict_paths: Scenes to map or restore with ``predict``.
            sample_dir: Folder of the sample area, which is generated if missing.

        Raises:
            ConfigurationError: If a number is out of range.
        """
        super().__init__(Scenes, batch_size, num_workers)
        for name, value, least in (
            ('batch_size', batch_size, 1),
            ('num_workers', num_workers, 0),
            ('chip_size', chip_size, 1),
        ):
            if value is not None and value < least:
                raise ConfigurationError(f'{name}: expected at least {least}, got {value}.')
        if cache_size is not None:
            parse_size(cache_size)
        if not 1 <= chips_per_read <= batch_size:
            raise ConfigurationError(
                f'chips_per_read: expected 1 to batch_size {batch_size} chips, got {chips_per_read}.'
            )
        if chips_per_epoch is not None and chips_per_epoch < batch_size:
            raise ConfigurationError(
                f'chips_per_epoch: expected at least batch_size {batch_size} chips, got {chips_per_epoch}.'
            )
        self.paths = paths
        self.wanted_bands = bands
        self.sensor = sensor
        self.wanted_chip_size = chip_size
        self.chips_per_epoch = chips_per_epoch
        self.reader_option: ReaderName = reader
        self.min_valid = min_valid
        self.aligned = aligned
        self.chips_per_read = chips_per_read
        self.crs = crs
        self.res = res
        self.offset_option: float | Literal['auto'] = offset
        self.statistics = statistics
        self.cache = cache
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        self.on_bad_scene: OnBadScene = on_bad_scene
        self.channels = channels
        self.band_names = band_names
        #: Options that apply to scenes, or to folders of chips, only.
        self.only_scenes: dict[str, Any] = {
            'crs': crs,
            'res': res,
            'min_valid': min_valid,
            'aligned': aligned,
            'chips_per_read': chips_per_read,
            'cache': cache,
            'cache_dir': cache_dir,
            'cache_size': cache_size,
            'on_bad_scene': on_bad_scene,
        }
        self.only_chips: dict[str, Any] = {'channels': channels, 'band_names': band_names}
        self.predict_paths = predict_paths
        self.sample_dir = sample_dir
        self.mean: tuple[float, ...] = ()  # type: ignore[assignment]
        self.std: tuple[float, ...] = ()  # type: ignore[assignment]
        self._samplers: dict[str, ChipSampler] = {}
        self._loader: ChipLoader | None = None
        self._loader_state: dict[str, int] = {}

    # Reading.

    @cached_property
    def reader(self) -> ChipReader:
        """What chips are read from.

        Raises:
            ConfigurationError: If an option does not apply to it.
        """
        chips = reads_chips(self.paths, self.reader_option)
        self._check_options(chips)
        if self.paths is None:
            self._use_sample_area(find_sample_area(self.sample_dir), chips)
        return self._chip_reader() if chips else self._scene_reader()

    @property
    def scenes(self) -> Scenes:
        """The scenes, opened at first use.

        Raises:
            ConfigurationError: If chips are read from a folder.
        """
        return self.scene_reader.scenes

    @property
    def scene_reader(self) -> SceneReader:
        """The reader of scenes.

        Raises:
            ConfigurationError: If chips are read from a folder.
        """
        if not isinstance(self.reader, SceneReader):
            raise ConfigurationError(f'paths: scenes are needed, and {self.paths} is a folder of chips; give scenes.')
        return self.reader

    @property
    def reads_chips(self) -> bool:
        """Whether chips are read from a folder."""
        return isinstance(self.reader, FolderReader)

    @abstractmethod
    def _scene_reader(self) -> SceneReader:
        """Return the reader of scenes."""

    @abstractmethod
    def _chip_reader(self) -> FolderReader:
        """Return the reader of a folder of chips."""

    @abstractmethod
    def _use_sample_area(self, area: SampleArea, chips: bool) -> None:
        """Set paths and labels to those of the sample area."""

    def _check_options(self, chips: bool) -> None:
        defaults = {
            name: parameter.default
            for kind in reversed(type(self).__mro__)
            if issubclass(kind, SpectralDataModule)
            for name, parameter in inspect.signature(kind).parameters.items()
        }
        given = self.only_scenes if chips else self.only_chips
        changed = [name for name, value in given.items() if value != defaults[name]]
        if changed:
            kind, other = ('scenes', 'a folder of chips') if chips else ('a folder of chips', 'scenes')
            where = f' ({self.paths})' if self.paths else ''
            raise ConfigurationError(
                f'{", ".join(changed)}: for {kind} only, and paths{where} are read as {other}; leave the option out, '
                'or set reader.'
            )

    def scene_options(self) -> SceneOptions:
        """Return the options of the reader of scenes."""
        assert self.paths is not None
        return SceneOptions(
            self.paths,
            self.wanted_bands,
            self.sensor,
            self.crs,
            self.res,
            self.offset_option,
            self.cache,
            self.cache_dir,
            self.cache_size,
            self.on_bad_scene,
        )

    def folder_options(
        self, masks: bool, class_names: ClassNames | None = None, ignore_index: int | Sequence[int] = 255
    ) -> FolderOptions:
        """Return the options of the reader of a folder of chips.

        Args:
            masks: Whether masks are read.
            class_names: Names of the classes; None for those of the manifest.
            ignore_index: Value of unlabelled pixels, or several.
        """
        assert self.paths is not None
        (root,) = [self.paths] if isinstance(self.paths, str) else self.paths
        return FolderOptions(
            root,
            tuple(self.wanted_bands) if self.wanted_bands else None,
            self.sensor,
            self.offset_option,
            self.channels,
            tuple(self.band_names or ()),
            masks,
            class_names or None,
            ignore_index if isinstance(ignore_index, int) else tuple(ignore_index),
        )

    # What a task needs.

    @property
    def bands(self) -> tuple[str, ...]:
        """Canonical names of the bands, in the order of the channels."""
        return self.reader.bands

    @property
    def in_channels(self) -> int:
        """Number of bands."""
        return len(self.bands)

    @property
    def sensor_name(self) -> str | None:
        """Key of the sensor in :data:`torchgeo_msssl.bands.SENSORS`, None where unknown."""
        sensor = self.reader.sensor
        return sensor.name if sensor else None

    @property
    def wavelengths(self) -> tuple[float | None, ...]:
        """Central wavelength of each band in nanometres, None where unknown."""
        sensor = self.reader.sensor
        found = [sensor.find(band) if sensor else None for band in self.bands]
        return tuple(band.wavelength if band else None for band in found)

    @property
    def rgb_index(self) -> tuple[int, int, int]:
        """Channels to display as red, green and blue."""
        red, green, blue = rgb_names(self.bands, self.reader.sensor)
        return self.bands.index(red), self.bands.index(green), self.bands.index(blue)

    @property
    def chip_size(self) -> int:
        """Side of the chips in pixels."""
        return self.reader.chip_size

    @property
    def pixel_size(self) -> float | None:
        """Side of a pixel on the ground in metres, None where unknown."""
        return self.reader.pixel_size

    @property
    def scale(self) -> tuple[float, ...]:
        """Reflectance per digital number, for each band of the first scene or chip."""
        return self.reader.radiometry.scale

    @property
    def offset(self) -> tuple[float, ...]:
        """Digital number added before scaling, for each band of the first scene or chip."""
        return self.reader.radiometry.offset

    def describe_chips(self, batch: dict[str, Tensor]) -> list[str]:
        """Return file and window of each chip of a training batch, for messages.

        Args:
            batch: Batch.
        """
        return self.reader.describe(batch)

    # Set-up.

    @property
    def sampler(self) -> ChipSampler | None:
        """Sampler of the training chips, None before ``setup('fit')``."""
        return self._samplers.get('train')

    @abstractmethod
    def parts_of(self, stage: str) -> Sequence[str]:
        """Return the parts that a stage evaluates on: some of ``val`` and ``test``.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.
        """

    def setup(self, stage: str) -> None:
        """Find out where chips can be, and their statistics.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            ConfigurationError: If an epoch has fewer chips than a batch, or there are none for the stage.
            MSSSLError: If scenes, chips or labels cannot be used.
        """
        parts = self.parts_of(stage)
        self.reader.prepare()
        if stage == 'fit' and self.sampler is None:
            sampler = self.reader.train_sampler()
            if len(sampler) < self.batch_size:
                raise ConfigurationError(
                    f'chips_per_epoch: an epoch has {len(sampler)} chips, fewer than batch_size {self.batch_size}; set '
                    'chips_per_epoch, or use smaller batches or chips.'
                )
            self._samplers['train'] = sampler
            self.find_statistics()
            self.reader.before_training()
        for part in parts:
            if part not in self._samplers:
                self._samplers[part] = self.reader.covering_sampler(part)

    def find_statistics(self) -> None:
        """Set ``mean`` and ``std`` from the file given, from a cache or manifest, or by reading; copy them to the run.

        Raises:
            BandError: If a band has one value everywhere, or the file given lacks it.
            ConfigurationError: If the file given cannot be used.
            ValidDataError: If no pixel is valid in all bands.
            OutputError: If the copy in the run folder cannot be written.
        """
        given = self.statistics
        found = self.reader.given_statistics(given) if given is not None else self.reader.statistics()
        self.mean, self.std = tuple(found['mean']), tuple(found['std'])
        folder = run_folder(self.trainer)
        if folder is not None and self.trainer is not None and self.trainer.is_global_zero:
            write_json(folder / 'statistics.json', found)

    # Loaders.

    def train_dataloader(self) -> ChipLoader:
        """Return the loader of random training chips, which can resume within an epoch."""
        assert self.sampler is not None, 'setup() comes first'
        self._loader = self._train_loader(self.sampler)
        if self._loader_state:
            self._loader.load_state_dict(self._loader_state)
            self._loader_state = {}
        return self._loader

    def val_dataloader(self) -> ChipLoader | list[ChipLoader]:
        """Return the loader of validation chips, or nothing where none are held out."""
        return self._make_loader('val', self._samplers['val']) if 'val' in self._samplers else []

    def _train_loader(self, sampler: ChipSampler) -> ChipLoader:
        return self._make_loader('train', sampler, drop_last=True)

    def _make_loader(self, part: str, sampler: ChipSampler, **options: Any) -> ChipLoader:
        return ChipLoader(
            sampler,
            **{'dataset': self.reader.dataset(part), 'collate_fn': collate} | options,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    # Lightning restores the state of a loader only if the loader is made after the optimizer. A schedule that needs the
    # length of an epoch makes it before, so the state also travels with the data module, which is restored first.

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the epoch."""
        return {'loader': self._loader.state_dict()} if self._loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume at a position.

        Args:
            state_dict: Result of :meth:`state_dict`.
        """
        self._loader_state = dict(state_dict.get('loader', {}))

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Tensor]:
        """Return the batch unchanged: the task normalizes it, with the constants it keeps with its weights.

        Args:
            batch: Batch on the device.
            dataloader_idx: Ignored.
        """
        return batch
