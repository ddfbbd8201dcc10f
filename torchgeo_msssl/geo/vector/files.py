"""Finding and reading of vector files."""

import glob
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np

from torchgeo_msssl.errors import ConfigurationError, MissingCRSError, SceneReadError, ScenesNotFoundError
from torchgeo_msssl.geo.open_datasets import is_remote
from torchgeo_msssl.geo.vector.antimeridian import cut_at_antimeridian

log = logging.getLogger(__name__)

VECTOR_SUFFIXES = frozenset({'.gpkg', '.geojson', '.json', '.shp', '.fgb', '.parquet', '.geoparquet'})

_PARQUET = ('.parquet', '.geoparquet')
#: Files of a Shapefile next to its geometries.
_SHAPEFILE_PARTS = ('.dbf', '.shx', '.prj', '.cpg')
#: How QGIS writes a layer of a file.
_LAYER_MARK = '|layername='


def is_vector(path: str | os.PathLike[str]) -> bool:
    """Return whether a path or pattern, also with ``|layername=…``, has one of :data:`VECTOR_SUFFIXES`."""
    return Path(split_layer(path)[0]).suffix.lower() in VECTOR_SUFFIXES


def split_layer(path: str | os.PathLike[str]) -> tuple[str, str | None]:
    """Split ``file.gpkg|layername=rows``, the notation of QGIS, into path and layer (None if there is none)."""
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


def vector_files(path: str | os.PathLike[str]) -> list[str]:
    """List the files that hold a vector file's content.

    Args:
        path: Path, also with ``|layername=…``.

    Returns:
        The file and its sidecars as far as they exist: the tables of a Shapefile, the file in which SQLite keeps the
        latest changes of a GeoPackage. Empty where there is no such file.
    """
    file, _ = split_layer(path)
    if is_remote(file):
        return [file]
    stem, suffix = os.path.splitext(file)
    sidecars = [f'{file}-wal', *(f'{stem}{other}' for other in _SHAPEFILE_PARTS if suffix.lower() == '.shp')]
    return [name for name in (file, *sidecars) if os.path.exists(name)]


def layer_names(path: str) -> list[str]:
    """Return the names of the layers of a vector file that have geometries.

    Args:
        path: Path without a layer.

    Returns:
        The names in the order of the file, without the tables of QGIS styles; empty for GeoParquet.

    Raises:
        SceneReadError: If the file cannot be opened.
    """
    if path.lower().endswith(_PARQUET):
        return []
    try:
        layers = gpd.list_layers(path)
    except (RuntimeError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return [str(name) for name, kind in zip(layers['name'], layers['geometry_type'], strict=True) if kind is not None]


def read_vector(path: str | os.PathLike[str], layer: str | None = None) -> gpd.GeoDataFrame:
    """Read one layer of a vector file.

    Args:
        path: GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet; also ``file.gpkg|layername=rows``.
        layer: Name of the layer; required if there are several.

    Returns:
        The table, with its CRS; polygons that cross 180° of longitude are cut there, with a warning.

    Raises:
        ScenesNotFoundError: If there is no such file.
        SceneReadError: If it cannot be read.
        ConfigurationError: If the layer does not exist, has to be named, or is empty; if pyarrow is missing for
            GeoParquet; or if a polygon in degrees encloses a pole.
        MissingCRSError: If it has no CRS, or one of degrees with coordinates in another unit.
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
        raise ConfigurationError(f'{where}: is a table without geometries; choose a layer with polygons or lines.')
    if len(frame) == 0:
        raise ConfigurationError(f'{where}: is empty; choose the layer or file with the labels.')
    if frame.crs is None:
        msg = (
            f'{where}: has no coordinate reference system, so it cannot be placed on the images; '
            'assign the one it was drawn in, for example with `ogr2ogr -a_srs EPSG:32631`.'
        )
        raise MissingCRSError(msg)
    _check_degrees(frame, where)
    return _cut(frame, where)


def _cut(frame: gpd.GeoDataFrame, where: str) -> gpd.GeoDataFrame:
    """Cut polygons that cross 180°; lines are cut when they have been widened, so that no cap is left there."""
    areal = frame.geom_type.isin(('Polygon', 'MultiPolygon', 'GeometryCollection')).to_numpy()
    shapes = np.array(frame.geometry, dtype=object)
    shapes[areal], number = cut_at_antimeridian(shapes[areal], frame.crs)
    if number == 0:
        return frame
    log.warning('%s: %d of %d geometries cross 180° of longitude and were cut there.', where, number, len(frame))
    return frame.set_geometry(gpd.GeoSeries(shapes, frame.index, crs=frame.crs))


def _check_degrees(frame: gpd.GeoDataFrame, where: str) -> None:
    """Raise if coordinates cannot be degrees, as in GeoJSON in metres without ``crs``, whose default is degrees."""
    # longitudes from 0 to 360 exist
    farthest = abs(frame.total_bounds).reshape(2, 2).max(axis=0)
    if frame.crs.is_geographic and (farthest[0] > 360 or farthest[1] > 90):
        msg = (
            f'{where}: has coordinates up to {farthest[0]:.0f}, {farthest[1]:.0f}, which are not degrees, in a CRS of '
            f'degrees ({frame.crs.name}; GeoJSON without `crs` has it by default); assign the CRS it was drawn in, for '
            'example with `ogr2ogr -a_srs EPSG:32631 labels.gpkg FILE`.'
        )
        raise MissingCRSError(msg)


def _read_layer(file: str, layer: str | None) -> Any:
    names = layer_names(file)
    if layer is None and len(names) > 1:
        msg = f'layer: {file} has {len(names)} layers ({", ".join(names)}); name the one with the labels.'
        raise ConfigurationError(msg)
    if layer is not None and layer not in names:
        raise ConfigurationError(f'layer: {file} has no layer {layer!r}; it has {", ".join(names) or "none"}.')
    if not names:
        raise ConfigurationError(f'{file}: has no layer with geometries; choose the file with the labels.')
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
        msg = f'{file}: GeoParquet requires pyarrow, which is not installed; install it, or convert to GeoPackage.'
        raise ConfigurationError(msg) from error
    except (RuntimeError, OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _unreadable(path: str, error: Exception) -> SceneReadError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return SceneReadError(f'{path}: cannot be read as a vector file ({reason}); repair or convert it.')
