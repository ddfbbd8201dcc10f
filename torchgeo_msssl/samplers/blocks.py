"""Splits of scenes into regions for the samplers of training, validation and test chips."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.geo.ground import split
from torchgeo_msssl.geo.ground.area import Ground
from torchgeo_msssl.geo.ground.blocks import BlockGrid
from torchgeo_msssl.geo.labels.source import LabelSource


def split_blocks(
    dataset: Scenes,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    block_size: int = 512,
    seed: int = 0,
    labels: LabelSource | None = None,
    within: BaseGeometry | None = None,
) -> list[MultiPolygon]:
    """Assign blocks of ground to regions that have no ground in common.

    Args:
        dataset: Scenes whose ground is split; all dates of a place are in the same region.
        fractions: Fraction of the ground for each region, positive, with a sum of 1.
        block_size: Side of a block in pixels of the first scene; the blocks begin at the origin of the CRS.
        seed: Seed of the assignment.
        labels: Labels whose classes are balanced between the regions too, or None.
        within: Split only the ground inside this region (in the dataset's CRS); None for all.

    Returns:
        One region for each fraction, in the dataset's CRS, for the ``roi`` of a sampler.

    Raises:
        ConfigurationError: If the fractions are not shares of 1, or there are fewer blocks than regions.
    """
    return split.split_blocks(ground_of(dataset), fractions, block_size, seed, labels, within)


def split_scenes(
    dataset: Scenes, fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0, labels: LabelSource | None = None
) -> list[MultiPolygon]:
    """Assign whole scenes to regions, to measure how well a network does on other ground.

    Scenes that overlap (other dates, neighbouring tiles) stay together.

    Args:
        dataset: Scenes.
        fractions: Fraction of the ground for each region, positive, with a sum of 1.
        seed: Seed of the assignment.
        labels: Labels whose classes are balanced between the regions too, or None.

    Returns:
        One region for each fraction, in the dataset's CRS.

    Raises:
        ConfigurationError: If the fractions are not shares of 1, or there are fewer groups of scenes than regions.
    """
    return split.split_scenes(ground_of(dataset), fractions, seed, labels)


def ground_blocks(dataset: Scenes, block_size: int, region: BaseGeometry, seed: int = 0) -> NDArray[np.object_]:
    """Return the blocks of ground inside a region, cut to it, in an order to choose from.

    Args:
        dataset: Scenes.
        block_size: Side of a block in pixels of the first scene.
        region: Region in the dataset's CRS.
        seed: Seed of the order.

    Returns:
        Polygons, see :meth:`~torchgeo_msssl.geo.ground.blocks.BlockGrid.inside`.

    Raises:
        ConfigurationError: If the size is not positive.
    """
    return BlockGrid(ground_of(dataset), block_size).inside(region, seed)[0]


def ground_of(dataset: Scenes) -> Ground:
    """Return the ground that a dataset covers, in its CRS.

    Args:
        dataset: Scenes.

    Returns:
        The ground.
    """
    crs = CRS.from_user_input(dataset.crs)
    # an intersection or union may have given the dataset another CRS than its first scene's
    pixel = None if crs == dataset.scenes[0].grid.crs else dataset.res
    return Ground.of(dataset.scenes, crs, pixel)
