"""Layers of a GeoPackage, written in portions."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
from numpy.typing import DTypeLike
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import OutputError

#: Geometries that are written together.
_AT_ONCE = 10_000


class LayerWriter:
    """Writer of the rows of one layer, portion by portion."""

    def __init__(
        self,
        path: Path,
        layer: str,
        columns: Mapping[str, DTypeLike],
        geometry_type: str,
        crs: CRS,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the layer; the first portion creates it.

        Args:
            path: GeoPackage; the layer is added to an existing one.
            layer: Name of the layer.
            columns: Type of each column.
            geometry_type: ``Polygon``, ``MultiLineString``, ….
            crs: CRS of the geometries.
            tags: Metadata of the layer.
        """
        self._path, self._layer, self._columns, self._type = path, layer, dict(columns), geometry_type
        self._crs, self._tags = crs.to_wkt(), dict(tags or {})
        self._rows: list[tuple[Any, ...]] = []
        self._exists = False

    def add(self, geometry: BaseGeometry, *values: Any) -> None:
        """Add a row.

        Args:
            geometry: Its geometry.
            *values: Its values in the order of the columns.

        Raises:
            OutputError: If the file cannot be written.
        """
        self._rows.append((geometry, *values))
        if len(self._rows) == _AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows; a layer without rows is created too.

        Raises:
            OutputError: If the file cannot be written.
        """
        if self._rows or not self._exists:
            self._flush()

    def _flush(self) -> None:
        geometries, *columns = zip(*self._rows, strict=True) if self._rows else [()] * (1 + len(self._columns))
        table = {
            name: np.asarray(column, dtype=kind)
            for (name, kind), column in zip(self._columns.items(), columns, strict=True)
        }
        frame = gpd.GeoDataFrame(table, geometry=list(geometries), crs=self._crs)
        try:
            # Without a name the layer would get that of the file, which may be a temporary one.
            frame.to_file(
                self._path,
                driver='GPKG',
                layer=self._layer,
                mode='a' if self._exists else 'w',
                engine='pyogrio',
                geometry_type=self._type,
                layer_metadata=None if self._exists else self._tags,
            )
        except RuntimeError as error:  # the base class of pyogrio's errors
            msg = f'{self._path.parent}: {self._layer} cannot be written there ({error}); free some space.'
            raise OutputError(msg) from error
        self._rows, self._exists = [], True


def read_tags(path: str | os.PathLike[str], layer: str = 'classes') -> dict[str, str]:
    """Read the metadata of a layer.

    Args:
        path: GeoPackage; it need not exist.
        layer: Name of the layer.

    Returns:
        The tags; empty where there are none.
    """
    if not Path(path).is_file():
        return {}
    try:
        return dict(pyogrio.read_info(path, layer=layer).get('layer_metadata') or {})
    except (DataSourceError, DataLayerError):  # another kind of file
        return {}
