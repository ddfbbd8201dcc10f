"""Readers of chips: from files, or from windows of scenes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torchgeo.datasets.utils import Sample

from torchgeo_msssl.bands import Sensor, infer_sensor
from torchgeo_msssl.datasets.chip_files import ArrayLayout, ChipFile, check_alike, open_chip, read_mask
from torchgeo_msssl.geo.band_choice import choose_bands
from torchgeo_msssl.geo.chipping.inputs import common_dtype
from torchgeo_msssl.geo.chipping.labels import ChipLabels
from torchgeo_msssl.geo.chipping.options import IGNORE
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.labels.classes import Classes, unlabelled_values
from torchgeo_msssl.geo.labels.values import MaskValues
from torchgeo_msssl.geo.plain_images import ignore_missing_georeference
from torchgeo_msssl.geo.radiometry import Radiometry, radiometry
from torchgeo_msssl.geo.scene import Scene


class ChipSource(Protocol):
    """Reader of chips."""

    bands: tuple[str, ...]
    sensor: Sensor | None
    size: tuple[int, int]
    labelled: bool

    def __len__(self) -> int:
        """Number of chips."""

    def sample(self, chip: int, window: Window) -> Sample:
        """Return ``image``, ``valid``, ``scale``, ``offset``, and with labels ``mask``, of a window of a chip."""

    def radiometry(self, chip: int) -> Radiometry:
        """Return scale and offset of a chip."""

    def place(self, chip: int) -> tuple[int, ...]:
        """Return a sort key that puts chips in the order of their file."""

    def origin(self, chip: int) -> tuple[str, PixelGrid, Window]:
        """Return the name of the file that holds a chip, the file's grid, and the chip's window on it."""

    def describe(self, chip: int) -> str:
        """Return file and place of a chip, for messages."""


class FileSource:
    """Chips in files.

    The header of the first file describes them all; others are compared with it when they are read.
    """

    def __init__(
        self,
        chips: Sequence[ChipFile],
        bands: Sequence[str] | None,
        sensor: Sensor | None,
        layout: ArrayLayout,
        offset: float | Literal['auto'],
        classes: Classes | None,
        unlabelled: tuple[int, ...],
        dtype: str | None = None,
    ) -> None:
        """Read the first header.

        Args:
            chips: The chips, in order within each scene.
            bands: Bands by name; None for all.
            sensor: Sensor given by the user, or None.
            layout: Layout of ``.npy`` files.
            offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
            classes: Classes of the masks, None if unknown.
            unlabelled: Values of the masks that mean unlabelled.
            dtype: Dtype that holds the values of all chips without loss (default: that of the first).

        Raises:
            BandError: If a band is missing.
            SceneReadError: If the first file is damaged.
        """
        self.chips = chips
        self._named = sensor
        self._layout = layout
        self._offset: float | Literal['auto'] = offset
        self._classes = classes
        self._unlabelled = unlabelled
        self._first = self._open(0)
        self.sensor = sensor or infer_sensor(self._first.bands, chips[0].source)
        self.bands = choose_bands([self._first], bands)
        self.size = (self._first.grid.height, self._first.grid.width)
        self._dtype = np.dtype(dtype) if dtype else self._first.dtype
        self.labelled = all(chip.mask is not None for chip in chips)
        self._of_scene: dict[str, list[int]] = {}
        for i, chip in enumerate(chips):
            self._of_scene.setdefault(chip.scene, []).append(i)
        self._radiometry: dict[str, Radiometry] = {}
        if not self._first.files[0].grid.crs:
            ignore_missing_georeference()

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.chips)

    def sample(self, chip: int, window: Window) -> Sample:
        """Read a window of a chip.

        Args:
            chip: Number of the chip.
            window: Window on it.

        Returns:
            The sample.

        Raises:
            BandError: If the chip has other bands than the first one.
            SceneReadError: If it has another size or dtype, or is damaged.
            ConfigurationError: If its mask does not fit.
        """
        file, scene = self.chips[chip], self._open(chip)
        check_alike(scene, self._first, self._dtype)
        image, valid = scene.read(window, self.bands)
        sample = _sample(image.astype(self._dtype, copy=False), valid, self.radiometry(chip))
        if file.mask is not None:
            ignore_index, _ = unlabelled_values(self._unlabelled)
            mask = read_mask(file.mask, scene, window, self._classes, self._unlabelled)
            mask[~valid] = ignore_index
            sample['mask'] = torch.from_numpy(mask)
        return sample

    def mask_values(self) -> Iterator[MaskValues]:
        """Read the values of the masks, one file after another."""
        for chip in self.chips:
            if chip.mask is not None:
                mask = open_chip(chip.mask, None, ArrayLayout('first'))
                image, _ = mask.read(mask.grid.window, mask.bands)
                yield MaskValues(chip.mask, np.unique(image))

    def radiometry(self, chip: int) -> Radiometry:
        """Return scale and offset of the scene of a chip, from its first chip that has data."""
        name = self.chips[chip].scene
        if name not in self._radiometry:
            scenes = map(self._open, self._of_scene[name])
            first = next((scene for scene in scenes if self._has_data(scene)), self._open(chip))
            self._radiometry[name] = radiometry(first, self.bands, self.sensor, self._offset)
        return self._radiometry[name]

    def place(self, chip: int) -> tuple[int, ...]:
        """Return the same key for all: files are read in the order of the queries."""
        return ()

    def origin(self, chip: int) -> tuple[str, PixelGrid, Window]:
        """Return the name of a chip's file, its grid, and the whole of it as a window."""
        grid = self._open(chip).grid
        return Path(self.chips[chip].image).stem, grid, grid.window

    def describe(self, chip: int) -> str:
        """Return the file."""
        return self.chips[chip].image

    def _open(self, chip: int) -> Scene:
        file = self.chips[chip]
        return open_chip(file.image, self._named, self._layout, file.scene, file.source)

    def _has_data(self, scene: Scene) -> bool:
        """Return whether the scale of a chip can be inferred: of integers from the header, of floats from values."""
        return not np.issubdtype(scene.dtype, np.floating) or bool(scene.read(scene.grid.window, self.bands)[1].any())


