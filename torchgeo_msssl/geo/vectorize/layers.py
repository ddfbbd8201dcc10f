"""One layer of a GeoPackage, written in portions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import DTypeLike
from rasterio.crs import CRS
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import OutputError

#: Geometries that are written together.
_AT_ONCE = 10_000


class LayerWriter:
    """Rows of a layer that go to the file portion by portion.

    Attributes:
        count: Rows so far.
    """

    def __init__(
        self,
        path: Path,
        layer: str,
        columns: Mapping[str, DTypeLike],
        geometry_type: str,
        crs: CRS | None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Note what the layer is; the first portion makes it.

        Args:
            path: GeoPackage; where it exists, the layer is added to it.
            layer: Name of the layer.
            columns: Type of each column.
            geometry_type: ``Polygon``, ``MultiLineString``, ….
            crs: CRS of the geometries.
            tags: Kept with the layer.
        """
        self.count = 0
        self._path, self._layer, self._columns, self._type = path, layer, dict(columns), geometry_type
        self._crs, self._tags = None if crs is None else crs.to_wkt(), dict(tags or {})
        self._rows: list[tuple[Any, ...]] = []
        self._begun = False

    def add(self, geometry: BaseGeometry, *values: Any) -> None:
        """Take up a row.

        Args:
            geometry: Its geometry.
            *values: Its values in the order of the columns.

        Raises:
            OutputError: If the file cannot be written.
        """
        self._rows.append((geometry, *values))
        self.count += 1
        if len(self._rows) == _AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what is left; a layer without a row is written too.

        Raises:
            OutputError: If the file cannot be written.
        """
        if self._rows or not self._begun:
            self._flush()

    def _flush(self) -> None:
        geometries, *columns = zip(*self._rows, strict=True) if self._rows else [()] * (1 + len(self._columns))
        table = {
            name: np.asarray(column, dtype=kind)
            for (name, kind), column in zip(self._columns.items(), columns, strict=True)
        }
        frame = gpd.GeoDataFrame(table, geometry=list(geometries), crs=self._crs)
        try:
            # Without a name the layer would be called after the file, which may be a temporary one.
            frame.to_file(
                self._path, driver='GPKG', layer=self._layer, mode='a' if self._begun else 'w', engine='pyogrio',
                geometry_type=self._type, layer_metadata=None if self._begun else self._tags,
            )  # fmt: skip
        except RuntimeError as error:  # the root of what pyogrio raises
            raise OutputError(
                f'{self._path.parent}: {self._layer} cannot be written there ({error}); make room there.'
            ) from error
        self._rows, self._begun = [], True
