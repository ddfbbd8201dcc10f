"""Headers that are derived from a similar file are those of GDAL."""

import itertools
import os
import struct
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from torchgeo_msssl.geo.headers import describe_file
from torchgeo_msssl.geo.scene import BandFile
from torchgeo_msssl.geo.tiff_headers import SimilarHeaders, read_header

TILED: dict[str, Any] = {'tiled': True, 'blockxsize': 16, 'blockysize': 32, 'compress': 'deflate'}
TURNED = Affine.translation(6e5, 5e6) @ Affine.rotation(20) @ Affine.scale(10, -10)

#: Options of files, and whether they are understood without GDAL.
KINDS: dict[str, tuple[dict[str, Any], bool]] = {
    'tiled': (TILED, True),
    'bands apart': (TILED | {'interleave': 'band'}, True),
    'big': (TILED | {'BIGTIFF': 'YES'}, True),
    'named': (TILED | {'names': ['B02', 'B03'], 'tags': {'PROCESSING_BASELINE': '05.10'}}, True),
    'nodata': (TILED | {'nodata': 0}, True),
    'degrees': (TILED | {'crs': 'EPSG:4326', 'res': 0.0001}, True),
    'local': (TILED | {'crs': '+proj=tmerc +lat_0=47 +lon_0=3.3 +k=0.9 +x_0=7'}, True),
    'alpha': (TILED | {'alpha': True}, True),
    'overviews': (TILED | {'overviews': True}, True),
    'big-endian': (TILED | {'ENDIANNESS': 'BIG'}, False),
    'turned': (TILED | {'transform': TURNED}, False),
    'south up': (TILED | {'transform': Affine(10, 0, 6e5, 0, 10, 5e6)}, False),
    'points': (TILED | {'tags': {'AREA_OR_POINT': 'Point'}}, False),
}


@pytest.fixture
def write(make_scene: Any) -> Any:
    names = (f'{k}.tif' for k in itertools.count())

    def make(options: dict[str, Any], shape: tuple[int, int], dtype: str = 'uint16') -> str:
        options = dict(options)
        overviews = options.pop('overviews', False)
        x, y = 6e5 + 10 * shape[0], 5e6 - shape[1]
        transform = options.pop('transform', None)
        res = options.pop('res', 10.0)
        if transform is None:
            transform = Affine(res, 0, x, 0, -res, y) if res > 1 else Affine(res, 0, 3.1, 0, -res, 44 + shape[0] / 100)
        path = make_scene(next(names), np.ones((2, *shape), dtype), transform=transform, **options)
        if overviews:
            with rasterio.open(path, 'r+') as file:
                file.build_overviews([2, 4])
        return str(path)

    return make


def text(file: BandFile) -> list[str]:
    return [str(file.grid.crs), *(repr(getattr(file, field.name)) for field in fields(file))]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('dtype', ['uint16', 'float32'])
def test_a_file_like_another_is_told_as_gdal_tells_it(write: Any, kind: str, dtype: str) -> None:
    options, understood = KINDS[kind]
    first, second = write(options, (200, 180), dtype), write(options, (150, 333), dtype)
    similar = SimilarHeaders()
    similar.keep(describe_file(first), 'x')
    found = similar.find(second, 'x')
    assert (found is not None) is understood
    if found is not None:
        assert text(found) == text(describe_file(second))
    assert similar.find(second, 'y') is None


def test_stripes_go_with_the_size(write: Any) -> None:
    similar = SimilarHeaders()
    similar.keep(describe_file(write({}, (200, 180))), 'x')
    assert similar.find(write({}, (200, 190)), 'x') is None
    same = write({}, (200, 180))
    found = similar.find(same, 'x')
    assert found is not None
    assert text(found) == text(describe_file(same))


@pytest.mark.parametrize('one', KINDS)
def test_files_of_two_kinds_are_not_similar(write: Any, one: str) -> None:
    header = read_header(write(KINDS[one][0], (200, 180)))
    for other in KINDS:
        if other != one and header is not None:
            another = read_header(write(KINDS[other][0], (200, 180)))
            # tags of these two differ in nothing but the place, which is looked at apart
            if {one, other} <= {'tiled', 'south up'} or another is None:
                continue
            assert header.common != another.common
    other_dtype = read_header(write(KINDS[one][0], (200, 180), 'int16'))
    assert header is None or other_dtype is None or header.common != other_dtype.common


def test_damage_is_left_to_gdal(write: Any, tmp_path: Path) -> None:
    path = write(TILED, (200, 180))
    content = Path(path).read_bytes()
    cut = tmp_path / 'cut.tif'
    for length in (0, 3, 7, 8, 9, 20, 100, 250):
        cut.write_bytes(content[:length])
        assert read_header(str(cut)) is None
    cut.write_bytes(b'II*\x00' + b'\xff' * 500)
    assert read_header(str(cut)) is None
    circle = bytearray(content)
    count = int.from_bytes(content[8:10], 'little')
    circle[10 + 12 * count : 14 + 12 * count] = (8).to_bytes(4, 'little')  # the next part is the first one again
    cut.write_bytes(bytes(circle))
    assert read_header(str(cut)) is None
    assert read_header(str(tmp_path / 'none.tif')) is None
    assert os.path.exists(path)


@pytest.mark.parametrize('offset', [2**64 - 1, 2**63, 2**62, 0])
def test_a_directory_that_is_nowhere_is_no_header(tmp_path: Path, offset: int) -> None:
    path = tmp_path / 'damaged.tif'
    path.write_bytes(b'II+\0' + struct.pack('<HHQ', 8, 0, offset) + bytes(100))
    assert read_header(str(path)) is None
