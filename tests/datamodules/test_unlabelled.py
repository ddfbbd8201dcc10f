"""Unlabelled chips in training batches: where they lie, what they contain, and how they resume."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from torchgeo_msssl.contract import UNLABELLED, UnlabelledData
from torchgeo_msssl.datamodules import PretrainingDataModule, SegmentationDataModule
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.tasks import Segmentation

type Maker = Callable[..., str]
type Make = Callable[..., SegmentationDataModule]

SIDE, BLOCK, CHIP, BATCH, BATCHES = 128, 32, 16, 4, 3
NAMES = ['soil', 'vine']


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_datasets()


@pytest.fixture
def of_scenes(make_scene: Maker) -> Make:
    """A scene with a mask, of which few blocks are used."""
    rng = np.random.default_rng(0)
    image = make_scene('scene.tif', rng.integers(1, 255, (3, SIDE, SIDE)).astype(np.uint8))
    mask = make_scene('mask.tif', rng.integers(0, 2, (SIDE, SIDE)).astype(np.uint8))

    def make(**options: Any) -> SegmentationDataModule:
        return SegmentationDataModule(
            image, mask, chip_size=CHIP, block_size=BLOCK, chips_per_epoch=BATCH * BATCHES + 1, **options
        )

    return make


@pytest.fixture
def of_chips(make_scene: Maker, tmp_path: Path) -> Make:
    """A folder of chips with masks."""
    for part, count in (('train', 9), ('val', 2), ('test', 2)):
        for i in range(count):
            rng = np.random.default_rng([i, count])
            make_scene(f'chips/{part}/images/{i}.tif', rng.integers(1, 255, (3, CHIP, CHIP)).astype(np.uint8))
            make_scene(f'chips/{part}/masks/{i}.tif', rng.integers(0, 2, (CHIP, CHIP)).astype(np.uint8))

    def make(**options: Any) -> SegmentationDataModule:
        return SegmentationDataModule(
            str(tmp_path / 'chips'), reader='chips', chips_per_epoch=BATCH * BATCHES + 1, **options
        )

    return make


@pytest.fixture(params=['of_scenes', 'of_chips'])
def make(request: pytest.FixtureRequest) -> Make:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def ready(make: Make, unlabelled: bool = True, **options: Any) -> SegmentationDataModule:
    module = make(**{'class_names': NAMES, 'batch_size': BATCH, 'shots': 2} | options)
    module.setup('fit')
    if unlabelled:
        module.add_unlabelled()
    return module


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(
        same(value, right[key]) if isinstance(value, dict) else torch.equal(value, right[key])
        for key, value in left.items()
    )


def pixels(batches: Iterable[dict[str, torch.Tensor]]) -> np.ndarray:
    """Which pixels of the scene some chips cover."""
    covered = np.zeros((SIDE, SIDE), bool)
    for batch in batches:
        for row, col, height, width in batch['window'].tolist():
            covered[row : row + height, col : col + width] = True
    return covered


def test_the_protocol() -> None:
    assert isinstance(SegmentationDataModule(), UnlabelledData)
    assert not isinstance(PretrainingDataModule('absent.tif'), UnlabelledData)


def test_labelled_chips_stay_and_unlabelled_ones_have_no_mask(make: Make) -> None:
    torch.manual_seed(3)
    alone = list(ready(make, unlabelled=False).train_dataloader())
    torch.manual_seed(3)
    both = list(ready(make).train_dataloader())
    assert len(alone) == len(both) == BATCHES
    for one, batch in zip(alone, both, strict=True):
        unlabelled = batch.pop(UNLABELLED)
        assert same(one, batch)
        assert unlabelled.keys() == one.keys() - {'mask'}
        assert unlabelled['image'].shape == one['image'].shape
        assert not torch.equal(unlabelled['image'], one['image'])


def test_unlabelled_chips_lie_in_all_training_ground_and_nowhere_else(of_scenes: Make) -> None:
    everything, few = ready(of_scenes, unlabelled=False, shots=None), ready(of_scenes)
    few.setup('test')
    loader = few.train_dataloader()
    batches = [batch for _ in range(20) for batch in loader]
    labelled, unlabelled = pixels(batches), pixels(batch[UNLABELLED] for batch in batches)
    used, ground = pixels(few.region_loader('train')), pixels(everything.region_loader('train'))
    assert used.sum() == 2 * BLOCK**2
    assert not (labelled & ~used).any()
    assert not (unlabelled & ~ground).any()
    assert (unlabelled & ~used).sum() > 0.8 * (ground & ~used).sum()
    for part in ('val', 'test'):
        held_out = pixels(few.region_loader(part))
        assert held_out.any()
        assert not (held_out & unlabelled).any()


def test_unlabelled_chips_are_all_training_chips_of_a_folder(of_chips: Make) -> None:
    module = ready(of_chips)
    batches = [batch for _ in range(4) for batch in module.train_dataloader()]
    assert {chip for batch in batches for chip in batch['chip'].tolist()} < set(range(9))
    assert {chip for batch in batches for chip in batch[UNLABELLED]['chip'].tolist()} == set(range(9))
    assert module.describe_chips(batches[0][UNLABELLED])[0].count('train') == 1


@pytest.mark.parametrize('drawn', [0, 1, BATCHES, BATCHES + 1])
def test_both_streams_resume_within_an_epoch(make: Make, drawn: int) -> None:
    torch.manual_seed(3)
    module = ready(make)
    loader = module.train_dataloader()
    batches = (batch for _ in range(3) for batch in loader)
    for _ in range(drawn):
        next(batches)
    state = module.state_dict()
    torch.manual_seed(77)  # the state has the seed
    resumed = ready(make)
    resumed.load_state_dict(state)
    again = resumed.train_dataloader()
    rest = [batch for _ in range(2) for batch in again]
    assert len(rest) >= BATCHES
    for one, other in zip(batches, rest, strict=False):
        assert same(one, other)


@pytest.mark.slow
def test_a_resumed_run_equals_the_uninterrupted_one(make: Make, tmp_path: Path) -> None:
    def train(folder: Path, seed: int, checkpoint: Path | None = None) -> dict[str, Any]:
        seed_everything(seed)
        trainer = Trainer(
            default_root_dir=folder,
            max_steps=4,
            limit_val_batches=0,
            logger=False,
            accelerator='cpu',
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[ModelCheckpoint(folder, filename='{step}', every_n_train_steps=2, save_top_k=-1)],
        )
        task = Segmentation(model='fpn', in_channels=3, lr=1e-3, semi={'ema': 0.5, 'threshold': 0.5})
        data = make(class_names=NAMES, batch_size=BATCH, shots=2)
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return torch.load(folder / 'step=4.ckpt', weights_only=True)  # type: ignore[no-any-return]

    end = train(tmp_path / 'whole', seed=5)
    resumed = train(tmp_path / 'resumed', seed=77, checkpoint=tmp_path / 'whole' / 'step=2.ckpt')
    assert same(end['state_dict'], resumed['state_dict'])
    assert end['SegmentationDataModule'] == resumed['SegmentationDataModule']
    middle = torch.load(tmp_path / 'whole' / 'step=2.ckpt', weights_only=True)
    assert not same(end['state_dict'], middle['state_dict'])
    assert any(name.startswith('teacher.') for name in middle['state_dict'])
