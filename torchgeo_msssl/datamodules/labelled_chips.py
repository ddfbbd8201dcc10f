"""Choice of the training chips whose labels are used."""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.datamodules.labelled_ground import warn_of_missing_classes
from torchgeo_msssl.datasets.chips import Chips
from torchgeo_msssl.geo.ground.class_cover import holding, order_by_classes
from torchgeo_msssl.progress import progress_bar

log = logging.getLogger(__name__)


def choose_labelled_chips(chips: Chips, count: Callable[[int], int], seed: int) -> list[int]:
    """Choose training chips, in an order that depends on the seed only.

    The first chips hold every class that the training chips hold; the others follow at random.

    Args:
        chips: Training chips with masks.
        count: How many of so many chips are used; fewer lie within more.
        seed: Seed of the order.

    Returns:
        Their numbers, sorted.

    Raises:
        SceneReadError: If a chip is damaged.
    """
    wanted = count(len(chips))
    drawn = np.random.default_rng(seed).permutation(len(chips))
    if wanted < len(chips):
        holds = holding(_class_fractions(chips)[drawn])
        order, needed = order_by_classes(holds)
        warn_of_missing_classes(holds, order[:wanted].tolist(), needed, chips.class_names, 'training chips')
        drawn = drawn[order]
    log.info('Labels of %d of %d training chips are used.', wanted, len(chips))
    return sorted(drawn[:wanted].tolist())


def _class_fractions(chips: Chips) -> NDArray[np.float64]:
    """Fraction of each chip that is labelled with a class, shape (chip, class)."""
    classes = len(chips.class_names)
    fractions = np.zeros((len(chips), classes))
    with progress_bar('Counting classes', total=len(chips)) as advance:
        for i in range(len(chips)):
            mask = chips[i]['mask'].numpy()
            known = mask[(mask != chips.ignore_index) & (mask < classes)]
            fractions[i] = np.bincount(known, minlength=classes) / mask.size
            advance(i, 1.0)
    return fractions
