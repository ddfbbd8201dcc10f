"""Split the ground into blocks for training, validation and test.

Chips that overlap, or touch, share texture and illumination; a random split of chips therefore measures memory.
Blocks of ground are apart whatever date or scene shows them (Roberts et al. 2017,
https://doi.org/10.1111/ecog.02881).
"""

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError

#: Share of a block below which what a region leaves of it is no block.
_SLIVER = 1e-3


def split_blocks(
    dataset: Scenes, fractions: Sequence[float] = (0.7, 0.15, 0.15), block_size: int = 512, seed: int = 0
) -> list[MultiPolygon]:
    """Deal blocks of ground out to regions that have no ground in common.

    Args:
        dataset: Scenes whose ground is split; all dates of a place come to the same region.
        fractions: Share of the blocks for each region, positive, with a sum of 1.
        block_size: Side of a block in pixels of the dataset's resolution.
        seed: Of the deal.

    Returns:
        One region for each fraction, in the dataset's CRS, for the ``roi`` of a sampler.

    Raises:
        ConfigurationError: If the fractions are not shares of 1, or there are fewer blocks than regions.
    """
    boxes = ground_blocks(dataset, block_size)
    parts = _dealt(len(boxes), fractions, seed)
    if parts is None:
        msg = (
            f'block_size: blocks of {block_size} pixels give {len(boxes)} block(s) for {len(fractions)} regions of '
            f'shares {tuple(fractions)}; use smaller blocks.'
        )
        raise ConfigurationError(msg)
    return [_region(boxes[part]) for part in parts]


def split_scenes(dataset: Scenes, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0) -> list[MultiPolygon]:
    """Deal whole scenes out to regions, so that what is measured is how well a network does on other ground.

    Scenes that overlap (other dates, neighbouring tiles) stay together.

    Args:
        dataset: Scenes.
        fractions: Share of the scenes for each region, positive, with a sum of 1.
        seed: Of the deal.

    Returns:
        One region for each fraction, in the dataset's CRS.

    Raises:
        ConfigurationError: If the fractions are not shares of 1, or there are fewer groups of scenes than regions.
    """
    ground = np.array(list(_region(dataset.index.geometry.to_numpy()).geoms))
    parts = _dealt(len(ground), fractions, seed)
    if parts is None:
        msg = (
            f'split: scenes that share no ground make {len(ground)} group(s), too few for {len(fractions)} regions of '
            f'shares {tuple(fractions)}; split by blocks, or name the regions in a file.'
        )
        raise ConfigurationError(msg)
    return [_region(ground[part]) for part in parts]


def ground_blocks(dataset: Scenes, block_size: int, region: BaseGeometry | None = None) -> NDArray[np.object_]:
    """Blocks of ground with scenes on them, on a grid that begins in the north-west corner of all scenes.

    Args:
        dataset: Scenes.
        block_size: Side of a block in pixels of the dataset's resolution.
        region: What the blocks are cut to (in the dataset's CRS); None for whole blocks.

    Returns:
        Polygons, row by row from the north.

    Raises:
        ConfigurationError: If the size is not positive.
    """
    if block_size < 1:
        raise ConfigurationError(f'block_size: expected at least 1 pixel, got {block_size}.')
    left, _, _, top = dataset.index.total_bounds
    width, height = block_size * dataset.res[0], block_size * dataset.res[1]
    ground = shapely.union_all(dataset.index.geometry.to_numpy())
    shapely.prepare(ground)
    col, row = _cells(shapely.bounds(dataset.index.geometry.to_numpy()), left, top, width, height)
    boxes = shapely.box(left + col * width, top - (row + 1) * height, left + (col + 1) * width, top - row * height)
    boxes = boxes[shapely.area(shapely.intersection(boxes, ground)) > 0]
    if region is not None:
        boxes = shapely.intersection(boxes, region)
        # a sliver along the border of two regions holds no chip, but would count as a block
        boxes = boxes[shapely.area(boxes) > _SLIVER * width * height]
    return boxes


def _dealt(count: int, fractions: Sequence[float], seed: int) -> list[NDArray[np.int64]] | None:
    """Numbers below ``count`` for each region, or None where a region would have none."""
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.size == 0 or (shares <= 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ConfigurationError(f'fractions: expected positive numbers with a sum of 1, got {tuple(fractions)}.')
    counts = _deal(count, shares)
    if (counts == 0).any():
        return None
    order = np.random.default_rng(seed).permutation(count)
    return [np.sort(part) for part in np.split(order, np.cumsum(counts)[:-1])]


def _cells(
    boxes: NDArray[np.float64], left: float, top: float, width: float, height: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns and rows of the blocks under any box; scenes may lie far apart, so the gaps are not gone through."""
    found: set[tuple[int, int]] = set()
    for x0, y0, x1, y1 in boxes:
        columns = range(int((x0 - left) // width), int(np.ceil((x1 - left) / width)))
        rows = range(int((top - y1) // height), int(np.ceil((top - y0) / height)))
        found.update((row, col) for row in rows for col in columns)
    row, col = np.array(sorted(found), dtype=np.int64).T
    return col, row


def _region(blocks: NDArray[np.object_]) -> MultiPolygon:
    """Blocks as one valid geometry: neighbours, which share an edge, become one polygon."""
    union = shapely.union_all(blocks)
    return union if isinstance(union, MultiPolygon) else MultiPolygon([union])


def _deal(blocks: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers that add up to ``blocks``, by largest remainder."""
    exact = blocks * shares
    counts = np.floor(exact).astype(int)
    largest = np.argsort(-(exact - counts), kind='stable')
    counts[largest[: blocks - counts.sum()]] += 1
    return counts
