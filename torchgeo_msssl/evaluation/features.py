"""Frozen features of labelled chips."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry
from torch import Tensor

from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.datasets.queries import ChipQuery
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import EmptyIntersectionError
from torchgeo_msssl.geo.labels.source import LabelSource, time_of
from torchgeo_msssl.samplers.blocks import split_blocks
from torchgeo_msssl.samplers.grid import GridChipSampler

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class LabelledChips:
    """Chips with one class each.

    Attributes:
        queries: Places of the chips.
        labels: Class of each chip, shape (n,).
    """

    queries: tuple[ChipQuery, ...]
    labels: NDArray[np.int64]


def label_chips(
    scenes: Scenes,
    labels: LabelSource,
    size: int,
    purity: float = 0.7,
    min_valid: float = 0.9,
    roi: BaseGeometry | None = None,
) -> LabelledChips:
    """Cut scenes into chips and keep those that one class dominates.

    Args:
        scenes: Scenes.
        labels: Labels of the same ground.
        size: Side of a chip in pixels; chips overlap at the borders of scenes only.
        purity: Minimum fraction of a chip's pixels that its most frequent class covers.
        min_valid: Minimum fraction of valid pixels.
        roi: Region that chips have to lie in; None for all ground.

    Returns:
        The chips, in order of scene, row and column.

    Raises:
        EmptyIntersectionError: If no chip has a label.
    """
    kept: list[tuple[ChipQuery, int]] = []
    # not the iterator of the sampler, which gives a rank of a distributed run its share only
    for index, window in GridChipSampler(scenes, size, min_valid=min_valid, roi=roi).places:
        scene = scenes.scenes[index]
        label = main_class(labels.burn(scene.grid, window, time_of(scene)), labels.ignore_index, purity)
        if label is not None:
            kept.append((scenes.query(index, window), label))
    if not kept:
        msg = (
            f'labels: {labels.files[0]} … give no chip of {size}×{size} pixels of the {len(scenes)} scene(s) one class '
            f'on {purity:.0%} of it; use smaller chips, or labels of the same ground and, if their names have dates, '
            f'of the same dates (the scenes are in {scenes.scenes[0].grid.crs}).'
        )
        raise EmptyIntersectionError(msg)
    queries, found = zip(*kept, strict=True)
    return LabelledChips(tuple(queries), np.array(found, dtype=np.int64))


def main_class(mask: NDArray[np.integer], ignore_index: int, purity: float) -> int | None:
    """Find the class that dominates a mask.

    Args:
        mask: Classes, shape (height, width).
        ignore_index: Value of unlabelled pixels.
        purity: Minimum fraction of all pixels that the class covers.

    Returns:
        The most frequent class, None if it covers less.
    """
    counts = np.bincount(mask[mask != ignore_index].ravel(), minlength=1)
    return int(counts.argmax()) if counts.max() >= max(purity * mask.size, 1) else None


def split_labelled_chips(
    scenes: Scenes, labels: LabelSource, size: int, purity: float = 0.7, block_size: int = 128
) -> tuple[LabelledChips, LabelledChips]:
    """Cut training chips from one half of the ground blocks and test chips from the other, the halves of `probe`.

    The arguments are those of :func:`label_chips`; ``block_size`` is the side of a ground block in pixels.

    Returns:
        Training chips and test chips, which share no ground.

    Raises:
        EmptyIntersectionError: If no chip of a half has a label.
    """
    regions = split_blocks(scenes, (0.5, 0.5), block_size, 0, labels)
    train, test = (label_chips(scenes, labels, size, purity, roi=region) for region in regions)
    return train, test


def split_validation_chips(
    scenes: Scenes, labels: LabelSource, size: int, purity: float = 0.7, block_size: int = 128
) -> tuple[LabelledChips, LabelledChips]:
    """Cut chips to choose a checkpoint by, both parts from the training half of :func:`split_labelled_chips`.

    The arguments are those of :func:`split_labelled_chips`.

    Returns:
        Training chips and validation chips, which share no ground with each other or with the test chips.

    Raises:
        ConfigurationError: If that half is a single block.
        EmptyIntersectionError: If no chip of a part has a label.
    """
    # not three fractions at once, which would give another test half
    half, _ = split_blocks(scenes, (0.5, 0.5), block_size, 0, labels)
    regions = split_blocks(scenes, (0.5, 0.5), block_size, 1, labels, within=half)
    train, validation = (label_chips(scenes, labels, size, purity, roi=region) for region in regions)
    return train, validation


@torch.no_grad()
def extract_all(
    embed: Mapping[str, Callable[[Batch], Tensor]],
    scenes: Scenes,
    queries: Sequence[ChipQuery],
    device: torch.device | str = 'cpu',
    batch_size: int = 128,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Embed chips with several frozen networks, reading every chip once.

    Args:
        embed: Networks by name, from a batch on the device (``image``, ``valid``, ``scale``, ``offset``) to (batch,
            features), in evaluation mode.
        scenes: Scenes to read from.
        queries: The chips.
        device: Device to compute on.
        batch_size: Chips per batch.
        on_progress: Called with the number of embedded chips.

    Returns:
        Features by name, shape (n, features).
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
    """Embed chips with a frozen network, from (batch, band, height, width) to (batch, features).

    ``prepare`` converts a batch (``image``, ``valid``, ``scale``, ``offset``) to its input. The other arguments are
    those of :func:`extract_all`.

    Returns:
        Features, shape (n, features).
    """
    networks = {'features': lambda batch: embed(prepare(batch))}
    return extract_all(networks, scenes, chips.queries, device, batch_size)['features']


def band_statistics(image: Tensor) -> Tensor:
    """Compute mean and standard deviation of each band of a chip, the simplest baseline.

    Args:
        image: Shape (batch, band, height, width).

    Returns:
        Shape (batch, 2 × band).
    """
    return torch.cat([image.mean(dim=(2, 3)), image.std(dim=(2, 3))], dim=1)
