"""Chips that were cut beforehand, as a TorchGeo dataset.

They are GeoTIFFs or ``.npy`` files in folders, or windows of scenes that a manifest lists. Samples are those of
:class:`~torchgeo_msssl.datasets.Scenes`: pixels in the dtype of the files, their validity, and the scale and offset of
reflectance.
"""

import functools
import logging
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Literal, NamedTuple

import torch
from torchgeo.datasets import NonGeoDataset
from torchgeo.datasets.utils import Sample

from torchgeo_msssl.bands import Sensor, get_sensor
from torchgeo_msssl.datasets.chip_files import ArrayLayout, Channels
from torchgeo_msssl.datasets.chip_folders import folder_splits, list_chips
from torchgeo_msssl.datasets.chip_manifest import ChipManifest, read_manifest
from torchgeo_msssl.datasets.chip_sources import ChipSource, FileSource, WindowSource
from torchgeo_msssl.errors import ConfigurationError, ScenesNotFoundError
from torchgeo_msssl.geo.chipping.options import ALL
from torchgeo_msssl.geo.discover import ARRAY_SUFFIX
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.labels.classes import UNLABELLED, ClassNames, IgnoreIndex, resolve_classes, unlabelled_values
from torchgeo_msssl.geo.labels.values import MaskValues

log = logging.getLogger(__name__)


class ChipPart(NamedTuple):
    """A window of a chip, which samplers yield.

    Attributes:
        chip: Number of the chip.
        window: Window on it.
    """

    chip: int
    window: Window


