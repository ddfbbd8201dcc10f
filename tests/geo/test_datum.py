"""What the log says about transformations between datums."""

import logging
import warnings

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj.transformer import TransformerGroup
from rasterio.crs import CRS

from torchgeo_msssl.geo.datum import Accuracy, report_accuracy, transformation_accuracy
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.vector.burn import GeometryIndex
from torchgeo_msssl.geo.warp import warp_scene


def grid(code: int, x: float, y: float, res: float) -> PixelGrid:
    return PixelGrid(CRS.from_epsg(code), Affine(res, 0, x, 0, -res, y), 10, 10)


#: Places of the size of a drone's and a satellite's pixels.
BADEN = grid(25832, 450_000, 5_400_000, 0.05)
KANSAS = grid(26914, 500_000, 4_400_000, 10.0)


def lacks_grids() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return not TransformerGroup('EPSG:4267', 'EPSG:4269', always_xy=True).best_available


@pytest.mark.parametrize(
    ('source', 'target'),
    [('EPSG:32631', 'EPSG:32632'), ('EPSG:3857', 'EPSG:4326'), ('LOCAL_CS["site",UNIT["metre",1]]', 'EPSG:4326')],
)
def test_one_datum_needs_no_transformation(source: str, target: str) -> None:
    assert transformation_accuracy(source, target, (3.0, 45.0)) is None


@pytest.mark.skipif(not lacks_grids(), reason='the grid files of PROJ are installed')
def test_missing_grid_is_named_with_its_file_and_remedy(caplog: pytest.LogCaptureFixture) -> None:
    found = transformation_accuracy('EPSG:4267', KANSAS.crs, (500_000, 4_400_000))
    assert found == Accuracy(None, found.grid, 0.15)
    assert found.grid.endswith('.tif')
    index = GeometryIndex(np.array([shapely.box(-100, 30, -90, 50)]), np.ones(1, dtype=np.uint8), 'EPSG:4267')
    assert [index.touches(KANSAS), index.touches(KANSAS)] == [True, True]
    (record,) = caplog.records
    assert record.levelname == 'WARNING'
    assert record.getMessage().startswith('labels: the transformation from NAD27 to NAD83 / UTM zone 14N leaves the')
    assert f'accurate to 0.15 m needs the grid {found.grid}: run `pyproj sync --file {found.grid}`' in caplog.text


def test_error_is_compared_with_the_pixel(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    for metres, level in ((0.04, None), (1.0, 'INFO'), (5.0, 'WARNING'), (None, 'WARNING')):
        monkeypatch.setattr('torchgeo_msssl.geo.datum._accuracy', lambda *_, metres=metres: Accuracy(metres))
        caplog.clear()
        report_accuracy('a.tif', 'EPSG:31467', BADEN)
        assert [record.levelname for record in caplog.records] == ([level] if level else [])
    report_accuracy('a.tif', 'EPSG:31467', grid(25832, 450_000, 5_400_000, 10.0))
    assert len(caplog.records) == 2  # hundreds of metres, also for 10 m


def test_longitudes_and_latitudes_of_wgs84_on_etrs89_are_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    report_accuracy('labels', 'EPSG:4326', BADEN)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_warped_scenes_are_reported_too(make_scene, caplog: pytest.LogCaptureFixture) -> None:
    path = make_scene(
        'a.tif', np.ones((1, 8, 8), dtype=np.uint8), crs='EPSG:31467', transform=Affine(1, 0, 3.5e6, 0, -1, 5.4e6)
    )
    (scene,) = find_scenes(path)
    warp_scene(scene, BADEN.crs, (0.05, 0.05))
    assert (
        f'{path}: the transformation from DHDN / 3-degree Gauss-Kruger zone 3 to ETRS89 / UTM zone 32N is'
        in caplog.text
    )
