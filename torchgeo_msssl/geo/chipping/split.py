"""Chips dealt out to training, validation and test by blocks of ground.

Chips that overlap, or lie side by side, share texture and illumination; a random split of chips therefore measures
memory. Blocks of ground are apart whatever scene or date shows them (Roberts et al. 2017,
https://doi.org/10.1111/ecog.02881).

Each block has a part by nature, drawn from its place on the ground and the seed alone. Blocks change their part only
as far as balance asks for it: one after the other the block that brings the shares of all classes nearest to what was
asked for, until they are near enough. Another scene elsewhere therefore changes the part of few blocks.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.chipping.options import PARTS, ChipOptions
from torchgeo_msssl.geo.chipping.plan import Chip
from torchgeo_msssl.geo.scene import Scene

type Polygons = NDArray[np.object_]

#: Shares of chips and classes that differ by less from what was asked for are near enough.
_NEAR_ENOUGH = 0.01
#: A change of the sum of squared shares that is rounding.
_NO_GAIN = 1e-12
#: Blocks up to which pairs of them are looked at.
_EXCHANGED = 500
#: Rounding of coordinates, in pixels.
_ROUNDING = 1e-6
#: How much an area may change on the way to another CRS for distances there to mean something.
_DISTORTION = 0.1


@dataclass(frozen=True)
class Split:
    """What a split came to.

    Attributes:
        chips: The chips that stay, with their parts.
        left_out: Chips that crossed a border between parts, or came nearer than the gap.
        blocks: Blocks of ground in each part.
        gap: Smallest distance asked for, in pixels.
        distance: Smallest distance there is between chips of different parts, in pixels; None where one part alone
            has chips.
        pixel: Sides of those pixels, in units of ``crs``.
        crs: CRS that distances were measured in.
    """

    chips: tuple[Chip, ...]
    left_out: int
    blocks: dict[str, int]
    gap: float
    distance: float | None
    pixel: tuple[float, float]
    crs: CRS

    def sentence(self) -> str:
        """The smallest distance, as people read it."""
        if self.distance is None:
            return 'All chips are in one part.'
        units = self.crs.linear_units if self.crs.is_projected else 'degree'
        length = self.distance * min(self.pixel)
        return (
            f'The smallest distance between chips of different parts is {self.distance:,.1f} pixels '
            f'({length:,.6g} {units}); asked for were {self.gap:,.0f}.'
        )


def split_chips(
    chips: Sequence[Chip], weights: NDArray[np.float64], scenes: Sequence[Scene], options: ChipOptions
) -> Split:
    """Deal chips out to the parts of a split.

    Args:
        chips: Chips that are wanted.
        weights: What is to be balanced (pixels with data, pixels of each class, …), shape (chip, quantity).
        scenes: The scenes.
        options: Shares, side of a block, seed; the gap is the side of a chip.

    Returns:
        The split.

    Raises:
        ConfigurationError: If there are too few blocks, a part is left without chips, or scenes in several CRS lie too
            far apart.
    """
    crs, pixel = scenes[0].grid.crs, _coarsest(scenes)
    plane = _in_pixels(footprints(chips, scenes, crs), pixel)
    blocks, number = np.unique(_blocks(shapely.centroid(plane), options.block), axis=0, return_inverse=True)
    shares = np.array([share for share in options.split if share > 0])
    alone = {(row, col): i for i, (row, col) in enumerate(blocks.tolist())}
    # A chip that crosses a border stays only if both sides are of one part: it is nothing that a deal can count on.
    within = ~_crosses(plane, number, alone, options.block)
    totals = np.zeros((len(blocks), weights.shape[1]))
    np.add.at(totals, number[within], weights[within])
    usable = int(totals.any(axis=1).sum())
    if usable < len(shares):
        msg = (
            f'block: {usable} block(s) of {options.block} pixels hold chips of {options.size} pixels, too few for '
            f'{len(shares)} parts; choose another block, a smaller size, or more scenes.'
        )
        raise ConfigurationError(msg)
    dealt = deal(totals, shares, [_chance(options.seed, *block) for block in blocks.tolist()])
    part_of = {(int(row), int(col)): int(part) for (row, col), part in zip(blocks, dealt, strict=True)}
    mine = np.array([part_of[int(row), int(col)] for row, col in blocks[number]])
    stays = ~_crosses(plane, mine, part_of, options.block)
    _give_way(plane, mine, stays, shares, float(options.size))
    parts = [part for part, share in zip(PARTS, options.split, strict=False) if share > 0]
    _check_parts(mine[stays], parts, options)
    kept = tuple(
        replace(chip, part=parts[part]) for chip, part, stay in zip(chips, mine.tolist(), stays, strict=True) if stay
    )
    counts = {part: int((dealt == i).sum()) for i, part in enumerate(parts)}
    distance = smallest_distance(plane[stays], mine[stays])
    return Split(kept, len(chips) - len(kept), counts, float(options.size), distance, pixel, crs)


def footprints(chips: Sequence[Chip], scenes: Sequence[Scene], crs: CRS) -> Polygons:
    """Outlines of chips on the ground.

    Args:
        chips: Chips.
        scenes: Their scenes.
        crs: CRS to give them in.

    Returns:
        Polygons, shape (chip,).

    Raises:
        ConfigurationError: If a scene cannot be placed in that CRS.
    """
    corners = np.empty((len(chips), 4, 2))
    for i, chip in enumerate(chips):
        t, w = scenes[chip.scene].grid.transform, chip.window
        rows = np.array([w.row, w.row, w.row + w.height, w.row + w.height])
        cols = np.array([w.col, w.col + w.width, w.col + w.width, w.col])
        corners[i] = np.column_stack([t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f])
    owner = np.array([chip.scene for chip in chips])
    for index in np.unique(owner).tolist():
        own = scenes[index].grid.crs
        if own != crs:
            from pyproj import Transformer  # imported here: most scenes have one CRS, and it takes its time

            move = Transformer.from_crs(own.to_wkt(), crs.to_wkt(), always_xy=True)
            x, y = move.transform(corners[owner == index, :, 0], corners[owner == index, :, 1])
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                raise _unplaced(scenes[index], crs)
            corners[owner == index] = np.stack([x, y], axis=-1)
    return shapely.polygons(corners)


def _unplaced(scene: Scene, crs: CRS) -> ConfigurationError:
    return ConfigurationError(
        f'crs: {scene.path} (in {scene.grid.crs}) cannot be placed in {crs}, so distances to it cannot be measured; '
        'bring the scenes to one CRS with --crs, or chip distant places separately.'
    )


def _coarsest(scenes: Sequence[Scene]) -> tuple[float, float]:
    """Largest pixel of all scenes, along x and y, in units of the first one's CRS."""
    crs = scenes[0].grid.crs
    sides = [scene.grid.res if scene.grid.crs == crs else _pixel_in(scenes, i, crs) for i, scene in enumerate(scenes)]
    x, y = np.max(sides, axis=0).tolist()
    return x, y


