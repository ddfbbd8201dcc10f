"""Fractions of blocks of ground that the classes of labels cover."""

from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.ground.area import Ground
from torchgeo_msssl.geo.ground.blocks import BlockGrid, Cells

if TYPE_CHECKING:  # imports geopandas, which takes longer than chipping a small scene
    from torchgeo_msssl.geo.labels.source import LabelSource

#: Points along the side of a block at which its class is looked up.
_POINTS = 64
#: Neighbouring blocks that are looked up at once.
_AT_ONCE = 32


def class_fractions(labels: 'LabelSource', blocks: BlockGrid, cells: Cells) -> NDArray[np.float64]:
    """Estimate which fraction of each block the classes cover, from regularly spaced points.

    Ground counts once, however many scenes show it, and neither bands nor the order or the pixels of the scenes
    matter, so that all commands find the same fractions.

    Args:
        labels: LabelSource of the ground; where they have dates, those of all dates.
        blocks: The grid of blocks.
        cells: Row and column of each block, sorted, shape (block, 2).

    Returns:
        Fraction of the block that lies on a scene and is labelled with a class, shape (block, class).

    Raises:
        ConfigurationError: If a label raster holds a value that is no class.
        SceneReadError: If a label raster is damaged.
    """
    points, count = min(_POINTS, blocks.block_size), len(labels.class_names)
    fractions = np.zeros((len(cells), count))
    start = 0
    while start < len(cells):
        stop = start + 1
        while stop < min(start + _AT_ONCE, len(cells)) and _adjoin(cells[stop - 1], cells[stop]):
            stop += 1
        mask, covered = _looked_up(labels, blocks, cells[start:stop], points)
        for i, part in enumerate(range(0, mask.shape[1], points), start=start):
            columns = slice(part, part + points)
            values = mask[:, columns][covered[:, columns]]
            fractions[i] = np.bincount(values[values < count], minlength=count) / points**2
        start = stop
    return fractions


def _adjoin(west: NDArray[np.int64], east: NDArray[np.int64]) -> bool:
    return bool(west[0] == east[0] and west[1] + 1 == east[1])


def _looked_up(
    labels: 'LabelSource', blocks: BlockGrid, strip: Cells, points: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Class at each point of a row of neighbouring blocks, and whether it lies on a scene."""
    (left, _, _, top), (width, height) = shapely.bounds(blocks.boxes(strip[:1]))[0], blocks.sides
    transform = Affine(width / points, 0, left, 0, -height / points, top)
    grid = PixelGrid(blocks.ground.crs, transform, points, points * len(strip))
    return labels.burn(grid, grid.window), _covered(blocks.ground, grid)


def _covered(ground: Ground, grid: PixelGrid) -> NDArray[np.bool_]:
    """Whether the centre of each pixel lies on a scene."""
    shape = grid.height, grid.width
    return np.asarray(rasterize([ground.union], shape, transform=grid.transform, dtype='uint8'), dtype=np.bool_)
