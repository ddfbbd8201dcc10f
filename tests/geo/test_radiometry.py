"""Digital numbers of every era become the same reflectance."""

import datetime

import numpy as np
import pytest
import rasterio

from torchgeo_msssl.bands import get_sensor
from torchgeo_msssl.errors import ConfigurationError, SceneReadError
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.radiometry import radiometry

NAMES = ['B02', 'B03']


@pytest.fixture
def scale_of(make_scene, random_array):
    """Radiometry of a scene with a name, tags and declared values."""

    def find(
        name='scene.tif',
        sensor='sentinel2_l2a',
        *,
        array=None,
        tags=None,
        declared=None,
        offset='auto',
        names=NAMES,
        bands=None,
    ):
        array = random_array((len(names), 20, 30)) if array is None else array
        path = make_scene(name, array, tags=tags, names=names)
        if declared:
            with rasterio.open(path, 'r+') as scene:
                scene.scales, scene.offsets = declared
        (scene,) = find_scenes(path)
        return radiometry(scene, bands or scene.bands, get_sensor(sensor) if sensor else None, offset)

    return find


@pytest.mark.parametrize(
    ('name', 'offset', 'reason'),
    [
        ('20220124.tif', 0, 'from the date'),
        ('20220125.tif', -1000, 'from the date'),
        ('2017-09-18.tif', 0, 'from the date'),
        ('scene.tif', 0, 'neither metadata nor date'),
        ('S2A_MSIL2A_20220301T105321_N0301_R051_T31UFT_20220301T120000.tif', 0, 'baseline 03.01'),
        ('S2B_MSIL2A_20180126T105321_N0509_R051_T31UFT_20231001T120000.tif', -1000, 'baseline 05.09'),  # reprocessed
        ('S2A_MSIL1C_20220126T105321_N0400_R051_T31UFT_20220126T120000.SAFE/scene.tif', -1000, 'baseline 04.00'),
        ('20180101_plot_N0509_east.tif', 0, 'from the date'),  # no product's name
    ],
)
def test_eras_by_name(scale_of, name, offset, reason) -> None:
    how = scale_of(name)
    assert how.offset == (offset, offset)
    assert how.scale == (1e-4, 1e-4)
    assert reason in how.reason


@pytest.mark.parametrize(
    ('tags', 'offset'),
    [
        ({'PROCESSING_BASELINE': '04.00'}, -1000),
        ({'PROCESSING_BASELINE': '05.11'}, -1000),
        ({'PROCESSING_BASELINE': 'N0400'}, -1000),
        ({'s2:processing_baseline': '4.0'}, -1000),
        ({'PROCESSING_BASELINE': '03.01'}, 0),
        ({'PROCESSING_BASELINE': '3.01'}, 0),
        ({'processing_baseline': 'N0214'}, 0),
        ({'PROCESSING_BASELINE': 'unknown'}, -1000),  # so the date decides
        ({'PRODUCT_URI': 'S2A_MSIL2A_20180601T104031_N0208_R008_T31UFT_20180601T134713.SAFE'}, 0),
        ({'BOA_ADD_OFFSET': '0', 'PROCESSING_BASELINE': '05.11'}, 0),  # harmonised
        ({'BOA_ADD_OFFSET_VALUES_LIST': '-1000 -1000 -1000'}, -1000),
        ({'RADIO_ADD_OFFSET': '-500.5'}, -500.5),
        ({'BOA_ADD_OFFSET': ''}, -1000),
    ],
)
def test_eras_by_tags_come_before_the_date(scale_of, tags, offset) -> None:
    assert scale_of('20240601.tif', tags=tags).offset == (offset, offset)


def test_both_eras_give_one_reflectance(scale_of) -> None:
    old, new = scale_of('20211231.tif'), scale_of('20220201.tif')
    surface = 0.25
    for how, number in ((old, 2500), (new, 3500)):
        assert (number + how.offset[0]) * how.scale[0] == pytest.approx(surface)


def test_a_day_decides_and_not_the_clock(scale_of) -> None:
    last = datetime.datetime(2022, 1, 24, 23, 59, 59)
    assert scale_of(f'T31_{last:%Y%m%dT%H%M%S}.tif').offset == (0, 0)
    assert scale_of(f'T31_{last + datetime.timedelta(seconds=1):%Y%m%dT%H%M%S}.tif').offset == (-1000, -1000)


def test_what_a_file_declares_comes_first(scale_of) -> None:
    """GDAL's offset is in units of the result: value = DN × scale + offset."""
    how = scale_of('20240601.tif', declared=((1e-4, 2e-4), (-0.1, 0.3)))
    assert how.scale == (1e-4, 2e-4)
    assert how.offset == pytest.approx((-1000, 1500))
    for number, (scale, offset), (gdal_scale, gdal_offset) in zip(
        (3500, 40), zip(how.scale, how.offset, strict=True), ((1e-4, -0.1), (2e-4, 0.3)), strict=True
    ):
        assert (number + offset) * scale == pytest.approx(number * gdal_scale + gdal_offset)
    assert 'declared in the file' in how.reason


