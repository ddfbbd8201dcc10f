"""Polygons and lines in any CRS, as classes of pixels.

A pixel takes the class of the geometry that holds its centre. Geometries are burned whole, never clipped to the
window that is asked for, on coordinates that do not depend on that window: a mask made of windows is the mask of the
whole grid, pixel for pixel.
"""

import glob
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyproj import CRS as PROJ_CRS
from pyproj import Proj, Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import (
    ConfigurationError,
    EmptyIntersectionError,
    MissingCRSError,
    SceneReadError,
    ScenesNotFoundError,
)
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.handles import is_remote

log = logging.getLogger(__name__)

type Geometries = NDArray[np.object_]

VECTOR_SUFFIXES = frozenset({'.gpkg', '.geojson', '.json', '.shp', '.fgb', '.parquet', '.geoparquet'})

_PARQUET = ('.parquet', '.geoparquet')
#: How QGIS writes a layer of a file.
_LAYER_MARK = '|layername='
_POINT, _POLYGON = 0, 3  # GEOS type numbers; those above are of collections
#: Vertices are put on this fraction of a pixel. It is far above the rounding of any transform and far below what a
#: label can mean, so that an edge through a pixel's centre falls the same way in every window.
_SUBPIXEL = 2.0**-16
#: A line burns pixels next to its path at most; so far beyond a window geometries still matter, in pixels.
_REACH = 2
#: A map whose scale is wrong by less than this at the labels measures their metres itself.
_TRUE_SCALE = 0.01
#: Values listed in a message.
_LISTED = 10


