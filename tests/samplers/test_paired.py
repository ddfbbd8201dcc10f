"""Pairs of samplers, whose two streams depend on seed, epoch and position alone."""

from collections.abc import Iterator
from typing import Any

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.samplers.base import ChipSampler
from torchgeo_msssl.samplers.paired import PairedChipSampler, unlabelled_seed


class Numbers(ChipSampler):
    """Yields seed, epoch and position."""

    dataset: Any = None

    def __init__(self, length: int, seed: int = 5) -> None:
        self.length, self.size, self.seed = length, (8, 8), seed
        self.epoch = self.start = self._resume = 0

    def draw(self, epoch: int, start: int) -> Iterator[Any]:
        yield from ((self.seed, epoch, position) for position in range(start, len(self)))

    def __len__(self) -> int:
        return self.length


def test_a_pair_is_the_labelled_chip_with_an_unlabelled_one_of_another_seed() -> None:
    pairs = PairedChipSampler(Numbers(3), Numbers(4))
    other = unlabelled_seed(5)
    assert len(pairs) == 3
    assert other != 5
    for epoch in (0, 1):
        assert list(pairs) == [((5, epoch, k), (other, epoch, k)) for k in range(3)]


@pytest.mark.parametrize('start', [0, 2, 3])
def test_both_streams_resume_from_one_position_with_the_seed_of_the_state(start: int) -> None:
    whole, resumed = PairedChipSampler(Numbers(4), Numbers(4)), PairedChipSampler(Numbers(4, 77), Numbers(4, 78))
    whole.set_epoch(6)
    resumed.load_state_dict({'seed': 5, 'epoch': 6, 'start': start})
    assert list(resumed) == list(whole)[start:]


def test_too_few_unlabelled_chips_are_reported() -> None:
    with pytest.raises(ConfigurationError, match=r'expected 5 chips per epoch or more.*got 4'):
        PairedChipSampler(Numbers(5), Numbers(4))