def test_bands_that_declare_nothing_are_as_their_sensor_has_them(scale_of) -> None:
    how = scale_of('20240601.tif', declared=((1e-3, 1), (0, 0)))
    assert how.scale == (1e-3, 1e-4)
    assert how.offset == (0, -1000)
    assert 'B02 declared in the file' in how.reason


@pytest.mark.parametrize('declared', [((0.0, 1e-4), (0, 0)), ((1e-4, float('nan')), (0, 0))])
def test_a_declared_scale_that_is_none(scale_of, declared) -> None:
    with pytest.raises(SceneReadError, match=r'scene\.tif: has invalid scale (0|nan) or offset 0 of band B0'):
        scale_of(declared=declared)


def test_a_configured_offset_wins(scale_of) -> None:
    how = scale_of('20240601.tif', offset=0)
    assert (how.scale, how.offset) == ((1e-4, 1e-4), (0, 0))
    assert 'as configured' in how.reason
    assert scale_of('20180601.tif', offset=-1000.0).offset == (-1000, -1000)
    assert scale_of(declared=((1e-3, 1e-3), (-0.1, -0.1)), offset=7).offset == (7, 7)
    with pytest.raises(ConfigurationError, match=r"offset: .* got 'none'"):
        scale_of(offset='none')


@pytest.mark.parametrize(('largest', 'scale'), [(1.2, 1.0), (8000, 1e-4)])
def test_floats_are_reflectance_where_they_are_small(scale_of, largest, scale) -> None:
    array = np.random.default_rng(0).uniform(0.01, largest, (2, 300, 300)).astype('float32')
    array[:, 100:200, 100:200] = np.nan
    how = scale_of('20240601.tif', array=array)
    assert how.scale == (scale, scale)
    assert how.offset == ((0, 0) if scale == 1 else (-1000, -1000))


def test_floats_with_data_in_a_corner_alone(scale_of) -> None:
    array = np.full((2, 700, 700), np.nan, 'float32')
    array[:, -3:, -3:] = 3000
    assert scale_of('20180601.tif', array=array).scale == (1e-4, 1e-4)
    array[:, -3:, -3:] = np.nan
    assert scale_of('20180601.tif', array=array).scale == (1, 1)


def test_layers_that_are_no_bands_of_the_sensor(scale_of) -> None:
    how = scale_of('20240601.tif', names=['QA60', 'B02'])
    assert (how.scale, how.offset) == ((1, 1e-4), (0, -1000))
    # classes up to 11 do not make digital numbers of reflectance
    array = np.stack([np.full((20, 30), 11), np.full((20, 30), 0.2)]).astype('float32')
    assert scale_of('x.tif', names=['SCL', 'B02'], array=array).scale == (1, 1)


@pytest.mark.parametrize(
    ('sensor', 'dtype', 'scale'),
    [
        ('rgb', 'uint8', 1 / 255),
        ('rgb', 'uint16', 1),
        (None, 'uint16', 1),
        ('micasense_rededge', 'uint16', 1 / 32768),
        ('hls_s30', 'int16', None),
    ],
)
def test_other_sensors_have_no_offset(scale_of, random_array, sensor, dtype, scale) -> None:
    how = scale_of('20240601.tif', sensor, array=random_array((2, 20, 30), dtype), names=['green', 'blue'])
    assert how.offset == (0, 0)
    if scale is not None:
        assert how.scale == (scale, scale)
    if sensor is None:
        assert 'unknown sensor' in how.reason


@pytest.mark.parametrize(('lowest', 'warned'), [(1100, False), (200, True)])
def test_values_that_contradict_the_offset_are_told(scale_of, caplog, lowest, warned) -> None:
    array = np.random.default_rng(0).integers(lowest, 4000, (2, 64, 64)).astype(np.uint16)
    array[:, : 64 // 2] = np.minimum(array[:, : 64 // 2], lowest + 300)  # a dark lake
    assert scale_of('20230601.tif', array=array).offset == (-1000, -1000)
    assert ('harmonised' in caplog.text) == warned


@pytest.mark.parametrize(
    ('sensor', 'numbers', 'reflectance'),
    [
        ('landsat8_l2', (7273, 43636), (0.0, 1.0)),  # valid range of the Collection 2 product guide
        ('landsat8_l1', (5000, 55000), (0.0, 1.0)),
        ('planetscope_4b', (0, 10000), (0.0, 1.0)),
    ],
)
def test_landsat_and_planetscope_have_scale_and_offset(scale_of, sensor, numbers, reflectance) -> None:
    names = ['red', 'nir'] if sensor.startswith('planet') else ['B04', 'B05']
    array = np.full((2, 20, 30), 9000, dtype=np.uint16)
    how = scale_of(sensor=sensor, names=names, array=array)
    found = [(numbers[i] + how.offset[i]) * how.scale[i] for i in range(2)]
    assert found == pytest.approx(reflectance, abs=3e-5)
    assert how.reason.startswith(sensor)
