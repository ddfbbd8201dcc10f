"""Bands have one name each, and sensors are what their documents say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_msssl.bands import (
    SENSORS,
    band_position,
    canonical_band_name,
    get_sensor,
    infer_sensor,
    is_auxiliary,
    likely_sensors,
    rgb_names,
)
from torchgeo_msssl.errors import BandError

L2A = ('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B11', 'B12')


@pytest.mark.parametrize(
    ('written', 'name'),
    [
        ('B1', 'B01'),
        ('b01', 'B01'),
        ('B01', 'B01'),
        ('B8A', 'B8A'),
        ('b8a', 'B8A'),
        ('B08A', 'B8A'),
        ('B12', 'B12'),
        ('B1, central wavelength 443 nm', 'B01'),
        ('B4 (665 nm)', 'B04'),
        (' B02_10m ', 'B02'),
        ('Red', 'red'),
        ('R', 'red'),
        ('Red edge', 'rededge'),
        ('red-edge', 'rededge'),
        ('RE', 'rededge'),
        ('NIR', 'nir'),
        ('Near Infrared', 'nir'),
        ('n', 'nir'),
        ('Thermal', 'lwir'),
        ('Alpha', 'alpha'),
        ('band_4', 'band_4'),
        ('BQA', 'BQA'),
        ('SCL', 'SCL'),
        ('NDVI', 'NDVI'),
        ('SR_B4', 'B04'),
        ('coastal_blue', 'coastal_blue'),
        ('Green I', 'green_i'),
        ('B123', 'B123'),
        ('B8B', 'B8B'),
    ],
)
def test_one_spelling(written: str, name: str) -> None:
    assert canonical_band_name(written) == name


@given(st.text(max_size=20))
def test_a_canonical_name_stays_as_it_is(text: str) -> None:
    once = canonical_band_name(text)
    assert canonical_band_name(once) == once


@pytest.mark.parametrize('sensor', SENSORS.values(), ids=SENSORS.keys())
def test_sensors_hang_together(sensor) -> None:
    assert [canonical_band_name(name) for name in sensor.names] == list(sensor.names)
    assert len(set(sensor.names)) == len(sensor.names)
    assert set(sensor.rgb) <= set(sensor.names)
    assert all(0 < band.scale <= 1 and 400 < band.wavelength < 13000 for band in sensor.bands)
    assert not any(is_auxiliary(name) for name in sensor.names)


def test_sentinel_2_is_as_esa_has_it() -> None:
    """Order of the products; central wavelengths of S2A from ESA's table of spectral responses."""
    assert SENSORS['sentinel2_l2a'].names == L2A
    assert set(SENSORS['sentinel2_l1c'].names) - set(L2A) == {'B10'}
    wavelengths = {band.name: band.wavelength for band in SENSORS['sentinel2_l1c'].bands}
    assert {name: wavelengths[name] for name in ('B02', 'B08', 'B8A', 'B11', 'B12')} == pytest.approx(
        {'B02': 492.4, 'B08': 832.8, 'B8A': 864.7, 'B11': 1613.7, 'B12': 2202.4}, abs=0.1
    )
    assert {band.scale for band in SENSORS['sentinel2_l2a'].bands} == {1e-4}


def test_sensors_and_bands_are_found_by_any_spelling() -> None:
    sensor = get_sensor(' Sentinel2-L2A ')
    assert sensor is SENSORS['sentinel2_l2a']
    assert sensor.find('NIR') is sensor.find('b8')
    assert sensor.find('B10') is None
    with pytest.raises(BandError, match=r"sensor: unknown sensor 'sentinel3'; choose one of .*sentinel2_l2a"):
        get_sensor('sentinel3')


