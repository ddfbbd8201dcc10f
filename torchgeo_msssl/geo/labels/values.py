"""Values that masks hold: class names that follow from them, and classes that would be lost."""

import json
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.discover import find_files
from torchgeo_msssl.geo.headers import describe_file
from torchgeo_msssl.geo.labels.classes import (
    BACKGROUND,
    UNLABELLED,
    Classes,
    ClassNames,
    IgnoreIndex,
    listed,
    unlabelled_values,
)
from torchgeo_msssl.geo.nodata import has_data
from torchgeo_msssl.geo.scene import BandFile, Scene, read_file
from torchgeo_msssl.geo.valid_counts import streaming_windows


class MaskValues(NamedTuple):
    """Values in a part of a mask.

    Attributes:
        path: File of the mask.
        values: Different values, rising.
    """

    path: str
    values: NDArray[Any]


def mask_values(rasters: Sequence[BandFile]) -> Iterator[MaskValues]:
    """Read the values of mask rasters, window by window.

    Args:
        rasters: Headers of the masks.

    Yields:
        The values of a window where the file's mask does not hide them; nodata is a value.

    Raises:
        SceneReadError: If a file is damaged.
    """
    for raster in rasters:
        band = next(name for name in raster.names if name != 'alpha')
        for window in streaming_windows(Scene('', (raster,), None, None)):
            pixels, known = read_file(raster, window, [band], raster.grid, fill=False)
            yield MaskValues(raster.path, np.unique(pixels[0] if known.all() else pixels[0][known]))


def check_foreground(parts: Iterable[MaskValues], classes: Classes, option: str) -> None:
    """Check that no class hides behind the value of unlabelled pixels, as in masks of 0 and 255.

    Args:
        parts: Values of the masks; reading ends at the first one of a class other than the background.
        classes: Their classes.
        option: Option that names the masks.

    Raises:
        ConfigurationError: If ``class_names`` is a list, some pixels are background, no pixel has another class, and
            some hold a value that means unlabelled.
    """
    others = [value for value in range(len(classes.names)) if value != classes.background]
    if classes.values is not None or not others:
        return
    lost: dict[int, str] = {}
    background = False
    for path, values in parts:
        if np.isin(values, others).any():
            return
        background |= bool((values == classes.background).any())
        for value in classes.unlabelled:
            if (values == value).any():
                lost.setdefault(value, path)
    if lost and background:
        value, path = next(iter(lost.items()))
        names = [classes.names[other] for other in others]
        mapping, unlabelled = (f'{{{BACKGROUND}: 0, {names[0]}: {number}}}' for number in (value, 1))
        msg = (
            f'{option}: no pixel of {path} is {" or ".join(names)}, and some hold {value}, which means unlabelled '
            f'(ignore_index); if {value} is {names[0]}, set class_names to the mapping {mapping}, and if it is really '
            f'unlabelled, to {unlabelled}.'
        )
        raise ConfigurationError(msg)


def infer_class_names(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]], ignore_index: IgnoreIndex = UNLABELLED
) -> ClassNames:
    """Name the classes of mask rasters: by their tag ``CLASS_NAMES``, else by their values.

    Args:
        paths: Files, folders or patterns.
        ignore_index: Value of unlabelled pixels, or several.

    Returns:
        See :func:`name_values`; a single class has the name of the file, or of the folder of several.

    Raises:
        ScenesNotFoundError: If nothing is at a path.
        ConfigurationError: If the values cannot be classes.
    """
    rasters = [describe_file(path) for path in find_files(paths)]
    if names := tagged_names(rasters[0]):
        return names
    path = Path(rasters[0].path)
    return name_values(mask_values(rasters), path.stem if len(rasters) == 1 else path.parent.name, ignore_index)


def tagged_names(raster: BandFile) -> list[str]:
    """Return the class names in the tag ``CLASS_NAMES`` of a raster, such as a mask of ``rasterize``; empty without it.

    Args:
        raster: Header.
    """
    tag = raster.tags.get('CLASS_NAMES')
    try:
        names = json.loads(tag) if tag else []
    except json.JSONDecodeError:
        names = []
    return [str(name) for name in names] if isinstance(names, list) else []


def name_values(parts: Iterable[MaskValues], foreground: str, ignore_index: IgnoreIndex) -> ClassNames:
    """Name the classes of masks by the values they hold.

    Args:
        parts: Values of the masks.
        foreground: Name of the only class besides the background, if there is one.
        ignore_index: Value of unlabelled pixels, or several. Where masks hold 0 and one such value only, that value is
            the class: a mask of 0 and 255 is binary.

    Returns:
        ``[background, NAME]`` or ``{background: 0, NAME: value}``; with several classes ``[background, class_1, …]``.

    Raises:
        ConfigurationError: If a value is negative, no whole number or above 254, or there is no class.
    """
    _, unlabelled = unlabelled_values(ignore_index)
    found: set[float] = set()
    first = ''
    for path, values in parts:
        first = first or path
        found.update(values[has_data(values[None, None], None)[0]].tolist())
        if len(found) > UNLABELLED + 1:
            break
    classes = sorted(found - {0} - set(unlabelled)) or sorted(found - {0} if len(found - {0}) == 1 else [])
    whole = all(value == int(value) and 0 < value <= UNLABELLED for value in classes)
    if not classes or not whole or (len(classes) > 1 and classes[-1] == UNLABELLED):
        values_shown = listed([f'{value:g}' for value in sorted(found)])
        msg = (
            f'class_names: name the values in {first} ({values_shown}), for example [background, vine] or '
            '{background: 0, vine: 1}; set ignore_index to those that mean unlabelled.'
        )
        raise ConfigurationError(msg)
    if len(classes) > 1:
        return [BACKGROUND, *(f'class_{value}' for value in range(1, int(classes[-1]) + 1))]
    return [BACKGROUND, foreground] if classes == [1] else {BACKGROUND: 0, foreground: int(classes[0])}
