"""Masks of chips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.geo.chipping.options import IGNORE, ChipOptions
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.labels.classes import BACKGROUND
from torchgeo_msssl.geo.labels.open import open_labels
from torchgeo_msssl.geo.labels.source import LabelSource, time_of, unlabelled_scenes
from torchgeo_msssl.geo.scene import Scene


@dataclass(frozen=True)
class ChipLabels:
    """Labels of some scenes.

    Attributes:
        source: The labels.
        bare: Names of scenes that no label touches; there everything is unlabelled.
    """

    source: LabelSource
    bare: frozenset[str]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names; the index is the value."""
        return self.source.class_names

    @property
    def foreground(self) -> tuple[bool, ...]:
        """Whether each class is something else than background."""
        return tuple(name != BACKGROUND for name in self.class_names)

    def mask(self, scene: Scene, window: Window) -> NDArray[np.uint8]:
        """Return the classes of a window of a scene.

        Args:
            scene: The scene.
            window: Window on its grid; it may reach outside.

        Returns:
            Shape (height, width), 255 where nothing is known, and outside the scene.

        Raises:
            ConfigurationError: If a mask raster holds a value that is no class.
            SceneReadError: If a mask raster is damaged there.
        """
        mask = np.full((window.height, window.width), IGNORE, dtype=np.uint8)
        inside = window.intersection(scene.grid.window)
        if inside is not None and scene.name not in self.bare:
            row, col = inside.row - window.row, inside.col - window.col
            place = slice(row, row + inside.height), slice(col, col + inside.width)
            mask[place] = self.source.burn(scene.grid, inside, time_of(scene))
        return mask

    def count(self, mask: NDArray[np.uint8], valid: NDArray[np.bool_]) -> tuple[int, ...]:
        """Count the valid pixels of each class.

        Args:
            mask: Classes, shape (height, width).
            valid: Where the image has data, same shape.

        Returns:
            Number of pixels of each class.
        """
        counts = np.bincount(mask[valid], minlength=IGNORE + 1)
        return tuple(counts[: len(self.class_names)].tolist())


def open_chip_labels(options: ChipOptions, scenes: Sequence[Scene]) -> ChipLabels:
    """Open labels, and find the scenes without any.

    Args:
        options: Where they come from.
        scenes: The scenes.

    Returns:
        The labels.

    Raises:
        EmptyIntersectionError: If they touch no scene.
        MSSSLError: If files, classes and options do not fit each other, see
            :func:`~torchgeo_msssl.geo.labels.open.open_labels`.
    """
    source = open_labels(options.labels, ignore_index=IGNORE, **options.arguments())
    return ChipLabels(source, frozenset(scene.name for scene in unlabelled_scenes(source, scenes)))
