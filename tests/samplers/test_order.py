"""Every chip once an epoch, in an order of seed and epoch alone, divided among the ranks."""

from pathlib import Path

import numpy as np
import pytest

from torchgeo_msssl.datasets import ChipPart, Chips
from torchgeo_msssl.errors import ChipSizeError, ConfigurationError
from torchgeo_msssl.samplers.base import ChipSampler
from torchgeo_msssl.samplers.order import OrderedChips, ShuffledChips

COUNT = 10


@pytest.fixture
def chips(tmp_path: Path) -> Chips:
    for i in range(COUNT):
        np.save(tmp_path / f'{i}.npy', np.full((1, 20, 24), i))
    return Chips(tmp_path, 'all', channels='first')


def epoch(sampler: ChipSampler) -> list[ChipPart]:
    return list(sampler)  # type: ignore[arg-type]


def test_each_chip_comes_once_an_epoch(chips: Chips) -> None:
    sampler = ShuffledChips(chips, seed=3)
    epochs = [epoch(sampler) for _ in range(3)]
    for parts in epochs:
        assert sorted(part.chip for part in parts) == list(range(COUNT))
    assert epochs[0] != epochs[1] != epochs[2]
    again = ShuffledChips(chips, seed=3)
    again.set_epoch(2)
    assert epoch(again) == epochs[2]
    assert epoch(ShuffledChips(chips, seed=4)) != epochs[0]


def test_windows_lie_inside_their_chips_and_reach_every_corner(chips: Chips) -> None:
    parts = epoch(ShuffledChips(chips, 17, length=40 * COUNT, seed=0))
    assert np.bincount([part.chip for part in parts]).tolist() == [40] * COUNT  # all before any comes again
    assert {(part.window.height, part.window.width) for part in parts} == {(17, 17)}
    assert {part.window.row for part in parts} == set(range(4))
    assert {part.window.col for part in parts} == set(range(8))
    assert all(chips[part]['image'].shape == (1, 17, 17) for part in parts[:5])


@pytest.mark.parametrize('start', [0, 3, 9])
def test_a_state_goes_on_with_the_rest(chips: Chips, start: int) -> None:
    whole = epoch(ShuffledChips(chips, 8, length=25, seed=1))
    other = ShuffledChips(chips, 8, length=25, seed=99)
    other.load_state_dict({'seed': 1, 'epoch': 0, 'start': start})
    assert epoch(other) == whole[start:]


@pytest.mark.parametrize('world', [2, 3])
def test_ranks_share_an_epoch(chips: Chips, monkeypatch: pytest.MonkeyPatch, world: int) -> None:
    whole, grid = ShuffledChips(chips, seed=1), OrderedChips(chips, 10)
    alone, covered = epoch(whole), epoch(grid)
    shares, tiles = [], []
    for rank in range(world):
        monkeypatch.setattr(ChipSampler, 'ranks', staticmethod(lambda rank=rank: (rank, world)))
        whole.set_epoch(1 + rank)
        whole.set_epoch(0)
        shares.append(epoch(whole))
        tiles.extend(epoch(grid))
        assert epoch(OrderedChips(chips, 10, all_ranks=True)) == covered
    assert [len(share) for share in shares] == [COUNT // world] * world
    assert [part for parts in zip(*shares, strict=True) for part in parts] == alone[: COUNT // world * world]
    assert sorted(tiles) == sorted(covered)


def test_windows_in_order_cover_every_pixel(chips: Chips) -> None:
    sampler = OrderedChips(chips, 10)
    parts = epoch(sampler)
    assert len(parts) == len(sampler) == COUNT * 2 * 3
    seen = np.zeros((COUNT, 20, 24), int)
    for chip, window in parts:
        seen[chip, window.row : window.row + 10, window.col : window.col + 10] += 1
    assert seen.min() == 1
    assert parts == sorted(parts)
    assert [part.window.height for part in epoch(OrderedChips(chips))] == [20] * COUNT  # whole chips


def test_windows_larger_than_chips_are_refused(chips: Chips) -> None:
    with pytest.raises(ChipSizeError, match=r'chip_size: a window of 21×21 pixels is larger than the chips .* 20×24'):
        ShuffledChips(chips, 21)
    with pytest.raises(ConfigurationError, match='chip_size: expected at least 1 pixel, got 0'):
        OrderedChips(chips, 0)
    with pytest.raises(ConfigurationError, match='length: expected at least 1'):
        ShuffledChips(chips, length=0)
