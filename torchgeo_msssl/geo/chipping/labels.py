"""Masks of chips, from mask rasters or from vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.chipping.options import IGNORE, LabelOptions
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.labels.classes import example_of_classes
from torchgeo_msssl.geo.labels.raster import MaskRasters
from torchgeo_msssl.geo.labels.vector import VectorLabels, no_place_in_common
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.vector.burn import read_extent
from torchgeo_msssl.geo.vector.files import find_vectors, is_vector, read_vector, split_layer

#: Name of a value 0 that nobody named; it is no foreground.
BACKGROUND = 'background'


@dataclass(frozen=True)
class ChipLabels:
    """Labels of some scenes.

    Attributes:
        source: Burns masks.
        class_names: Names; the index is the value.
        bare: Names of scenes that no label touches; there nothing is known.
    """

    source: MaskRasters | VectorLabels
    class_names: tuple[str, ...]
    bare: frozenset[str]

    @property
    def foreground(self) -> tuple[bool, ...]:
        """Whether each class is something else than background."""
        return tuple(name != BACKGROUND for name in self.class_names)

    def mask(self, scene: Scene, window: Window) -> NDArray[np.uint8]:
        """Classes of a window of a scene.

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
            mask[place] = self._burn(scene, inside)
        return mask

    def count(self, mask: NDArray[np.uint8], valid: NDArray[np.bool_]) -> tuple[int, ...]:
        """Count pixels of each class; those without data are of none, whatever the labels say about their ground.

        Args:
            mask: Classes, shape (height, width).
            valid: Where the image has data, of the same shape.

        Returns:
            Number of pixels of each class.
        """
        counts = np.bincount(mask[valid], minlength=IGNORE + 1)
        return tuple(counts[: len(self.class_names)].tolist())

    def _burn(self, scene: Scene, window: Window) -> NDArray[np.uint8]:
        if isinstance(self.source, MaskRasters):
            return self.source.burn(scene.grid, window, time_of(scene))
        return self.source.burn(scene.grid, window)


def time_of(scene: Scene) -> Any | None:
    """The scene's time as an interval of pandas, or None without a date."""
    if scene.date is None:
        return None
    return pd.Interval(pd.Timestamp(scene.date[0]), pd.Timestamp(scene.date[1]), closed='both')


def open_labels(options: LabelOptions, scenes: Sequence[Scene]) -> ChipLabels:
    """Read labels and see which scenes they lie on.

    Args:
        options: Where they come from.
        scenes: The scenes.

    Returns:
        The labels.

    Raises:
        ConfigurationError: If classes, column or layer do not fit the files.
        EmptyIntersectionError: If they touch no scene.
        MissingCRSError: If a file has no CRS.
        SceneReadError: If a file cannot be read.
        ScenesNotFoundError: If a file is missing.
    """
    kinds = {is_vector(path) for path in options.paths}
    if len(kinds) > 1:
        raise ConfigurationError('labels: are vectors and mask rasters at once; burn the vectors with `rasterize`.')
    if options.background not in (None, 0, IGNORE):
        msg = f'background: expected 0, or {IGNORE} for unlabelled, got {options.background}.'
        raise ConfigurationError(msg)
    source = _vectors(options) if kinds == {True} else _rasters(options)
    touched = {scene.name for scene in scenes if _touches(source, scene)}
    if not touched:
        path = source.paths[0] if isinstance(source, VectorLabels) else source.files[0].path
        bounds, crs = (
            (source.geometries.bounds, source.geometries.crs)
            if isinstance(source, VectorLabels)
            else (source.bounds, source.crs)
        )
        raise no_place_in_common(path, bounds, crs, scenes[0].path, scenes[0].grid)
    bare = frozenset(scene.name for scene in scenes) - touched
    return ChipLabels(source, source.class_names, bare)


def _touches(source: MaskRasters | VectorLabels, scene: Scene) -> bool:
    if isinstance(source, MaskRasters):
        return source.touches(scene.grid, time_of(scene))
    return source.touches(scene.grid)


def _vectors(options: LabelOptions) -> VectorLabels:
    paths = find_vectors(options.paths)
    classes = dict(options.classes)
    if not classes and options.column is not None:
        frame = read_vector(paths[0], options.layer)
        if options.column in frame.columns:  # VectorLabels says what is wrong with a column that is not there
            msg = (
                f'classes: the value of each class in column {options.column!r} of {paths[0]} has to be said; write '
                f'for example --classes={example_of_classes(frame[options.column])}.'
            )
            raise ConfigurationError(msg)
    names = class_names(classes or {Path(split_layer(paths[0])[0]).stem: 1})
    background = options.background in (None, 0)
    extent = read_extent(options.extent, paths[0], 'extent') if options.extent is not None else None
    return VectorLabels(paths, names, options.column, options.layer, options.buffer, background, extent, IGNORE)


def _rasters(options: LabelOptions) -> MaskRasters:
    for name in ('column', 'layer', 'extent'):
        if getattr(options, name) is not None:
            raise ConfigurationError(f'{name}: is for vectors, and {options.paths[0]} is a mask raster; leave it out.')
    if options.buffer:
        raise ConfigurationError(f'buffer: is for vectors, and {options.paths[0]} is a mask raster; leave it out.')
    if not options.classes:
        msg = f'classes: the names of the values in {options.paths[0]} have to be said, such as background=0,vine=1.'
        raise ConfigurationError(msg)
    return MaskRasters(options.paths, class_names(dict(options.classes)), IGNORE, options.background == 0)


def class_names(classes: dict[str, int]) -> tuple[str, ...]:
    """Names whose index is the value.

    Args:
        classes: Value of each name.

    Returns:
        The names; a value 0 that nobody named is ``background``, another one ``class_N``.

    Raises:
        ConfigurationError: If two names share a value, or a name is one that a value gets that nobody named.
    """
    names = {value: name for name, value in classes.items()}
    if len(names) < len(classes):
        twice = sorted({value for value in names if list(classes.values()).count(value) > 1})
        msg = (
            f'classes: several names share the value {twice[0]}; give each class its own, or burn them with rasterize.'
        )
        raise ConfigurationError(msg)
    unnamed = {value: f'class_{value}' if value else BACKGROUND for value in range(max(names)) if value not in names}
    for value, name in unnamed.items():
        if name in classes:
            msg = f'classes: {name!r} is what value {value} is called, which got no name; name it, or choose another.'
            raise ConfigurationError(msg)
    return tuple((unnamed | names)[value] for value in range(max(names) + 1))
