"""Nodata values: GDAL's masks are the oracle."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.io import MemoryFile

from torchgeo_msssl.geo.band_statistics.moments import scene_statistics
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.labels.open import open_labels
from torchgeo_msssl.geo.nodata import has_data, representable
from torchgeo_msssl.geo.radiometry import Radiometry

LOWEST = float(np.finfo('float32').min)


@pytest.mark.parametrize(
    ('value', 'dtype', 'fits'),
    [
        (0, 'uint8', True),
        (-1, 'uint8', False),
        (65536, 'uint16', False),
        (0.5, 'int16', False),
        (-128, 'int8', True),
        (np.nan, 'uint16', False),
        (np.inf, 'int32', False),
        (np.nan, 'float32', True),
        (-9999, 'float32', True),
        (-3.4028235e38, 'float32', True),
        (3.5e38, 'float32', False),
        (-1.797e308, 'float32', False),
        (-1.797e308, 'float64', True),
    ],
)
def test_representable(value, dtype, fits) -> None:
    assert representable(value, np.dtype(dtype)) == fits


@pytest.mark.parametrize('nodata', [0.0, -9999.0, 0.1, 1e-5])
@pytest.mark.parametrize('dtype', ['float32', 'float64'])
def test_masks_are_those_of_gdal(nodata, dtype) -> None:
    """Values around the nodata value, at distances from nothing to a hundred times the precision of float32."""
    distances = np.array([*range(9), 50, 100]) * float(np.finfo('float32').eps) * nodata
    image = np.concatenate([nodata - distances, nodata + distances, [1, 2, 1e-30]]).astype(dtype)[None, None]
    profile = {'driver': 'GTiff', 'count': 1, 'height': 1, 'width': image.size, 'dtype': dtype}
    profile |= {'nodata': nodata, 'crs': 'EPSG:32631', 'transform': Affine(10, 0, 600000, 0, -10, 5000000)}
    with MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(image)
        with memory.open() as dataset:
            masks = dataset.read_masks(1) > 0
    np.testing.assert_array_equal(has_data(image, nodata), masks)
    assert masks.any()
    assert not masks.all()


@pytest.mark.parametrize('nodata', [None, -9999.0])
def test_the_limits_of_the_types_are_never_data(nodata) -> None:
    image = np.array([[[1, 1e29, -1e29, 1.1e30, LOWEST, -LOWEST, np.nan, np.inf]]])
    np.testing.assert_array_equal(has_data(image, nodata)[0], [True] * 3 + [False] * 5)
    halves = np.array([[[65504, -65504, np.inf]]], dtype='float16')
    np.testing.assert_array_equal(has_data(halves, nodata)[0], [True, True, False])


def test_a_rounded_nodata_value_holds_in_scenes_statistics_and_labels(make_scene, random_array) -> None:
    """GDAL masks pixels of the lowest float below a tag of -3.4e38."""
    array = random_array((1, 20, 30), 'float32')
    hole = np.zeros((20, 30), dtype=bool)
    hole[3:9, 4:20] = True
    array[0, hole] = LOWEST
    path = make_scene('s.tif', array, nodata=-3.4e38)
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(source.read_masks(1) == 0, hole)
    (scene,) = find_scenes(path)
    np.testing.assert_array_equal(scene.read(scene.grid.window, scene.bands)[1], ~hole)
    how = Radiometry((1.0,), (0.0,), '')
    statistics = scene_statistics([scene], scene.bands, [how])
    assert statistics.mean[0] == pytest.approx(array[0, ~hole].mean(), rel=1e-6)
    burnt = open_labels(make_scene('l.tif', array, nodata=-3.4e38)).burn(scene.grid, scene.grid.window)
    np.testing.assert_array_equal(burnt == 255, hole)


def test_the_spelling_of_virtual_rasters(make_scene, random_array, tmp_path, caplog) -> None:
    array = random_array((1, 20, 30), 'float32')
    array[0, 0, 0] = LOWEST
    source = make_scene('s.tif', array)
    path = tmp_path / 's.vrt'
    path.write_text(
        '<VRTDataset rasterXSize="30" rasterYSize="20"><SRS>EPSG:32631</SRS>'
        '<GeoTransform>600000, 10, 0, 5000000, 0, -10</GeoTransform><VRTRasterBand dataType="Float32" band="1">'
        f'<NoDataValue>-3.4028235e+38</NoDataValue><SimpleSource><SourceFilename>{source}</SourceFilename>'
        '<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>'
    )
    (scene,) = find_scenes(path)
    valid = scene.read(scene.grid.window, scene.bands)[1]
    assert scene.nodata == pytest.approx(LOWEST)
    assert np.argwhere(~valid).tolist() == [[0, 0]]
    assert 'ignored' not in caplog.text
