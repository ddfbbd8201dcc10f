"""Contact sheet of chips with their nearest neighbours in the space of embeddings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from torchgeo_msssl.evaluation.embedding_chips import EmbeddingChips
from torchgeo_msssl.files import atomic_path

#: Percentiles to which the contrast of a row of the sheet is stretched.
_STRETCH = (2, 98)
_GREY = 0.5
_CELL_INCHES = 1.55
_LONGEST_NAME = 26


def nearest_elsewhere(
    features: NDArray[np.floating], bounds: NDArray[np.float64], query: int, k: int
) -> list[tuple[int, float]]:
    """Find the nearest embeddings of other places, at most one per place.

    The same ground at another date and overlapping chips are trivially similar.

    Args:
        features: Embeddings (n, features).
        bounds: ``(left, bottom, right, top)`` of each chip in one CRS (n, 4); NaN where unknown.
        query: Index of the chip whose neighbours are returned.
        k: Number of neighbours.

    Returns:
        Index and cosine distance of up to ``k`` chips, the nearest first; fewer if there are no more places.
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
    # Adjacent chips share an edge, and transformed coordinates are rounded.
    slack = 1e-6 * (a[2] - a[0])
    return bool(a[0] < b[2] - slack and b[0] < a[2] - slack and a[1] < b[3] - slack and b[1] < a[3] - slack)


def draw_neighbours(path: Path, chips: EmbeddingChips, rows: Sequence[tuple[int, Sequence[tuple[int, float]]]]) -> None:
    """Draw queries with their neighbours, names, places and distances.

    The chips of a row have the same contrast stretch, so that a brighter chip looks brighter.

    Args:
        path: PNG to write.
        chips: Chips.
        rows: Index of each query with the result of :func:`nearest_elsewhere`.

    Raises:
        OutputError: If the file cannot be written.
    """
    columns = 1 + max(len(found) for _, found in rows)
    figure = Figure(figsize=(_CELL_INCHES * columns, (_CELL_INCHES + 0.42) * len(rows)), layout='constrained')
    for axes, (query, found) in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        shown = [query, *(i for i, _ in found)]
        pictures = _pictures(chips, shown)
        labels = ['query', *(f'distance {distance:.3g}' for _, distance in found)]
        for cell in axes:
            cell.axis('off')
        for cell, picture, i, label in zip(axes, pictures, shown, labels, strict=False):
            cell.imshow(picture, interpolation='nearest')
            window, name = chips.origins[i].window, chips.origins[i].name
            short = name if len(name) <= _LONGEST_NAME else f'…{name[1 - _LONGEST_NAME :]}'
            weight = 'bold' if label == 'query' else 'normal'
            cell.set_title(f'{label}\n{short}\nrow {window.row}, column {window.col}', fontsize=6.5, fontweight=weight)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _pictures(chips: EmbeddingChips, shown: Sequence[int]) -> list[NDArray[np.float32]]:
    """Return chips as (height, width, 3) from 0 to 1, with pixels without data in grey."""
    batch = chips.batch(shown)
    image = (batch['image'].float() + batch['offset'][..., None, None]) * batch['scale'][..., None, None]
    colours = image[:, list(chips.rgb_index)].movedim(1, -1).numpy()
    valid = batch['valid'][:, 0].numpy() & np.isfinite(colours).all(axis=-1)
    inside = colours[valid] if valid.any() else np.zeros((1, colours.shape[-1]))
    low, high = np.percentile(inside, _STRETCH, axis=0)
    stretched = ((colours - low) / np.maximum(high - low, 1e-9)).clip(0, 1)
    return list(np.where(valid[..., None], stretched, _GREY).astype(np.float32))