class Chips(NonGeoDataset):
    """Chips of one size, cut beforehand.

    Samples hold ``image`` (band, height, width) in the files' dtype, ``valid`` (1, height, width) bool, ``scale`` and
    ``offset`` (band,) that turn digital numbers into reflectance, ``mask`` (height, width) int64 if there are
    labels, ``chip`` (its number) and ``window`` (row, col, height, width on the chip), int64. A mask holds
    ``ignore_index`` where pixels are unlabelled or the image has no data.

    Attributes:
        root: The folder.
        split: The split.
        manifest: Manifest of the ``chip`` command, or None.
        source: Reader of the chips.
        classes: Classes of the masks, None if unknown.
        class_names: Names of the classes, empty if unknown.
        ignore_index: Value of unlabelled pixels.
    """

    def __init__(
        self,
        root: str | PathLike[str],
        split: str = 'train',
        bands: Sequence[str] | None = None,
        sensor: str | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
        channels: Channels | None = None,
        band_names: Sequence[str] = (),
        class_names: ClassNames | None = None,
        ignore_index: IgnoreIndex = UNLABELLED,
        offset: float | Literal['auto'] = 'auto',
        masks: bool = True,
    ) -> None:
        """List the chips and read the first header.

        Args:
            root: Folder of the ``chip`` command; or one with ``split/images`` and ``split/masks``, with
                ``images`` and ``masks``, or with chips (``.tif``, ``.npy``) itself.
            split: ``train``, ``val`` or ``test`` if the chips are divided; ``all`` for all of them.
            bands: Bands to return, by name and in this order; None for all.
            sensor: Name of a sensor (see :data:`torchgeo_msssl.bands.SENSORS`) if the files do not say.
            transforms: Applied to each sample.
            channels: ``.npy`` files: axis of the bands, ``first`` or ``last``.
            band_names: Names of the bands in order if the files do not say (default: those of ``sensor`` if the counts
                agree, else ``band_1``, ``band_2``, …).
            class_names: List of names, whose index is the value, or mapping of names to the values of the masks
                (default: names of the manifest, else every value is accepted).
            ignore_index: Value of unlabelled pixels, or several that the masks hold.
            offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
            masks: Whether to read masks if there are any.

        Raises:
            ScenesNotFoundError: If the folder does not exist or has no chips.
            ConfigurationError: If the split does not exist, or options do not fit.
            BandError: If bands are missing or cannot be named.
            SceneReadError: If the first file is damaged.
        """
        if channels not in (None, 'first', 'last'):
            raise ConfigurationError(f"channels: expected 'first' or 'last', got {channels!r}.")
        self.root = os.path.expanduser(os.fspath(root))
        if not os.path.isdir(self.root):
            raise ScenesNotFoundError(f'paths: there is no folder {self.root}; give the folder of the chips.')
        self.split = split
        self.transforms = transforms
        self.ignore_index, self._unlabelled = unlabelled_values(ignore_index)
        self.manifest = read_manifest(self.root)
        check_split(split, _splits(self.root, self.manifest), self.root)
        if self.manifest is not None and self.manifest.failed:
            _warn_of_failed_scenes(self.root, self.manifest.failed)
        known = self.manifest.class_names if self.manifest is not None else ()
        self.classes = resolve_classes(class_names or known, ignore_index) if class_names or known else None
        self.class_names = self.classes.names if self.classes is not None else ()
        if known and masks and (self.class_names != known or isinstance(class_names, Mapping)):
            msg = (
                f'class_names: got {", ".join(self.class_names)}, and the chips in {self.root} have the classes '
                f'{", ".join(known)}; leave class_names out.'
            )
            raise ConfigurationError(msg)
        self.source = self._find(bands, sensor, ArrayLayout(channels, tuple(band_names)), offset, masks)

    def _find(
        self,
        bands: Sequence[str] | None,
        sensor: str | None,
        layout: ArrayLayout,
        offset: float | Literal['auto'],
        masks: bool,
    ) -> ChipSource:
        manifest, split = self.manifest, self.split
        name = sensor or (manifest.summary['sensor'] if manifest is not None else None)
        named = get_sensor(name) if name else None
        if manifest is not None and manifest.virtual:
            if layout.names:
                msg = f'band_names: the chips in {self.root} are windows of scenes with band names; leave it out.'
                raise ConfigurationError(msg)
            scenes = manifest.open_scenes()
            labels = manifest.open_labels(scenes) if masks else None
            wanted = bands or manifest.summary['bands']
            windows = manifest.windows(split, scenes)
            return WindowSource(scenes, windows, wanted, named, offset, labels, self.ignore_index)
        if manifest is None:
            chips = list_chips(self.root, split, masks)
            return FileSource(chips, bands, named, layout, offset, self.classes, self._unlabelled)
        layout = layout if layout.names else replace(layout, names=tuple(manifest.summary['bands']))
        chips = [chip if masks else chip._replace(mask=None) for chip in manifest.files(split)]
        dtype = manifest.summary['dtype']
        return FileSource(chips, bands, named, layout, offset, self.classes, self._unlabelled, dtype)

    @property
    def bands(self) -> tuple[str, ...]:
        """Canonical names of the bands of a chip, in order."""
        return self.source.bands

    @property
    def sensor(self) -> Sensor | None:
        """The sensor, None where unknown."""
        return self.source.sensor

    @property
    def labelled(self) -> bool:
        """Whether samples have a mask."""
        return self.source.labelled

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` of every chip in pixels."""
        return self.source.size

    def mask_values(self) -> Iterator[MaskValues]:
        """Read the values of the masks in files, one chip after another; of chips of other sources nothing."""
        return self.source.mask_values() if isinstance(self.source, FileSource) else iter(())

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.source)

    def __getitem__(self, index: int | ChipPart) -> Sample:
        """Read a chip.

        Args:
            index: Number of a chip, or a part of one.

        Returns:
            The sample, see the class.

        Raises:
            IndexError: If the number is out of range.
            BandError: If it has other bands than the first one.
            SceneReadError: If it differs from the first one in size or dtype, or is damaged.
            ConfigurationError: If its mask does not fit.
        """
        part = index if isinstance(index, ChipPart) else ChipPart(operator.index(index), Window(0, 0, *self.size))
        if not -len(self) <= part.chip < len(self):
            raise IndexError(f'{self.root}: chip {part.chip} is out of range for {len(self)} chips.')
        chip, window = part.chip % len(self), part.window
        sample = self.source.sample(chip, window)
        sample['chip'] = torch.tensor(chip)
        sample['window'] = torch.tensor([window.row, window.col, window.height, window.width])
        return self.transforms(sample) if self.transforms is not None else sample

    def __getitems__(self, indices: Sequence[int | ChipPart]) -> list[Sample]:
        """Read a batch, neighbours one after another so that they share decoded blocks.

        Args:
            indices: Chips or parts of chips.

        Returns:
            Samples in the order of the indices.
        """

        def place(i: int) -> tuple[int, ...]:
            index = indices[i]
            return self.source.place(index.chip if isinstance(index, ChipPart) else index)

        samples = {i: self[indices[i]] for i in sorted(range(len(indices)), key=place)}
        return [samples[i] for i in range(len(indices))]


@functools.cache  # once for all parts
def _warn_of_failed_scenes(root: str, failed: tuple[str, ...]) -> None:
    log.warning(
        '%s: has no chips of %d scene(s) that `chip` could not read (%s); repair them and run the same command again.',
        root,
        len(failed),
        ', '.join(failed),
    )


def chip_splits(root: str) -> tuple[str, ...]:
    """Return the splits of a folder of chips.

    Args:
        root: Folder.

    Returns:
        Those of ``train``, ``val`` and ``test`` that have chips, else ``all``.

    Raises:
        ConfigurationError: If a run of ``chip`` is unfinished.
    """
    root = os.path.expanduser(root)
    return _splits(root, read_manifest(root))


def chip_rasters(root: str) -> list[str]:
    """Return the rasters that hold the pixels of a folder of chips, to be read as scenes.

    Args:
        root: Folder.

    Returns:
        The files of its chips; for a virtual folder those of the scenes that the chips are windows of.

    Raises:
        ConfigurationError: If the chips are arrays, which have no place on the ground.
        ScenesNotFoundError: If there are none.
    """
    root = os.path.expanduser(root)
    manifest = read_manifest(root)
    if manifest is not None and manifest.virtual:
        return manifest.scene_files()
    chips = manifest.files(ALL) if manifest is not None else list_chips(root, ALL, masks=False)
    if chips[0].image.lower().endswith(ARRAY_SUFFIX):
        raise ConfigurationError(
            f'paths: the chips in {root} are arrays, which have no place on the ground; give GeoTIFFs or scenes.'
        )
    return [chip.image for chip in chips]


def _splits(root: str, manifest: ChipManifest | None) -> tuple[str, ...]:
    return manifest.splits if manifest is not None else folder_splits(root)


def check_split(split: str, known: Sequence[str], root: str) -> None:
    """Raise unless chips have a split.

    Args:
        split: Name.
        known: Existing splits.
        root: Folder of the chips.

    Raises:
        ConfigurationError: If they have not.
    """
    if split not in (*known, ALL):
        here = f'the chips in {root} are divided into {", ".join(known)}'
        here = f'the chips in {root} are not divided' if tuple(known) == (ALL,) else here
        choice = ' or '.join(dict.fromkeys((*known, ALL)))
        raise ConfigurationError(f'split: there is no {split!r}: {here}; use {choice}.')
