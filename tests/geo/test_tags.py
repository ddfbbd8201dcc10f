"""Tags that are written are read again, by ourselves and by GDAL."""

import struct

import numpy as np
import pytest
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from torchgeo_msssl.geo.tags import PLACES, Content, Tag, doubles, first_directory, header_bytes, read_directory

SHORT, ASCII, LONG, DOUBLE = 3, 2, 4, 12


def short(*values: int) -> Tag:
    return SHORT, len(values), struct.pack(f'<{len(values)}H', *values)


def at_of(content: bytes) -> Content:
    return lambda start, length: content[start : start + length]


@pytest.mark.parametrize('text', [b'a\0', b'abc\0', b'abcd\0', b'abcde\0'])
def test_round_trip(text: bytes) -> None:
    tags: dict[int, Tag] = {
        256: short(5), 258: short(16, 16), 339: short(1, 1, 1), 270: (ASCII, len(text), text),
        33550: (DOUBLE, 3, struct.pack('<3d', 10, 10, 0)), 324: (LONG, 1, struct.pack('<I', 7)),
    }  # fmt: skip
    content = header_bytes(tags)
    found = first_directory(at_of(content))
    assert found == (8, False)
    assert read_directory(at_of(content), 8, False) == (tags, 0)
    assert set(read_directory(at_of(content), 8, False, PLACES)[0]) == set(tags) - {324}
    assert doubles(tags, 33550, 3) == (10, 10, 0)
    assert doubles(tags, 33550, 6) == doubles(tags, 256, 1) == doubles(tags, 1, 1) == ()


def test_gdal_reads_what_is_written() -> None:
    image = np.arange(35, dtype='<u2').reshape(5, 7)
    tags = {256: short(7), 257: short(5), 258: short(16), 259: short(1), 262: short(1), 277: short(1), 278: short(5)}
    tags |= {270: (ASCII, 6, b'hello\0')}
    places = {273: (LONG, 1, struct.pack('<I', 0)), 279: (LONG, 1, struct.pack('<I', image.nbytes))}
    start = len(header_bytes(tags | places))
    content = header_bytes(tags | places | {273: (LONG, 1, struct.pack('<I', start))}) + image.tobytes()
    with MemoryFile(content) as memory:
        with pytest.warns(NotGeoreferencedWarning):
            file = memory.open()
        with file:
            np.testing.assert_array_equal(file.read(1), image)
            assert file.tags()['TIFFTAG_IMAGEDESCRIPTION'] == 'hello'


def test_other_files_have_no_tags() -> None:
    assert first_directory(at_of(b'MM\0*\0\0\0\x08')) is None
    assert first_directory(at_of(b'\x89PNG....')) is None
    assert first_directory(at_of(struct.pack('<4sHHQ', b'II+\0', 8, 0, 77))) == (77, True)
