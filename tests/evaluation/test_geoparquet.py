"""GeoParquet as geopandas and pyarrow read it."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet
import pytest
import shapely
from pyproj import CRS

from torchgeo_msssl.evaluation.geoparquet import geoparquet_writer

COLUMNS = {'scene': 'string', 'row': 'int32', 'valid': 'float32'}


def test_round_trip_in_pieces(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(7, 4)).astype(np.float32)
    boxes = shapely.box(*np.array([(i, 0, i + 1, 2) for i in range(7)], dtype=float).T)
    with geoparquet_writer(tmp_path / 'a.parquet', CRS(32631), [0, 0, 7, 2], COLUMNS, ('embedding', 4)) as write:
        for part in (slice(0, 3), slice(3, 7)):
            rows = np.arange(7)[part]
            write(
                boxes[part],
                {
                    'scene': [f'scene é {i}' for i in rows], 'row': rows.tolist(), 'valid': rows / 8,
                    'embedding': vectors[part],
                },
            )  # fmt: skip
    frame = gpd.read_parquet(tmp_path / 'a.parquet')
    assert frame.crs == CRS(32631)
    assert frame.geometry.tolist() == boxes.tolist()
    assert frame['scene'].tolist() == [f'scene é {i}' for i in range(7)]
    assert frame['row'].tolist() == list(range(7))
    np.testing.assert_array_equal(frame['valid'], np.arange(7, dtype=np.float32) / 8)
    np.testing.assert_array_equal(np.stack(frame['embedding']), vectors)
    file = pyarrow.parquet.ParquetFile(tmp_path / 'a.parquet')
    assert file.num_row_groups == 2
    assert str(file.schema_arrow.field('embedding').type).startswith('fixed_size_list')
    assert file.schema_arrow.field('embedding').type.list_size == 4


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    writer = geoparquet_writer(tmp_path / 'a.parquet', CRS(32631), [0, 0, 1, 1], COLUMNS, ('embedding', 4))
    with pytest.raises(ZeroDivisionError), writer:
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
