"""Reads of several windows of a scene that decode each stored block once.

Windows that touch the same block share it: the part of it that any of them needs is read once and copied to all. The
pixels of a window do not depend on the other windows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene

#: Arrays for the pixels of a window (band, height, width), and for its mask of pixels with data (height, width).
type Target = tuple[NDArray[Any], NDArray[np.bool_]]

#: Side in pixels up to which blocks are combined into units, since every read has a fixed cost.
_UNIT = 256
#: Larger units (such as a file with a single block) are not shared, to limit memory.
_MOST_BYTES = 64_000_000


def read_windows(scene: Scene, windows: Sequence[Window], bands: Sequence[str], targets: Sequence[Target]) -> None:
    """Read windows of a scene into arrays.

    Args:
        scene: Scene.
        windows: Windows inside its grid.
        bands: Canonical names, in the order of the arrays.
        targets: Arrays of each window.

    Raises:
        BandError: If a band is missing.
        SceneReadError: If the scene is damaged there.
    """
    touched = _touched_units(scene, windows, bands)
    shared = {unit for unit, users in touched.items() if len(users) > 1}
    sharing = {user for unit in shared for user in touched[unit]}
    for k in sorted(set(range(len(windows))) - sharing, key=lambda k: windows[k]):
        scene.read_into(windows[k], bands, *targets[k])
    buffer: NDArray[Any] = np.empty(0, dtype=scene.dtype)  # for all units, as fresh memory costs as much as a copy
    for unit in sorted(touched):
        users = [k for k in touched[unit] if k in sharing]
        if users:
            buffer = _read_unit(scene, unit, [windows[k] for k in users], bands, [targets[k] for k in users], buffer)


def _touched_units(scene: Scene, windows: Sequence[Window], bands: Sequence[str]) -> dict[Window, list[int]]:
    """Return the windows that touch each unit of blocks; nothing if sharing would not pay or not be exact."""
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
    targets: Sequence[Target],
    buffer: NDArray[Any],
) -> NDArray[Any]:
    """Read the part of a unit that windows need, and copy it to their arrays; return the buffer, enlarged if needed."""
    parts = [part for window in windows if (part := window.intersection(unit)) is not None]
    row, col = min(part.row for part in parts), min(part.col for part in parts)
    height = max(part.row + part.height for part in parts) - row
    width = max(part.col + part.width for part in parts) - col
    if buffer.size < len(bands) * height * width:
        buffer = np.empty(len(bands) * height * width, dtype=scene.dtype)
    pixels = buffer[: len(bands) * height * width].reshape(len(bands), height, width)
    has_data = np.empty((height, width), dtype=np.bool_)
    scene.read_into(Window(row, col, height, width), bands, pixels, has_data)
    for window, part, (image, valid) in zip(windows, parts, targets, strict=True):
        target, source = _slices(part, window.row, window.col), _slices(part, row, col)
        image[:, *target] = pixels[:, *source]
        valid[target] = has_data[source]
    return buffer


def _slices(part: Window, row: int, col: int) -> tuple[slice, slice]:
    """Return the slices of a part in an array whose first pixel is at this row and column."""
    top, left = part.row - row, part.col - col
    return slice(top, top + part.height), slice(left, left + part.width)
