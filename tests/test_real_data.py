"""Real scenes are read as their providers describe them; skipped if the data are not available."""

import numpy as np
import pytest
import rasterio

from tests.real_data import DATA, some_of_each_folder
from torchgeo_msssl.bands import SENSORS, get_sensor, infer_sensor
from torchgeo_msssl.geo.band_statistics.moments import scene_statistics
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.radiometry import radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.valid_counts import count_valid
from torchgeo_msssl.geo.warp import warp_scene

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason='real data are not available')

LAHINCH = 's2_timeseries_lahinch/S2'
RASTERS = [str(path.relative_to(DATA)) for path in some_of_each_folder()]


def open_one(name: str, sensor: str | None = None) -> Scene:
    (scene,) = find_scenes(DATA / name, get_sensor(sensor) if sensor else None)
    return scene


@pytest.mark.parametrize('name', RASTERS)
def test_rasters_are_read_as_by_rasterio(name: str) -> None:
    scene = open_one(name)
    with rasterio.open(DATA / name) as source:
        assert (scene.grid.crs, scene.grid.transform) == (source.crs, source.transform)
        array, masks = source.read(), source.read_masks() > 0
    image, valid = scene.read(scene.grid.window, scene.bands)
    np.testing.assert_array_equal(image, array)
    if scene.files[0].nodata is not None or scene.nodata is None:
        np.testing.assert_array_equal(valid, masks.all(axis=0) & np.isfinite(array).all(axis=0))
    height, width = array.shape[1:]
    corner = scene.read(Window(height - 30, width - 30, 60, 60), scene.bands)
    np.testing.assert_array_equal(corner[0][:, :30, :30], array[:, -30:, -30:])
    assert not corner[1][30:].any()
    assert count_valid(scene, scene.bands).total == valid.sum()


def test_time_series() -> None:
    scenes = find_scenes(DATA / LAHINCH)
    assert [f'{scene.date[0]:%Y-%m-%d}' for scene in scenes if scene.date] == [
        '2017-09-18',
        '2017-09-21',
        '2017-09-26',
        '2017-10-08',
        '2017-10-18',
    ]
    for scene in scenes:
        assert scene.bands[:13] == SENSORS['sentinel2_l1c'].names
        assert set(scene.bands[13:]) == {'QA60', 'probability'}
        assert (scene.grid.height, scene.grid.width, scene.grid.res) == (158, 214, (10, 10)) or (
            scene.grid.width,
            scene.grid.height,
        ) == (158, 214)
        assert infer_sensor(scene.bands) is SENSORS['sentinel2_l1c']
        spectral = scene.read(scene.grid.window, scene.bands[:13])[1]
        everything = scene.read(scene.grid.window, scene.bands)[1]
        np.testing.assert_array_equal(everything, spectral)  # QA60 is 0 nearly everywhere
        how = radiometry(scene, scene.bands[:13], SENSORS['sentinel2_l1c'])
        moments = scene_statistics([scene], scene.bands[:13], [how])
        assert ((moments.mean > -0.01) & (moments.mean < 0.7)).all()
        assert set(how.offset) == {0}


def test_aerial_photograph() -> None:
    scene = open_one('vineyard_aerial/aerial0.tif')
    assert scene.bands == ('red', 'green', 'blue')
    assert scene.always_valid
    assert (scene.grid.crs.to_epsg(), scene.grid.res) == (25830, pytest.approx((0.25, 0.25), rel=1e-3))


def test_scene_in_degrees() -> None:
    scene = open_one('s2_demmin_fields/sentinel2_fields.tif')
    assert scene.bands == ('B04', 'B03', 'B02', 'B08')
    utm = warp_scene(scene, rasterio.crs.CRS.from_epsg(32633), (10.0, 10.0))
    image, valid = utm.read(utm.grid.window, ['B08'])
    assert 0.5 < valid.mean() <= 1
    native = scene.read(scene.grid.window, ['B08'])[0]
    assert np.isclose(image[0][valid].mean(), native.mean(), rtol=0.02)


def test_negative_reflectance_is_valid_and_minus_9999_is_nodata() -> None:
    scene = open_one('hls_nodata')
    image, valid = scene.read(scene.grid.window, scene.bands)
    assert scene.nodata == -9999
    assert (image[:, valid] < 0).any()
    assert (image[:, valid] > -9999).all()
    assert open_one('hls_nodata', 'hls_l30').bands == SENSORS['hls_l30'].names
