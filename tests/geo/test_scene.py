"""Scenes know their bands by name, give the pixels rasterio gives, and know which of them are data."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from torchgeo_msssl.bands import get_sensor
from torchgeo_msssl.errors import BandError, MissingCRSError, SceneReadError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.scene import Scene

on_one_folder = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
any_window = st.builds(Window, st.integers(-40, 90), st.integers(-40, 90), st.integers(1, 90), st.integers(1, 90))


def only(path, sensor: str | None = None) -> Scene:
    (scene,) = find_scenes(path, get_sensor(sensor) if sensor else None)
    return scene


# names


@pytest.mark.parametrize(
    ('descriptions', 'sensor', 'names'),
    [
        (['B2', 'b03', 'B04, red'], None, ('B02', 'B03', 'B04')),
        (['NIR', 'Red', 'Green'], 'rgb', ('nir', 'red', 'green')),  # what the file says comes first
        (None, 'rgb', ('red', 'green', 'blue')),
        (['Band 1', 'Band 2', 'Band 3'], 'rgb', ('red', 'green', 'blue')),
        (None, None, ('band_1', 'band_2', 'band_3')),
        (['Band 7', 'Band 8', 'Band 9'], None, ('band_1', 'band_2', 'band_3')),
        (['B02', '', 'B04'], None, ('B02', 'band_2', 'B04')),
        (['NDVI', 'QA60', 'x y'], None, ('NDVI', 'QA60', 'x y')),
    ],
)
def test_names(make_scene, random_array, descriptions, sensor, names) -> None:
    assert only(make_scene('s.tif', random_array((3, 8, 8)), names=descriptions), sensor).bands == names


def test_names_from_colours(make_scene, random_array) -> None:
    rgb = make_scene('rgb.tif', random_array((3, 8, 8), 'uint8'), photometric='RGB')
    assert only(rgb).bands == ('red', 'green', 'blue')
    four = make_scene('four.tif', random_array((4, 8, 8)))
    with rasterio.open(four, 'r+') as scene:
        scene.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]
    assert only(four).bands == ('red', 'green', 'blue', 'band_4')  # nothing says that it is near infrared
    turned = make_scene('turned.tif', random_array((4, 8, 8)))
    with rasterio.open(turned, 'r+') as scene:
        scene.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.nir]
    assert only(turned).bands == ('blue', 'green', 'red', 'nir')


def test_a_sensor_of_another_count_names_both(make_scene, random_array) -> None:
    path = make_scene('s.tif', random_array((4, 8, 8)))
    with pytest.raises(BandError, match=r's\.tif: its 4 bands .* sensor rgb has 3 \(red, green, blue\)'):
        only(path, 'rgb')


def test_two_bands_of_one_name(make_scene, random_array) -> None:
    path = make_scene('s.tif', random_array((3, 8, 8)), names=['B1', 'B02', 'B01'])
    with pytest.raises(BandError, match=r's\.tif: two bands are named B01'):
        only(path)


def test_a_missing_band_is_named_with_those_there_are(make_scene, random_array) -> None:
    single = only(make_scene('s.tif', random_array((2, 8, 8)), names=['B02', 'B03']))
    make_scene('many/B02.tif', random_array((8, 8)))
    many = only(os.path.dirname(make_scene('many/B03.tif', random_array((8, 8)))))
    for scene in (single, many):
        with pytest.raises(BandError, match=r'has no band B08; it has 2: B02, B03'):
            scene.read(Window(0, 0, 8, 8), ['B02', 'B08'])


# what is refused


def test_no_place_on_the_ground(make_scene, random_array) -> None:
    with pytest.raises(MissingCRSError, match=r'bare\.tif: has no coordinate reference system'):
        only(make_scene('bare.tif', random_array((1, 8, 8)), crs=None))
    with pytest.raises(MissingCRSError, match=r'unplaced\.tif: .* no geotransform'):
        only(make_scene('unplaced.tif', random_array((1, 8, 8)), placed=False))


def test_complex_numbers(make_scene) -> None:
    with pytest.raises(SceneReadError, match=r'sar\.tif: has complex64 bands'):
        only(make_scene('sar.tif', np.ones((1, 8, 8), np.complex64)))


def test_nothing_but_alpha(make_scene, random_array) -> None:
    with pytest.raises(BandError, match='has only alpha bands'):
        only(make_scene('a.tif', random_array((1, 8, 8)), names=['alpha']))


@pytest.mark.parametrize(
    'options', [{'tiled': True, 'blockxsize': 16, 'blockysize': 16, 'compress': 'deflate'}, {'compress': 'lzw'}, {}]
)
def test_a_truncated_file_is_named_with_the_window(make_scene, random_array, options) -> None:
    path = make_scene('cut.tif', np.random.default_rng(0).integers(0, 9999, (2, 128, 64)).astype('uint16'), **options)
    size = os.path.getsize(path)
    os.truncate(path, size - size // 3)
    scene = only(path)
    with pytest.raises(SceneReadError) as caught:
        scene.read(Window(100, 8, 28, 40), scene.bands)
    assert str(caught.value).startswith(f'{path}: cannot be read at rows 100:128, columns 8:48 (')
    assert '\n' not in str(caught.value)


# pixels


@on_one_folder
@given(window=any_window, bands=st.permutations(['B02', 'B03', 'B04', 'B08']), count=st.integers(1, 4))
def test_windows_are_those_of_a_boundless_read(tmp_path_factory, window, bands, count) -> None:
    folder = tmp_path_factory.getbasetemp() / 'boundless'
    path = folder / 's.tif'
    if not path.exists():
        from_conftest(
            path,
            np.random.default_rng(1).integers(1, 9999, (4, 61, 53)).astype('uint16'),
            names=['B02', 'B03', 'B04', 'B08'],
            nodata=7,
        )
    scene, bands = only(path), bands[:count]
    image, valid = scene.read(window, bands)
    with rasterio.open(path) as source:
        indexes = [source.descriptions.index(band) + 1 for band in bands]
        place = RasterioWindow(window.col, window.row, window.width, window.height)
        expected = source.read(indexes, window=place, boundless=True, fill_value=7)
        masks = source.read_masks(indexes, window=place, boundless=True)
    np.testing.assert_array_equal(image, expected)
    assert image.dtype == np.uint16
    inside = np.zeros((window.height, window.width), dtype=bool)
    row, col = max(-window.row, 0), max(-window.col, 0)
    inside[row : max(61 - window.row, 0), col : max(53 - window.col, 0)] = True
    np.testing.assert_array_equal(valid, (masks > 0).all(axis=0) & inside)


def from_conftest(path: Path, array, **options) -> str:
    """A scene like those of ``make_scene``, in a folder that outlives one example."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = options.pop('names')
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        count=len(array),
        height=array.shape[1],
        width=array.shape[2],
        dtype=array.dtype,
        crs='EPSG:32631',
        transform=Affine(10, 0, 6e5, 0, -10, 5e6),
        **options,
    ) as scene:
        scene.write(array)
        scene.descriptions = names
    return str(path)


