"""The tags of TIFF files: read from little-endian files of both kinds, written to small ones.

See the `TIFF 6.0 specification <https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf>`_, section 2, and
`BigTIFF <https://libtiff.gitlab.io/libtiff/specification/bigtiff.html>`_.
"""

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

#: Type, number of values, and the values as they lie in the file.
type Tag = tuple[int, int, bytes]
#: Gives so many bytes (second) from a place in a file (first), or raises IndexError.
type Content = Callable[[int, int], bytes]

#: Tags of `GeoTIFF <https://docs.ogc.org/is/19-008r4/19-008r4.html>`_ that place pixels: the size of one, the place of
#: a corner, and a matrix where the grid is turned.
PIXEL_SCALE, TIE_POINT, MATRIX = 33550, 33922, 34264
STRIP_OFFSETS, STRIP_LENGTHS, TILE_OFFSETS, TILE_LENGTHS = 273, 279, 324, 325
#: Where blocks lie in the file, and how long they are, which changes nothing that a header tells.
PLACES = frozenset({STRIP_OFFSETS, STRIP_LENGTHS, TILE_OFFSETS, TILE_LENGTHS})
LONG, DOUBLE = 4, 12

#: Bytes of a value of each type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

#: Read at once; tags are mostly in there.
_HEAD = 4096


class _Bytes:
    """Bytes of a file by place, most of them read at once."""

    def __init__(self, descriptor: int, longest: int | None) -> None:
        self._descriptor, self._longest = descriptor, longest
        self._head = os.pread(descriptor, _HEAD, 0)

    def __call__(self, offset: int, length: int) -> bytes:
        if self._longest is not None and length > self._longest:
            raise IndexError(length)
        end = offset + length
        found = self._head[offset:end] if end <= len(self._head) else os.pread(self._descriptor, length, offset)
        if len(found) < length:
            raise IndexError(offset)
        return found


def parse_file[T](path: str | Path, parse: Callable[[Content, int], T], longest: int | None = None) -> T | None:
    """Let a function read the tags of a file.

    Args:
        path: Local file.
        parse: Gets the file's content and its size in bytes.
        longest: Bytes of the longest tag that it may read.

    Returns:
        What it returns; None where the file cannot be opened, or is damaged where it reads.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return parse(_Bytes(descriptor, longest), os.fstat(descriptor).st_size)
    except (OSError, OverflowError, struct.error, KeyError, IndexError):
        return None
    finally:
        os.close(descriptor)


def first_directory(content: Content) -> tuple[int, bool] | None:
    """Find where the tags begin.

    Args:
        content: The file.

    Returns:
        The place, and whether the file is a BigTIFF; None where it is no little-endian TIFF.
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
    """Read the tags of one part of a file (its image, an overview, a mask).

    Args:
        content: The file.
        start: Where the tags begin.
        big: Whether the file is a BigTIFF.
        without: Tags that are passed over.

    Returns:
        The tags by number, and where those of the next part begin, 0 after the last one.

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
        tags[tag] = kind, number, value[:length] if length <= inline else content(
            struct.unpack(pointer, value)[0], length
        )  # fmt: skip
    (following,) = struct.unpack(pointer, content(start + len(entries), inline))
    return tags, following


def doubles(tags: Mapping[int, Tag], tag: int, number: int) -> tuple[float, ...]:
    """The values of a tag of so many doubles; nothing where it is none."""
    kind, count, value = tags.get(tag, (0, 0, b''))
    return struct.unpack(f'<{number}d', value) if (kind, count) == (DOUBLE, number) else ()


def header_bytes(tags: Mapping[int, Tag]) -> bytes:
    """Make the head of a small TIFF of one part, which blocks may follow.

    Args:
        tags: Its tags by number.

    Returns:
        All that comes before the blocks.
    """
    start = 8 + 2 + 12 * len(tags) + 4
    entries, values = [struct.pack('<H', len(tags))], b''
    for tag, (kind, number, value) in sorted(tags.items()):
        if len(value) <= 4:
            entries.append(struct.pack('<HHI4s', tag, kind, number, value))
        else:
            entries.append(struct.pack('<HHII', tag, kind, number, start + len(values)))
            values += value + b'\0' * (len(value) % 2)  # values begin at even places
    return b''.join([b'II*\0', struct.pack('<I', 8), *entries, struct.pack('<I', 0), values])
