"""Random chips with rare classes as frequent as common ones."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.datasets.labels import Labels
from torchgeo_msssl.datasets.queries import ChipQuery
from torchgeo_msssl.errors import EmptyIntersectionError
from torchgeo_msssl.progress import progress_bar
from torchgeo_msssl.samplers.base import ChipSampler
from torchgeo_msssl.samplers.random import RandomChipSampler

#: Chips that are drawn together, as in :mod:`torchgeo_msssl.samplers.random`.
_BLOCK = 64


class BalancedChipSampler(ChipSampler):
    """Draws a class, all with the same probability, then a chip in proportion to its pixels of that class.

    The chips come from a pool that a :class:`RandomChipSampler` draws once. Chips without a label and classes without
    a pixel in the pool are never drawn. Chip k of an epoch depends on seed, epoch and k only.

    Attributes:
        counts: Pixels of each class in each chip of the pool, shape (chip, class).
    """

    def __init__(self, chips: RandomChipSampler, labels: Labels, pool: int = 2048) -> None:
        """Draw the pool and read its masks.

        Args:
            chips: Sampler of the pool, which also has the size and number of chips.
            labels: The labels.
            pool: Number of chips to choose from.

        Raises:
            EmptyIntersectionError: If no chip of the pool has a label.
        """
        super().__init__(chips.dataset, chips.size, seed=chips.seed)
        self._chips = chips
        # with a fixed seed: a resumed run takes over its seed only after the pool is drawn
        blocks = range(-(-pool // _BLOCK))
        self._pool = [query for block in blocks for query in chips.draw_block(0, block, seed=0)][:pool]
        self.counts = self._count(labels)
        present = np.flatnonzero(self.counts.any(axis=0))
        if len(present) == 0:
            raise EmptyIntersectionError(
                f'class_balance: none of {pool} chips of {self.size[0]}×{self.size[1]} pixels has a labelled pixel; '
                'use larger chips, or check the labels.'
            )
        self._chances = self.counts[:, present] / self.counts[:, present].sum(axis=0)

    def _count(self, labels: Labels) -> NDArray[np.int64]:
        counts = np.zeros((len(self._pool), len(labels.class_names)), dtype=np.int64)
        with progress_bar('Counting classes', total=len(self._pool)) as advance:
            for i, query in enumerate(self._pool):
                scene, time = self.dataset.scenes[query.scene], self.dataset.index.index[query.scene]
                mask = labels.mask_for(scene.grid, query.window, time)
                counts[i] = np.bincount(mask[mask != labels.ignore_index], minlength=counts.shape[1])
                advance(i, 1.0)
        return counts

    def draw(self, epoch: int, start: int) -> Iterator[ChipQuery]:
        """Yield this rank's chips of an epoch from a position on."""
        rank, world = self.ranks()
        known, drawn = -1, np.empty(0, dtype=np.int64)
        for position in range(start, len(self)):
            block, within = divmod(rank + position * world, _BLOCK)
            if block != known:
                known, drawn = block, self._draw_block(epoch, block)
            yield self._pool[drawn[within]]

    def _draw_block(self, epoch: int, block: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed % 2**63, epoch, block])
        classes = rng.integers(self._chances.shape[1], size=_BLOCK)
        return np.array([rng.choice(len(self._pool), p=self._chances[:, which]) for which in classes])

    def __len__(self) -> int:
        """Return the chips of one epoch on this rank, the same for every rank."""
        return len(self._chips)