@pytest.mark.parametrize('dtype', ['uint8', 'int8', 'int16', 'uint16', 'int32', 'uint32', 'float32', 'float64'])
def test_dtypes_stay(make_scene, random_array, dtype) -> None:
    scene = only(make_scene('s.tif', random_array((2, 9, 7), dtype)))
    image, valid = scene.read(scene.grid.window, scene.bands)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, random_array((2, 9, 7), dtype))
    assert valid.all()
    assert scene.always_valid == np.issubdtype(np.dtype(dtype), np.integer)


# validity


def holes(seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).random((20, 30)) < 0.3


def test_nodata(make_scene, random_array) -> None:
    array = random_array((2, 20, 30))
    array[0, holes(1)] = 0
    array[1, holes(2)] = 0
    path = make_scene('s.tif', array, nodata=0, names=['NDVI', 'NBR'])
    scene = only(path)
    with rasterio.open(path) as source:
        masks = source.read_masks() > 0
    np.testing.assert_array_equal(scene.read(scene.grid.window, ['NDVI', 'NBR'])[1], masks.all(axis=0))
    np.testing.assert_array_equal(scene.read(scene.grid.window, ['NBR'])[1], masks[1])
    assert not masks.all()


@pytest.mark.parametrize('nodata', [None, np.nan, -9999.0])
def test_numbers_that_are_none(make_scene, random_array, nodata) -> None:
    array = random_array((2, 20, 30), 'float32')
    array[0, holes(1)] = np.nan
    array[1, holes(2)] = np.inf
    if nodata == -9999:
        array[1, holes(4)] = nodata
    scene = only(make_scene('s.tif', array, nodata=nodata))
    valid = scene.read(scene.grid.window, scene.bands)[1]
    expected = ~(holes(1) | holes(2) | (holes(4) if nodata == -9999 else False))
    np.testing.assert_array_equal(valid, expected)


