"""Selection of the windows of scenes that become chips."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ChipSizeError
from torchgeo_msssl.geo.chipping.options import ALL, ChipOptions, Edge
from torchgeo_msssl.geo.grid import Window, covering_offsets
from torchgeo_msssl.geo.scene import Scene

Rejection = Literal['', 'data', 'labels', 'empty']


@dataclass(frozen=True, order=True)
class Chip:
    """A window of a scene that may become a chip.

    Attributes:
        scene: Index of the scene.
        window: Window on the scene's grid.
        part: Part of the split it belongs to, or ``all``.
    """

    scene: int
    window: Window
    part: str = ALL

    def stem(self, scene: Scene) -> str:
        """Return the name of its files without suffix.

        Rows and columns have at least five digits: ``ortho_2048_1024`` would be parsed as a date, and an offset of
        digital numbers be derived from it.
        """
        return f'{scene.name}_{self.window.row:05d}_{self.window.col:05d}'

    def chance(self, scene: Scene, seed: int) -> float:
        """Return a number from 0 to 1 that depends only on the seed, the name of the scene and the window."""
        text = f'{seed}/{scene.name}/{self.window.row}/{self.window.col}'
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / 2**56


@dataclass(frozen=True)
class Facts:
    """Content of a chip.

    Attributes:
        valid: Number of pixels that are valid in every band.
        classes: Number of valid pixels of each class; empty without labels.
        moments: Count, mean, sum of squared deviations, minimum and maximum of the sampled pixels of each band, shape
            (5, band); None if no pixel was read.
    """

    valid: int
    classes: tuple[int, ...] = ()
    moments: NDArray[np.float64] | None = field(default=None, compare=False)


def axis_offsets(extent: int, size: int, stride: int, edge: Edge) -> list[int]:
    """Compute the offsets of chips along an axis.

    Args:
        extent: Length of the axis in pixels, at least 1.
        size: Side of a chip in pixels.
        stride: Pixels from one chip to the next, 1 to ``size``.
        edge: ``pad``: the last chip may reach beyond the axis; ``shift``: it is shifted to end with the axis; ``drop``:
            it is left out.

    Returns:
        Ascending offsets; with ``pad`` and ``shift`` the chips cover the axis.
    """
    covering = covering_offsets(extent, size, stride)
    if edge == 'shift':
        return covering
    regular = [i * stride for i in range(len(covering))]
    return regular if edge == 'pad' else [offset for offset in regular if offset + size <= extent]


def chips_of(scene: Scene, index: int, options: ChipOptions) -> list[Chip]:
    """Divide the grid of a scene into windows.

    Args:
        scene: Scene.
        index: Its index.
        options: Size, stride and handling of the border.

    Returns:
        Chips, row by row.

    Raises:
        ChipSizeError: If the scene is smaller than a chip: in both directions, or in one where ``edge`` does not pad.
    """
    grid, size = scene.grid, options.chip_size
    along_one = max(grid.height, grid.width) >= size
    if min(grid.height, grid.width) < size and not (along_one and options.edge == 'pad'):
        remedy = ', or edge pad, which fills chips with nodata' if along_one else ''
        msg = (
            f'chip_size: {scene.path} has {grid.height} × {grid.width} pixels, less than a chip of {size} × {size}; '
            f'choose a smaller one{remedy}.'
        )
        raise ChipSizeError(msg)
    rows = axis_offsets(grid.height, size, options.step, options.edge)
    cols = axis_offsets(grid.width, size, options.step, options.edge)
    return [Chip(index, Window(row, col, size, size)) for row in rows for col in cols]


def lacks_data(chip: Chip, valid: int, options: ChipOptions) -> bool:
    """Return whether a number of valid pixels is too small for a chip."""
    return valid < options.min_valid * chip.window.area


def rejection(chip: Chip, scene: Scene, facts: Facts, foreground: Sequence[bool], options: ChipOptions) -> Rejection:
    """Decide by its content whether a chip is kept.

    Args:
        chip: The chip.
        scene: Its scene.
        facts: Its content.
        foreground: Whether each class is not background; empty without labels.
        options: Options of the chips.

    Returns:
        An empty text for a chip that is kept, else the reason why it is not: too few valid pixels (``data``), too few
        labelled valid pixels (``labels``), or a chip without a foreground class that was not selected (``empty``).
    """
    if lacks_data(chip, facts.valid, options):
        return 'data'
    if sum(facts.classes) < options.min_labelled * chip.window.area:
        return 'labels'
    empty = bool(foreground) and not any(n for n, is_object in zip(facts.classes, foreground, strict=True) if is_object)
    return 'empty' if empty and chip.chance(scene, options.seed) >= options.keep_empty else ''
