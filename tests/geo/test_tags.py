"""Tags of files that GDAL writes are read."""

import struct

import numpy as np
import pytest
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

from torchgeo_msssl.geo.tags import PIXEL_SCALE, PLACES, TIE_POINT, Content, doubles, first_directory, read_directory

WIDTH, DESCRIPTION, ASCII = 256, 270, 2


def at_of(content: bytes) -> Content:
    return lambda start, length: content[start : start + length]


@pytest.mark.parametrize('big', ['NO', 'YES'])
@pytest.mark.parametrize('text', ['a', 'abc', 'abcd', 'abcdefgh'])
def test_tags_are_those_that_gdal_wrote(text: str, big: str) -> None:
    with MemoryFile() as memory:
        with memory.open(
            driver='GTiff', height=5, width=7, count=1, dtype='uint16', BIGTIFF=big, transform=from_origin(10, 20, 2, 3)
        ) as file:
            file.write(np.ones((1, 5, 7), np.uint16))
            file.update_tags(TIFFTAG_IMAGEDESCRIPTION=text)
        content = bytes(memory.getbuffer())
    found = first_directory(at_of(content))
    assert found is not None
    assert found[1] == (big == 'YES')
    tags, following = read_directory(at_of(content), *found)
    assert following == 0
    assert int.from_bytes(tags[WIDTH][2], 'little') == 7
    assert tags[DESCRIPTION] == (ASCII, len(text) + 1, text.encode() + b'\0')
    assert doubles(tags, PIXEL_SCALE, 3) == (2, 3, 0)
    assert doubles(tags, TIE_POINT, 6) == (0, 0, 0, 10, 20, 0)
    assert doubles(tags, PIXEL_SCALE, 6) == doubles(tags, WIDTH, 1) == doubles(tags, 1, 1) == ()
    assert set(read_directory(at_of(content), *found, PLACES)[0]) == set(tags) - PLACES < set(tags)


def test_other_files_have_no_tags() -> None:
    assert first_directory(at_of(b'MM\0*\0\0\0\x08')) is None
    assert first_directory(at_of(b'\x89PNG....')) is None
    assert first_directory(at_of(struct.pack('<4sHHQ', b'II+\0', 8, 0, 77))) == (77, True)
