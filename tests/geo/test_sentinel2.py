"""Offsets of Sentinel-2 products from their metadata and names."""

import pytest

from torchgeo_msssl.bands import get_sensor
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.radiometry import radiometry, warn_of_guesses

L2A = get_sensor('sentinel2_l2a')
XML = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
<PRODUCT_URI>S2A_MSIL2A_20180601T104021_N0500_R008_T31UFT_20230901T000000.SAFE</PRODUCT_URI>
<PROCESSING_BASELINE>05.00</PROCESSING_BASELINE>
<BOA_QUANTIFICATION_VALUE unit="none">{scale}</BOA_QUANTIFICATION_VALUE>
<BOA_ADD_OFFSET_VALUES_LIST><BOA_ADD_OFFSET band_id="0">{offset}</BOA_ADD_OFFSET>
<BOA_ADD_OFFSET band_id="1">{offset}</BOA_ADD_OFFSET></BOA_ADD_OFFSET_VALUES_LIST>
</n1:Level-2A_User_Product>"""
USUAL = XML.format(scale=10000, offset=-1000)


@pytest.fixture
def how(make_scene, random_array, tmp_path):
    """Radiometry of a scene at a path, with the XML of a product at another."""

    def find(path, xml=None, text=USUAL):
        made = make_scene(path, random_array((1, 20, 30)) + 2000, names=['B04'])
        if xml is not None:
            (tmp_path / xml).write_text(text)
        (scene,) = find_scenes(made)
        return radiometry(scene, ['B04'], L2A)

    return find


@pytest.mark.parametrize(
    ('path', 'xml'),
    [
        ('renamed/20180601.tif', 'renamed/MTD_MSIL2A.xml'),
        ('renamed/bands/20180601.tif', 'renamed/MTD_MSIL2A.xml'),
        ('mine/GRANULE/L2A_T31UFT_A1/IMG_DATA/R10m/T31UFT_20180601T104021_B04_10m.tif', 'mine/MTD_MSIL2A.xml'),
    ],
)
def test_metadata_beside_or_above_the_bands(how, path, xml) -> None:
    found = how(path, xml)
    assert (found.scale, found.offset) == ((1e-4,), (-1000,))
    assert 'from MTD_MSIL2A.xml' in found.reason


@pytest.mark.parametrize('path', ['a/20180602.tif', 'a/T31UFU_20180601_x.tif'])
def test_metadata_of_another_product_do_not_count(how, path) -> None:
    found = how(path, 'a/MTD_MSIL2A.xml')
    assert found.offset == (0,)
    assert 'from the date' in found.reason


def test_scale_and_offset_are_those_of_the_product(how) -> None:
    found = how('a/scene.tif', 'a/MTD_MSIL2A.xml', XML.format(scale=20000, offset=-500))
    assert (found.scale, found.offset) == ((1 / 20000,), (-500,))
    old = '<a><PROCESSING_BASELINE>02.07</PROCESSING_BASELINE></a>'
    assert how('b/20230601.tif', 'b/MTD_MSIL1C.xml', old).offset == (0,)


@pytest.mark.parametrize('text', ['<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', '<a>', XML.format(scale=0, offset=0)])
def test_metadata_that_cannot_be_used(how, text, caplog) -> None:
    assert 'from the date' in how('a/20180601.tif', 'a/MTD_MSIL2A.xml', text).reason
    assert 'MTD_MSIL2A.xml: ignored the metadata of the product' in caplog.text


@pytest.mark.parametrize(
    ('path', 'offset'),
    [
        ('S2B_33UXP_20250302_0_L2A/scene.tif', 0),
        ('S2B_33UXP_20250302_0_L2A.tif', 0),
        ('S2B_T33UXP_20180302T101021_L2A/scene.tif', -1000),
    ],
)
def test_items_of_earth_search(how, path, offset, caplog) -> None:
    found = how(path)
    assert found.offset == (offset,)
    warn_of_guesses([found])
    assert 'guessed' not in caplog.text


def test_the_date_is_a_guess(how, caplog) -> None:
    warn_of_guesses([how('20180601.tif'), how('20230601.tif')])
    assert 'The offset of 2 Sentinel-2 scene(s) is guessed from the date' in caplog.text
