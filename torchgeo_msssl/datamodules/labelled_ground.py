"""Choice of the training blocks whose labels are used."""

import logging
from collections.abc import Sequence

import shapely
from shapely.geometry.base import BaseGeometry

from torchgeo_msssl.datasets.labels import LabelledScenes
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError
from torchgeo_msssl.samplers.blocks import ground_blocks

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
    """Choose the first training blocks that have labels, in an order that depends on the seed only.

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
    blocks = ground_blocks(scenes, block_size, ground, seed)
    wanted = wanted_count(len(blocks), fraction, shots, 'training blocks')
    if wanted == len(blocks):
        return ground
    chosen = []
    for block in blocks:
        # a block without any known label would count and teach nothing
        if labels.is_labelled(scenes, block):
            chosen.append(block)
        if len(chosen) == wanted:
            break
    if not chosen:
        raise EmptyIntersectionError('labels: no training block has a labelled pixel; use other blocks or labels.')
    if len(chosen) < wanted:
        shortage = f'{wanted} of {len(blocks)} training blocks are wanted, and only {len(chosen)} have labels'
        if shots is not None:
            raise ConfigurationError(f'shots: {shortage}; reduce it, or use smaller blocks.')
        log.warning('label_fraction: %s.', shortage)
    log.info('Labels of %d of %d training blocks are used.', len(chosen), len(blocks))
    return shapely.union_all(chosen)


def log_class_counts(labelled: LabelledScenes, ground: BaseGeometry, class_names: Sequence[str]) -> None:
    """Log the labelled pixels of each class, and warn of classes without any.

    Args:
        labelled: Scenes with labels.
        ground: Training ground whose labels are used.
        class_names: Names of the classes.
    """
    counts = labelled.labels.class_counts(labelled.scenes, ground)
    listed = ', '.join(f'{name} {n:,}' for name, n in zip(class_names, counts, strict=True))
    log.info('Labelled training pixels: %s.', listed)
    absent = [name for name, n in zip(class_names, counts, strict=True) if n == 0]
    if absent:
        log.warning('No training pixel is %s; the network cannot learn it (counts: %s).', ', '.join(absent), listed)
