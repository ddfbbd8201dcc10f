"""Chips beside those whose embeddings are nearest."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.datasets.queries import ChipQuery
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.files import atomic_path

#: Percentiles between which a row of the sheet is stretched.
_STRETCH = (2, 98)
_GREY = 0.5
_CELL_INCHES = 1.55
_LONGEST_NAME = 26


def nearest_elsewhere(
    features: NDArray[np.floating], bounds: NDArray[np.float64], query: int, k: int
) -> list[tuple[int, float]]:
    """Find the nearest embeddings from other places, each from a place of its own.

    The same ground at another date, or a chip that overlaps, would say little about what an encoder finds alike.

    Args:
        features: Shape (n, features).
        bounds: ``(left, bottom, right, top)`` of each chip in one CRS, shape (n, 4).
        query: Index of the chip whose neighbours are wanted.
        k: Neighbours.

    Returns:
        Index and cosine distance of up to ``k`` chips, the nearest first; fewer where there are no more places.
    """
    length = np.linalg.norm(features, axis=1)
    with np.errstate(invalid='ignore', divide='ignore'):
        distance = 1 - features @ features[query] / (length * length[query])
    taken, found = [query], []
    for i in np.argsort(distance, kind='stable'):
        if not any(_overlap(bounds[i], bounds[j]) for j in taken):
            taken.append(int(i))
            found.append((int(i), float(distance[i])))
        if len(found) == k:
            break
    return found


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    # a hair: neighbours share an edge, and coordinates of other CRS are rounded
    hair = 1e-6 * (a[2] - a[0])
    return bool(a[0] < b[2] - hair and b[0] < a[2] - hair and a[1] < b[3] - hair and b[1] < a[3] - hair)


def draw_neighbours(
    path: Path,
    scenes: Scenes,
    chips: Sequence[ChipQuery],
    rows: Sequence[tuple[int, Sequence[tuple[int, float]]]],
    rgb_index: Sequence[int],
) -> None:
    """Draw each query beside its neighbours, with names, places and distances.

    A row has one stretch, that of all its chips together, so that a brighter chip looks brighter.

    Args:
        path: PNG to write; it appears complete or not at all.
        scenes: Scenes.
        chips: The chips that indices count.
        rows: Index of a query, and what :func:`nearest_elsewhere` found for it.
        rgb_index: Positions of the bands drawn red, green and blue.
    """
    columns = 1 + max(len(found) for _, found in rows)
    figure = Figure(figsize=(_CELL_INCHES * columns, (_CELL_INCHES + 0.42) * len(rows)), layout='constrained')
    for axes, (query, found) in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        shown = [query, *(i for i, _ in found)]
        pictures = _pictures(scenes, [chips[i] for i in shown], rgb_index)
        labels = ['query', *(f'distance {distance:.3g}' for _, distance in found)]
        for cell in axes:
            cell.axis('off')
        for cell, picture, i, label in zip(axes, pictures, shown, labels, strict=False):
            cell.imshow(picture, interpolation='nearest')
            window, name = chips[i].window, scenes.scenes[chips[i].scene].name
            short = name if len(name) <= _LONGEST_NAME else f'…{name[1 - _LONGEST_NAME :]}'
            weight = 'bold' if label == 'query' else 'normal'
            cell.set_title(f'{label}\n{short}\nrow {window.row}, column {window.col}', fontsize=6.5, fontweight=weight)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _pictures(scenes: Scenes, chips: Sequence[ChipQuery], rgb_index: Sequence[int]) -> list[NDArray[np.float32]]:
    """Chips as (height, width, 3) from 0 to 1, pixels without data grey."""
    batch = collate(scenes.__getitems__(chips))
    image = (batch['image'].float() + batch['offset'][..., None, None]) * batch['scale'][..., None, None]
    colours = image[:, list(rgb_index)].movedim(1, -1).numpy()
    valid = batch['valid'][:, 0].numpy() & np.isfinite(colours).all(axis=-1)
    inside = colours[valid] if valid.any() else np.zeros((1, colours.shape[-1]))
    low, high = np.percentile(inside, _STRETCH, axis=0)
    stretched = ((colours - low) / np.maximum(high - low, 1e-9)).clip(0, 1)
    return list(np.where(valid[..., None], stretched, _GREY).astype(np.float32))
