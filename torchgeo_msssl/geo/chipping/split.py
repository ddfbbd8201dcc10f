"""Assignment of chips to training, validation and test by the ground that they show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.plan import Chip
from torchgeo_msssl.geo.ground.area import Ground, Polygons, outline, unplaceable
from torchgeo_msssl.geo.ground.split import split_ground
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.vector.antimeridian import cut_at_antimeridian

if TYPE_CHECKING:  # imports geopandas, which takes longer than chipping a small scene
    from torchgeo_msssl.geo.labels.source import LabelSource

#: Rounding of coordinates, in pixels.
_ROUNDING = 1e-3
#: How much the area of a scene may change in another CRS for distances there to mean something.
_DISTORTION = 0.1


@dataclass(frozen=True)
class Split:
    """Result of a split.

    Attributes:
        chips: The chips that are kept, with their parts.
        left_out: Chips that lie in no region or in several, or nearer than the gap to another part.
        regions: Ground of each part, in ``crs``.
        blocks: Blocks of ground in each part; empty where the ground is not split by blocks.
        gap: Smallest distance required between parts, in pixels.
        distance: Smallest distance between chips of different parts, in pixels; None where one part has all chips.
        pixel: Sides of those pixels, in units of ``crs``.
        crs: CRS in which distances were measured.
    """

    chips: tuple[Chip, ...]
    left_out: int
    regions: dict[str, BaseGeometry]
    blocks: dict[str, int]
    gap: float
    distance: float | None
    pixel: tuple[float, float]
    crs: CRS

    def sentence(self) -> str:
        """Describe the smallest distance between parts."""
        if self.distance is None:
            return 'All chips are in one part.'
        units = self.crs.linear_units if self.crs.is_projected else 'degree'
        length = self.distance * min(self.pixel)
        return (
            f'The smallest distance between chips of different parts is {self.distance:,.1f} pixels '
            f'({length:,.6g} {units}); the gap is {self.gap:,.0f}.'
        )


def regions_of(
    scenes: Sequence[Scene], options: ChipOptions, labels: 'LabelSource | None' = None
) -> dict[str, BaseGeometry]:
    """Split the ground of scenes; no scene is read.

    Args:
        scenes: The scenes.
        options: Split, fractions, side of a block and seed.
        labels: Labels whose classes are balanced between the parts, or None.

    Returns:
        Regions in the CRS of the first scene by the name of the part.

    Raises:
        ConfigurationError: If there are too few blocks, the file of regions does not fit, or scenes in several CRS lie
            too far apart.
    """
    assert options.split is not None
    ground = Ground.of(scenes)
    _check_distortion(scenes, ground.crs)
    return split_ground(ground, options.split, options.fractions, options.block_size, options.seed, labels)


def split_chips(
    chips: Sequence[Chip], scenes: Sequence[Scene], regions: dict[str, BaseGeometry], options: ChipOptions
) -> Split:
    """Assign chips to the parts of a split of the ground.

    Args:
        chips: Chips to assign.
        scenes: The scenes.
        regions: Regions of the parts, see :func:`regions_of`.
        options: Side of a block and gap.

    Returns:
        The split. A chip is kept if all ground on it is in the region of one part; where chips of two parts are nearer
        than the gap, those of training yield to validation, and both yield to test.

    Raises:
        ConfigurationError: If a part is left without chips.
    """
    ground = Ground.of(scenes)
    outlines = footprints(chips, scenes, ground.crs)
    part = _parts_of(outlines, regions, ground)
    outside = part < 0
    # a padded chip may reach into a block without ground, which is in no region
    part[outside] = _parts_of(shapely.intersection(outlines[outside], ground.union), regions, ground)
    plane = shapely.transform(outlines, lambda xy: xy / np.asarray(ground.pixel))
    gap = float(options.chip_gap)
    _keep_apart(plane, part, len(regions), gap)
    _check_parts(part, list(regions), options)
    names, stays = list(regions), part >= 0
    kept = tuple(replace(chip, part=names[i]) for chip, i in zip(chips, part.tolist(), strict=True) if i >= 0)
    block = options.block_size**2 * ground.pixel[0] * ground.pixel[1]
    blocks = {name: round(region.area / block) for name, region in regions.items() if options.split == 'blocks'}
    distance = smallest_distance(plane[stays], part[stays])
    return Split(kept, len(chips) - len(kept), regions, blocks, gap, distance, ground.pixel, ground.crs)


def footprints(chips: Sequence[Chip], scenes: Sequence[Scene], crs: CRS) -> Polygons:
    """Outlines of chips on the ground.

    Args:
        chips: Chips.
        scenes: Their scenes.
        crs: CRS to give them in.

    Returns:
        Polygons, shape (chip,), in two parts where they cross 180° in degrees.

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
            x, y = transform(own, crs, *corners[owner == index].reshape(-1, 2).T)
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                raise unplaceable(scenes[index].path, own, crs)
            corners[owner == index] = np.column_stack([x, y]).reshape(-1, 4, 2)
    outlines: Polygons = shapely.polygons(corners)
    placed = np.array([scene.grid.crs != crs for scene in scenes])[owner]
    outlines[placed] = cut_at_antimeridian(outlines[placed], crs)[0]
    return outlines


def _check_distortion(scenes: Sequence[Scene], crs: CRS) -> None:
    """Check that distances in one CRS mean something for all scenes."""
    for scene in scenes:
        own = scene.grid.crs
        if own == crs or not (own.is_projected and crs.is_projected):
            continue
        areas = [outline(scene.grid, each, scene.path).area for each in (crs, own)]
        if abs(areas[0] / areas[1] - 1) > _DISTORTION:
            raise unplaceable(scene.path, own, crs)


def _parts_of(polygons: Polygons, regions: dict[str, BaseGeometry], ground: Ground) -> NDArray[np.int64]:
    """Return the number of the region that covers each polygon, -1 for none; shape (polygon,)."""
    part = np.full(len(polygons), -1)
    for i, region in enumerate(regions.values()):
        widened = region.buffer(_ROUNDING * min(ground.pixel), join_style='mitre')
        shapely.prepare(widened)
        part[shapely.covers(widened, polygons)] = i
    return part


def _keep_apart(plane: Polygons, part: NDArray[np.int64], count: int, gap: float) -> None:
    """Leave out (part -1, in place) chips that are nearer than the gap to one of a later part."""
    if gap == 0:
        return
    for earlier in reversed(range(count - 1)):
        later = shapely.STRtree(plane[part > earlier])
        candidates = np.flatnonzero(part == earlier)
        near, _ = later.query(plane[candidates], predicate='dwithin', distance=gap - _ROUNDING)
        part[candidates[np.unique(near)]] = -1


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


def _check_parts(part: NDArray[np.int64], names: Sequence[str], options: ChipOptions) -> None:
    empty = [name for i, name in enumerate(names) if not (part == i).any()]
    if empty:
        msg = (
            f'split: no chip is left for {", ".join(empty)} with blocks of {options.block_size} pixels and a gap of '
            f'{options.chip_gap} pixels between the parts; choose another block_size, a smaller chip_size or gap, or '
            'more scenes.'
        )
        raise ConfigurationError(msg)
