"""Regions of ground for training, validation and test."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.ground.area import Ground, Polygons, cut_to
from torchgeo_msssl.geo.ground.assignment import assign, check_fractions
from torchgeo_msssl.geo.ground.blocks import BlockGrid, Cells, chances
from torchgeo_msssl.geo.ground.class_fractions import class_fractions
from torchgeo_msssl.geo.ground.file import read_split
from torchgeo_msssl.geo.ground.parts import PARTS, part_names

if TYPE_CHECKING:  # imports geopandas, which takes longer than chipping a small scene
    from torchgeo_msssl.geo.labels.source import LabelSource

#: Blocks along the longest side of a group of scenes, in which its classes are counted.
_BLOCKS_OF_GROUP = 8

type Regions = dict[str, BaseGeometry]


def split_ground(
    ground: Ground,
    split: str | os.PathLike[str],
    fractions: Sequence[float],
    block_size: int,
    seed: int,
    labels: 'LabelSource | None' = None,
    gap: float = 0,
    needed: Sequence[str] = PARTS,
) -> Regions:
    """Divide ground into regions for training, validation and test.

    Args:
        ground: The ground of scenes.
        split: ``blocks``; ``scenes``, so that whole scenes are held out; or a file of regions or scenes, see
            :func:`~torchgeo_msssl.geo.ground.file.read_split`.
        fractions: Fractions of training, validation and test; see :func:`~torchgeo_msssl.geo.ground.file.part_names`.
        block_size: Side of a block in pixels.
        seed: Seed of the assignment.
        labels: Labels whose classes are balanced between the parts; None balances the area alone.
        gap: Pixels between the regions, see :func:`keep_apart`.
        needed: Parts that a file must have.

    Returns:
        Regions in the CRS of the ground by the name of the part.

    Raises:
        ConfigurationError: If there is too little ground for the parts, or the file does not fit.
    """
    names = part_names(fractions)
    fractions = [fraction for fraction in fractions if fraction > 0]
    if split == 'blocks':
        parts = split_blocks(ground, fractions, block_size, seed, labels)
    elif split == 'scenes':
        parts = split_scenes(ground, fractions, seed, labels)
    else:
        return keep_apart(read_split(split, ground, needed), ground, gap)
    return keep_apart(dict(zip(names, parts, strict=True)), ground, gap)


def split_blocks(
    ground: Ground,
    fractions: Sequence[float],
    block_size: int,
    seed: int,
    labels: 'LabelSource | None' = None,
    within: BaseGeometry | None = None,
) -> list[MultiPolygon]:
    """Assign blocks of ground to regions that have no ground in common.

    Args:
        ground: The ground of scenes.
        fractions: Fraction for each region, positive, with a sum of 1.
        block_size: Side of a block in pixels.
        seed: Seed of the assignment.
        labels: Labels whose classes are balanced, or None.
        within: Assign only the parts of blocks inside this region; None for whole blocks.

    Returns:
        One region for each fraction.

    Raises:
        ConfigurationError: If the fractions are not shares of 1, or there are fewer blocks than regions.
    """
    check_fractions(fractions)
    if within is not None:
        ground = ground.within(within)
    blocks = BlockGrid(ground, block_size)
    cells = blocks.cells()
    if len(cells) < len(fractions):
        msg = (
            f'block_size: blocks of {block_size} pixels give {len(cells)} block(s) for {len(fractions)} regions with '
            f'fractions {tuple(fractions)}; use smaller blocks.'
        )
        raise ConfigurationError(msg)
    parts = assign(_totals(blocks, cells, labels), fractions, chances(cells, seed).tolist())
    boxes = blocks.boxes(cells) if within is None else cut_to(blocks.boxes(cells), within)
    return _regions(boxes, parts, len(fractions))


def split_scenes(
    ground: Ground, fractions: Sequence[float], seed: int, labels: 'LabelSource | None' = None
) -> list[MultiPolygon]:
    """Assign whole scenes to regions; scenes that overlap (other dates, neighbouring tiles) stay together.

    Args:
        ground: The ground of scenes.
        fractions: Fraction for each region, positive, with a sum of 1.
        seed: Seed of the assignment.
        labels: Labels whose classes are balanced, or None.

    Returns:
        One region for each fraction.

    Raises:
        ConfigurationError: If the fractions are not shares of 1, or there are fewer groups of scenes than regions.
    """
    check_fractions(fractions)
    groups = ground.groups
    if len(groups) < len(fractions):
        msg = (
            f'split: the scenes form {len(groups)} group(s) that do not overlap, too few for {len(fractions)} regions '
            f'with fractions {tuple(fractions)}; split by blocks, or name the regions in a file.'
        )
        raise ConfigurationError(msg)
    places = BlockGrid(ground, 1).cells_at(shapely.get_coordinates(shapely.centroid(groups)))
    if labels is None:  # there may be thousands of groups
        totals = shapely.area(groups)[:, None]
    else:
        totals = np.stack([_group_totals(ground.within(group), labels) for group in groups])
    return _regions(groups, assign(totals, fractions, chances(places, seed).tolist()), len(fractions))


def keep_apart(regions: Mapping[str, BaseGeometry], ground: Ground, gap: float) -> Regions:
    """Shrink regions so that a gap lies between them: training yields to validation, and both yield to test.

    Args:
        regions: Regions by the name of the part, in the order of ``PARTS``.
        ground: The ground of scenes.
        gap: Smallest distance between regions in pixels of the ground.

    Returns:
        The regions; the last one is unchanged.

    Raises:
        ConfigurationError: If the gap is negative, or leaves nothing of a region.
    """
    if gap < 0:
        raise ConfigurationError(f'gap: expected 0 pixels or more, got {gap}.')
    if gap == 0:
        return dict(regions)
    apart: Regions = {}
    for name in reversed(list(regions)):
        region = regions[name]
        near = [_widened(other, ground, gap) for other in apart.values()]
        apart[name] = region.difference(shapely.union_all(near)) if near else region
        if apart[name].is_empty:
            msg = f'gap: a gap of {gap:g} pixels leaves nothing of {name}; use a smaller gap, or larger blocks.'
            raise ConfigurationError(msg)
    return {name: apart[name] for name in regions}


def _widened(region: BaseGeometry, ground: Ground, gap: float) -> BaseGeometry:
    """A region and the ground that is less than a gap from it; pixels need not be square."""
    pixel = np.asarray(ground.pixel)
    plane = shapely.transform(region, lambda xy: xy / pixel).buffer(gap, join_style='mitre')
    return shapely.transform(plane, lambda xy: xy * pixel)


def _totals(blocks: BlockGrid, cells: Cells, labels: 'LabelSource | None') -> NDArray[np.float64]:
    """Fractions of each block that are balanced: the ground, and each class; shape (block, quantity)."""
    area = blocks.areas(cells)[:, None]
    return area if labels is None else np.hstack([area, class_fractions(labels, blocks, cells)])


def _group_totals(ground: Ground, labels: 'LabelSource') -> NDArray[np.float64]:
    """Area of the ground of a group of scenes, and of each class on it; shape (quantity,)."""
    left, bottom, right, top = ground.union.bounds
    longest = max((right - left) / ground.pixel[0], (top - bottom) / ground.pixel[1])
    blocks = BlockGrid(ground, max(1, round(longest / _BLOCKS_OF_GROUP)))
    totals: NDArray[np.float64] = _totals(blocks, blocks.cells(), labels).sum(axis=0)
    return totals * blocks.sides[0] * blocks.sides[1]


def _regions(polygons: Polygons, parts: NDArray[np.int64], count: int) -> list[MultiPolygon]:
    """Union of the polygons of each part."""
    unions = [shapely.union_all(polygons[parts == part]) for part in range(count)]
    return [union if isinstance(union, MultiPolygon) else MultiPolygon([union]) for union in unions]
