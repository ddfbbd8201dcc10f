"""Headers of GeoTIFFs that differ from a known one in place and size alone.

GDAL takes about a millisecond to open a file. Where thousands of files have the same tags, byte for byte, it is asked
about the first one; of the others only the tags are compared, and place and size taken from them.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from affine import Affine

from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.scene import BandFile
from torchgeo_msssl.geo.tags import (
    PIXEL_SCALE,
    PLACES,
    TIE_POINT,
    Content,
    Tag,
    doubles,
    first_directory,
    parse_file,
    read_directory,
)

_WIDTH, _HEIGHT, _SUBFILE = 256, 257, 254
_TILE_WIDTH = 322
_OWN = frozenset({_WIDTH, _HEIGHT, TIE_POINT})

#: No tag that is compared is longer than this, nor has a file more parts (overviews, masks).
_LONGEST, _MOST_PARTS = 1_000_000, 32


@dataclass(frozen=True)
class Header:
    """What the tags of a file say.

    Attributes:
        alike: Equal where two files differ in place and size alone.
        height: Rows.
        width: Columns.
        transform: Geotransform, if the file tells it as a corner and a pixel size.
    """

    alike: Hashable
    height: int
    width: int
    transform: Affine | None


class SimilarHeaders:
    """Files that GDAL was asked about, by what they have in common with others."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[Hashable, BandFile] = {}

    def find(self, path: str, asked: str) -> BandFile | None:
        """Tell what a file is from one that is like it.

        Args:
            path: A local file without sidecars.
            asked: What else decides how a header is understood.

        Returns:
            What GDAL would say of it, or None where no file like it is known.
        """
        header = read_header(path)
        known = self._known.get((header.alike, asked)) if header is not None else None
        if header is None or known is None or header.transform is None:
            return None
        grid = PixelGrid(known.grid.crs, header.transform, header.height, header.width)
        return replace(known, path=path, grid=grid, sources=(path,), tags=dict(known.tags))

    def keep(self, file: BandFile, asked: str) -> None:
        """Learn what GDAL says of a file without sidecars.

        Args:
            file: What it said.
            asked: As for :meth:`find`.
        """
        header = read_header(file.path) if file.sources == (file.path,) else None
        place = file.grid.transform, file.grid.height, file.grid.width
        # otherwise it is placed in a way that is not understood here
        if header is not None and (header.transform, header.height, header.width) == place:
            self._known.setdefault((header.alike, asked), file)


def read_header(path: str) -> Header | None:
    """Read the tags of a little-endian TIFF or BigTIFF.

    Args:
        path: Local file.

    Returns:
        What they say, or None where the file is another one, or damaged.
    """
    return parse_file(path, lambda content, _: _parse(content), _LONGEST)


def _parse(content: Content) -> Header | None:
    found = first_directory(content)
    if found is None:
        return None
    start, big = found
    tags, following = read_directory(content, start, big, PLACES)
    width, height = (int.from_bytes(tags[tag][2], 'little') for tag in (_WIDTH, _HEIGHT))
    parts: list[Any] = []
    while following:
        if len(parts) == _MOST_PARTS:
            return None
        part, following = read_directory(content, following, big, PLACES)
        parts.append(part.get(_SUBFILE))
    common: list[Any] = [(tag, *value) for tag, value in sorted(tags.items()) if tag not in _OWN]
    if _TILE_WIDTH not in tags:  # the layout of stripes goes with the size
        common.append((height, width))
    return Header((big, tuple(common), tuple(parts)), height, width, _transform(tags))


def _transform(tags: dict[int, Tag]) -> Affine | None:
    """Geotransform of a north-up file whose one tie point is its corner."""
    scale, tie = doubles(tags, PIXEL_SCALE, 3), doubles(tags, TIE_POINT, 6)
    if not scale or not tie or any(tie[:3]) or scale[0] <= 0 or scale[1] <= 0:
        return None
    return Affine(scale[0], 0.0, tie[3], 0.0, -scale[1], tie[4])
