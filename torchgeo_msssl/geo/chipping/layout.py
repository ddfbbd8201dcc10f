"""Chips of one block a band, put together from a header that GDAL made for another chip of the same scene.

The chips of a scene have the same tags but for their place and the lengths of their blocks. Making a data set anew for
each one, with its CRS and tags, and taking the pixels through GDAL's block cache costs as much as compressing them
does. What is written here is what GDAL would write: the same tags with the same values, and blocks that hold the same
pixels.
"""

import itertools
import struct
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from torchgeo_msssl.geo.tags import (
    DOUBLE,
    LONG,
    MATRIX,
    PIXEL_SCALE,
    PLACES,
    STRIP_LENGTHS,
    STRIP_OFFSETS,
    TIE_POINT,
    TILE_LENGTHS,
    TILE_OFFSETS,
    Tag,
    doubles,
    first_directory,
    header_bytes,
    read_directory,
)

_COMPRESSION, _BANDS, _PREDICTOR, _SAMPLE_FORMAT = 259, 277, 317, 339
#: Numbers of compressions, predictors and kinds of values (unsigned and signed integers) in TIFF.
_NONE, _ZSTD, _DIFFERENCES, _INTEGERS = 1, 50000, 2, {1, 2}
#: The level that is asked of GDAL too.
_LEVEL = 1


class Layout:
    """How the chips of a scene are laid out.

    Args:
        tags: Tags of any of them but those about the places of blocks, by number.
        tiled: Whether their blocks are tiles.
        count: Bands, each of one block.
    """

    def __init__(self, tags: dict[int, Tag], tiled: bool, count: int) -> None:
        """Find out how long the head of each chip is."""
        self._tags = tags
        self._places = (TILE_OFFSETS, TILE_LENGTHS) if tiled else (STRIP_OFFSETS, STRIP_LENGTHS)
        self._count = count
        self._compressed = _value(tags, _COMPRESSION) == _ZSTD
        self._room: NDArray[Any] = np.empty(0)
        self._length = len(self._head(Affine.identity(), [0] * count, 0))

    @classmethod
    def of(cls, chip: bytes, transform: Affine) -> 'Layout | None':
        """Learn the layout from a chip.

        Args:
            chip: What GDAL wrote of a chip.
            transform: Its transform.

        Returns:
            The layout, or None where chips of this kind are left to GDAL: of several blocks a band, with a mask,
            compressed otherwise than with zstd and differences or not at all, or placed in another way.
        """
        found = first_directory(lambda start, length: chip[start : start + length])
        if found is None or found[1]:
            return None
        tags, following = read_directory(lambda start, length: chip[start : start + length], *found)
        count = _value(tags, _BANDS)
        tiled = TILE_OFFSETS in tags
        blocks = tags[TILE_OFFSETS if tiled else STRIP_OFFSETS][1]
        common = {tag: value for tag, value in tags.items() if tag not in PLACES}
        if following or blocks != count or not _is_known(tags) or common | _place(common, transform) != common:
            return None
        return cls(common, tiled, count)

    def chip(self, image: NDArray[Any], transform: Affine) -> bytes:
        """Make a chip.

        Args:
            image: Shape (band, height, width), of integers where they are to be compressed.
            transform: Where it lies.

        Returns:
            The file's content.
        """
        blocks = self._compress(image) if self._compressed else [np.ascontiguousarray(band).data for band in image]
        head = self._head(transform, [memoryview(block).nbytes for block in blocks], self._length)
        return b''.join([head, *blocks])

    def _head(self, transform: Affine, lengths: list[int], start: int) -> bytes:
        offsets = list(itertools.accumulate(lengths[:-1], initial=start))
        places = {
            tag: (LONG, self._count, struct.pack(f'<{self._count}I', *values))
            for tag, values in zip(self._places, (offsets, lengths), strict=True)
        }
        return header_bytes(self._tags | _place(self._tags, transform) | places)

    def _compress(self, image: NDArray[Any]) -> list[bytes]:
        """Differences of neighbours in a row (predictor 2 of TIFF), each band a frame of zstd."""
        import pyarrow as pa  # imported here: it takes longer than a small scene where chips are not compressed

        if self._room.shape != image.shape or self._room.dtype != image.dtype:
            self._room = np.empty(image.shape, dtype=image.dtype)
        flat = np.ascontiguousarray(image).reshape(-1)
        np.subtract(flat[1:], flat[:-1], out=self._room.reshape(-1)[1:])  # faster than row by row
        self._room[..., 0] = image[..., 0]
        codec = pa.Codec('zstd', compression_level=_LEVEL)
        return [codec.compress(band, asbytes=True) for band in self._room]


def _value(tags: dict[int, Tag], tag: int) -> int:
    """A tag of one number; 1, the usual default, where it is not there."""
    return int.from_bytes(tags[tag][2], 'little') if tag in tags else 1


def _is_known(tags: dict[int, Tag]) -> bool:
    """Whether blocks are written as :meth:`Layout.chip` does."""
    how = _value(tags, _COMPRESSION), _value(tags, _PREDICTOR)
    kinds = tags[_SAMPLE_FORMAT][2][::2] if _SAMPLE_FORMAT in tags else bytes([1])
    return how == (_NONE, 1) or (how == (_ZSTD, _DIFFERENCES) and _INTEGERS.issuperset(kinds))


def _place(tags: dict[int, Tag], transform: Affine) -> dict[int, Tag]:
    """The tags that place a chip, in the way that these tags do it."""
    if MATRIX in tags:
        a, b, c, d, e, f = transform[:6]
        return {MATRIX: _doubles(a, b, 0, c, d, e, 0, f, 0, 0, 0, 0, 0, 0, 0, 1)}
    scale = doubles(tags, PIXEL_SCALE, 3)
    return {
        PIXEL_SCALE: _doubles(transform.a, -transform.e, *scale[2:]),
        TIE_POINT: _doubles(0, 0, 0, transform.c, transform.f, 0),
    }


def _doubles(*values: float) -> Tag:
    return DOUBLE, len(values), struct.pack(f'<{len(values)}d', *values)
