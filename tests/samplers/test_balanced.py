"""Balanced chips against the shares that follow from the pool's own counts."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from torchgeo_msssl.datasets import Labels, Scenes
from torchgeo_msssl.errors import EmptyIntersectionError
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.samplers import BalancedChipSampler, RandomChipSampler


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'cache'))
    yield
    close_datasets()


def write(path: Path, array: np.ndarray) -> str:
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        crs='EPSG:32631',
        transform=Affine(1, 0, 500_000, 0, -1, 4_900_000),
        height=array.shape[0],
        width=array.shape[1],
        count=1,
        dtype='uint8',
    ) as file:
        file.write(array, 1)
    return str(path)


def samplers(tmp_path: Path, mask: np.ndarray, length: int = 640) -> tuple[RandomChipSampler, Labels]:
    scenes = Scenes(write(tmp_path / 'scene.tif', np.ones(mask.shape, np.uint8)))
    labels = Labels(write(tmp_path / 'mask.tif', mask), ['a', 'b', 'c'])
    return RandomChipSampler(scenes, 8, length, seed=1), labels


def test_each_class_is_drawn_as_often_and_chips_by_their_pixels_of_it(tmp_path: Path) -> None:
    mask = np.zeros((80, 80), np.uint8)
    mask[30:36, 30:36] = 1  # class c is nowhere
    mask[:, 70:] = 255
    chips, labels = samplers(tmp_path, mask, 20_000)
    balanced = BalancedChipSampler(chips, labels, pool=256)
    places = [(query.window.row, query.window.col) for query in balanced]
    pool = [(query.window.row, query.window.col) for query in balanced._pool]
    expected = (balanced.counts[:, :2] / balanced.counts[:, :2].sum(axis=0)).mean(axis=1)
    counted = {place: 0.0 for place in pool}
    for place in places:
        counted[place] += 1 / len(places)
    wanted: dict[tuple[int, int], float] = {place: 0.0 for place in pool}
    for place, share in zip(pool, expected, strict=True):
        wanted[place] += share
    for place, share in wanted.items():
        assert counted[place] == pytest.approx(share, abs=5 * (share / len(places)) ** 0.5 + 1e-9)
    unlabelled = [place for place in pool if place[1] >= 70]
    assert all(counted[place] == 0 for place in unlabelled)
    # the counts are those of the mask
    for (row, col), counts in zip(pool, balanced.counts, strict=True):
        cut = mask[row : row + 8, col : col + 8]
        assert counts.tolist() == [int((cut == value).sum()) for value in range(3)]


def test_ranks_share_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.arange(6400, dtype=np.int64).reshape(80, 80) % 3
    chips, labels = samplers(tmp_path, mask.astype(np.uint8), 100)
    balanced = BalancedChipSampler(chips, labels, pool=64)
    whole = [query.window for query in balanced.draw(2, 0)]
    parts = []
    for rank in range(2):
        monkeypatch.setattr(BalancedChipSampler, 'ranks', staticmethod(lambda rank=rank: (rank, 2)))
        monkeypatch.setattr(RandomChipSampler, 'ranks', staticmethod(lambda rank=rank: (rank, 2)))
        parts.append([query.window for query in balanced.draw(2, 0)])
    assert [window for pair in zip(*parts, strict=True) for window in pair] == whole


def test_a_state_brings_its_chips_back_whatever_the_seed_was(tmp_path: Path) -> None:
    mask = (np.arange(6400).reshape(80, 80) % 3).astype(np.uint8)
    chips, labels = samplers(tmp_path, mask, 64)
    first = BalancedChipSampler(chips, labels, pool=64)
    wanted = [query.window for query in first.draw(1, 5)]
    other = BalancedChipSampler(RandomChipSampler(chips.dataset, 8, 64, seed=99), labels, pool=64)
    other.load_state_dict({'seed': 1, 'epoch': 1, 'start': 5})
    assert [query.window for query in other] == wanted


def test_no_label_anywhere(tmp_path: Path) -> None:
    chips, labels = samplers(tmp_path, np.full((80, 80), 255, np.uint8))
    with pytest.raises(EmptyIntersectionError, match='class_balance'):
        BalancedChipSampler(chips, labels, pool=64)