def _pixel_in(scenes: Sequence[Scene], index: int, crs: CRS) -> tuple[float, float]:
    """Sides of a scene's pixels in another CRS."""
    scene = scenes[index]
    whole = [Chip(index, scene.grid.window)]
    (own,), (there,) = footprints(whole, scenes, scene.grid.crs), footprints(whole, scenes, crs)
    if scene.grid.crs.is_projected and crs.is_projected and abs(there.area / own.area - 1) > _DISTORTION:
        raise _unplaced(scene, crs)
    corners = shapely.get_coordinates(there)
    along, down = np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(corners[3] - corners[0])
    return float(along / scene.grid.width), float(down / scene.grid.height)


def _in_pixels(polygons: Polygons, pixel: tuple[float, float]) -> Polygons:
    return shapely.transform(polygons, lambda xy: xy / np.asarray(pixel))


def _blocks(points: Polygons, side: int) -> NDArray[np.int64]:
    """Row and column of the block that each point is in, counted from the origin of the CRS; shape (point, 2)."""
    xy = shapely.get_coordinates(points)
    return np.floor(xy[:, ::-1] / side + _ROUNDING).astype(np.int64)


def _chance(seed: int, row: int, col: int) -> float:
    """A number from 0 to 1 that depends on the seed and a block's place on the ground alone."""
    return int.from_bytes(hashlib.blake2b(f'{seed}/{row}/{col}'.encode(), digest_size=7).digest()) / 2**56


def deal(totals: NDArray[np.float64], shares: NDArray[np.float64], chances: Sequence[float]) -> NDArray[np.int64]:
    """Deal blocks out so that each part has about its share of every quantity.

    Args:
        totals: Quantities in each block, shape (block, quantity).
        shares: Share of each part, with a sum of 1.
        chances: A number from 0 to 1 for each block, which decides its part by nature, and ties.

    Returns:
        Part of each block, shape (block,). Blocks without anything keep their part by nature; no part is without
        the other blocks where there are as many of them as parts.
    """
    total = totals.sum(axis=0)
    weights = totals[:, total > 0] / total[total > 0]
    full = np.flatnonzero(weights.any(axis=1))
    full = full[np.argsort(np.asarray(chances)[full], kind='stable')]
    parts = np.minimum(np.searchsorted(np.cumsum(shares), chances, side='right'), len(shares) - 1)
    parts[full] = _balanced(weights[full], shares, parts[full])
    return parts


