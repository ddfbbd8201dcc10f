"""Order in which the chips of a folder are read."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchgeo_msssl.datasets.chips import ChipPart, Chips
from torchgeo_msssl.errors import ChipSizeError, ConfigurationError
from torchgeo_msssl.geo.grid import Window, covering_offsets
from torchgeo_msssl.samplers.base import ChipSampler


class ShuffledChips(ChipSampler):
    """Yields the chips of a dataset in random order, from each a window at a random place.

    Part k of an epoch depends on seed, epoch and k only: every chip comes once before any comes again. Rank r of n
    takes the parts r, r + n, ….
    """

    dataset: Any

    def __init__(
        self,
        dataset: Chips,
        size: int | None = None,
        length: int | None = None,
        seed: int | None = None,
        chosen: Sequence[int] | None = None,
    ) -> None:
        """Check the size.

        Args:
            dataset: Chips.
            size: Side of a window in pixels; None for whole chips.
            length: Parts per epoch over all ranks (default: one of each chip).
            seed: Seed; None for that of ``seed_everything``.
            chosen: Numbers of the chips to draw from; None for all.

        Raises:
            ChipSizeError: If the windows are larger than the chips.
            ConfigurationError: If a number is below 1.
        """
        # without ChipSampler's own: these chips have one size and no region
        if length is not None and length < 1:
            raise ConfigurationError(f'length: expected at least 1 chip per epoch, got {length}.')
        self.dataset = dataset
        self.size = window_size(dataset, size)
        self._chosen = np.arange(len(dataset)) if chosen is None else np.asarray(chosen)
        self.length = length or len(self._chosen)
        self.seed = torch.initial_seed() if seed is None else seed
        self.epoch = self.start = self._resume = 0

    def draw(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield this rank's parts of an epoch from a position on."""
        rank, world = self.ranks()
        known, places = -1, np.empty((0, 3), dtype=np.int64)
        for position in range(start, len(self)):
            turn, within = divmod(rank + position * world, len(self._chosen))
            if turn != known:
                known, places = turn, self._turn(epoch, turn)
            chip, row, col = places[within].tolist()
            yield ChipPart(chip, Window(row, col, *self.size))

    def _turn(self, epoch: int, turn: int) -> NDArray[np.int64]:
        """Return every chip once with the origin of its window, shape (chip, 3)."""
        rng = np.random.default_rng([self.seed % 2**63, epoch, turn])
        count, (height, width) = len(self._chosen), self.dataset.size
        rows = rng.integers(0, height - self.size[0] + 1, count)
        cols = rng.integers(0, width - self.size[1] + 1, count)
        return np.stack([self._chosen[rng.permutation(count)], rows, cols], axis=1)

    def __len__(self) -> int:
        """Return the parts of one epoch on this rank, the same for every rank."""
        return self.length // self.ranks()[1]


class OrderedChips(ChipSampler):
    """Yields the chips of a dataset in order, in the fewest windows that cover each."""

    dataset: Any

    def __init__(
        self, dataset: Chips, size: int | None = None, all_ranks: bool = False, chosen: Sequence[int] | None = None
    ) -> None:
        """Lay out the windows.

        Args:
            dataset: Chips.
            size: Side of a window in pixels; None for whole chips.
            all_ranks: Give every rank of a distributed run all parts instead of its share.
            chosen: Numbers of the chips to cover; None for all.

        Raises:
            ChipSizeError: If the windows are larger than the chips.
        """
        self.dataset = dataset
        self.size = window_size(dataset, size)
        self.seed = self.epoch = self.start = self._resume = 0
        self._all_ranks = all_ranks
        self._chosen = range(len(dataset)) if chosen is None else chosen
        height, width = self.size
        self._windows = [
            Window(row, col, height, width)
            for row in covering_offsets(dataset.size[0], height, height)
            for col in covering_offsets(dataset.size[1], width, width)
        ]

    def draw(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield this rank's parts; every epoch is the same."""
        for number in self._mine()[start:]:
            chip, window = divmod(number, len(self._windows))
            yield ChipPart(self._chosen[chip], self._windows[window])

    def __len__(self) -> int:
        """Return the parts of this rank."""
        return len(self._mine())

    def _mine(self) -> range:
        rank, world = (0, 1) if self._all_ranks else self.ranks()
        return range(rank, len(self._chosen) * len(self._windows), world)


def window_size(chips: Chips, size: int | None) -> tuple[int, int]:
    """Return the size ``(height, width)`` of windows on chips.

    Args:
        chips: Chips.
        size: Side of a window in pixels; None for whole chips.

    Raises:
        ChipSizeError: If a window is larger than a chip.
        ConfigurationError: If it has no pixel.
    """
    if size is None:
        return chips.size
    if size < 1:
        raise ConfigurationError(f'chip_size: expected at least 1 pixel, got {size}.')
    if size > min(chips.size):
        raise ChipSizeError(
            f'chip_size: a window of {size}×{size} pixels is larger than the chips in {chips.root}, which have '
            f'{chips.size[0]}×{chips.size[1]}; use a smaller one, or cut larger chips.'
        )
    return size, size
