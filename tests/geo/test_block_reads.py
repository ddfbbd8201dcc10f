"""Windows read together hold what each holds by itself, and no block is read twice."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rasterio.crs import CRS

from torchgeo_msssl.geo import scene as scene_module
from torchgeo_msssl.geo.block_reads import read_windows
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.warp import warp_scene

TILED = {'tiled': True, 'blockxsize': 256, 'blockysize': 256, 'compress': 'deflate'}


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    close_datasets()


def together(scene: Scene, windows: list[Window]) -> list[Any]:
    places = [
        (np.empty((len(scene.bands), w.height, w.width), scene.dtype), np.empty((w.height, w.width), np.bool_))
        for w in windows
    ]
    read_windows(scene, windows, scene.bands, places)
    return places


def windows_in(scene: Scene, count: int = 40, side: int = 48) -> list[Window]:
    rng = np.random.default_rng(0)
    rows, cols = (rng.integers(0, most - side + 1, count).tolist() for most in (scene.grid.height, scene.grid.width))
    return [Window(row, col, side, side) for row, col in zip(rows, cols, strict=True)]


@pytest.mark.parametrize('kind', ['tiles', 'stripes', 'one block', 'small tiles', 'mask', 'bands apart', 'warped'])
def test_the_same_pixels_as_alone(make_scene, random_array, kind: str) -> None:
    array = random_array((2, 520, 700))
    array[0, 100:300, 50:260] = 0
    options: dict[str, dict[str, Any]] = {
        'tiles': TILED,
        'stripes': {'compress': 'deflate'},
        'one block': {'blockysize': 520},
        'small tiles': TILED | {'blockxsize': 16, 'blockysize': 32},
        'mask': {'mask': random_array((520, 700)) > 60},
    }
    if kind == 'bands apart':  # the second one on coarser pixels
        fine = make_scene('s_B02.tif', array[:1], nodata=0, **TILED)
        scene = find_scenes([fine, make_scene('s_B05.tif', array[1:, ::2, ::2], res=20, nodata=0)])[0]
    else:
        nodata = None if kind == 'mask' else 0
        scene = find_scenes(make_scene('s.tif', array, nodata=nodata, **options.get(kind, TILED)))[0]
    if kind == 'warped':
        scene = warp_scene(scene, CRS.from_epsg(32632), None)
    windows = windows_in(scene)
    for window, (image, valid) in zip(windows, together(scene, windows), strict=True):
        expected, expected_valid = scene.read(window, scene.bands)
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(valid, expected_valid)


def test_no_block_is_read_twice(make_scene, random_array, monkeypatch) -> None:
    scene = find_scenes(make_scene('s.tif', random_array((1, 512, 768)), **TILED))[0]
    touched: list[tuple[int, int]] = []
    original = scene_module.read_file

    def recorded(file: Any, window: Window, *arguments: Any, **options: Any) -> Any:
        touched.extend(
            (row, col)
            for row in range(window.row // 256, (window.row + window.height - 1) // 256 + 1)
            for col in range(window.col // 256, (window.col + window.width - 1) // 256 + 1)
        )
        return original(file, window, *arguments, **options)

    monkeypatch.setattr(scene_module, 'read_file', recorded)
    together(scene, windows_in(scene, 30, 200))
    assert len(touched) == len(set(touched)) == 6
    touched.clear()
    together(scene, [Window(300, 10, 100, 100), Window(10, 600, 100, 100)])  # nothing in common: read as they are
    assert sorted(touched) == [(0, 2), (1, 0)]
