"""A file that lacks a byte of a block is found out; one that is whole, of whatever layout, is not suspected."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo.headers import open_scene
from torchgeo_msssl.geo.truncation import check_complete, missing_bytes

LAYOUTS: list[dict[str, Any]] = [
    {},
    {'compress': 'deflate'},
    {'tiled': True, 'blockxsize': 32, 'blockysize': 16, 'compress': 'zstd', 'interleave': 'band'},
    {'tiled': True, 'blockxsize': 64, 'blockysize': 64, 'BIGTIFF': 'YES'},
    {'blockysize': 7, 'compress': 'lzw', 'SPARSE_OK': True},
]


def scene(make_scene: Any, layout: dict[str, Any], **more: Any) -> Path:
    array = np.random.default_rng(0).integers(0, 9, (3, 100, 90)).astype(np.uint16)
    array[:, 40:80] = 0
    return Path(make_scene('a.tif', array, **layout, **more))


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('parts', ['image', 'mask', 'overviews'])
def test_every_byte_of_a_block_counts(make_scene: Any, tmp_path: Path, layout: dict[str, Any], parts: str) -> None:
    mask = np.ones((100, 90), dtype=np.bool_)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK='YES'):
        path = scene(make_scene, layout, **({'mask': mask} if parts == 'mask' else {}))
    if parts == 'overviews':
        with rasterio.open(path, 'r+') as file:
            file.build_overviews([2, 4])
    assert missing_bytes(path) == 0
    size, cut = path.stat().st_size, tmp_path / 'cut.tif'
    shutil.copy(path, cut)
    with open(cut, 'r+b') as file:
        file.truncate(size // 2)
    missing = missing_bytes(cut)
    assert missing > 0
    if parts == 'image':  # as long as it says, and one byte less
        with open(cut, 'r+b') as file:
            file.truncate(size // 2 + missing)
            assert missing_bytes(cut) == 0
            file.truncate(size // 2 + missing - 1)
        assert missing_bytes(cut) == 1


def test_what_is_missing_is_what_gdal_cannot_read(make_scene: Any) -> None:
    path = scene(make_scene, LAYOUTS[1])
    with open(path, 'r+b') as file:
        file.truncate(path.stat().st_size - 10)
    assert missing_bytes(path) > 0
    with rasterio.open(path) as dataset, pytest.raises(rasterio.errors.RasterioIOError):
        dataset.read()


def test_a_file_that_lost_the_directory_of_its_mask_is_found(make_scene: Any) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK='YES'):
        path = scene(make_scene, LAYOUTS[1], mask=np.eye(100, 90, dtype=np.bool_))
    with rasterio.open(f'GTIFF_DIR:2:{path}') as mask:
        start = int(mask.get_tag_item('IFD_OFFSET', 'TIFF', bidx=1))
    assert missing_bytes(path) == 0
    os.truncate(path, start + 4)
    with rasterio.open(path) as dataset:
        dataset.read()  # GDAL is silent about it
    assert missing_bytes(path) > 0


def test_both_byte_orders_are_read(make_scene: Any) -> None:
    with rasterio.Env(GDAL_TIFF_ENDIANNESS='BIG'):
        path = scene(make_scene, {'compress': 'deflate', 'ENDIANNESS': 'BIG'})
    assert path.read_bytes()[:2] == b'MM'
    assert missing_bytes(path) == 0
    os.truncate(path, path.stat().st_size - 3)
    assert missing_bytes(path) == 3


def test_other_formats_are_not_judged(tmp_path: Path) -> None:
    path = tmp_path / 'a.png'
    with rasterio.open(path, 'w', driver='PNG', height=9, width=9, count=1, dtype='uint8') as file:
        file.write(np.ones((1, 9, 9), np.uint8))
    assert missing_bytes(path) == 0


def test_a_scene_is_checked_file_by_file(make_scene: Any, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 9, (1, 100, 90)).astype(np.uint16)
    paths = {band: str(make_scene(f'scene_{band}.tif', array, names=[band])) for band in ('B02', 'B03')}
    check_complete(open_scene('scene', paths))
    with open(paths['B03'], 'r+b') as file:
        file.truncate(os.path.getsize(paths['B03']) - 7)
    with pytest.raises(SceneReadError, match=r'scene_B03\.tif: was cut short, at least 7 bytes'):
        check_complete(open_scene('scene', paths))
