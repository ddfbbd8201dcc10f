"""Vector files are found and read, and whatever one lacks is said in a sentence."""

import json
from pathlib import Path

import geopandas as gpd
import pytest
from shapely.geometry import box

from torchgeo_msssl.errors import ConfigurationError, MissingCRSError
from torchgeo_msssl.geo.vector.files import read_vector


def test_geoparquet_without_pyarrow_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> None:
        raise ImportError('pyarrow')

    monkeypatch.setattr(gpd, 'read_parquet', missing)
    (tmp_path / 'a.parquet').write_bytes(b'PAR1')
    with pytest.raises(ConfigurationError, match='pyarrow'):
        read_vector(tmp_path / 'a.parquet')


def test_geojson_in_metres_without_crs(tmp_path: Path) -> None:
    path = tmp_path / 'metres.geojson'
    ring = [[600000, 5000000], [600100, 5000000], [600100, 5000100], [600000, 5000000]]
    shape = {'type': 'Feature', 'properties': {}, 'geometry': {'type': 'Polygon', 'coordinates': [ring]}}
    path.write_text(json.dumps({'type': 'FeatureCollection', 'features': [shape]}))
    with pytest.raises(MissingCRSError, match=r'metres\.geojson: has coordinates up to 600100, 5000100, which are not'):
        read_vector(path)


@pytest.mark.parametrize('longitude', [-180, 0, 350])
def test_degrees_are_degrees(tmp_path: Path, longitude: float) -> None:
    path = tmp_path / 'degrees.gpkg'
    frame = gpd.GeoDataFrame(geometry=[box(longitude, 80, longitude + 10, 90)], crs='EPSG:4326')
    frame.to_file(path)
    assert len(read_vector(path)) == 1
