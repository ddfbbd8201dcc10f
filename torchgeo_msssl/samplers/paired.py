"""Pairs of labelled and unlabelled chips."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.samplers.base import ChipSampler


class PairedChipSampler(ChipSampler):
    """Yields the chips of one sampler, each with a chip of another one.

    The first chips are those that their sampler yields alone. Pair k of an epoch depends on seed, epoch and k only, so
    that both streams resume together from one position.
    """

    dataset: Any

    def __init__(self, labelled: ChipSampler, unlabelled: ChipSampler) -> None:
        """Combine two samplers.

        Args:
            labelled: Sampler of the first chips, which also gives the seed.
            unlabelled: Sampler of the second ones; its seed is derived from that of the first.

        Raises:
            ConfigurationError: If an epoch of the second one is shorter.
        """
        # without ChipSampler's own: the two have regions of their own
        if len(unlabelled) < len(labelled):
            raise ConfigurationError(
                f'unlabelled: expected {len(labelled)} chips per epoch or more, one for each labelled chip, got '
                f'{len(unlabelled)}.'
            )
        self.labelled = labelled
        self.unlabelled = unlabelled
        self.dataset = labelled.dataset
        self.size = labelled.size
        self.seed = labelled.seed
        self.epoch = self.start = self._resume = 0

    def draw(self, epoch: int, start: int) -> Iterator[tuple[Any, Any]]:
        """Yield this rank's pairs of an epoch from a position on."""
        self.labelled.seed, self.unlabelled.seed = self.seed, unlabelled_seed(self.seed)
        # an epoch of the unlabelled sampler may be longer
        yield from zip(self.labelled.draw(epoch, start), self.unlabelled.draw(epoch, start), strict=False)

    def __len__(self) -> int:
        """Return the pairs of one epoch on this rank."""
        return len(self.labelled)


def unlabelled_seed(seed: int) -> int:
    """Derive the seed of unlabelled chips, so that they are not at the places of the labelled ones.

    Args:
        seed: Seed of the labelled chips.

    Returns:
        A seed of 63 bits.
    """
    return int(np.random.SeedSequence([seed % 2**63, 1]).generate_state(1, np.uint64)[0] >> 1)