@pytest.mark.parametrize('internal', [True, False])
def test_masks(make_scene, random_array, internal) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = make_scene('s.tif', random_array((2, 20, 30)), mask=~holes())
    assert Path(f'{path}.msk').exists() != internal
    scene = only(path)
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(scene.read(scene.grid.window, scene.bands)[1], source.dataset_mask() > 0)
    window = Window(4, 5, 9, 11)
    np.testing.assert_array_equal(scene.read(window, scene.bands)[1], ~holes()[4:13, 5:16])


def test_alpha_is_no_band_and_says_what_is_data(make_scene, random_array) -> None:
    array = random_array((4, 20, 30), 'uint8')
    array[3] = np.where(holes(), 0, 255)
    array[3, 0] = 1  # nearly transparent is there
    path = make_scene('s.tif', array, alpha=True)
    scene = only(path, 'rgb')
    assert scene.bands == ('red', 'green', 'blue')
    image, valid = scene.read(scene.grid.window, scene.bands)
    with rasterio.open(path) as source:
        np.testing.assert_array_equal(valid, source.dataset_mask() > 0)
    np.testing.assert_array_equal(image, array[:3])
    assert not scene.always_valid
    named = only(make_scene('named.tif', array, names=['R', 'G', 'B', 'Alpha']))
    assert named.bands == ('red', 'green', 'blue')
    np.testing.assert_array_equal(named.read(scene.grid.window, named.bands)[1], valid)


def test_alpha_counts_where_nodata_is_declared_too(make_scene, random_array) -> None:
    array = random_array((2, 20, 30))
    array[0, holes(1)] = 0
    array[1] = np.where(holes(2), 0, 255)
    scene = only(make_scene('s.tif', array, alpha=True, nodata=0))
    np.testing.assert_array_equal(scene.read(scene.grid.window, scene.bands)[1], ~(holes(1) | holes(2)))


def test_a_sensors_nodata_holds_for_its_bands_and_not_for_quality_layers(make_scene, random_array) -> None:
    array = random_array((3, 20, 30))
    array[0, holes(1)] = 0
    array[2] = 0  # QA60: no clouds
    scene = only(make_scene('s.tif', array, names=['B02', 'B03', 'QA60']))
    assert scene.nodata == 0
    np.testing.assert_array_equal(scene.read(scene.grid.window, scene.bands)[1], ~holes(1))
    declared = only(make_scene('d.tif', array, names=['B02', 'B03', 'QA60'], nodata=0))
    assert not declared.read(declared.grid.window, declared.bands)[1].any()


def virtual(path: Path, source: str, bands: str, size: tuple[int, int] = (20, 30)) -> str:
    """A VRT, which can declare what GDAL would not write into a GeoTIFF."""
    path.write_text(
        f'<VRTDataset rasterXSize="{size[1]}" rasterYSize="{size[0]}"><SRS>EPSG:32631</SRS>'
        f'<GeoTransform>600000, 10, 0, 5000000, 0, -10</GeoTransform>{bands.format(source=source)}</VRTDataset>'
    )
    return str(path)


def virtual_band(number: int, dtype: str, inside: str = '', source: int = 1) -> str:
    return (
        f'<VRTRasterBand dataType="{dtype}" band="{number}">{inside}<SimpleSource>'
        f'<SourceFilename>{{source}}</SourceFilename><SourceBand>{source}</SourceBand></SimpleSource></VRTRasterBand>'
    )


def test_nodata_that_the_dtype_cannot_hold_is_ignored_and_said(make_scene, random_array, tmp_path, caplog) -> None:
    source = make_scene('s.tif', random_array((1, 20, 30)))
    for value in ('nan', '-9999', '65536', '0.5'):
        path = virtual(tmp_path / 's.vrt', source, virtual_band(1, 'UInt16', f'<NoDataValue>{value}</NoDataValue>'))
        scene = only(path)
        image, valid = scene.read(scene.grid.window, scene.bands)
        np.testing.assert_array_equal(image, random_array((1, 20, 30)))
        assert valid.all()
        assert scene.nodata is None
        assert scene.always_valid
    assert 'ignored its nodata value 0.5, which uint16 cannot represent' in caplog.text


