"""Resumable GeoTIFFs: what fails on the disk is reported, and safe rows are kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.resumable import ResumableGeoTIFFs
from torchgeo_msssl.geo.write import GeoTIFFSpec

CLASS = GeoTIFFSpec(1, 'uint8', ('class',), 255, categorical=True, blocksize=16)


def grid(height: int) -> PixelGrid:
    return PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 6e5, 0, -10, 5e6), height, 30)


def rows(first: int, end: int) -> list[NDArray[np.uint8]]:
    return [np.arange(first, end, dtype=np.uint8)[None, :, None].repeat(30, axis=2)]


def test_a_full_disk_is_reported_when_publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL's own exceptions, which rasterio's copy raises, derive from Exception alone."""

    def full(*_: Any, **__: Any) -> None:
        raise Exception('map.tif.ovr.tmp: WriteEncodedTile/Strip() failed.')

    path = tmp_path / 'map.tif'
    with ResumableGeoTIFFs(grid(20), {path: CLASS}, 'key') as files:
        files.write(0, rows(0, 20))
        with monkeypatch.context() as patch:
            patch.setattr(rasterio.shutil, 'copy', full)
            with pytest.raises(OutputError, match=r'map\.tif cannot be written .*Strip'):
                files.publish()
        assert not path.exists()
        files.publish()
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), rows(0, 20)[0])


def test_safe_rows_are_kept_under_the_same_key_only(tmp_path: Path) -> None:
    path = tmp_path / 'map.tif'
    with ResumableGeoTIFFs(grid(100), {path: CLASS}, 'key', every=2) as files:
        files.write(0, rows(0, 70))
        assert files.next_row == 64
    with ResumableGeoTIFFs(grid(100), {path: CLASS}, 'key', every=2) as files:
        assert files.next_row == 64
        files.write(50, rows(50, 100))
        files.publish()
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), rows(0, 100)[0])
    with ResumableGeoTIFFs(grid(100), {path: CLASS}, 'key', every=2) as files:
        files.write(0, rows(0, 70))
    with ResumableGeoTIFFs(grid(100), {path: CLASS}, 'other', every=2) as files:
        assert files.next_row == 0


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    writer = ResumableGeoTIFFs(grid(20), {tmp_path / 'file' / 'map.tif': CLASS}, 'key')
    with pytest.raises(OutputError, match=r'map\.tif cannot be written'), writer:
        pass