@pytest.mark.parametrize(
    ('names', 'filename', 'sensor'),
    [
        (L2A, '', 'sentinel2_l2a'),
        (('B02', 'B10'), '', 'sentinel2_l1c'),
        (('B04', 'B03', 'B02', 'B08', 'QA60', 'alpha'), 'x.tif', 'sentinel2_l2a'),
        (('B02', 'B05'), 'HLS.L30.T31UFT.2024153T104031.v2.0', 'hls_l30'),
        (('B02', 'B8A'), 'HLS.S30.T31UFT.2024153T104031.v2.0', 'hls_s30'),
        (('B02', 'B8A'), 'HLS.L30.T31UFT.2024153T104031.v2.0', None),
        (('B04', 'B05'), 'data/LC08_L2SP_197026_20210101_02_T1_SR', 'landsat8_l2'),
        (('B04', 'B09'), 'LC09_L1TP_197026_20210101_02_T1', 'landsat8_l1'),
        (('B04', 'B05'), 'LE07_L2SP_197026_20210101_02_T1_SR', None),
        (('B04', 'B05'), 'LC08_export', None),
        (('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07'), 'export.tif', None),
        (('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B8A', 'B11', 'B12'), 'export.tif', 'sentinel2_l2a'),
        (('B02', 'B05', 'B06', 'B07'), 'HLS.S30.T31UFT.2024153T104031.v2.0', 'hls_s30'),
        (('B02', 'B03', 'B04', 'B08', 'NDVI'), 'x.tif', 'sentinel2_l2a'),
        (('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B09'), 'export.tif', None),
        (('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B10', 'B11'), 'export.tif', None),
        (('B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08'), 'export.tif', 'sentinel2_l2a'),
        (('B02', 'B03', 'B04', 'elevation'), 'x.tif', 'sentinel2_l2a'),
        (('B02', 'B03', 'B10', 'band_4'), 'x.tif', 'sentinel2_l1c'),
        (('B02', 'elevation', 'slope'), 'x.tif', None),
        (('B02', 'B03', 'B04', 'nir'), 'x.tif', None),
        (('B01', 'B02', 'B03', 'B04', 'B05', 'B08', 'B10', 'B11'), 'LC08_L1TP_197026_20210101_02_T1', 'landsat8_l1'),
        (('B02', 'B03', 'B04', 'ratio'), 'LC08_L2SP_197026_20210101_02_T1_SR', 'landsat8_l2'),
        (('blue', 'green', 'red', 'nir', 'height'), '20220101_3B_AnalyticMS_SR.tif', 'planetscope_8b'),
        (('blue', 'green', 'red', 'nir'), '20220101_101010_00_2415_3B_AnalyticMS_SR.tif', 'planetscope_4b'),
        (('coastal_blue', 'blue', 'yellow'), '20220101_101010_00_2415_3B_AnalyticMS_SR_8b.tif', 'planetscope_8b'),
        (('blue', 'green', 'red'), '', 'rgb'),
        (('blue', 'green', 'red', 'nir'), '', 'rgbn'),
        (('red', 'green'), '', None),
        (('blue', 'green', 'red', 'rededge', 'nir'), '', None),
        (('band_1', 'band_2'), '', None),
        (('QA60',), '', None),
    ],
)
def test_only_what_names_prove_is_inferred(names, filename: str, sensor: str | None) -> None:
    found = infer_sensor(names, filename)
    assert (found.name if found else None) == sensor


@pytest.mark.parametrize(
    ('names', 'sensor', 'rgb'),
    [
        (L2A, 'sentinel2_l2a', ('B04', 'B03', 'B02')),
        (('green', 'red', 'rededge', 'nir'), 'dji_mavic_3m', ('nir', 'red', 'green')),
        (('blue', 'green', 'red', 'nir'), None, ('red', 'green', 'blue')),
        (('green', 'red', 'nir'), None, ('nir', 'red', 'green')),
        (('B08', 'B11'), 'sentinel2_l2a', ('B11', 'B11', 'B08')),
        (('band_1',), None, ('band_1', 'band_1', 'band_1')),
    ],
)
def test_three_bands_for_a_picture(names, sensor: str | None, rgb) -> None:
    assert rgb_names(names, SENSORS[sensor] if sensor else None) == rgb


def test_bands_sort_as_sentinel_2_lists_them() -> None:
    mixed = ['SCL', 'B12', 'B8A', 'B09', 'B02', 'B08', 'B11']
    assert sorted(mixed, key=band_position) == ['B02', 'B08', 'B8A', 'B09', 'B11', 'B12', 'SCL']
    colours = ['nir', 'red', 'blue', 'rededge', 'green']
    assert sorted(colours, key=band_position) == ['blue', 'green', 'red', 'rededge', 'nir']


def test_true_colour_layers_are_not_spectral_and_do_not_hide_the_sensor() -> None:
    names = ['B02', 'B03', 'B04', 'TCI_R', 'TCI_G', 'TCI_B']
    assert list(map(is_auxiliary, names)) == [False] * 3 + [True] * 3
    assert infer_sensor(names) == get_sensor('sentinel2_l2a')


@pytest.mark.parametrize(
    ('names', 'filename', 'advised'),
    [
        (('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07'), 'export.tif', ['landsat8_l2', 'landsat8_l1', 'hls_l30']),
        (('B02', 'B03', 'B04', 'B05', 'B06', 'B07'), 'export.tif', ['landsat8_l2', 'landsat8_l1', 'hls_l30']),
        (('B04', 'B05'), 'LC08_L2SP_197026_20210101_02_T1_SR', ['landsat8_l2']),
        (('B04', 'B05'), 'LE07_L2SP_197026_20210101_02_T1_SR', []),
        (('green', 'red', 'rededge', 'nir'), 'drone.tif', ['dji_mavic_3m', 'parrot_sequoia']),
        (('QA60',), '', []),
    ],
)
def test_only_sensors_that_the_bands_may_be_from_are_advised(names, filename: str, advised: list[str]) -> None:
    assert likely_sensors(names, filename)[: len(advised)] == advised
    assert advised or likely_sensors(names, filename) == []
    assert not any('sentinel2' in name for name in likely_sensors(names, filename))


def test_the_nine_reflective_bands_of_landsat_8_are_not_of_sentinel_2() -> None:
    names = [f'B0{number}' for number in range(1, 10)]
    assert infer_sensor(names, 'scene.tif') is None
    sentinel = infer_sensor([*names, 'B8A', 'B11', 'B12'], 'scene.tif')
    assert sentinel is not None
    assert sentinel.name == 'sentinel2_l2a'
