"""Vector files are found and read, and whatever one lacks is said in a sentence."""

from pathlib import Path

import geopandas as gpd
import pytest

from torchgeo_msssl.errors import (
    ConfigurationError,
)
from torchgeo_msssl.geo.vector.files import read_vector


def test_geoparquet_without_pyarrow_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> None:
        raise ImportError('pyarrow')

    monkeypatch.setattr(gpd, 'read_parquet', missing)
    (tmp_path / 'a.parquet').write_bytes(b'PAR1')
    with pytest.raises(ConfigurationError, match='pyarrow'):
        read_vector(tmp_path / 'a.parquet')