def _balanced(weights: NDArray[np.float64], shares: NDArray[np.float64], parts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Change the parts of blocks until each part has its share (in the sense of least squares), or none helps."""
    for _ in range(4 * len(parts)):
        excess = np.array([weights[parts == part].sum(axis=0) for part in range(len(shares))]) - shares[:, None]
        counts = np.bincount(parts, minlength=len(shares))
        if np.abs(excess).max(initial=0) <= _NEAR_ENOUGH and counts.all():
            break
        pull = weights @ excess.T
        gain, block, part = _best_move(weights, pull, parts, counts)
        if gain > -_NO_GAIN and counts.all():
            gain, first, second = _best_exchange(weights, pull, parts)
            if gain > -_NO_GAIN:
                break
            parts[first], parts[second] = parts[second], parts[first]
        else:
            parts[block] = part
    return parts


def _best_move(
    weights: NDArray[np.float64], pull: NDArray[np.float64], parts: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[float, int, int]:
    """Change of the sum of squares, block and new part of the best move; an empty part comes first."""
    here = np.arange(len(parts))
    change = 2 * (weights**2).sum(axis=1)[:, None] + 2 * (pull - pull[here, parts][:, None])
    change[here, parts] = np.inf
    change[counts[parts] == 1] = np.inf  # nobody takes the last block of a part
    if not counts.all():
        change[:, counts > 0] = np.inf
    block, part = np.unravel_index(np.argmin(change), change.shape)
    return float(change[block, part]), int(block), int(part)


def _best_exchange(
    weights: NDArray[np.float64], pull: NDArray[np.float64], parts: NDArray[np.int64]
) -> tuple[float, int, int]:
    """Change of the sum of squares and the two blocks of the best exchange; among many blocks none is needed."""
    if not 2 <= len(parts) <= _EXCHANGED:
        return 0.0, 0, 0
    square, product = (weights**2).sum(axis=1), weights @ weights.T
    own, other = pull[np.arange(len(parts)), parts], pull[:, parts]
    # by how much a block pulls less where it goes to than where it is, for both of them
    change = 2 * (square[:, None] + square[None] - 2 * product) + 2 * (other + other.T - own[:, None] - own[None])
    first, second = np.unravel_index(np.argmin(change), change.shape)
    return float(change[first, second]), int(first), int(second)


def _crosses(
    plane: Polygons, mine: NDArray[np.int64], part_of: dict[tuple[int, int], int], side: int
) -> NDArray[np.bool_]:
    """Whether chips reach into a block of another part, shape (chip,)."""
    left, bottom, right, top = shapely.bounds(plane).T
    crosses = np.zeros(len(plane), dtype=np.bool_)
    slack = 2 * _ROUNDING * side
    for y in (bottom + slack, top - slack):
        for x in (left + slack, right - slack):
            there = np.floor(np.column_stack([y, x]) / side + _ROUNDING).astype(np.int64)
            parts = np.array([part_of.get((row, col), -1) for row, col in there.tolist()])
            crosses |= (parts >= 0) & (parts != mine)
    return crosses


def _give_way(
    plane: Polygons, mine: NDArray[np.int64], stays: NDArray[np.bool_], shares: NDArray[np.float64], gap: float
) -> None:
    """Leave chips out that are nearer than the gap to one of a smaller part, in place: the larger part gives way."""
    order = np.argsort(shares, kind='stable')
    for place, part in enumerate(order[1:], start=1):
        smaller = plane[stays & np.isin(mine, order[:place])]
        candidates = np.flatnonzero(stays & (mine == part))
        near, _ = shapely.STRtree(smaller).query(plane[candidates], predicate='dwithin', distance=gap - _ROUNDING)
        stays[candidates[np.unique(near)]] = False


def smallest_distance(polygons: Polygons, parts: NDArray[np.int64]) -> float | None:
    """Smallest distance between polygons of different parts.

    Args:
        polygons: Shape (n,).
        parts: Part of each, shape (n,).

    Returns:
        The distance, or None where all are of one part.
    """
    found = []
    for part in np.unique(parts)[:-1]:
        tree = shapely.STRtree(polygons[parts > part])
        _, distances = tree.query_nearest(polygons[parts == part], return_distance=True, all_matches=False)
        found.append(float(distances.min()))
    return min(found, default=None)


def _check_parts(mine: NDArray[np.int64], parts: Sequence[str], options: ChipOptions) -> None:
    empty = [part for i, part in enumerate(parts) if not (mine == i).any()]
    if empty:
        msg = (
            f'split: no chip is left for {", ".join(empty)} with blocks of {options.block} pixels and a gap of '
            f'{options.size} pixels between the parts; choose another block, a smaller size, or more scenes.'
        )
        raise ConfigurationError(msg)
