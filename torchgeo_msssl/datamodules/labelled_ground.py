"""Choice of the training blocks whose labels are used."""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from itertools import islice

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.datasets.labels import LabelledScenes
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError
from torchgeo_msssl.geo.ground.blocks import BlockGrid, Cells
from torchgeo_msssl.geo.ground.class_cover import holding, order_by_classes
from torchgeo_msssl.geo.ground.class_fractions import class_fractions
from torchgeo_msssl.samplers.blocks import ground_of

log = logging.getLogger(__name__)


def wanted_count(total: int, fraction: float, shots: int | None, unit: str) -> int:
    """Return how many of some training blocks or chips are used.

    Args:
        total: Number of them.
        fraction: Fraction to use.
        shots: Number to use instead of a fraction.
        unit: Their name, for the message.

    Raises:
        ConfigurationError: If there are too few.
    """
    wanted = shots or max(1, round(fraction * total))
    if wanted > total:
        raise ConfigurationError(f'shots: expected at most the {total} {unit}, got {wanted}.')
    return wanted


def choose_labelled_blocks(
    labelled: LabelledScenes, ground: BaseGeometry, block_size: int, fraction: float, shots: int | None, seed: int
) -> BaseGeometry:
    """Choose training blocks that have labels, in an order that depends on the seed only.

    The first blocks hold every class that the training ground holds; the others follow at random.

    Args:
        labelled: Scenes with labels.
        ground: Training ground.
        block_size: Side of a block in pixels.
        fraction: Fraction of the blocks to use; smaller fractions lie within larger ones.
        shots: Number of blocks to use instead of a fraction.
        seed: Seed of the order.

    Returns:
        The ground of the blocks.

    Raises:
        ConfigurationError: If fewer than ``shots`` blocks have labels.
        EmptyIntersectionError: If no block has labels.
    """
    scenes, labels = labelled.scenes, labelled.labels
    blocks, cells = BlockGrid(ground_of(scenes), block_size).inside(ground, seed)
    wanted = wanted_count(len(blocks), fraction, shots, 'training blocks')
    if wanted == len(blocks):
        return ground
    holds = holding(_class_fractions(labelled, ground, block_size, cells))
    # a block without any known label would count and teach nothing
    is_labelled = cache(lambda block: labels.is_labelled(scenes, blocks[block]))
    order, needed = _order_of_labelled(holds, is_labelled)
    chosen = list(islice(filter(is_labelled, order.tolist()), wanted))
    if not chosen:
        raise EmptyIntersectionError('labels: no training block has a labelled pixel; use other blocks or labels.')
    if len(chosen) < wanted:
        shortage = f'{wanted} of {len(blocks)} training blocks are wanted, and only {len(chosen)} have labels'
        if shots is not None:
            raise ConfigurationError(f'shots: {shortage}; reduce it, or use smaller blocks.')
        log.warning('label_fraction: %s.', shortage)
    log.info('Labels of %d of %d training blocks are used.', len(chosen), len(blocks))
    warn_of_missing_classes(holds, chosen, needed, labels.class_names, 'training blocks')
    return shapely.union_all(blocks[chosen])


def _class_fractions(
    labelled: LabelledScenes, ground: BaseGeometry, block_size: int, cells: Cells
) -> NDArray[np.float64]:
    """Fraction of each block that is labelled with a class inside the training ground, shape (block, class)."""
    order = np.lexsort(cells.T[::-1])
    grid = BlockGrid(ground_of(labelled.scenes).within(ground), block_size)
    fractions = np.empty((len(cells), len(labelled.labels.class_names)))
    fractions[order] = class_fractions(labelled.labels.source, grid, cells[order])
    return fractions


def _order_of_labelled(holds: NDArray[np.bool_], is_labelled: Callable[[int], bool]) -> tuple[NDArray[np.int64], int]:
    """Order blocks by :func:`order_by_classes`, first removing from ``holds`` the blocks without labels.

    Only reading tells that all labels of a block lie where scenes have no data, so it is read where it matters.
    """
    while True:
        order, needed = order_by_classes(holds)
        empty = [block for block in order[:needed].tolist() if not is_labelled(block)]
        if not empty:
            return order, needed
        holds[empty] = False


def warn_of_missing_classes(
    holds: NDArray[np.bool_], chosen: Sequence[int], needed: int, class_names: Sequence[str], unit: str
) -> None:
    """Warn if training blocks or chips that were chosen lack a class that others hold.

    Args:
        holds: Whether a block or chip holds a class, shape (block, class).
        chosen: Those that were chosen.
        needed: How many are needed for every class.
        class_names: Names of the classes.
        unit: Their name, for the message.
    """
    missing = holds.any(axis=0) & ~holds[list(chosen)].any(axis=0)
    if missing.any():
        names = ', '.join(name for name, lacks in zip(class_names, missing, strict=True) if lacks)
        log.warning(
            'shots: %d of the %s cannot hold every class and lack %s; use at least %d.',
            len(chosen),
            unit,
            names,
            needed,
        )


def log_class_counts(
    labelled: LabelledScenes, ground: BaseGeometry, class_names: Sequence[str], part: str = 'training'
) -> None:
    """Log the labelled pixels of each class, and warn of classes without any.

    Args:
        labelled: Scenes with labels.
        ground: Ground whose labels are used.
        class_names: Names of the classes.
        part: ``training`` or ``validation``, for the messages.
    """
    counts = labelled.labels.class_counts(labelled.scenes, ground)
    listed = ', '.join(f'{name} {n:,}' for name, n in zip(class_names, counts, strict=True))
    log.info('Labelled %s pixels: %s.', part, listed)
    absent = ', '.join(name for name, n in zip(class_names, counts, strict=True) if n == 0)
    if absent and part == 'training':
        log.warning('No training pixel is %s; the network cannot learn it (counts: %s).', absent, listed)
    elif absent:
        log.warning(
            'No %s pixel is %s; the best checkpoint is chosen without it (counts: %s); use another seed, or smaller '
            'blocks.',
            part,
            absent,
            listed,
        )
