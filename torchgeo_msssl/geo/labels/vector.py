"""Labels from polygons, lines and points."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS as PROJ_CRS
from rasterio.crs import CRS

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.labels.classes import BACKGROUND, UNLABELLED, Classes, IgnoreIndex, normalized, resolve_classes
from torchgeo_msssl.geo.labels.columns import classes_of_column, classes_of_numbers, without_class
from torchgeo_msssl.geo.labels.options import LabelSettings
from torchgeo_msssl.geo.labels.source import Bounds, Footprint, LabelSource, Time
from torchgeo_msssl.geo.vector.burn import GeometryIndex, read_extent, set_outside
from torchgeo_msssl.geo.vector.files import find_vectors, read_vector, split_layer, vector_files
from torchgeo_msssl.geo.vector.geometries import POLYGON, Geometries, reprojected, solid_parts

log = logging.getLogger(__name__)

#: Numbers of geometries whose value is no class, and of those without a value.
_OTHER, _MISSING = -1, -2


class VectorLabels(LabelSource):
    """Geometries in memory, burned on any grid on the fly.

    A pixel takes the class of the geometry that holds its centre. What ground outside all geometries means:

    * With ``extent`` only the ground inside it was surveyed; everything outside it is unlabelled, geometries too.
    * ``background`` true: surveyed ground (without an extent: all ground) that no geometry covers is the background
      class. False: it is unlabelled.
    * Default: it is unlabelled where the background class was itself drawn, or where ``class_names`` is a mapping
      without ``background``; else it is the background class.

    The background class is the one named ``background``, else class 0.

    Attributes:
        classes: The classes, by the values of the column.
        geometries: What is burned, in order, later over earlier.
        extent: The surveyed ground, or None.
        read: Number of geometries in the files.
        repaired: Number of geometries that were invalid.
        dropped: Number of geometries that were empty.
        lines: Number of parts without a width, which become one pixel wide.
    """

    def __init__(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        settings: LabelSettings | None = None,
        ignore_index: IgnoreIndex = UNLABELLED,
    ) -> None:
        """Read and index the geometries.

        Args:
            paths: Vector files, see :func:`find_vectors` and :func:`read_vector`.
            settings: Classes and options. Without a column all geometries are of one class: that of a single name,
                which becomes class 1 after ``background`` unless ``background`` is false, or of two names the one that
                is not the background class.
            ignore_index: Value of unlabelled pixels, or several of a column.

        Raises:
            ScenesNotFoundError: If a file is missing.
            SceneReadError: If a file cannot be read.
            MissingCRSError: If a file has no CRS.
            ConfigurationError: If layer, column, classes or options do not fit the files.
        """
        settings = settings or LabelSettings()
        paths = find_vectors(paths)
        frames = [read_vector(path, settings.layer) for path in paths]
        self.classes = _classes(settings, ignore_index, paths, frames)
        self.class_names, self.ignore_index = self.classes.names, self.classes.ignore_index
        self.extent = None if settings.extent is None else read_extent(settings.extent, paths[0])
        self._paths = [*paths, *([] if settings.extent is None else [settings.extent])]
        self._all_touched = settings.all_touched
        self.read = self.repaired = self.dropped = self.lines = 0
        pieces: list[Geometries] = []
        numbers: list[NDArray[np.int16]] = []
        crs = frames[0].crs
        for path, frame in zip(paths, frames, strict=True):
            classes = self._column(frame, settings, path)
            parts = solid_parts(frame, settings.buffer, path)
            self.read += len(frame)
            self.repaired += parts.repaired
            self.dropped += parts.dropped
            self.lines += int((shapely.get_type_id(parts.geometries) != POLYGON).sum())
            own = parts.geometries
            pieces.append(own if frame.crs == crs else reprojected(own, PROJ_CRS(frame.crs), PROJ_CRS(crs)))
            numbers.append(classes[parts.parent])
        values = np.concatenate(numbers)
        drawn = self.classes.background is None or bool((values == self.classes.background).any())
        self.background = not drawn if settings.background is None else settings.background
        order = self._order(values, settings.priority)
        # what a mapping leaves out is ground without a label; ignore_index in a column is an unlabelled geometry
        rest = self._fill if self.classes.values is not None else self.ignore_index
        burned = np.select([values == _MISSING, values < 0], [self.ignore_index, rest], values).astype(np.uint8)
        self.geometries = GeometryIndex(np.concatenate(pieces)[order], burned[order], crs)

    @property
    def files(self) -> tuple[str, ...]:
        """The vector files with those of the extent, and the sidecars that they have at the moment."""
        return tuple(file for path in self._paths for file in vector_files(path))

    @property
    def crs(self) -> CRS:
        """CRS of the first file."""
        return CRS.from_user_input(self.geometries.crs)

    @property
    def res(self) -> tuple[float, float]:
        """Vectors have no pixel size: ``(0, 0)``."""
        return 0.0, 0.0

    def bounds(self, crs: Any) -> Bounds:
        """Return ``(left, bottom, right, top)`` of all geometries in a CRS."""
        return self.geometries.bounds(crs)

    def footprints(self, crs: Any) -> list[Footprint]:
        """Return one footprint of all files, that of the surveyed ground if it is given."""
        return [Footprint(self.files[0], (self.extent or self.geometries).bounds(crs), None)]

    def touches(self, grid: PixelGrid, time: Time | None = None) -> bool:
        """Return whether a geometry, and the surveyed ground, meet a grid; geometries hold for any time."""
        return self.geometries.touches(grid) and (self.extent is None or self.extent.touches(grid))

    def burn(self, grid: PixelGrid, window: Window, time: Time | None = None) -> NDArray[np.uint8]:
        """Return the classes of the pixels of a window, see :class:`LabelSource`; geometries hold for any time."""
        mask = self.geometries.burn(grid, window, self._fill, self._all_touched)
        return set_outside(mask, self.extent, grid, window, self.ignore_index)

    def describe(self) -> str:
        """Return the number of geometries, for a report."""
        return (
            f'{self.read:,} geometries of {self.files[0]}: {self.repaired:,} were invalid and repaired, '
            f'{self.dropped:,} empty and dropped.'
        )

    @property
    def _fill(self) -> int:
        """Value of ground without a class."""
        return int(self.classes.background or 0) if self.background else self.ignore_index

    def _column(self, frame: gpd.GeoDataFrame, settings: LabelSettings, path: str) -> NDArray[np.int16]:
        """Return the class of each geometry, negative for none."""
        column = settings.column
        if column is None:
            drawn = len(self.class_names) - 1
            if self.classes.background == drawn > 0:
                drawn -= 1
            return np.full(len(frame), drawn, dtype=np.int16)
        where = f'{path}, column {column!r}'
        classes, labelled = classes_of_column(self.classes, frame[column], where, settings.missing_class)
        missing = without_class(frame[column]).to_numpy(dtype=np.bool_)
        others = int((~labelled & ~missing).sum())
        if others:
            log.info('%s: %d of %d geometries have no class of class_names.', where, others, len(frame))
        return np.select([missing, ~labelled], [np.int16(_MISSING), np.int16(_OTHER)], classes.astype(np.int16))

    def _order(self, values: NDArray[np.int16], priority: Sequence[str]) -> NDArray[np.int64]:
        """Return the order in which geometries are burned."""
        priority = [normalized(name) for name in priority]
        unknown = [name for name in priority if name not in self.class_names]
        if unknown or len(set(priority)) < len(priority):
            msg = (
                f'priority: expected different names of class_names ({", ".join(self.class_names)}), got '
                f'{", ".join(priority)}.'
            )
            raise ConfigurationError(msg)
        rank = np.zeros(len(self.class_names) + 2, dtype=np.int64)  # the last ones are for negative numbers
        for place, name in enumerate(reversed(priority), start=1):
            rank[self.class_names.index(name)] = place
        return np.argsort(rank[values], kind='stable')


def _classes(
    settings: LabelSettings, ignore_index: IgnoreIndex, paths: Sequence[str], frames: Sequence[gpd.GeoDataFrame]
) -> Classes:
    class_names, column, background = settings.class_names, settings.column, settings.background
    if column is None:
        names = [Path(split_layer(paths[0])[0]).stem] if class_names is None else [str(name) for name in class_names]
        if len(names) > 2 or (isinstance(class_names, Mapping) and len(names) == 2 and BACKGROUND not in names):
            msg = (
                f'column: name the column of {paths[0]} that tells which of the {len(names)} classes '
                f'({", ".join(names)}) each geometry is; it has {_columns(frames[0])}.'
            )
            raise ConfigurationError(msg)
        return resolve_classes(names, ignore_index, background is not False)
    for path, frame in zip(paths, frames, strict=True):
        if column not in frame.columns or column == frame.geometry.name:
            raise ConfigurationError(f'column: {path} has no column {column!r}; it has {_columns(frame)}.')
    if class_names is None:
        cells = np.concatenate([frame[column].to_numpy() for frame in frames])
        return classes_of_numbers(cells, ignore_index, f'{paths[0]}, column {column!r}')
    return resolve_classes(class_names, ignore_index, background)


def _columns(frame: gpd.GeoDataFrame) -> str:
    return ', '.join(str(name) for name in frame.columns if name != frame.geometry.name) or 'none'
