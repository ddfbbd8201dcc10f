"""Whether a TIFF has all of its blocks, told by its tags alone.

GDAL opens a file that was cut short as if nothing were wrong and fails at the first block that is missing, which may be
an hour later.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo.open_datasets import is_remote
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.tags import (
    STRIP_LENGTHS,
    STRIP_OFFSETS,
    TILE_LENGTHS,
    TILE_OFFSETS,
    Content,
    Tag,
    first_directory,
    parse_file,
    read_directory,
)

#: Types of TIFF that whole numbers of places and lengths have.
_NUMBERS = {3: '<u2', 4: '<u4', 16: '<u8'}
#: More parts (image, mask, overviews of both) than files have; a chain that is longer is damaged.
_MOST_PARTS = 64


def check_whole(scene: Scene) -> None:
    """See that no file of a scene was cut short.

    Args:
        scene: The scene.

    Raises:
        SceneReadError: If one was.
    """
    for file in scene.files:
        missing = 0 if is_remote(file.path) else missing_bytes(file.path)
        if missing:
            msg = (
                f'{file.path}: was cut short, at least {missing:,} bytes of its pixels are missing; copy or download '
                'it again, or leave it out.'
            )
            raise SceneReadError(msg)


def missing_bytes(path: str | Path) -> int:
    """Count how many bytes a file would have to be longer at least to hold all blocks that it tells of.

    Args:
        path: Local file that GDAL opens.

    Returns:
        The bytes; 0 where nothing is missing, and for files of another format, whose blocks are not known here.
    """
    return parse_file(path, lambda content, size: max(0, _end_of_blocks(content, size) - size)) or 0


def _end_of_blocks(content: Content, size: int) -> int:
    """Where the last block of any part of a file of this size ends."""
    found = first_directory(content)
    if found is None:
        return 0
    start, big = found
    tags, following = read_directory(content, start, big)
    end = _last_end(tags)
    for _ in range(_MOST_PARTS):
        if not following:
            break
        try:
            tags, following = read_directory(content, following, big)
        except IndexError:  # a mask or overview that GDAL takes no notice of
            return max(end, size + 1)
        end = max(end, _last_end(tags))
    return end


def _last_end(tags: Mapping[int, Tag]) -> int:
    """Where the last block of a part ends."""
    end = 0
    for place, length in ((TILE_OFFSETS, TILE_LENGTHS), (STRIP_OFFSETS, STRIP_LENGTHS)):
        if place in tags and length in tags:
            offsets, sizes = (
                np.frombuffer(tags[tag][2], _NUMBERS[tags[tag][0]]).astype(np.uint64) for tag in (place, length)
            )
            there = sizes > 0  # blocks without pixels are not written
            end = max(end, int((offsets + sizes)[there].max(initial=0)))
    return end