class WindowSource:
    """Chips that are windows of scenes."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        windows: Sequence[tuple[int, Window]],
        bands: Sequence[str],
        sensor: Sensor | None,
        offset: float | Literal['auto'],
        labels: ChipLabels | None,
        ignore_index: int,
    ) -> None:
        """Choose the bands.

        Args:
            scenes: The scenes.
            windows: Index of a scene with a window on its grid, for each chip; all of one size.
            bands: Bands by name.
            sensor: The sensor, None where unknown.
            offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
            labels: Labels to burn masks from, or None.
            ignore_index: Value of unlabelled pixels.

        Raises:
            BandError: If a band is missing.
        """
        self.scenes = [replace(scene, filled=True) for scene in scenes]  # as in Scenes
        self.windows = windows
        self.labels = labels
        self.sensor = sensor
        self.bands = choose_bands(scenes[:1], bands)
        self.size = (windows[0][1].height, windows[0][1].width)
        self.labelled = labels is not None
        self._ignore_index = ignore_index
        self._dtype = common_dtype(scenes)
        self._radiometry = [radiometry(scene, self.bands, sensor, offset) for scene in scenes]

    def __len__(self) -> int:
        """Number of chips."""
        return len(self.windows)

    def sample(self, chip: int, window: Window) -> Sample:
        """Read a window of a chip.

        Args:
            chip: Number of the chip.
            window: Window on it.

        Returns:
            The sample.

        Raises:
            SceneReadError: If the scene or its mask raster is damaged.
            ConfigurationError: If a mask raster holds a value that is not a class.
        """
        number, whole = self.windows[chip]
        scene = self.scenes[number]
        place = Window(whole.row + window.row, whole.col + window.col, window.height, window.width)
        image, valid = scene.read(place, self.bands)
        sample = _sample(image.astype(self._dtype, copy=False), valid, self._radiometry[number])
        if self.labels is not None:
            mask = self.labels.mask(scene, place).astype(np.int64)
            mask[(mask == IGNORE) | ~valid] = self._ignore_index
            sample['mask'] = torch.from_numpy(mask)
        return sample

    def radiometry(self, chip: int) -> Radiometry:
        """Return scale and offset of the scene of a chip."""
        return self._radiometry[self.windows[chip][0]]

    def place(self, chip: int) -> tuple[int, ...]:
        """Return scene and place in it."""
        scene, window = self.windows[chip]
        return scene, window.row, window.col

    def origin(self, chip: int) -> tuple[str, PixelGrid, Window]:
        """Return the name of the scene, its grid, and the chip's window on it."""
        number, window = self.windows[chip]
        return self.scenes[number].name, self.scenes[number].grid, window

    def describe(self, chip: int) -> str:
        """Return the scene and the window on it."""
        scene, window = self.windows[chip]
        return f'{self.scenes[scene].path} at {window}'


def _sample(image: NDArray[Any], valid: NDArray[np.bool_], how: Radiometry) -> Sample:
    return {
        'image': torch.from_numpy(image),
        'valid': torch.from_numpy(valid[None]),
        'scale': torch.tensor(how.scale, dtype=torch.float32),
        'offset': torch.tensor(how.offset, dtype=torch.float32),
    }