def test_bands_with_nodata_of_their_own_are_refused(make_scene, random_array, tmp_path) -> None:
    source = make_scene('s.tif', random_array((2, 20, 30)))
    bands = virtual_band(1, 'UInt16', '<NoDataValue>0</NoDataValue>') + virtual_band(2, 'UInt16', '', 2)
    with pytest.raises(SceneReadError, match='different nodata values for its bands'):
        only(virtual(tmp_path / 's.vrt', source, bands))


def test_bands_of_several_dtypes(make_scene, random_array, tmp_path) -> None:
    source = make_scene('s.tif', random_array((2, 20, 30)))
    bands = virtual_band(1, 'UInt16') + virtual_band(2, 'Float32', '', 2)
    bands += virtual_band(3, 'Byte', '<ColorInterp>Alpha</ColorInterp>')
    scene = only(virtual(tmp_path / 's.vrt', source, bands))
    image, valid = scene.read(Window(2, 3, 8, 9), scene.bands)
    assert (scene.bands, image.dtype) == (('band_1', 'band_2'), np.float32)
    np.testing.assert_array_equal(image, random_array((2, 20, 30))[:, 2:10, 3:12])
    assert valid.all()


# single-band files


def ramp(res: float, height: int, width: int) -> np.ndarray:
    """What a field that is linear on the ground is in pixels of a size, ``ORIGIN`` at the upper left."""
    x = (np.arange(width) + 0.5) * res
    y = (np.arange(height) + 0.5) * res
    return (2 * x[None, :] + 3 * y[:, None] + 1000).astype('float32')


@pytest.fixture
def product(make_scene, tmp_path) -> Scene:
    """Bands of 10, 20 and 60 m of one product; each is the same linear field."""
    stem = 'T31TEL_20240601T104031'
    for band, res, size in (('B02', 10, (60, 72)), ('B05', 20, (30, 36)), ('B09', 60, (10, 12))):
        make_scene(f'R{res}m/{stem}_{band}_{res}m.tif', ramp(res, *size), res=res)
    return only(tmp_path)


def test_coarse_bands_lie_where_they_lie_on_the_ground(product: Scene) -> None:
    """Bilinear interpolation is exact on a plane; half a pixel's shift of B09 would be off by 150."""
    assert (product.bands, product.grid.res, product.name) == (
        ('B02', 'B05', 'B09'),
        (10, 10),
        'T31TEL_20240601T104031',
    )
    image, valid = product.read(product.grid.window, product.bands)
    assert valid.all()
    inner = (slice(3, -3), slice(3, -3))  # beyond the outermost centres of B09 there is nothing to interpolate to
    for plane in image:
        np.testing.assert_allclose(plane[inner], image[0][inner], atol=1e-3)


def test_bilinear_is_gdals(product: Scene, make_scene) -> None:
    array = np.random.default_rng(0).integers(1, 9999, (30, 36)).astype('uint16')
    folder = Path(make_scene('gdal/B02.tif', np.ones((60, 72), 'uint16'))).parent
    path = make_scene('gdal/B05.tif', array, res=20)
    scene = only(folder)
    with rasterio.open(path) as source:
        by_read = source.read(1, out_shape=(60, 72), resampling=Resampling.bilinear)
        with WarpedVRT(
            source,
            crs=scene.grid.crs,
            transform=scene.grid.transform,
            height=60,
            width=72,
            resampling=Resampling.bilinear,
        ) as vrt:
            by_warp = vrt.read(1)
    image = scene.read(scene.grid.window, ['B05'])[0][0]
    inner = (slice(1, -1), slice(1, -1))
    assert np.abs(image[inner].astype(int) - by_read[inner].astype(int)).max() <= 1  # GDAL rounds intermediate values
    assert np.abs(image[inner].astype(int) - by_warp[inner].astype(int)).max() <= 1


@on_one_folder
@given(window=any_window)
def test_chips_of_coarse_bands_have_no_seams(product: Scene, window: Window) -> None:
    whole, whole_valid = product.read(product.grid.window, product.bands)
    image, valid = product.read(window, product.bands)
    inside = window.intersection(product.grid.window)
    if inside is None:
        assert not valid.any()
        return
    there = (slice(inside.row, inside.row + inside.height), slice(inside.col, inside.col + inside.width))
    here = (
        slice(inside.row - window.row, inside.row - window.row + inside.height),
        slice(inside.col - window.col, inside.col - window.col + inside.width),
    )
    np.testing.assert_array_equal(image[:, *here], whole[:, *there])
    np.testing.assert_array_equal(valid[here], whole_valid[there])
    assert valid.sum() == valid[here].sum()


