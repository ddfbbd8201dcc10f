"""Frozen features of labelled chips."""

from collections.abc import Callable, Mapping, Sequence
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
from torchgeo_msssl.geo.scene import Scene, with_data
from torchgeo_msssl.geo.warp import read_warped
from torchgeo_msssl.samplers.blocks import split_blocks
from torchgeo_msssl.samplers.grid import GridChipSampler

#: Error that GDAL may make in placing a pixel of a label, in pixels: so small that it computes each one.
_EXACT = 1e-9

Batch = dict[str, Tensor]


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
    recode: Mapping[int, int] | None = None,
) -> LabelledChips:
    """Cut scenes into chips, and keep those in which one class has its way.

    Args:
        scenes: Scenes.
        labels: Class rasters (one band, nodata where there is no label). Of several that cover a chip the first one
            counts; where they have different dates in their names, a raster is for scenes of its own date. Rasters on
            another grid are brought onto that of the scene, each pixel with the class under its centre.
        size: Side of a chip in pixels; chips do not overlap but at the borders of scenes.
        purity: Smallest share of a chip's pixels that the most frequent class has.
        min_valid: Smallest share of valid pixels.
        roi: Only chips wholly inside this region.
        recode: Class of each value of the rasters, several values may be one class; other values are no labels. None
            takes every value for a class.

    Returns:
        The chips, in order of scene, row and column.

    Raises:
        EmptyIntersectionError: If no chip has a label.
    """
    rasters = find_scenes(labels)
    dated = len({raster.date for raster in rasters}) > 1
    kept: list[tuple[ChipQuery, int]] = []
    # the places themselves: iterating gives a rank of a distributed run its share only
    for index, window in GridChipSampler(scenes, size, min_valid=min_valid, roi=roi).places:
        scene = scenes.scenes[index]
        usable = [raster for raster in rasters if not dated or _same_date(raster, scene)]
        label = _main_class(usable, scene.grid, window, purity, recode)
        if label is not None:
            kept.append((scenes.query(index, window), label))
    if not kept:
        msg = (
            f'labels: {", ".join(raster.path for raster in rasters)} give no chip of {size}×{size} pixels of the '
            f'{len(scenes)} scene(s) one class on {purity:.0%} of it; use smaller chips, or labels of the same ground '
            f'and, where their names have dates, of the same dates (the scenes are in {scenes.scenes[0].grid.crs}).'
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


def split_chips_to_choose(
    scenes: Scenes, labels: str | Sequence[str], size: int, purity: float = 0.7, block_size: int = 128
) -> tuple[LabelledChips, LabelledChips]:
    """Cut labelled chips to choose a checkpoint by: both parts lie where :func:`split_labelled_chips` learns.

    Args:
        scenes: Scenes.
        labels: Class rasters, see :func:`label_chips`.
        size: Side of a chip in pixels.
        purity: Smallest share of a chip's pixels that the most frequent class has.
        block_size: Side of a block of ground in pixels.

    Returns:
        Chips to learn from, chips to choose by; they have no ground in common, nor any with the test chips.

    Raises:
        ConfigurationError: If that half is a single block.
        EmptyIntersectionError: If no chip of a part has a label.
    """
    # not three fractions at once: the test half would be another one
    half, _ = split_blocks(scenes, (0.5, 0.5), block_size, seed=0)
    regions = split_blocks(scenes, (0.5, 0.5), block_size, seed=1, within=half)
    learn, choose = (label_chips(scenes, labels, size, purity, roi=region) for region in regions)
    return learn, choose


def _same_date(raster: Scene, scene: Scene) -> bool:
    """Whether the moments that two names can mean have one in common; a name without a date can mean any."""
    if raster.date is None or scene.date is None:
        return True
    return raster.date[0] <= scene.date[1] and scene.date[0] <= raster.date[1]


def _main_class(
    rasters: Sequence[Scene], grid: PixelGrid, window: Window, purity: float, recode: Mapping[int, int] | None
) -> int | None:
    """Most frequent class under a window, or None where it has not the share."""
    own = (_own_pixels(raster, grid, window) for raster in rasters)
    values, known = next(filter(None, own), None) or _warped_pixels(rasters, grid, window)
    total: dict[int, int] = {}
    for value, count in zip(*np.unique(values[known], return_counts=True), strict=True):
        name = int(value) if recode is None else recode.get(int(value))
        if name is not None:
            total[name] = total.get(name, 0) + int(count)
    best = max(sorted(total), key=lambda name: total[name], default=None)
    # a share of the raster's own pixels, which may be larger or smaller than the scene's
    return best if best is not None and total[best] >= purity * known.size else None


Pixels = tuple[NDArray[np.generic], NDArray[np.bool_]]


def _own_pixels(raster: Scene, grid: PixelGrid, window: Window) -> Pixels | None:
    """A raster's own pixels under a window, where they fill it exactly."""
    under = raster.grid.snap(grid.window_bounds(window)) if raster.grid.crs == grid.crs else None
    if under is None or under.intersection(raster.grid.window) != under:
        return None
    image, valid = raster.read(under, raster.bands[:1])
    return image[0], valid


def _warped_pixels(rasters: Sequence[Scene], grid: PixelGrid, window: Window) -> Pixels:
    """The class under the centre of each pixel of a window, from the first raster that has one there."""
    values = np.zeros((window.height, window.width))
    known = np.zeros(values.shape, dtype=np.bool_)
    for raster in rasters:
        file, bands = raster.files[0], raster.bands[:1]
        pixels, covered = read_warped(file, grid, window, bands, _EXACT)
        new = covered & with_data(pixels, bands, file.nodata, raster.nodata) & ~known
        values[new], known = pixels[0][new], known | new
    return values, known


@torch.no_grad()
def extract_all(
    embed: Mapping[str, Callable[[Batch], Tensor]],
    scenes: Scenes,
    queries: Sequence[ChipQuery],
    device: torch.device | str = 'cpu',
    batch_size: int = 128,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Embed chips with several frozen networks; every chip is read once.

    Args:
        embed: By name, from a batch on the device (``image``, ``valid``, ``scale``, ``offset``) to (batch, features);
            networks in evaluation mode.
        scenes: What the chips are cut from.
        queries: The chips.
        device: Where to compute.
        batch_size: Chips at once.
        on_progress: Called with the number of chips done.

    Returns:
        By name, shape (n, features).
    """
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in embed}
    for start in range(0, len(queries), batch_size):
        some = queries[start : start + batch_size]
        batch = {key: value.to(device) for key, value in collate(scenes.__getitems__(some)).items()}
        for name, network in embed.items():
            found[name].append(network(batch).float().cpu().numpy())
        if on_progress is not None:
            on_progress(start + len(some))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def extract_features(
    embed: Callable[[Tensor], Tensor],
    scenes: Scenes,
    chips: LabelledChips,
    prepare: Callable[[Batch], Tensor],
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
    networks = {'features': lambda batch: embed(prepare(batch))}
    return extract_all(networks, scenes, chips.queries, device, batch_size)['features']


def band_statistics(image: Tensor) -> Tensor:
    """The dumb baseline: mean and standard deviation of each band of a chip.

    Args:
        image: Shape (batch, band, height, width).

    Returns:
        Shape (batch, 2 × band).
    """
    return torch.cat([image.mean(dim=(2, 3)), image.std(dim=(2, 3))], dim=1)
