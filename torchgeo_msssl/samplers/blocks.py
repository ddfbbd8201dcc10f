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

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError


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
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.size == 0 or (shares <= 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise ConfigurationError(f'fractions: expected positive numbers with a sum of 1, got {tuple(fractions)}.')
    if block_size < 1:
        raise ConfigurationError(f'block_size: expected at least 1 pixel, got {block_size}.')
    left, _, _, top = dataset.index.total_bounds
    width, height = block_size * dataset.res[0], block_size * dataset.res[1]
    ground = shapely.union_all(dataset.index.geometry.to_numpy())
    shapely.prepare(ground)
    col, row = _cells(shapely.bounds(dataset.index.geometry.to_numpy()), left, top, width, height)
    blocks = shapely.box(left + col * width, top - (row + 1) * height, left + (col + 1) * width, top - row * height)
    blocks = blocks[shapely.area(shapely.intersection(blocks, ground)) > 0]
    counts = _deal(len(blocks), shares)
    if (counts == 0).any():
        msg = (
            f'block_size: blocks of {block_size} pixels give {len(blocks)} block(s) for {len(shares)} regions of '
            f'shares {tuple(fractions)}; use smaller blocks.'
        )
        raise ConfigurationError(msg)
    order = np.random.default_rng(seed).permutation(len(blocks))
    parts = np.split(order, np.cumsum(counts)[:-1])
    return [_region(blocks[np.sort(part)]) for part in parts]


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
