"""Frozen features of labelled chips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry
from torch import Tensor

from torchgeo_msssl.datasets.scenes import ChipQuery, Scenes, collate
from torchgeo_msssl.errors import EmptyIntersectionError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.samplers.blocks import split_blocks
from torchgeo_msssl.samplers.grid import GridChipSampler


@dataclass(frozen=True)
class LabelledChips:
    """Chips with one class each.

    Attributes:
        queries: Where they are.
        labels: Class of each, shape (n,).
    """

    queries: tuple[ChipQuery, ...]
    labels: NDArray[np.int64]


def label_chips(
    scenes: Scenes,
    labels: str | Sequence[str],
    size: int,
    purity: float = 0.7,
    min_valid: float = 0.9,
    roi: BaseGeometry | None = None,
) -> LabelledChips:
    """Cut scenes into chips, and keep those in which one class has its way.

    Args:
        scenes: Scenes.
        labels: Class rasters (one band, nodata where there is no label) that share the scenes' CRS; of several that
            cover a chip the first one counts.
        size: Side of a chip in pixels; chips do not overlap but at the borders of scenes.
        purity: Smallest share of a chip's pixels that the most frequent class has.
        min_valid: Smallest share of valid pixels.
        roi: Only chips wholly inside this region.

    Returns:
        The chips, in order of scene, row and column.

    Raises:
        EmptyIntersectionError: If no chip has a label.
    """
    rasters = find_scenes(labels)
    kept: list[tuple[ChipQuery, int]] = []
    # the places themselves: iterating gives a rank of a distributed run its share only
    for scene, window in GridChipSampler(scenes, size, min_valid=min_valid, roi=roi).places:
        label = _main_class(rasters, scenes.scenes[scene].grid, window, purity)
        if label is not None:
            kept.append((scenes.query(scene, window), label))
    if not kept:
        msg = (
            f'labels: {", ".join(raster.path for raster in rasters)} give no chip of {size}×{size} pixels of the '
            f'{len(scenes)} scene(s) one class on {purity:.0%} of it; use smaller chips, or labels of the same ground '
            f'in the CRS of the scenes, {scenes.scenes[0].grid.crs}.'
        )
        raise EmptyIntersectionError(msg)
    queries, found = zip(*kept, strict=True)
    return LabelledChips(tuple(queries), np.array(found, dtype=np.int64))


def split_labelled_chips(
    scenes: Scenes, labels: str | Sequence[str], size: int, purity: float = 0.7, block_size: int = 128
) -> tuple[LabelledChips, LabelledChips]:
    """Cut labelled chips for a probe: half of the blocks of ground to learn from, the other half to test.

    Args:
        scenes: Scenes.
        labels: Class rasters, see :func:`label_chips`.
        size: Side of a chip in pixels.
        purity: Smallest share of a chip's pixels that the most frequent class has.
        block_size: Side of a block of ground in pixels.

    Returns:
        Chips to learn from, chips to test; they have no ground in common.

    Raises:
        EmptyIntersectionError: If no chip of a half has a label.
    """
    regions = split_blocks(scenes, (0.5, 0.5), block_size, seed=0)
    train, test = (label_chips(scenes, labels, size, purity, roi=region) for region in regions)
    return train, test


def _main_class(rasters: Sequence[Scene], grid: PixelGrid, window: Window, purity: float) -> int | None:
    """Most frequent class under a window, from the first raster that covers it; None where it has not the share."""
    bounds = grid.window_bounds(window)
    for raster in rasters:
        under = raster.grid.snap(bounds) if raster.grid.crs == grid.crs else None
        if under is None or under.intersection(raster.grid.window) != under:
            continue
        image, valid = raster.read(under, raster.bands[:1])
        values, counts = np.unique(image[0][valid], return_counts=True)
        # a share of the raster's own pixels, which may be larger or smaller than the scene's
        pure = counts.size > 0 and counts.max() >= purity * valid.size
        return int(values[counts.argmax()]) if pure else None
    return None


@torch.no_grad()
def extract_features(
    embed: Callable[[Tensor], Tensor],
    scenes: Scenes,
    chips: LabelledChips,
    prepare: Callable[[dict[str, Tensor]], Tensor],
    device: torch.device | str = 'cpu',
    batch_size: int = 128,
) -> NDArray[np.float32]:
    """Embed chips with a frozen network.

    Args:
        embed: From (batch, band, height, width) to (batch, features); in evaluation mode.
        scenes: What the chips are cut from.
        chips: The chips.
        prepare: From a batch (``image``, ``valid``, ``scale``, ``offset``) to the network's input.
        device: Where to compute.
        batch_size: Chips at once.

    Returns:
        Shape (n, features).
    """
    found = []
    for start in range(0, len(chips.queries), batch_size):
        batch = collate(scenes.__getitems__(chips.queries[start : start + batch_size]))
        inputs = prepare({key: value.to(device) for key, value in batch.items()})
        found.append(embed(inputs).float().cpu().numpy())
    return np.concatenate(found)


def band_statistics(image: Tensor) -> Tensor:
    """The dumb baseline: mean and standard deviation of each band of a chip.

    Args:
        image: Shape (batch, band, height, width).

    Returns:
        Shape (batch, 2 × band).
    """
    return torch.cat([image.mean(dim=(2, 3)), image.std(dim=(2, 3))], dim=1)
