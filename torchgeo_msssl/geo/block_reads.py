"""Windows of one scene read together, so that each stored block is decoded once.

Windows that touch the same block share it: the part of it that any of them needs is read once and copied to all.
What comes out does not depend on the company a window is read in.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene

#: A window's pixels (band, height, width), and where they have data (height, width).
type Place = tuple[NDArray[Any], NDArray[np.bool_]]

#: Blocks are taken together up to this length, in pixels: each read has a price of its own.
_UNIT = 256
#: Larger units (a file that is one block) are not shared, so that memory stays bounded.
_MOST_BYTES = 64_000_000


def read_windows(scene: Scene, windows: Sequence[Window], bands: Sequence[str], places: Sequence[Place]) -> None:
    """Read windows of a scene into arrays.

    Args:
        scene: Scene.
        windows: Windows inside its grid.
        bands: Canonical names, in the order wanted.
        places: Takes image and validity of each window.

    Raises:
        BandError: If a band is missing.
        SceneReadError: If the scene is damaged there.
    """
    touched = _touched(scene, windows, bands)
    shared = {unit for unit, users in touched.items() if len(users) > 1}
    pieces = {user for unit in shared for user in touched[unit]}
    for k in sorted(set(range(len(windows))) - pieces, key=lambda k: windows[k]):
        scene.read_into(windows[k], bands, *places[k])
    room: NDArray[Any] = np.empty(0, dtype=scene.dtype)  # one for all units: fresh memory costs as much as a copy
    for unit in sorted(touched):
        users = [k for k in touched[unit] if k in pieces]
        if users:
            room = _read_unit(scene, unit, [windows[k] for k in users], bands, [places[k] for k in users], room)


def _touched(scene: Scene, windows: Sequence[Window], bands: Sequence[str]) -> dict[Window, list[int]]:
    """Units of blocks, with the windows that touch them; nothing where sharing them would not pay or not be exact."""
    height, width = (_unit(block) for block in scene.block_shape)
    size = min(height, scene.grid.height) * min(width, scene.grid.width) * len(bands) * scene.dtype.itemsize
    if len(windows) < 2 or not scene.is_stored or size > _MOST_BYTES:
        return {}
    touched: dict[Window, list[int]] = {}
    for k, window in enumerate(windows):
        for row in range(window.row // height, (window.row + window.height - 1) // height + 1):
            for col in range(window.col // width, (window.col + window.width - 1) // width + 1):
                touched.setdefault(Window(row * height, col * width, height, width), []).append(k)
    return touched


def _unit(block: int) -> int:
    return block * max(1, _UNIT // block)


def _read_unit(
    scene: Scene,
    unit: Window,
    windows: Sequence[Window],
    bands: Sequence[str],
    places: Sequence[Place],
    room: NDArray[Any],
) -> NDArray[Any]:
    """Read what some windows need of a unit into a room that grows with what is asked, and copy it to their places."""
    parts = [part for window in windows if (part := window.intersection(unit)) is not None]
    row, col = min(part.row for part in parts), min(part.col for part in parts)
    height = max(part.row + part.height for part in parts) - row
    width = max(part.col + part.width for part in parts) - col
    if room.size < len(bands) * height * width:
        room = np.empty(len(bands) * height * width, dtype=scene.dtype)
    pixels = room[: len(bands) * height * width].reshape(len(bands), height, width)
    ok = np.empty((height, width), dtype=np.bool_)
    scene.read_into(Window(row, col, height, width), bands, pixels, ok)
    for window, part, (image, valid) in zip(windows, parts, places, strict=True):
        to, of = _slices(part, window.row, window.col), _slices(part, row, col)
        image[:, *to] = pixels[:, *of]
        valid[to] = ok[of]
    return room


def _slices(part: Window, row: int, col: int) -> tuple[slice, slice]:
    """Where a part lies in an array whose first pixel is at this row and column."""
    top, left = part.row - row, part.col - col
    return slice(top, top + part.height), slice(left, left + part.width)