def is_vector(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path names a vector file, by its suffix.

    Args:
        path: Path or pattern, also with ``|layername=…``.

    Returns:
        True for the suffixes in :data:`VECTOR_SUFFIXES`.
    """
    return Path(split_layer(path)[0]).suffix.lower() in VECTOR_SUFFIXES


def split_layer(path: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Take ``file.gpkg|layername=rows``, as QGIS writes it, apart.

    Args:
        path: Path, with or without a layer.

    Returns:
        ``(path, layer)``; the layer is None where none is named.
    """
    file, mark, layer = os.fspath(path).partition(_LAYER_MARK)
    return file, layer if mark else None


def find_vectors(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """List the vector files at paths, folders and patterns.

    Args:
        paths: Files (also with ``|layername=…``), folders or patterns such as ``labels/*.gpkg``.

    Returns:
        Paths in the order given, those of a folder or pattern sorted.

    Raises:
        ScenesNotFoundError: If there is nothing at one of the paths.
    """
    found: list[str] = []
    for path in [paths] if isinstance(paths, str | os.PathLike) else list(paths):
        file, layer = split_layer(path)
        file = file if is_remote(file) else os.path.expanduser(file)
        if is_remote(file) or os.path.isfile(file):
            files = [file]
        else:
            pattern = os.path.join(glob.escape(file), '*') if os.path.isdir(file) else file
            files = [match for match in sorted(glob.glob(pattern, recursive=True)) if is_vector(match)]
        if not files:
            msg = f'labels: no vector file ({", ".join(sorted(VECTOR_SUFFIXES))}) found at {file!r}; check the path.'
            raise ScenesNotFoundError(msg)
        found += [f'{file}{_LAYER_MARK}{layer}' if layer else file for file in files]
    return found


def layer_names(path: str) -> list[str]:
    """Names of the layers of a vector file that have geometries.

    Args:
        path: Path without a layer.

    Returns:
        The names in the file's order; the tables that QGIS keeps its styles in are none.

    Raises:
        SceneReadError: If the file cannot be opened.
    """
    try:
        layers = gpd.list_layers(path)
    except (RuntimeError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return [str(name) for name, kind in zip(layers['name'], layers['geometry_type'], strict=True) if kind is not None]


def read_vector(path: str | os.PathLike[str], layer: str | None = None) -> gpd.GeoDataFrame:
    """Read one layer of a vector file.

    Args:
        path: GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet; also ``file.gpkg|layername=rows``.
        layer: Name of the layer; needed where there are several.

    Returns:
        The table, with its CRS.

    Raises:
        ScenesNotFoundError: If there is no such file.
        SceneReadError: If it cannot be read.
        ConfigurationError: If the layer is not in it, has to be named, or is empty; or pyarrow is missing for a
            GeoParquet file.
        MissingCRSError: If it has no CRS.
    """
    file, named = split_layer(path)
    if named and layer and named != layer:
        raise ConfigurationError(f'layer: {path} names one layer and the option {layer!r} another; leave one out.')
    layer = named or layer
    if not is_remote(file) and not os.path.exists(file):
        raise ScenesNotFoundError(f'labels: there is no file {file!r}; check the path.')
    frame = _read_parquet(file, layer) if file.lower().endswith(_PARQUET) else _read_layer(file, layer)
    where = f'{file}, layer {layer!r}' if layer else file
    if not isinstance(frame, gpd.GeoDataFrame):
        raise ConfigurationError(f'{where}: is a table without geometries; choose a layer of polygons or lines.')
    if len(frame) == 0:
        raise ConfigurationError(f'{where}: is empty; choose the layer or file that holds the labels.')
    if frame.crs is None:
        msg = (
            f'{where}: has no coordinate reference system, so it cannot be placed on the images; '
            'assign the one it was drawn in, for example with `ogr2ogr -a_srs EPSG:32631`.'
        )
        raise MissingCRSError(msg)
    return frame


def _read_layer(file: str, layer: str | None) -> Any:
    names = layer_names(file)
    if layer is None and len(names) > 1:
        msg = f'layer: {file} has {len(names)} layers ({", ".join(names)}); say which one holds the labels.'
        raise ConfigurationError(msg)
    if layer is not None and layer not in names:
        raise ConfigurationError(f'layer: {file} has no layer {layer!r}; it has {", ".join(names) or "none"}.')
    if not names:
        raise ConfigurationError(f'{file}: has no layer with geometries; choose the file that holds the labels.')
    try:
        return gpd.read_file(file, layer=layer or names[0])
    except (RuntimeError, OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _read_parquet(file: str, layer: str | None) -> Any:
    if layer is not None:
        raise ConfigurationError(f'layer: {file} is GeoParquet, which has no layers; leave {layer!r} out.')
    try:
        return gpd.read_parquet(file)
    except ImportError as error:
        msg = f'{file}: GeoParquet is read with pyarrow, which is not installed; install it, or convert to GeoPackage.'
        raise ConfigurationError(msg) from error
    except (RuntimeError, OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _unreadable(path: str, error: Exception) -> SceneReadError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return SceneReadError(f'{path}: cannot be read as a vector file ({reason}); repair or convert it.')


def class_values(column: Any, class_names: Sequence[str], where: str) -> NDArray[np.uint8]:
    """Turn the values of a column into class values.

    Args:
        column: Names of classes, or their numbers (also as text); a value that is a name means that class even where
            it looks like a number.
        class_names: Names; the index is the value.
        where: File and column, for messages.

    Returns:
        Class values, shape (n,).

    Raises:
        ConfigurationError: If a value is missing or is neither a name nor an index of ``class_names``.
    """
    series = pd.Series(column)
    if series.isna().any():
        msg = (
            f'{where}: {int(series.isna().sum())} of {len(series)} geometries have no class; fill it in or remove them.'
        )
        raise ConfigurationError(msg)
    classes = {value: _class_of(value, list(class_names)) for value in series.unique()}
    unknown = sorted(str(value) for value, number in classes.items() if number is None)
    if unknown:
        more = f' and {len(unknown) - _LISTED} more' if len(unknown) > _LISTED else ''
        msg = (
            f'{where}: holds {", ".join(unknown[:_LISTED])}{more}, which class_names ({", ".join(class_names)}) does '
            f'not have; add the names, or write class numbers from 0 to {len(class_names) - 1}.'
        )
        raise ConfigurationError(msg)
    return series.map(classes).to_numpy(dtype=np.uint8)


def _class_of(value: Any, class_names: list[str]) -> int | None:
    if isinstance(value, bool | np.bool_):
        value = int(value)
    try:
        text = str(int(value)) if float(value) == int(value) else str(value)
    except (TypeError, ValueError, OverflowError):
        text = str(value).strip()
    for name in (str(value).strip(), text):
        if name in class_names:
            return class_names.index(name)
    return int(text) if text.isdecimal() and int(text) < len(class_names) else None


def check_classes(class_names: Sequence[str], ignore_index: int) -> tuple[str, ...]:
    """Check that classes and the value of unlabelled pixels fit into uint8 and do not meet.

    Args:
        class_names: Names; the index is the value.
        ignore_index: Value of unlabelled pixels.

    Returns:
        The names.

    Raises:
        ConfigurationError: If there is no class, a name comes twice, or a value does not fit.
    """
    names = tuple(str(name) for name in class_names)
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f'class_names: expected different names, at least one, got {list(names)}.')
    if not len(names) <= ignore_index <= np.iinfo(np.uint8).max:
        msg = (
            f'ignore_index: expected {len(names)} to 255, which no class of class_names has and uint8 can hold, got '
            f'{ignore_index}.'
        )
        raise ConfigurationError(msg)
    return names


def simple_parts(geometries: Geometries) -> tuple[Geometries, NDArray[np.int64], int]:
    """Take collections apart, repair what is invalid, leave out what is empty.

    Args:
        geometries: Any geometries, also None; shape (n,).

    Returns:
        ``(parts, parent, invalid)``: valid points, lines and polygons; the position of the geometry that each is
        part of; how many geometries were invalid. What is nobody's parent had nothing in it.
    """
    parts, parent = _explode(shapely.force_2d(geometries))
    areal = shapely.get_type_id(parts) == _POLYGON
    broken = areal & ~shapely.is_valid(parts)
    invalid = len(np.unique(parent[broken]))
    if invalid:
        # 'structure' keeps both lobes of a bow-tie; buffer(0), the usual remedy, loses one.
        parts[broken] = shapely.make_valid(parts[broken], method='structure', keep_collapsed=False)
        parts, index = _explode(parts)
        parent, areal = parent[index], areal[index]
        whole = ~areal | (shapely.get_type_id(parts) == _POLYGON)
        parts, parent = parts[whole], parent[whole]
    return parts, parent, invalid


def _explode(geometries: Geometries) -> tuple[Geometries, NDArray[np.int64]]:
    parts, parent = shapely.get_parts(geometries, return_index=True)
    while (shapely.get_type_id(parts) > _POLYGON).any():  # collections of collections
        parts, index = shapely.get_parts(parts, return_index=True)
        parent = parent[index]
    # NaN in coordinates, and the bounds of what is empty, are not finite
    usable = ~shapely.is_empty(parts) & np.isfinite(shapely.bounds(parts)).all(axis=1)
    return parts[usable], parent[usable]


def buffer_metres(geometries: Geometries, crs: Any, distance: float) -> Geometries:
    """Widen lines and points by metres on the ground, whatever their CRS.

    Args:
        geometries: Lines, which get flat ends, and points, which become discs; shape (n,).
        crs: Their CRS. Where its map is true to scale it is used itself, else the UTM zone of the place.
        distance: Metres to each side.

    Returns:
        Polygons in ``crs``, shape (n,).
    """
    if len(geometries) == 0:
        return geometries
    series = gpd.GeoSeries(geometries, crs=crs)
    unit = _metres_per_unit(series)
    plane = series if unit else series.to_crs(series.estimate_utm_crs())
    shapes = plane.to_numpy()
    caps = np.where(shapely.get_type_id(shapes) == _POINT, 'round', 'flat')
    wide = shapes.copy()
    for cap in ('round', 'flat'):
        chosen = caps == cap
        wide[chosen] = shapely.buffer(shapes[chosen], distance / (unit or 1.0), cap_style=cap)
    return gpd.GeoSeries(wide, crs=plane.crs).to_crs(series.crs).to_numpy()


def _metres_per_unit(series: gpd.GeoSeries) -> float | None:
    """Metres on the ground to a unit of the map, or None where the map is not true to scale at the geometries."""
    crs = PROJ_CRS.from_user_input(series.crs)
    if not crs.is_projected or crs.geodetic_crs is None:
        return None
    left, bottom, right, top = series.total_bounds
    to_degrees = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    try:
        factors = Proj(crs).get_factors(*to_degrees.transform((left + right) / 2, (bottom + top) / 2))
    except ProjError:
        return None
    true = max(abs(factors.meridional_scale - 1), abs(factors.parallel_scale - 1)) < _TRUE_SCALE
    return float(crs.axis_info[0].unit_conversion_factor) if true else None


def burn(
    geometries: Geometries,
    values: NDArray[np.uint8],
    grid: PixelGrid,
    window: Window,
    fill: int = 0,
    all_touched: bool = False,
) -> NDArray[np.uint8]:
    """Burn geometries into a window of a grid.

    Args:
        geometries: Geometries in the grid's CRS, the last one on top; shape (n,).
        values: Their values, shape (n,).
        grid: The grid; it alone decides which pixels a geometry takes.
        window: Window on it; it may reach outside.
        fill: Value where no geometry is.
        all_touched: Burn every pixel that is touched, not those alone whose centre is inside. Rows of 0.6 m become
            1.2 times as wide on 10 cm pixels and twice as wide on 50 cm ones.

    Returns:
        Shape (height, width).
    """
    mask = np.full((window.height, window.width), fill, dtype=np.uint8)
    if len(geometries) == 0:
        return mask
    t = ~grid.transform

    def to_pixels(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        cols = t.a * xy[:, 0] + t.b * xy[:, 1] + t.c
        rows = t.d * xy[:, 0] + t.e * xy[:, 1] + t.f
        place = np.rint(np.column_stack([cols, rows]) / _SUBPIXEL) * _SUBPIXEL
        return place - (window.col, window.row)

    shapes = shapely.transform(geometries, to_pixels)
    rasterize(zip(shapes, values.tolist(), strict=True), out=mask, all_touched=all_touched)
    return mask


class GeometryIndex:
    """Geometries with values that are found by place, on the grid of any CRS.

    They are brought into a CRS once and kept there.
    """

    def __init__(self, geometries: Geometries, values: NDArray[np.uint8], crs: Any) -> None:
        """Hold simple geometries, the last one on top.

        Args:
            geometries: Points, lines and polygons, shape (n,).
            values: Their values, shape (n,).
            crs: Their CRS.
        """
        self.geometries = geometries
        self.values = values
        self.crs = PROJ_CRS.from_user_input(crs)
        self._placed: dict[CRS, tuple[Geometries, NDArray[np.uint8], shapely.STRtree]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made again where it is needed."""
        return self.__dict__ | {'_placed': {}}

    def bounds(self, crs: Any | None = None) -> tuple[float, float, float, float]:
        """``(left, bottom, right, top)`` of all geometries, in a CRS (default: their own)."""
        geometries = self.geometries if crs is None else self._on(CRS.from_user_input(crs))[0]
        left, bottom, right, top = shapely.total_bounds(geometries).tolist()
        return left, bottom, right, top

    def touches(self, grid: PixelGrid) -> bool:
        """Whether any geometry meets the ground of a grid."""
        _, _, tree = self._on(grid.crs)
        corners = [grid.transform @ corner for corner in _corners(grid.window)]
        return len(tree.query(shapely.Polygon(corners), predicate='intersects')) > 0

    def burn(self, grid: PixelGrid, window: Window, fill: int = 0, all_touched: bool = False) -> NDArray[np.uint8]:
        """Burn what meets a window, see :func:`burn`; shape (height, width)."""
        geometries, values, tree = self._on(grid.crs)
        wide = Window(window.row - _REACH, window.col - _REACH, window.height + 2 * _REACH, window.width + 2 * _REACH)
        hits = np.sort(tree.query(shapely.box(*grid.window_bounds(wide))))
        return burn(geometries[hits], values[hits], grid, window, fill, all_touched)

    def _on(self, crs: CRS) -> tuple[Geometries, NDArray[np.uint8], shapely.STRtree]:
        if crs not in self._placed:
            geometries, values = self.geometries, self.values
            wanted = PROJ_CRS.from_user_input(crs)
            if wanted != self.crs:
                geometries = gpd.GeoSeries(geometries, crs=self.crs).to_crs(wanted).to_numpy()
                # what lies where the projection is undefined comes back without coordinates
                there = np.isfinite(shapely.bounds(geometries)).all(axis=1)
                geometries, values = geometries[there], values[there]
            self._placed[crs] = geometries, values, shapely.STRtree(geometries)
        return self._placed[crs]


def _corners(window: Window) -> list[tuple[float, float]]:
    """``(col, row)`` of the corners, in order round it."""
    top, left, bottom, right = window.row, window.col, window.row + window.height, window.col + window.width
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def read_extent(source: str | os.PathLike[str], labels: str | None = None) -> GeometryIndex:
    """Read the outline of the ground that was surveyed.

    Args:
        source: Vector file with polygons, ``file.gpkg|layername=parcels``, or the name of another layer of ``labels``.
        labels: The vector file with the labels, if any.

    Returns:
        The polygons, with the value 1.

    Raises:
        ScenesNotFoundError: If there is no such file or layer.
        ConfigurationError: If it holds no polygons.
        MissingCRSError: If it has no CRS.
        SceneReadError: If it cannot be read.
    """
    file, layer = split_layer(source)
    if labels is not None and layer is None and not os.path.exists(file) and not is_remote(file):
        home = split_layer(labels)[0]
        layers = [] if home.lower().endswith(_PARQUET) else layer_names(home)
        if file not in layers:
            msg = f'label_extent: {file!r} is neither a file nor a layer of {home} ({", ".join(layers)}); correct it.'
            raise ScenesNotFoundError(msg)
        file, layer = home, file
    frame = read_vector(file, layer)
    parts, _, invalid = simple_parts(frame.geometry.to_numpy())
    parts = parts[shapely.get_type_id(parts) == _POLYGON]
    if len(parts) == 0:
        raise ConfigurationError(f'label_extent: {source} holds no polygons; draw the outline of the surveyed ground.')
    if invalid:
        log.warning('%s: %d of %d geometries were invalid and were repaired.', source, invalid, len(frame))
    return GeometryIndex(parts, np.ones(len(parts), dtype=np.uint8), frame.crs)


def set_outside(
    mask: NDArray[np.uint8], extent: GeometryIndex | None, grid: PixelGrid, window: Window, value: int
) -> NDArray[np.uint8]:
    """Give pixels outside the surveyed ground a value, in place.

    Args:
        mask: Classes, shape (height, width).
        extent: The surveyed ground, or None where all was surveyed.
        grid: The grid that the window is on.
        window: Where the mask is.
        value: What goes outside.

    Returns:
        The same array.
    """
    if extent is not None:
        mask[extent.burn(grid, window) == 0] = value
    return mask


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
        label_extent: str | os.PathLike[str] | None = None,
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
            label_extent: The surveyed ground, see :func:`read_extent`.
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
        if not (np.isfinite(buffer) and buffer >= 0):
            raise ConfigurationError(f'buffer: expected metres from 0 on, got {buffer}.')
        self.read = self.repaired = self.dropped = 0
        pieces: list[Geometries] = []
        numbers: list[NDArray[np.uint8]] = []
        crs: Any = None
        for path in self.paths:
            parts, values, own = self._read(path, layer, label_column, buffer)
            crs = crs or own
            pieces.append(gpd.GeoSeries(parts, crs=own).to_crs(crs).to_numpy())
            numbers.append(values)
        values = np.concatenate(numbers)
        order = self._order(values, priority)
        self.geometries = GeometryIndex(np.concatenate(pieces)[order], values[order], crs)
        self.extent = read_extent(label_extent, self.paths[0]) if label_extent is not None else None
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
        parts, parent, invalid = simple_parts(frame.geometry.to_numpy())
        parts = _widened(parts, frame.crs, buffer, path)
        solid = ~shapely.is_empty(parts)  # a line without length has no sides
        parts, parent = parts[solid], parent[solid]
        dropped = len(frame) - len(np.unique(parent))
        if invalid:
            log.warning('%s: %d of %d geometries were invalid and were repaired.', path, invalid, len(frame))
        if dropped:
            log.warning('%s: %d of %d geometries were empty and were left out.', path, dropped, len(frame))
        if len(parts) == 0:
            msg = f'{path}: all of its {len(frame)} geometries are empty; choose the layer or file with the labels.'
            raise ConfigurationError(msg)
        self.read += len(frame)
        self.repaired += invalid
        self.dropped += dropped
        return parts, values[parent], frame.crs

    def _values(self, frame: gpd.GeoDataFrame, column: str | None, path: str) -> NDArray[np.uint8]:
        columns = [str(name) for name in frame.columns if name != frame.geometry.name]
        there = ', '.join(columns) or 'none'
        if column is None:
            if len(self.class_names) > 2:
                msg = (
                    f'label_column: has to say which of the {len(self.class_names)} classes each geometry of {path} '
                    f'is; its columns are {there}.'
                )
                raise ConfigurationError(msg)
            return np.full(len(frame), len(self.class_names) - 1, dtype=np.uint8)
        if column not in columns:
            raise ConfigurationError(f'label_column: {path} has no column {column!r}; it has {there}.')
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
                f'background: class_names has the class {self.class_names[0]!r} alone, which would be drawn and '
                'background at once; put a name for the background before it.'
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


def _widened(parts: Geometries, crs: Any, buffer: float, path: str) -> Geometries:
    """Lines and points as polygons, where there is a buffer."""
    kinds = shapely.get_type_id(parts)
    points, thin = kinds == _POINT, kinds != _POLYGON
    if buffer == 0:
        if points.any():
            msg = (
                f'{path}: holds {int(points.sum())} points, which cover no ground; give their radius in metres with '
                '`buffer`, or use polygons.'
            )
            raise ConfigurationError(msg)
        if thin.any():
            log.warning(
                '%s: holds %d lines, which become one pixel wide; give half their width in metres with `buffer`.',
                path,
                int(thin.sum()),
            )
        return parts
    if len(parts) and not thin.any():
        raise ConfigurationError(f'buffer: widens lines and points, and {path} holds polygons only; leave it out.')
    wide = parts.copy()
    wide[thin] = buffer_metres(parts[thin], crs, buffer)
    return wide


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


def region_index(region: BaseGeometry, crs: Any) -> GeometryIndex:
    """One region, to be burned with the value 1.

    Args:
        region: A polygon, or several.
        crs: Its CRS.

    Returns:
        Its parts.
    """
    parts, _, _ = simple_parts(np.array([region], dtype=object))
    return GeometryIndex(parts, np.ones(len(parts), dtype=np.uint8), crs)
