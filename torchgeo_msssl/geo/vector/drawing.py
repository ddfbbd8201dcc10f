"""One layer of a vector file with the value that each of its geometries burns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.labels.classes import example_of_classes, mapped_values
from torchgeo_msssl.geo.vector.burn import GeometryIndex
from torchgeo_msssl.geo.vector.files import read_vector, split_layer
from torchgeo_msssl.geo.vector.geometries import POLYGON, solid_parts


@dataclass(frozen=True)
class Drawing:
    """What a vector file draws.

    Attributes:
        path: The file.
        geometries: What is burned, in order, later over earlier.
        classes: Value of each class.
        read: Geometries in the file.
        repaired: Geometries that were invalid.
        dropped: Geometries that had nothing in them.
        lines: Parts without a width, which become one pixel wide.
    """

    path: str
    geometries: GeometryIndex
    classes: Mapping[str, int]
    read: int
    repaired: int
    dropped: int
    lines: int


def read_drawing(
    path: str,
    *,
    layer: str | None = None,
    column: str | None = None,
    classes: Mapping[str, int] | None = None,
    buffer: float = 0.0,
    priority: Sequence[str] = (),
) -> Drawing:
    """Read what a vector file draws.

    Args:
        path: Vector file, also ``file.gpkg|layername=rows``.
        layer: Its layer; needed where there are several.
        column: Column with the class; None where all geometries are of one.
        classes: Value of each class by name, 0 to 255; without a column one class at most (default: value 1).
        buffer: Metres by which lines and points are widened to each side.
        priority: Names of classes, the uppermost first. The others lie below, later geometries over earlier ones.

    Returns:
        The drawing.

    Raises:
        ScenesNotFoundError: If there is no such file.
        SceneReadError: If it cannot be read.
        MissingCRSError: If it has no CRS.
        ConfigurationError: If layer, column, classes or options do not fit the file; the message says which.
    """
    frame = read_vector(path, layer)
    classes, values = _values(frame, column, classes, path)
    parts = solid_parts(frame, buffer, path)
    ranks = np.zeros(np.iinfo(np.uint8).max + 1, dtype=np.int64)
    for rank, name in enumerate(reversed(_checked(priority, classes)), start=1):
        ranks[classes[name]] = rank
    values = values[parts.parent]
    order = np.argsort(ranks[values], kind='stable')
    lines = int((shapely.get_type_id(parts.geometries) != POLYGON).sum())
    index = GeometryIndex(parts.geometries[order], values[order], frame.crs)
    return Drawing(split_layer(path)[0], index, classes, len(frame), parts.repaired, parts.dropped, lines)


def _values(
    frame: gpd.GeoDataFrame, column: str | None, classes: Mapping[str, int] | None, path: str
) -> tuple[Mapping[str, int], NDArray[np.uint8]]:
    if column is None:
        classes = classes or {Path(split_layer(path)[0]).stem: 1}
        if len(classes) > 1:
            msg = (
                f'column: has to say which of the {len(classes)} classes ({", ".join(classes)}) each geometry of '
                f'{path} is; its columns are {_columns(frame)}.'
            )
            raise ConfigurationError(msg)
        return classes, np.full(len(frame), next(iter(classes.values())), dtype=np.uint8)
    if column not in frame.columns or column == frame.geometry.name:
        raise ConfigurationError(f'column: {path} has no column {column!r}; it has {_columns(frame)}.')
    if not classes:
        msg = (
            f'classes: the value of each class in column {column!r} of {path} has to be said; write for example '
            f'--classes={example_of_classes(frame[column])}.'  # one word: names may begin with a dash
        )
        raise ConfigurationError(msg)
    return classes, mapped_values(frame[column], classes, f'{path}, column {column!r}')


def _columns(frame: gpd.GeoDataFrame) -> str:
    return ', '.join(str(name) for name in frame.columns if name != frame.geometry.name) or 'none'


def _checked(priority: Sequence[str], classes: Mapping[str, int]) -> list[str]:
    if len(set(priority)) < len(priority) or not set(priority) <= set(classes):
        msg = f'priority: expected different names of classes ({", ".join(classes)}), got {", ".join(priority)}.'
        raise ConfigurationError(msg)
    return list(priority)
