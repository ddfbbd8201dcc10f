"""Polygons of a class map as a GeoPackage."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS as PROJ_CRS
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError, SceneReadError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.vector.geometries import metres_per_unit
from torchgeo_msssl.geo.vectorize.areas import Area, find_areas
from torchgeo_msssl.geo.vectorize.layers import LayerWriter

__all__ = ('area_measure', 'on_the_map', 'polygonize', 'read_tags')


def polygonize(
    class_map: str | os.PathLike[str],
    output: str | os.PathLike[str],
    class_names: Sequence[str],
    *,
    confidence: str | os.PathLike[str] | None = None,
    classes: Sequence[int] | None = None,
    sieve: float = 0.0,
    block: int = 512,
    tags: Mapping[str, str] | None = None,
) -> int:
    """Write the areas of one class each as polygons of a GeoPackage.

    Pixels belong together where they share a side (4-connectivity). Areas of a CRS that is not true to scale are
    measured on its ellipsoid.

    Args:
        class_map: Raster of classes with its nodata value declared.
        output: GeoPackage to write, with the columns ``class``, ``name``, ``area_m2`` and ``probability`` (mean of the
            confidence, empty without one).
        class_names: Names of the classes in order.
        confidence: Raster of the probability of the mapped class on the same grid; its declared scale is applied.
        classes: Classes to write; None for all.
        sieve: Polygons smaller than this are left out, in m².
        block: Side of the blocks, in pixels.
        tags: Kept with the layer, see :func:`read_tags`.

    Returns:
        Number of polygons.

    Raises:
        ConfigurationError: If an option is out of its range, the rasters do not lie on each other, or the map holds a
            class without a name.
        SceneReadError: If a raster cannot be read.
        OutputError: If the GeoPackage cannot be written.
    """
    if block < 1 or sieve < 0:
        msg = f'polygons: expected a block of 1 pixel or more and a sieve of 0 m² or more, got {block} and {sieve}.'
        raise ConfigurationError(msg)
    wanted = None if classes is None else frozenset(classes).__contains__
    try:
        with rasterio.open(class_map) as dataset:
            if confidence is None:
                areas = find_areas(dataset, None, wanted, block)
                return _write(areas, Path(output), dataset.crs, dataset.transform, class_names, sieve, tags)
            with rasterio.open(confidence) as certain:
                _check_alike(dataset, certain)
                areas = find_areas(dataset, certain, wanted, block)
                return _write(areas, Path(output), dataset.crs, dataset.transform, class_names, sieve, tags)
    except RasterioError as error:
        msg = f'{class_map}: cannot be read for polygons ({error.__cause__ or error!s}); predict the scene again.'
        raise SceneReadError(msg) from error


def read_tags(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what :func:`polygonize` was told to keep with its layer.

    Args:
        path: GeoPackage; it need not exist.

    Returns:
        The tags; empty where there are none.
    """
    if not Path(path).is_file():
        return {}
    try:
        return dict(pyogrio.read_info(path, layer='classes').get('layer_metadata') or {})
    except (DataSourceError, DataLayerError):  # no GeoPackage of ours
        return {}


def _write(
    areas: Iterator[Area],
    output: Path,
    crs: CRS,
    transform: Affine,
    class_names: Sequence[str],
    sieve: float,
    tags: Mapping[str, str] | None,
) -> int:
    columns = {'class': np.int32, 'name': object, 'area_m2': np.float64, 'probability': np.float64}
    with atomic_path(output) as temporary:
        layer = LayerWriter(temporary, 'classes', columns, 'Polygon', crs, tags)
        measure: Callable[[BaseGeometry], float] | None = None
        for area in areas:
            if area.value >= len(class_names):
                msg = f'class_names: the map holds class {area.value}, but there are only {len(class_names)} names.'
                raise ConfigurationError(msg)
            polygon = on_the_map(area.polygon(), transform)
            measure = measure or area_measure(crs, polygon)
            size = measure(polygon)
            if size >= sieve:
                mean = area.certainty / area.pixels
                layer.add(polygon, area.value, class_names[area.value], size, mean)
        layer.close()
    return layer.count


def on_the_map(geometry: BaseGeometry, transform: Affine) -> BaseGeometry:
    """Place a geometry in pixels ``(col, row)`` on the map.

    Args:
        geometry: Any geometry.
        transform: Geotransform of the pixels.

    Returns:
        The same in map coordinates.
    """
    t = transform

    def place(points: NDArray[np.float64]) -> NDArray[np.float64]:
        col, row = points[:, 0], points[:, 1]
        return np.stack([t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f], axis=1)

    return shapely.transform(geometry, place)


def area_measure(crs: CRS | None, place: BaseGeometry) -> Callable[[BaseGeometry], float]:
    """How polygons of a map are measured in m².

    Args:
        crs: CRS of the map. Where it is true to scale its own plane is measured, else the ellipsoid; without a CRS
            units are taken for metres.
        place: Where on the map.

    Returns:
        A function from a polygon in ``crs`` to its area.
    """
    known = None if crs is None else PROJ_CRS.from_user_input(crs)
    geod = None if known is None else known.get_geod()
    if known is None or geod is None:
        unit: float | None = 1.0 if known is None else float(known.axis_info[0].unit_conversion_factor)
    else:
        unit = metres_per_unit(gpd.GeoSeries([place], crs=known))
    if unit is not None:
        return lambda polygon: float(polygon.area) * unit**2
    assert known is not None, 'a map without a CRS has its unit'
    assert geod is not None, 'a map without an ellipsoid has its unit'
    geodetic = known.geodetic_crs
    to_degrees = Transformer.from_crs(known, geodetic, always_xy=True)

    def on_the_ellipsoid(polygon: BaseGeometry) -> float:
        degrees = shapely.transform(polygon, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1])))
        return abs(float(geod.geometry_area_perimeter(shapely.orient_polygons(degrees))[0]))

    return on_the_ellipsoid


def _check_alike(first: Any, second: Any) -> None:
    if (first.shape, first.transform, first.crs) != (second.shape, second.transform, second.crs):
        msg = (
            f'{second.name}: expected the grid of {first.name} ({first.width} × {first.height} pixels), '
            f'got {second.width} × {second.height} at {tuple(second.transform)[:6]}; predict the scene again.'
        )
        raise ConfigurationError(msg)
