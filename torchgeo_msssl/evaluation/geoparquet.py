"""Footprints with vectors as GeoParquet, written in a stream."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import shapely
from numpy.typing import NDArray

from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.geoparquet import geoparquet_metadata

Write = Callable[[NDArray[np.object_], Mapping[str, Any]], None]


@contextmanager
def geoparquet_writer(
    path: str | os.PathLike[str],
    crs: Any,
    bounds: Sequence[float],
    columns: Mapping[str, str],
    vector: tuple[str, int],
) -> Iterator[Write]:
    """Write polygons with attributes piece by piece; each piece is a row group.

    Args:
        path: The file; it appears complete or not at all.
        crs: pyproj CRS of the polygons.
        bounds: ``(left, bottom, right, top)`` of all of them.
        columns: Arrow type of each plain column by name (``string``, ``int32``, ``float32``).
        vector: Name and length of the column that holds a vector, a list of float32 of fixed size.

    Yields:
        A function to call with polygons (n,) and a mapping from each column's name to its n values.

    Raises:
        OutputError: If the file cannot be written.
    """
    name, length = vector
    fields = [
        ('geometry', pyarrow.binary()),
        *((column, pyarrow.type_for_alias(kind)) for column, kind in columns.items()),
    ]
    schema = pyarrow.schema(
        [*fields, (name, pyarrow.list_(pyarrow.float32(), length))],
        metadata=geoparquet_metadata(crs.to_json_dict(), bounds),
    )

    def write(polygons: NDArray[np.object_], values: Mapping[str, Any]) -> None:
        flat = pyarrow.array(np.asarray(values[name], dtype=np.float32).reshape(-1))
        arrays = [pyarrow.array(shapely.to_wkb(polygons).tolist(), pyarrow.binary())]
        arrays += [pyarrow.array(values[column], schema.field(column).type) for column in columns]
        arrays.append(pyarrow.FixedSizeListArray.from_arrays(flat, length))
        writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))

    with atomic_path(path) as temporary, pyarrow.parquet.ParquetWriter(temporary, schema, compression='zstd') as writer:
        yield write
