"""Scenes on another grid hold the pixels of the ground they cover."""

import math

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as transform_points

from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo.decoded_cache import decoded
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.valid_counts import count_valid
from torchgeo_msssl.geo.warp import WarpedScene, warp_scene

NEXT_ZONE = CRS.from_epsg(32632)
on_one_folder = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
starts, sides = st.integers(-20, 150), st.integers(1, 100)


def numbered(height: int = 120, width: int = 140, dtype: str = 'uint16') -> np.ndarray:
    """Every pixel of band 1 is different, so that it tells where it came from; band 2 runs backwards."""
    array = np.arange(1, height * width + 1).reshape(1, height, width)
    return np.concatenate([array, array[:, ::-1, ::-1]]).astype(dtype)


@pytest.fixture
def scene(make_scene) -> Scene:
    return find_scenes(make_scene('s.tif', numbered(), names=['B02', 'B03']))[0]


def ground_of(scene: Scene, window: Window, source: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of the source, in pixels, under the centre of each pixel of a window."""
    rows, cols = np.mgrid[window.row : window.row + window.height, window.col : window.col + window.width] + 0.5
    xs, ys = scene.grid.transform @ np.array([cols.ravel(), rows.ravel()])
    xs, ys = transform_points(scene.grid.crs, source.grid.crs, xs, ys)
    col, row = ~source.grid.transform @ np.array([xs, ys])
    return col.reshape(rows.shape), row.reshape(rows.shape)


@on_one_folder
@given(starts, starts, sides, sides)
def test_each_pixel_is_the_one_under_its_centre(scene: Scene, row, col, height, width) -> None:
    """PROJ is the oracle; GDAL may be off by an eighth of a pixel."""
    warped = warp_scene(scene, NEXT_ZONE, None)
    window = Window(row, col, height, width)
    image, valid = warped.read(window, ['B02', 'B03'])
    source_col, source_row = ground_of(warped, window, scene)
    inside = window.intersection(warped.grid.window)
    within = np.zeros((height, width), bool)
    if inside:
        within[inside.row - row :, inside.col - col :][: inside.height, : inside.width] = True
    margin = np.minimum.reduce([source_col, source_row, 140 - source_col, 120 - source_row])
    assert valid[within & (margin > 0.126)].all()
    assert not valid[~within | (margin < -0.126)].any()
    found_row, found_col = np.divmod(image[0].astype(int) - 1, 140)
    for found, true in ((found_row, source_row), (found_col, source_col)):
        assert (np.abs(found + 0.5 - true) <= 0.5 + 0.126)[valid].all()
    np.testing.assert_array_equal(image[1][valid], (numbered()[1][found_row, found_col])[valid])
    assert (image[:, ~valid] == 0).all()


@on_one_folder
@given(starts, starts, sides, sides)
def test_windows_are_those_of_a_vrt_over_the_whole_grid(scene: Scene, row, col, height, width) -> None:
    warped = warp_scene(scene, NEXT_ZONE, None)
    window = Window(row, col, height, width).intersection(warped.grid.window)
    if window is None:
        return
    image, _ = warped.read(window, ['B02'])
    with (
        rasterio.open(scene.path) as source,
        WarpedVRT(
            source, crs=NEXT_ZONE, transform=warped.grid.transform, height=warped.grid.height, width=warped.grid.width
        ) as vrt,
    ):
        expected = vrt.read([1], window=window.to_rasterio())
    source_col, source_row = ground_of(warped, window, scene)
    near_edge = np.zeros(image[0].shape, bool)  # of two source pixels: either may come
    for place in (source_col, source_row):
        near_edge |= np.abs(place - np.round(place)) < 0.126
    np.testing.assert_array_equal(image[0][~near_edge], expected[0][~near_edge])
    assert (image[0] != expected[0]).mean() < 0.26


def test_corners_have_no_data(scene: Scene) -> None:
    warped = warp_scene(scene, CRS.from_epsg(32633), None)  # two zones on, the scene stands askew
    valid = warped.read(warped.grid.window, ['B02'])[1]
    corners = [valid[row, col] for row in (0, -1) for col in (0, -1)]
    assert not any(corners)
    assert valid[warped.grid.height // 2, warped.grid.width // 2]
    assert not warped.always_valid
    assert count_valid(warped, ['B02'], cache=False).total == valid.sum()
    far = warped.read(Window(-500, -500, 20, 20), ['B02'])
    assert not far[1].any()


def test_nothing_to_do_gives_the_scene_itself(scene: Scene) -> None:
    assert warp_scene(scene, scene.grid.crs, None) is scene
    assert warp_scene(scene, scene.grid.crs, (10.0, 10.0)) is scene


@pytest.mark.parametrize(('res', 'step'), [(20.0, 2), (5.0, 0.5)])
def test_another_resolution(scene: Scene, res: float, step: float) -> None:
    warped = warp_scene(scene, scene.grid.crs, (res, res))
    assert warped.grid.res == (res, res)
    assert warped.grid.bounds == scene.grid.bounds
    image, valid = warped.read(warped.grid.window, ['B02'])
    assert valid.all()
    rows, cols = np.divmod(image[0].astype(int) - 1, 140)
    for found, axis in ((rows, 0), (cols, 1)):
        true = (np.arange(image.shape[axis + 1]) + 0.5) * step
        assert (np.abs(found + 0.5 - np.expand_dims(true, 1 - axis)) <= 0.5 + 1e-6).all()


def test_nodata_in_one_band_alone_stays_no_data(make_scene) -> None:
    array = numbered(dtype='int32')
    array[0, 30:60, 30:60] = -9999
    scene = find_scenes(make_scene('s.tif', array, nodata=-9999, names=['B02', 'B03']))[0]
    warped = warp_scene(scene, NEXT_ZONE, None)
    image, valid = warped.read(warped.grid.window, ['B02', 'B03'])
    assert (image[0][valid] > 0).all()
    only_second = warped.read(warped.grid.window, ['B03'])[1]
    gap = only_second & ~valid
    assert 800 < gap.sum() < 1000
    assert (image[0][gap] == -9999).all()
    assert (image[:, ~only_second] == -9999).all()  # outside of the original


@pytest.mark.parametrize('how', ['alpha', 'mask', 'nan'])
def test_gaps_of_every_kind_follow_the_pixels(make_scene, how: str) -> None:
    gone = np.zeros((120, 140), bool)
    gone[20:70, 40:90] = True
    array, options = numbered(dtype='float32'), {}
    if how == 'alpha':
        array, options = np.concatenate([array, np.where(gone, 0, 255)[None].astype('float32')]), {'alpha': True}
    elif how == 'mask':
        options = {'mask': ~gone}
    else:
        array[:, gone] = np.nan
    warped = warp_scene(find_scenes(make_scene('s.tif', array, **options))[0], NEXT_ZONE, None)
    image, valid = warped.read(warped.grid.window, warped.bands)
    seen = set(image[0][valid].astype(int))
    there = np.arange(1, 120 * 140 + 1).reshape(120, 140)
    assert len(warped.bands) == 2
    assert not seen & set(there[gone])
    assert len(seen) > 0.9 * (~gone).sum()


def test_band_files_of_several_resolutions(make_scene, tmp_path) -> None:
    make_scene('p/B02.tif', numbered()[0])
    make_scene('p/B05.tif', numbered(60, 70)[0], res=20)
    warped = warp_scene(find_scenes(tmp_path / 'p')[0], NEXT_ZONE, None)
    image, valid = warped.read(warped.grid.window, ['B05', 'B02'])
    row, col = np.divmod(image[1].astype(int) - 1, 140)
    coarse_row, coarse_col = np.divmod(image[0].astype(int) - 1, 70)
    # the same ground: within the pixel of 20 m, give or take one of 10 m
    assert (np.abs(coarse_row * 2 + 1 - row - 0.5) <= 1.8)[valid].all()
    assert (np.abs(coarse_col * 2 + 1 - col - 0.5) <= 1.8)[valid].all()
    assert valid.mean() > 0.8


@pytest.mark.parametrize('crs', [None, NEXT_ZONE])
@pytest.mark.parametrize(
    'turn',
    [
        Affine.scale(10, 10),
        Affine.scale(-10, -10),
        Affine.rotation(90) @ Affine.scale(10, -20),
        Affine.rotation(30) @ Affine.scale(10, -10),
    ],
)
def test_scenes_that_are_not_north_up_are_turned(make_scene, turn: Affine, crs, caplog) -> None:
    caplog.set_level('INFO')
    path = make_scene('turned.tif', numbered(), transform=Affine.translation(600000, 5000000) @ turn)
    scene = find_scenes(path)[0]
    warped = warp_scene(scene, crs or scene.grid.crs, None)
    assert warped.grid.is_north_up
    assert isinstance(warped, WarpedScene)
    image, valid = warped.read(warped.grid.window, ['band_1'])
    col, row = ground_of(warped, warped.grid.window, scene)
    found_row, found_col = np.divmod(image[0].astype(int) - 1, 140)
    for found, true in ((found_row, row), (found_col, col)):
        assert (np.abs(found + 0.5 - true) <= 0.5 + 0.126)[valid].all()
    if crs is None and not (turn.a and turn.b):  # nothing but mirrored or turned by a right angle: all are there once
        assert valid.all()
        np.testing.assert_array_equal(np.sort(image[0], axis=None), np.sort(numbered()[0], axis=None))
    assert 'is not north up' in caplog.text


def test_places_that_cannot_be_reached(scene: Scene) -> None:
    local = CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]')
    with pytest.raises(SceneReadError, match=r's\.tif: cannot be warped from EPSG:32631'):
        warp_scene(scene, local, None)
    with pytest.raises(SceneReadError, match='resolution in units of that CRS'):
        warp_scene(scene, CRS.from_epsg(4326), (10.0, 10.0))
    with pytest.raises(SceneReadError, match='it would have 12000000 × 14000000 pixels'):
        warp_scene(scene, scene.grid.crs, (1e-4, 1e-4))


def test_degrees(scene: Scene) -> None:
    warped = warp_scene(scene, CRS.from_epsg(4326), (1e-4, 1e-4))
    left, bottom, right, top = warped.grid.bounds
    assert 3 < left < right < 6
    assert 44 < bottom < top < 46
    image, valid = warped.read(warped.grid.window, ['B02'])
    assert valid.mean() > 0.9
    assert math.isclose(image[0][valid].mean(), numbered()[0].mean(), rel_tol=0.02)


def test_warped_scenes_can_be_decoded(scene: Scene, tmp_path) -> None:
    warped = warp_scene(scene, NEXT_ZONE, None)
    image, valid = decoded(warped, ['B02'], tmp_path / 'cache').read(warped.grid.window)
    expected, expected_valid = warped.read(warped.grid.window, ['B02'])
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(valid, expected_valid)
    assert image[0].max() > decoded(scene, ['B02'], tmp_path / 'cache').read(scene.grid.window)[0].min()
