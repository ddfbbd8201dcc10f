"""A chip keeps what its scene says: names, type, nodata, validity, scale, tags, colours, radiometry."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Compression, MaskFlags

from torchgeo_msssl.bands import get_sensor
from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.geo.chipping.write import chip_format, encode_mask, write_complete
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.radiometry import radiometry
from torchgeo_msssl.geo.scene import Scene

SIZE = 32
WINDOW = Window(16, 48, SIZE, SIZE)


def chip_of(scene: Scene, folder: Path, window: Window = WINDOW, how: Any = 'zstd', bands: Any = None) -> Scene:
    """Write one chip and open it as a scene."""
    form = chip_format(scene, bands or scene.bands, None, window.height, how)
    image, valid = form.read(window)
    path = folder / 'images' / f'{scene.name}_{window.row:05d}_{window.col:05d}.tif'
    path.parent.mkdir(exist_ok=True)
    write_complete(path, form.encode(image, valid, window))
    (chip,) = find_scenes(path)
    return chip


def only(path: Any) -> Scene:
    (scene,) = find_scenes(path)
    return scene


def check_pixels(scene: Scene, chip: Scene, window: Window = WINDOW) -> None:
    """The chip holds the pixels of the scene, and the same ones are valid."""
    image, valid = scene.read(window, chip.bands)
    found, found_valid = chip.read(chip.grid.window, chip.bands)
    np.testing.assert_array_equal(found_valid, valid)
    np.testing.assert_array_equal(found[:, valid], image[:, valid])
    assert chip.dtype == scene.dtype
    for corner in ((0, 0), (window.width, window.height)):
        there = ~scene.grid.transform @ (chip.grid.transform @ corner)
        assert there == pytest.approx((window.col + corner[0], window.row + corner[1]), abs=1e-6)
    assert chip.grid.crs == scene.grid.crs


@pytest.mark.parametrize('dtype', ['uint8', 'int16', 'uint16', 'float32', 'float64'])
@pytest.mark.parametrize('how', ['zstd', 'deflate', 'none'])
def test_types_and_compressions(
    make_scene: Callable[..., str], random_array: Any, tmp_path: Path, dtype: str, how: str
):
    array = random_array((3, 70, 90), dtype)
    array[:, 20:30, 50:60] = 7
    scene = only(make_scene('a.tif', array, names=['nir', 'red', 'green'], nodata=7))
    chip = chip_of(scene, tmp_path, how=how)
    check_pixels(scene, chip)
    assert chip.bands == ('nir', 'red', 'green')
    with rasterio.open(chip.path) as file:
        assert file.compression == (None if how == 'none' else Compression(how.upper()))
        assert file.nodatavals == (7, 7, 7)
        assert file.block_shapes == [(SIZE, SIZE)] * 3
    assert [path.name for path in (tmp_path / 'images').iterdir()] == [Path(chip.path).name]


def test_a_turned_scene_stays_on_its_grid(make_scene: Callable[..., str], random_array: Any, tmp_path: Path) -> None:
    transform = Affine.translation(600000, 5000000) @ Affine.rotation(33) @ Affine.scale(0.03, -0.03)
    scene = only(make_scene('a.tif', random_array((2, 70, 90)), names=['red', 'nir'], transform=transform))
    check_pixels(scene, chip_of(scene, tmp_path))


@pytest.mark.parametrize('internal', ['YES', 'NO'])
def test_masks(make_scene: Callable[..., str], random_array: Any, tmp_path: Path, internal: str) -> None:
    array = random_array((12, 70, 90))
    array[:, 30:40, 60:70] = 0  # no gap here: the mask says so, not the value
    mask = np.ones((70, 90), dtype=np.bool_)
    mask[20:25, 50:80] = False
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = make_scene('a.tif', array, names=get_sensor('sentinel2_l2a').names, mask=mask)
    scene = only(path)
    check_pixels(scene, chip_of(scene, tmp_path))
    beyond = Window(50, 70, SIZE, SIZE)
    check_pixels(scene, chip_of(scene, tmp_path, beyond), beyond)


def test_alpha(make_scene: Callable[..., str], random_array: Any, tmp_path: Path) -> None:
    array = random_array((4, 70, 90), 'uint8')
    array[3] = 255
    array[3, 20:25, 50:80], array[3, 30, 60] = 0, 128
    scene = only(make_scene('a.tif', array, names=['red', 'green', 'blue', 'alpha'], alpha=True))
    window = Window(20, 70, SIZE, SIZE)
    chip = chip_of(scene, tmp_path, window)
    check_pixels(scene, chip, window)
    with rasterio.open(chip.path) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
        np.testing.assert_array_equal(file.read(4)[:, :20], array[3, 20 : 20 + SIZE, 70:90])
        assert not file.read(4)[:, 20:].any()


@pytest.mark.parametrize(
    ('dtype', 'names', 'nodata', 'declared', 'masked'),
    [
        ('uint16', ('B02', 'B03'), None, 0, False),  # known of Sentinel-2, so declared
        ('uint16', ('B02', 'QA60'), None, None, True),  # 0 is an ordinary value of QA60
        ('uint8', ('red', 'nir'), None, None, True),
        ('float32', ('red', 'nir'), None, None, True),
        ('float32', ('red', 'nir'), np.nan, np.nan, False),
        ('int16', ('red', 'nir'), -9999, -9999, False),
    ],
)
def test_padding_is_never_data(
    make_scene: Callable[..., str],
    random_array: Any,
    tmp_path: Path,
    dtype: str,
    names: Any,
    nodata: Any,
    declared: Any,
    masked: bool,
) -> None:
    array = random_array((2, 70, 90), dtype)
    array[:, 60:, 80:] = 0 if nodata is None or np.isnan(nodata) else nodata
    scene = only(make_scene('a.tif', array, names=names, nodata=nodata))
    window = Window(50, 70, SIZE, SIZE)
    chip = chip_of(scene, tmp_path, window)
    check_pixels(scene, chip, window)
    assert not chip.read(chip.grid.window, chip.bands)[1][20:].any()
    with rasterio.open(chip.path) as file:
        np.testing.assert_equal(file.nodata, declared)
        assert (MaskFlags.per_dataset in file.mask_flag_enums[0]) == masked
    inside = chip_of(scene, tmp_path)  # where nothing is padded no mask is needed
    check_pixels(scene, inside)
    with rasterio.open(inside.path) as file:
        assert MaskFlags.per_dataset not in file.mask_flag_enums[0]


def test_scale_offset_tags_and_colours(make_scene: Callable[..., str], random_array: Any, tmp_path: Path) -> None:
    path = make_scene('a.tif', random_array((3, 70, 90), 'uint8'), tags={'CAMERA': 'x', 'LONG': 'y' * 2000})
    with rasterio.open(path, 'r+') as file:
        file.scales, file.offsets = (0.1, 0.2, 0.3), (1, 2, 3)
        file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    scene = only(path)
    assert scene.bands == ('red', 'green', 'blue')
    chip = chip_of(scene, tmp_path)
    check_pixels(scene, chip)
    with rasterio.open(chip.path) as file:
        assert (file.scales, file.offsets) == ((0.1, 0.2, 0.3), (1, 2, 3))
        assert file.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert file.tags()['CAMERA'] == 'x'
        assert 'LONG' not in file.tags()
    two = chip_of(scene, tmp_path, Window(0, 0, SIZE, SIZE), bands=('blue', 'red'))
    assert two.bands == ('blue', 'red')
    assert two.files[0].scales == (0.3, 0.1)


@pytest.mark.parametrize('how', ['zstd', 'deflate'])
def test_a_colour_table(make_scene: Callable[..., str], random_array: Any, tmp_path: Path, how: str) -> None:
    path = make_scene('a.tif', random_array((1, 70, 90), 'uint8'), names=['class'], nodata=0)
    colours = {value: (value, 255 - value, value // 2, 255) for value in range(256)}
    with rasterio.open(path, 'r+') as file:
        file.write_colormap(1, colours)
    scene = only(path)
    for window in (WINDOW, Window(50, 70, SIZE, SIZE)):
        chip = chip_of(scene, tmp_path, window, how)
        check_pixels(scene, chip, window)
        with rasterio.open(path) as whole, rasterio.open(chip.path) as file:
            assert file.colorinterp == (ColorInterp.palette,)
            assert file.colormap(1) == whole.colormap(1)
            assert whole.colormap(1)[7] == colours[7]


def test_a_colour_table_larger_than_the_chip_is_left_out(make_scene: Callable[..., str], tmp_path: Path) -> None:
    path = make_scene('a.tif', np.ones((1, 70, 90), 'uint16'), names=['class'])
    with rasterio.open(path, 'r+') as file:
        file.write_colormap(1, {1: (9, 9, 9, 255)})
        assert file.colorinterp == (ColorInterp.palette,)
    assert Path(chip_of(only(path), tmp_path).path).stat().st_size < 10_000


@pytest.mark.parametrize(
    ('path', 'tags'),
    [
        ('T31TFJ_20210415T103021.tif', {}),
        ('T31TFJ_20230415T103021.tif', {}),
        ('2023-04-15/scene.tif', {}),
        ('2021-04-15/scene.tif', {}),
        ('S2A_MSIL2A_20230415T103021_N0509_R108_T31TFJ_20230415T163021/scene.tif', {}),
        ('S2A_MSIL2A_20210415T103021_N0500_R108_T31TFJ_20230415T163021.tif', {}),
        ('scene.tif', {'PROCESSING_BASELINE': '04.00'}),
        ('scene_20230101.tif', {'BOA_ADD_OFFSET': '0'}),
        ('scene.tif', {'PRODUCT_URI': 'S2A_MSIL2A_20230415T103021_N0509_R108_T31TFJ_20230415T163021.SAFE'}),
        ('scene.tif', {}),
    ],
)
def test_radiometry_is_that_of_the_scene(
    make_scene: Callable[..., str], random_array: Any, tmp_path: Path, path: str, tags: dict[str, str]
) -> None:
    sensor = get_sensor('sentinel2_l2a')
    array = random_array((12, 70, 90)) + np.uint16(2000)
    scene = only(make_scene(path, array, names=sensor.names, tags=tags))
    chip = chip_of(scene, tmp_path)
    there, here = (radiometry(one, one.bands, sensor) for one in (scene, chip))
    assert (here.scale, here.offset) == (there.scale, there.offset)
    if scene.date is not None and scene.date[0].date() < date(2022, 1, 25) and 'N0500' not in path:
        assert set(here.offset) == {0.0}


def test_bands_in_files_of_their_own(make_scene: Callable[..., str], random_array: Any, tmp_path: Path) -> None:
    fine, coarse = random_array((1, 80, 80)) + np.uint16(1000), random_array((1, 40, 40), seed=1) + np.uint16(1000)
    coarse[0, 10:14, 30:34] = 0
    make_scene('20210415/x_B02.tif', fine)
    make_scene('20210415/x_B11.tif', coarse, res=20)
    scene = only(tmp_path / '20210415')
    chip = chip_of(scene, tmp_path)
    check_pixels(scene, chip)
    assert chip.bands == ('B02', 'B11')


@pytest.mark.parametrize('size', [16, 100, 512, 600])
def test_blocks_of_chips(make_scene: Callable[..., str], random_array: Any, tmp_path: Path, size: int) -> None:
    scene = only(make_scene('a.tif', random_array((1, 700, 700), 'uint8'), names=['red']))
    window = Window(0, 0, size, size)
    chip = chip_of(scene, tmp_path, window)
    check_pixels(scene, chip, window)
    assert chip.block_shape == ((256, 256) if size > 512 else (size, size))


def test_the_mask_of_a_chip(tmp_path: Path, make_scene: Callable[..., str]) -> None:
    scene = only(make_scene('a.tif', np.ones((2, 70, 90), dtype='uint8'), names=['red', 'nir']))
    mask = np.random.default_rng(0).integers(0, 5, (SIZE, SIZE)).astype(np.uint8)
    mask[:4] = 255
    write_complete(tmp_path / 'mask.tif', encode_mask(mask, scene.grid.cut(WINDOW), 'zstd'))
    with rasterio.open(tmp_path / 'mask.tif') as file:
        np.testing.assert_array_equal(file.read(1), mask)
        assert (file.nodata, file.transform) == (255, scene.grid.window_transform(WINDOW))


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / 'a.tif').mkdir()
    with pytest.raises(OutputError, match=r'a.tif: cannot be written \(.*run the same command to resume'):
        write_complete(tmp_path / 'a.tif', b'x')
    assert [path.name for path in tmp_path.iterdir()] == ['a.tif']