@pytest.mark.parametrize('declared', [True, False])
def test_nodata_never_seeps_into_coarse_bands(make_scene, declared) -> None:
    """Sentinel-2's own files declare no nodata: a plain interpolation would make dark data of the swath's edge."""
    fine, coarse = np.full((40, 40), 5000, 'uint16'), np.full((20, 20), 5000, 'uint16')
    fine[:, :10] = coarse[:, :5] = 0
    coarse[10, 12] = 0
    nodata = 0 if declared else None
    folder = Path(make_scene('s/B02.tif', fine, nodata=nodata)).parent
    make_scene('s/B05.tif', coarse, res=20, nodata=nodata)
    scene = only(folder)
    image, valid = scene.read(scene.grid.window, ['B05'])
    assert scene.nodata == 0
    assert (image[0][valid] == 5000).all()
    expected = np.ones((40, 40), bool)
    expected[:, :11] = False  # the first valid column is mixed with the last one without data
    expected[19:23, 23:27] = False
    np.testing.assert_array_equal(valid, expected)


def test_each_file_has_its_own_nodata(make_scene) -> None:
    a, b = np.full((8, 8), 10, 'int16'), np.full((8, 8), 10, 'int16')
    a[0], a[1] = 0, -9999
    b[2], b[3] = 0, -9999
    folder = Path(make_scene('s/B02.tif', a, nodata=0)).parent
    make_scene('s/B03.tif', b, nodata=-9999)
    scene = only(folder)
    assert [
        list(np.flatnonzero(~scene.read(scene.grid.window, bands)[1][:, 0]))
        for bands in (['B02'], ['B03'], ['B03', 'B02'])
    ] == [[0], [3], [0, 3]]


def test_files_with_alpha_and_masks(make_scene, random_array) -> None:
    first = np.stack([random_array((20, 30)), np.where(holes(1), 0, 65535).astype('uint16')])
    folder = Path(make_scene('s/B02.tif', first, alpha=True)).parent
    make_scene('s/B03.tif', random_array((20, 30)), mask=~holes(2))
    scene = only(folder)
    assert scene.bands == ('B02', 'B03')
    np.testing.assert_array_equal(scene.read(scene.grid.window, ['B03', 'B02'])[1], ~(holes(1) | holes(2)))
    np.testing.assert_array_equal(scene.read(scene.grid.window, ['B02'])[0][0], first[0])


def test_a_coarse_file_that_ends_early_is_not_stretched(make_scene) -> None:
    folder = Path(make_scene('s/B02.tif', ramp(10, 41, 41))).parent
    make_scene('s/B05.tif', ramp(20, 20, 20), res=20)  # half a coarse pixel short
    scene = only(folder)
    image, valid = scene.read(scene.grid.window, scene.bands)
    np.testing.assert_allclose(image[1, 2:-2, 2:-2], image[0, 2:-2, 2:-2], atol=1e-3)
    assert not valid[40].any()
    assert not valid[:, 40].any()
    assert valid[:40, :40].all()
    assert not scene.always_valid
    make_scene('t/B02.tif', np.ones((41, 41), 'uint16'))
    early = Path(make_scene('t/B05.tif', np.ones((20, 20), 'uint16'), res=20)).parent
    assert not only(early, 'micasense_rededge').always_valid


def test_files_that_do_not_belong_together(make_scene, random_array) -> None:
    folder = Path(make_scene('s/B02.tif', random_array((8, 8)))).parent
    far = make_scene('s/B03.tif', random_array((8, 8)), transform=Affine(10, 0, 700000, 0, -10, 5000000))
    with pytest.raises(SceneReadError, match='are bands of the same scene by name, but their CRS or extents differ'):
        only(folder)
    make_scene(far, random_array((8, 8)), crs='EPSG:32632')
    with pytest.raises(SceneReadError, match='CRS or extents differ'):
        only(folder)
    make_scene(far, random_array((3, 8, 8)))
    with pytest.raises(BandError, match=r'B03\.tif: has 3 bands but the name of a single band'):
        only(folder)


def test_a_name_that_ends_in_a_band_is_that_of_a_multiband_file_too(make_scene, random_array) -> None:
    scene = only(make_scene('field_red.tif', random_array((3, 8, 8)), names=['B', 'G', 'R']))
    assert scene.bands == ('blue', 'green', 'red')
    assert only(make_scene('field_nir.tif', random_array((1, 8, 8)))).bands == ('nir',)
