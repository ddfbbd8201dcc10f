"""Headers of GeoTIFFs that differ from a known one only in position and size.

GDAL takes about one millisecond to open a file. Of many files with identical tags, GDAL opens only the first. The
headers of the others are derived from it, with position and size from their own tags.
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

_WIDTH, _HEIGHT, _SUBFILE, _TILE_WIDTH = 256, 257, 254, 322
#: Tags in which similar files differ.
_OWN = frozenset({_WIDTH, _HEIGHT, TIE_POINT})

#: Longest tag that is compared, in bytes, and largest number of parts (overviews, masks) of a file.
_LONGEST, _MOST_PARTS = 1_000_000, 32


@dataclass(frozen=True)
class Header:
    """Header of a file according to its tags.

    Attributes:
        common: Equal in files that differ only in position and size.
        height: Number of rows.
        width: Number of columns.
        transform: Geotransform, if the tags give a corner and a pixel size.
    """

    common: Hashable
    height: int
    width: int
    transform: Affine | None


class SimilarHeaders:
    """Headers from GDAL, by the tags that they have in common with other files."""

    def __init__(self) -> None:
        self._known: dict[Hashable, BandFile] = {}

    def find(self, path: str, options: str) -> BandFile | None:
        """Derive the header of a file from that of a similar one.

        Args:
            path: A local file without sidecar files.
            options: Text that the interpretation of headers depends on.

        Returns:
            The header that GDAL would give, or None if no similar file is known.
        """
        header = read_header(path)
        known = self._known.get((header.common, options)) if header is not None else None
        if header is None or known is None or header.transform is None:
            return None
        grid = PixelGrid(known.grid.crs, header.transform, header.height, header.width)
        return replace(known, path=path, grid=grid, sources=(path,), tags=dict(known.tags))

    def keep(self, file: BandFile, options: str) -> None:
        """Store a header from GDAL.

        Args:
            file: Header of a file without sidecar files.
            options: See :meth:`find`.
        """
        header = read_header(file.path) if file.sources == (file.path,) else None
        grid = file.grid.transform, file.grid.height, file.grid.width
        # otherwise its georeference is of a kind that is not understood here
        if header is not None and (header.transform, header.height, header.width) == grid:
            self._known.setdefault((header.common, options), file)


def read_header(path: str) -> Header | None:
    """Read the tags of a little-endian TIFF or BigTIFF; return None for damaged files and other formats."""
    return parse_file(path, _parse, _LONGEST)


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
    if _TILE_WIDTH not in tags:  # the layout of strips depends on the size
        common.append((height, width))
    return Header((big, tuple(common), tuple(parts)), height, width, _transform(tags))


def _transform(tags: dict[int, Tag]) -> Affine | None:
    """Return the geotransform of a north-up file whose only tie point is its corner."""
    scale, tie = doubles(tags, PIXEL_SCALE, 3), doubles(tags, TIE_POINT, 6)
    if not scale or not tie or any(tie[:3]) or scale[0] <= 0 or scale[1] <= 0:
        return None
    return Affine(scale[0], 0.0, tie[3], 0.0, -scale[1], tie[4])
