"""Labels drawn as vectors, as classes of pixels on any grid."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from pyproj import CRS as PROJ_CRS

from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.labels.classes import check_classes, class_values
from torchgeo_msssl.geo.vector.burn import GeometryIndex, read_extent, set_outside
from torchgeo_msssl.geo.vector.files import find_vectors, read_vector
from torchgeo_msssl.geo.vector.geometries import Geometries, reprojected, solid_parts


class VectorLabels:
    """Labels drawn as polygons, lines or points, in memory, burned on any grid on the fly.

    What ground outside all geometries means is never guessed:

    * With ``label_extent`` only the ground inside it was surveyed; whatever lies outside it is ignored, geometries too.
    * ``background`` True says that surveyed ground (without an extent: all ground) that no geometry covers is class 0,
      and False that it is unlabelled (``ignore_index``).
    * Where ``background`` is not given, such ground is unlabelled if class 0 was itself drawn, and class 0 if it was
      not and there is an extent. With neither, a network would see no other class than those drawn, so that one of the
      two has to be stated.

    Attributes:
        paths: The files.
        class_names: Names; the index is the value.
        ignore_index: Value of unlabelled pixels.
        background: Whether surveyed ground without a geometry is class 0.
        geometries: What is burned, in order, later over earlier.
        extent: The surveyed ground, or None.
        read: Geometries in the files.
        repaired: Geometries that were invalid.
        dropped: Geometries that had nothing in them.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        class_names: Sequence[str],
        label_column: str | None = None,
        layer: str | None = None,
        buffer: float = 0.0,
        background: bool | None = None,
        label_extent: str | os.PathLike[str] | GeometryIndex | None = None,
        ignore_index: int = 255,
        priority: Sequence[str] = (),
        all_touched: bool = False,
    ) -> None:
        """Read and index the geometries.

        Args:
            paths: Vector files, see :func:`find_vectors` and :func:`read_vector`.
            class_names: Names; the index is the value, 0 to 254.
            label_column: Column with the class, as name or number. None where there is one class to draw: it is the
                second of two ``class_names`` (the first is the background), or the only one.
            layer: Layer of each file; needed where there are several.
            buffer: Metres by which lines and points are widened to each side, half the width of a row; lines have
                flat ends. Polygons stay as they are.
            background: Whether ground without a geometry is class 0, see the class.
            label_extent: The surveyed ground, or where it is drawn, see :func:`read_extent`.
            ignore_index: Value of unlabelled pixels.
            priority: Classes whose geometries go on top, the last one uppermost, before the order in the files (later
                over earlier) decides.
            all_touched: Burn every pixel that is touched, see :func:`burn`.

        Raises:
            ScenesNotFoundError: If a file is missing.
            SceneReadError: If a file cannot be read.
            MissingCRSError: If a file has no CRS.
            ConfigurationError: If layer, column, classes or options do not fit the files; the message says which.
        """
        self.class_names = check_classes(class_names, ignore_index)
        self.ignore_index = ignore_index
        self.paths = find_vectors(paths)
        self._all_touched = all_touched
        self.read = self.repaired = self.dropped = 0
        pieces: list[Geometries] = []
        numbers: list[NDArray[np.uint8]] = []
        crs: Any = None
        for path in self.paths:
            parts, values, own = self._read(path, layer, label_column, buffer)
            crs = crs or own
            pieces.append(parts if own == crs else reprojected(parts, PROJ_CRS(own), PROJ_CRS(crs)))
            numbers.append(values)
        values = np.concatenate(numbers)
        order = self._order(values, priority)
        self.geometries = GeometryIndex(np.concatenate(pieces)[order], values[order], crs)
        if label_extent is not None and not isinstance(label_extent, GeometryIndex):
            label_extent = read_extent(label_extent, self.paths[0])
        self.extent = label_extent
        self.background = self._ground(background)

    def burn(self, grid: PixelGrid, window: Window) -> NDArray[np.uint8]:
        """Classes of the pixels of a window.

        Args:
            grid: Pixel grid in any CRS.
            window: Window on it; it may reach outside.

        Returns:
            Shape (height, width), ``ignore_index`` where nothing is known.
        """
        fill = 0 if self.background else self.ignore_index
        mask = self.geometries.burn(grid, window, fill, self._all_touched)
        return set_outside(mask, self.extent, grid, window, self.ignore_index)

    def touches(self, grid: PixelGrid) -> bool:
        """Whether any geometry, and the surveyed ground where it is given, meets a grid."""
        return self.geometries.touches(grid) and (self.extent is None or self.extent.touches(grid))

    def _read(
        self, path: str, layer: str | None, column: str | None, buffer: float
    ) -> tuple[Geometries, NDArray[np.uint8], Any]:
        frame = read_vector(path, layer)
        values = self._values(frame, column, path)
        parts = solid_parts(frame, buffer, path)
        self.read += len(frame)
        self.repaired += parts.repaired
        self.dropped += parts.dropped
        return parts.geometries, values[parts.parent], frame.crs

    def _values(self, frame: gpd.GeoDataFrame, column: str | None, path: str) -> NDArray[np.uint8]:
        columns = [str(name) for name in frame.columns if name != frame.geometry.name]
        there = ', '.join(columns) or 'none'
        if column is None:
            if len(self.class_names) > 2:
                msg = (
                    f'{path}: nothing says which of the {len(self.class_names)} classes each geometry is; name the '
                    f'column that does (there are {there}).'
                )
                raise ConfigurationError(msg)
            return np.full(len(frame), len(self.class_names) - 1, dtype=np.uint8)
        if column not in columns:
            raise ConfigurationError(f'{path}: has no column {column!r}; it has {there}.')
        return class_values(frame[column], self.class_names, f'{path}, column {column!r}')

    def _order(self, values: NDArray[np.uint8], priority: Sequence[str]) -> NDArray[np.int64]:
        unknown = [name for name in priority if name not in self.class_names]
        if unknown or len(set(priority)) < len(priority):
            msg = f'priority: expected different names of class_names ({", ".join(self.class_names)}), got {priority}.'
            raise ConfigurationError(msg)
        rank = np.zeros(len(self.class_names), dtype=np.int64)
        for place, name in enumerate(priority, start=1):
            rank[self.class_names.index(name)] = place
        return np.argsort(rank[values], kind='stable')

    def _ground(self, background: bool | None) -> bool:
        if background and len(self.class_names) == 1:
            msg = (
                f'background: there is the class {self.class_names[0]!r} alone, with the value 0, and it would be '
                'drawn and background at once; let the background be class 0, and this one class 1.'
            )
            raise ConfigurationError(msg)
        if background is not None:
            return background
        if (self.geometries.values == 0).any():
            return False
        if self.extent is not None:
            return True
        msg = (
            f'background: {self.paths[0]} holds no geometry of class 0 ({self.class_names[0]!r}), so what ground '
            'outside its geometries is has to be said: background true (all of it is that class), false (all of it is '
            'unlabelled), or label_extent, the outline of the ground that was surveyed.'
        )
        raise ConfigurationError(msg)


def no_place_in_common(
    labels: str, bounds: Callable[[Any], tuple[float, float, float, float]], crs: Any, scene: str, grid: PixelGrid
) -> EmptyIntersectionError:
    """The error for labels that do not touch an image, with both bounds in the image's CRS.

    Args:
        labels: File of the labels.
        bounds: Gives the bounds of the labels in a CRS.
        crs: CRS of the labels.
        scene: File of the image.
        grid: Its grid.

    Returns:
        The error to raise.
    """
    ours, theirs = (', '.join(f'{value:.10g}' for value in box) for box in (bounds(grid.crs), grid.bounds))
    return EmptyIntersectionError(
        f'labels: {labels} (drawn in {_name(crs)}) does not touch {scene}: in {_name(grid.crs)} it lies within '
        f'({ours}) and the image within ({theirs}); check the CRS of both, or choose the labels of this place.'
    )


def _name(crs: Any) -> str:
    known = PROJ_CRS.from_user_input(crs)
    authority = known.to_authority()
    return ':'.join(authority) if authority else str(known.name)
