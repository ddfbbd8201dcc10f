"""The loader goes on after exactly the batches that were given."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from rasterio.env import get_gdal_config

from tests.marks import first_fast
from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.datasets import Scenes
from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.samplers import RandomChipSampler

type Windows = list[list[list[int]]]

BATCHES = 8


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    close_datasets()


@pytest.fixture
def scenes(tmp_path: Path) -> Scenes:
    array = np.random.default_rng(0).integers(1, 5000, (2, 120, 150), dtype=np.uint16)
    with rasterio.open(
        tmp_path / 'scene.tif',
        'w',
        driver='GTiff',
        crs='EPSG:32631',
        transform=Affine(10, 0, 5e5, 0, -10, 4.9e6),
        height=120,
        width=150,
        count=2,
        dtype='uint16',
    ) as file:
        file.write(array)
    return Scenes(tmp_path / 'scene.tif')


def loader(scenes: Scenes, workers: int = 0, length: int = 4 * BATCHES + 2, seed: int = 7) -> ChipLoader:
    sampler = RandomChipSampler(scenes, 16, length, seed=seed)
    return ChipLoader(
        sampler, batch_size=4, num_workers=workers, collate_fn=collate, drop_last=True, persistent_workers=workers > 0
    )


def block_cache_of(_: Any) -> int:
    """Bytes that GDAL may take for blocks, in the process that makes a batch."""
    return int(get_gdal_config('GDAL_CACHEMAX'))


@pytest.mark.parametrize('given', [None, '17'])
def test_workers_share_the_memory_for_blocks(
    scenes: Scenes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    """Unless the user says its size; what else is to be done at their start is done."""
    if given is None:
        monkeypatch.delenv('GDAL_CACHEMAX', raising=False)
    else:
        monkeypatch.setenv('GDAL_CACHEMAX', given)
    alone = block_cache_of(None)
    load = ChipLoader(
        RandomChipSampler(scenes, 16, 8),
        batch_size=4,
        num_workers=2,
        collate_fn=block_cache_of,
        worker_init_fn=lambda worker: (tmp_path / str(worker)).touch(),
    )
    for _ in range(2):
        assert list(load) == [max(alone // 2, 64 * 2**20) if given is None else alone] * 2
    assert {path.name for path in tmp_path.glob('?')} == {'0', '1'}
    assert block_cache_of(None) == alone


def windows(batches: Any) -> Windows:
    return [batch['window'].tolist() for batch in batches]


def epoch(load: ChipLoader) -> Windows:
    return windows(load)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('length', [4 * BATCHES, 4 * BATCHES + 3])
def test_each_epoch_is_new_and_the_same_for_any_number_of_workers(scenes: Scenes, workers: int, length: int) -> None:
    load = loader(scenes, workers, length)
    epochs = [epoch(load) for _ in range(3)]
    assert [len(batches) for batches in epochs] == [BATCHES] * 3 == [len(load)] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    alone = loader(scenes, 0, length)
    assert epochs == [epoch(alone) for _ in range(3)]


@pytest.mark.parametrize(
    ('workers', 'given'), first_fast([(0, 0), (0, BATCHES), (2, 5), (0, 1), (2, 0), (2, 1), (2, BATCHES)], 3)
)
def test_a_state_goes_on_with_exactly_the_remaining_batches(scenes: Scenes, workers: int, given: int) -> None:
    want = [epoch(load) for load in [loader(scenes)] for _ in range(3)]
    load = loader(scenes, workers)
    epoch(load)
    iterator = iter(load)
    for _ in range(given):
        next(iterator)
    state = load.state_dict()  # by now the workers have fetched more than that
    if given:
        assert state['batches'] == given
        assert state['epoch'] == 1
    other = loader(scenes, workers, seed=99)
    other.load_state_dict(state)
    if given < BATCHES:
        assert epoch(other) == want[1][given:]
    assert epoch(other) == want[2]


def test_the_state_of_a_fresh_loader_is_the_beginning(scenes: Scenes) -> None:
    other = loader(scenes, seed=99)
    other.load_state_dict(loader(scenes).state_dict())
    assert epoch(other) == epoch(loader(scenes))


def test_an_epoch_that_was_left_early_does_not_shift_the_next(scenes: Scenes) -> None:
    want = [epoch(load) for load in [loader(scenes)] for _ in range(2)]
    load = loader(scenes)
    iterator = iter(load)
    for _ in range(3):
        next(iterator)
    state = load.state_dict()
    load._chips.set_epoch(1)  # as Lightning does with limit_train_batches
    assert epoch(load) == want[1]
    resumed = loader(scenes)
    resumed.load_state_dict(state)
    resumed._chips.set_epoch(1)
    assert epoch(resumed) == want[1]


def test_uint16_comes_through_workers(scenes: Scenes) -> None:
    alone, worked = loader(scenes), loader(scenes, 2)
    for a, b in zip(alone, worked, strict=True):
        assert b['image'].dtype == torch.uint16
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


class Looks(LightningModule):
    """Trains a number, and notes the chips it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: Windows = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append(batch['window'].tolist())
        return self.weight**2

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def train(folder: Path, load: ChipLoader, checkpoint: Path | None = None, **limits: Any) -> Windows:
    looks = Looks()
    trainer = Trainer(
        accelerator='cpu',
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, filename='{step}', save_top_k=-1)],
        **limits,
    )
    trainer.fit(looks, load, ckpt_path=checkpoint, weights_only=True)
    return looks.seen


@pytest.mark.parametrize('workers', first_fast([0, 2]))
@pytest.mark.parametrize('stop', first_fast([5, BATCHES, 11]))
def test_lightning_goes_on_from_a_checkpoint(scenes: Scenes, tmp_path: Path, workers: int, stop: int) -> None:
    whole = train(tmp_path / 'whole', loader(scenes), max_steps=20)
    first = train(tmp_path / 'cut', loader(scenes, workers), max_steps=stop)
    rest = train(tmp_path / 'on', loader(scenes, workers), tmp_path / 'cut' / 'last.ckpt', max_steps=20)
    assert first == whole[:stop]
    assert rest == whole[stop:]


def test_lightning_goes_on_where_epochs_are_cut_short(scenes: Scenes, tmp_path: Path) -> None:
    short: dict[str, Any] = {'limit_train_batches': 3}
    whole = train(tmp_path / 'whole', loader(scenes), max_steps=9, **short)
    assert len({str(batch) for batch in whole}) == 9
    for stop in (2, 3, 4):
        folder = tmp_path / f'cut{stop}'
        assert train(folder, loader(scenes), max_steps=stop, **short) == whole[:stop]
        rest = train(tmp_path / f'on{stop}', loader(scenes), folder / 'last.ckpt', max_steps=9, **short)
        assert rest == whole[stop:]
