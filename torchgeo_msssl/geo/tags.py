"""Tags of little-endian TIFF and BigTIFF files.

See the `TIFF 6.0 specification <https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf>`_, section 2, and
`BigTIFF <https://libtiff.gitlab.io/libtiff/specification/bigtiff.html>`_.
"""

import struct
from collections.abc import Callable, Mapping
from typing import BinaryIO

#: Type, number of values, and the values as stored in the file.
type Tag = tuple[int, int, bytes]
#: Returns the bytes at an offset (first argument) of a length (second), or raises IndexError.
type Content = Callable[[int, int], bytes]

#: Tags of `GeoTIFF <https://docs.ogc.org/is/19-008r4/19-008r4.html>`_: size of a pixel, and coordinates of a corner.
PIXEL_SCALE, TIE_POINT = 33550, 33922
#: Offsets and lengths of strips and tiles in the file.
PLACES = frozenset({273, 279, 324, 325})
_DOUBLE = 12

#: Bytes of a value of each type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

#: Bytes that are read at once; most tags lie in them.
_HEAD = 4096


class _Bytes:
    """Content of a file by offset, the beginning of which is read at once."""

    def __init__(self, file: BinaryIO, longest: int) -> None:
        self._file, self._longest = file, longest
        self._head = file.read(_HEAD)

    def __call__(self, offset: int, length: int) -> bytes:
        if length > self._longest:
            raise IndexError(length)
        found = self._head[offset : offset + length]
        if offset + length > len(self._head):
            self._file.seek(offset)
            found = self._file.read(length)
        if len(found) < length:
            raise IndexError(offset)
        return found


def parse_file[T](path: str, parse: Callable[[Content], T], longest: int) -> T | None:
    """Parse the tags of a file.

    Args:
        path: Local file.
        parse: Called with the content of the file.
        longest: Largest number of bytes that it may read at once.

    Returns:
        Its result; None if the file cannot be opened, or is damaged where it is read.
    """
    try:
        with open(path, 'rb', buffering=0) as file:
            return parse(_Bytes(file, longest))
    except (OSError, OverflowError, struct.error, KeyError, IndexError):
        return None


def first_directory(content: Content) -> tuple[int, bool] | None:
    """Find the first directory.

    Args:
        content: The file.

    Returns:
        Its offset, and whether the file is a BigTIFF; None if it is no little-endian TIFF.
    """
    magic = content(0, 4)
    if magic == b'II*\x00':
        return struct.unpack('<I', content(4, 4))[0], False
    if magic == b'II+\x00':
        return struct.unpack('<Q', content(8, 8))[0], True
    return None


def read_directory(
    content: Content, start: int, big: bool, without: frozenset[int] = frozenset()
) -> tuple[dict[int, Tag], int]:
    """Read one directory of a file, that of the image, an overview or a mask.

    Args:
        content: The file.
        start: Offset of the directory.
        big: Whether the file is a BigTIFF.
        without: Tags to leave out.

    Returns:
        The tags by number, and the offset of the next directory, 0 after the last one.

    Raises:
        struct.error: If the file is damaged; KeyError and IndexError likewise.
    """
    head, entry, pointer = ('<Q', '<HHQ', '<Q') if big else ('<H', '<HHI', '<I')
    (count,) = struct.unpack(head, content(start, struct.calcsize(head)))
    start += struct.calcsize(head)
    inline, before = struct.calcsize(pointer), struct.calcsize(entry)
    entries = content(start, count * (before + inline))
    tags = {}
    for k in range(0, len(entries), before + inline):
        tag, kind, number = struct.unpack_from(entry, entries, k)
        if tag in without:
            continue
        value, length = entries[k + before : k + before + inline], _SIZES[kind] * number
        tags[tag] = (
            kind,
            number,
            value[:length] if length <= inline else content(struct.unpack(pointer, value)[0], length),
        )
    (following,) = struct.unpack(pointer, content(start + len(entries), inline))
    return tags, following


def doubles(tags: Mapping[int, Tag], tag: int, number: int) -> tuple[float, ...]:
    """Return the values of a tag with a number of doubles; an empty tuple for any other tag."""
    kind, count, value = tags.get(tag, (0, 0, b''))
    return struct.unpack(f'<{number}d', value) if (kind, count) == (_DOUBLE, number) else ()
