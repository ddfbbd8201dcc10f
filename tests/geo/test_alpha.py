"""Bands that are marked as alpha: masks, or spectral bands after all."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from torchgeo_msssl.bands import get_sensor
from torchgeo_msssl.geo.doctor import examine
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.open_datasets import close_datasets, raster_without_alpha
from torchgeo_msssl.geo.warp import warp_scene

RGBN = ('red', 'green', 'blue', 'nir')


@pytest.fixture
def image(random_array) -> np.ndarray:
    array: np.ndarray = random_array((4, 40, 30), 'uint8')
    array[3, 5:9] = 0
    return array


@pytest.mark.parametrize(
    ('names', 'sensor'),
    [
        (['Red', 'Green', 'Blue', 'nir'], None),
        (['Red', 'Green', 'Blue', 'NIR'], 'rgbn'),
        (None, 'rgbn'),
        (['Red', 'Green', 'Blue', None], 'rgbn'),
    ],
)
@pytest.mark.parametrize('warped', [False, True])
def test_a_description_or_a_sensor_makes_it_a_band(make_scene, image, names, sensor, warped, caplog) -> None:
    path = make_scene('s.tif', image, names=names and [name or '' for name in names], alpha=True)
    known = get_sensor(sensor) if sensor else None
    (scene,) = find_scenes(path, known)
    if warped:  # by whole pixels, so that the values stay
        turned = warp_scene(scene, CRS.from_epsg(32631), (20.0, 20.0))
        scene, image = turned, image[:, 1::2, 1::2]
    pixels, valid = scene.read(scene.grid.window, scene.bands)
    assert scene.bands == RGBN
    assert valid.all()
    if not warped:
        np.testing.assert_array_equal(pixels, image)
    else:
        assert pixels[3].any()
    assert 'alpha' not in caplog.text
    assert {'alpha', 'alpha_values'}.isdisjoint(finding.topic for finding in examine(path, sensor=known))
    close_datasets()


@pytest.mark.parametrize(('names', 'sensor'), [(None, None), (None, 'rgb'), (['R', 'G', 'B', 'alpha'], 'rgbn')])
def test_other_alpha_bands_stay_masks(make_scene, image, names, sensor, caplog) -> None:
    image[3] = np.where(image[3] > 0, 255, 0)
    path = make_scene('s.tif', image, names=names, alpha=True)
    (scene,) = find_scenes(path, get_sensor(sensor) if sensor else None)
    np.testing.assert_array_equal(scene.read(scene.grid.window, scene.bands)[1], image[3] > 0)
    assert len(scene.bands) == 3
    assert 'alpha' not in caplog.text


def test_values_between_opaque_and_transparent_are_questioned(make_scene, image, caplog) -> None:
    path = make_scene('s.tif', image, alpha=True)
    find_scenes(path)
    assert 's.tif: band 4 is marked as alpha and masks pixels' in caplog.text
    assert '--bidx 4 --description nir' in caplog.text
    (finding,) = (finding for finding in examine(path) if finding.topic == 'alpha_values')
    assert finding.severity == 'error'
    assert '--data.sensor rgbn' in finding.remedies
    close_datasets()


def test_a_raster_without_alpha_has_the_same_pixels(make_scene, image) -> None:
    path = make_scene('a b & c.tif', image, alpha=True)
    dataset = raster_without_alpha(path)
    np.testing.assert_array_equal(dataset.read(), image)
    assert (dataset.read_masks(1) > 0).all()
    with rasterio.open(path) as source:
        assert dataset.transform == source.transform != Affine.identity()
    close_datasets()
