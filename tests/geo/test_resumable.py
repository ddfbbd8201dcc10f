"""Files that grow from top to bottom: what goes wrong on the disk is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil
from affine import Affine
from rasterio._err import CPLE_AppDefinedError
from rasterio.crs import CRS

from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.resumable import Layer, ResumableGeoTIFFs

GRID = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 6e5, 0, -10, 5e6), 20, 30)


def test_a_disk_that_is_full_at_the_end_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What copying raises are GDAL's own errors, which are none of rasterio's."""

    def full(*_: Any, **__: Any) -> None:
        raise CPLE_AppDefinedError(3, 1, 'map.tif.ovr.tmp: WriteEncodedTile/Strip() failed.')

    layer = Layer(tmp_path / 'map.tif', 1, 'uint8', 255, ('class',), categorical=True)
    with ResumableGeoTIFFs(GRID, [layer], 'key') as files:
        files.write(0, [np.ones((1, 20, 30), np.uint8)])
        with monkeypatch.context() as patch:
            patch.setattr(rasterio.shutil, 'copy', full)
            with pytest.raises(OutputError, match=r'map\.tif cannot be written .*Strip'):
                files.publish()
        assert not layer.path.exists()
        files.publish()
    with rasterio.open(layer.path) as dataset:
        assert (dataset.read() == 1).all()
