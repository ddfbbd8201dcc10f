"""Data without files, and the test that a resumed run equals an uninterrupted one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

BANDS = ('B02', 'B03', 'B04', 'B08')
BATCHES, BATCH, SIDE = 3, 4, 32

Checkpoint = dict[str, Any]


def draw_chips(count: int, side: int = SIDE) -> list[dict[str, Tensor]]:
    """Chips with a bright square each, and one column without data."""
    generator = torch.Generator().manual_seed(0)
    chips = []
    for _ in range(count):
        image = torch.randint(300, 900, (len(BANDS), side, side), generator=generator)
        top, left, band = (int(torch.randint(0, n, (), generator=generator)) for n in (side // 2, side // 2, 4))
        image[band, top : top + side // 2, left : left + side // 2] += 3000
        valid = torch.ones(1, side, side, dtype=torch.bool)
        valid[..., -1] = False
        chips.append(
            {
                'image': image.to(torch.uint16),
                'valid': valid,
                'scale': torch.full((len(BANDS),), 1e-4),
                'offset': torch.zeros(len(BANDS)),
            }
        )
    return chips


class Batches(DataLoader[dict[str, Tensor]]):
    """Three batches per epoch, each epoch in another order, that resume where a checkpoint was written."""

    epoch = given = skip = 0

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        order = torch.randperm(len(self.dataset), generator=torch.Generator().manual_seed(self.epoch))
        first, self.skip = self.skip, 0
        for self.given, indices in enumerate(order.split(BATCH)[first:], start=first + 1):
            chips = [self.dataset[i] for i in indices.tolist()]
            yield {key: torch.stack([chip[key] for chip in chips]) for key in chips[0]}
        self.epoch, self.given = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {'epoch': self.epoch, 'given': self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        finished, self.skip = divmod(state['given'], BATCHES)
        self.epoch = state['epoch'] + finished


class TinyData(LightningDataModule):
    """A ``contract.PretrainingData``: 12 chips of 4 bands and 32 px, 3 batches per epoch."""

    bands, sensor_name, wavelengths = BANDS, 'sentinel2_l2a', (490.0, 560.0, 665.0, 842.0)
    in_channels, chip_size, batch_size, epoch_chips = len(BANDS), SIDE, BATCH, BATCH * BATCHES
    rgb_index, holds_out = (2, 1, 0), False
    mean, std = (0.08,) * 4, (0.05,) * 4
    scale, offset = (1e-4,) * 4, (0.0,) * 4

    def __init__(self) -> None:
        super().__init__()
        self.batches = Batches(draw_chips(self.epoch_chips), self.batch_size)  # type: ignore[arg-type]

    def describe_chips(self, batch: dict[str, Tensor]) -> list[str]:
        return [f'chip {index}' for index in range(len(batch['image']))]

    def train_dataloader(self) -> Batches:
        return self.batches

    # as the real one does, for schedules that ask for the length of an epoch before loaders are restored
    def state_dict(self) -> dict[str, Any]:
        return self.batches.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches.load_state_dict(state_dict)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


def make_trainer(folder: Path, max_steps: int, save_every: int | None = None) -> Trainer:
    """A trainer on the CPU that logs nothing, and perhaps keeps ``step=N.ckpt`` in the folder."""
    save = ModelCheckpoint(
        folder, filename='{step}', every_n_train_steps=save_every, save_top_k=-1, enable_version_counter=False
    )
    return Trainer(
        default_root_dir=folder,
        max_steps=max_steps,
        logger=False,
        accelerator='cpu',
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[save] if save_every else None,
        enable_checkpointing=bool(save_every),
    )


def make_logging_trainer(folder: Path, epochs: int = 2, **options: Any) -> Trainer:
    """A trainer on the CPU that logs each step to ``run`` in the folder."""
    return Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator='cpu',
        enable_progress_bar=False,
        log_every_n_steps=1,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=CSVLogger(folder, name='run'),
        **options,
    )


def differences(left: Any, right: Any, where: str = '') -> list[str]:
    """Places at which two nested states are not the same, bit for bit."""
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return [found for key in left for found in differences(left[key], right[key], f'{where}/{key}')]
    if isinstance(left, list | tuple) and isinstance(right, list | tuple) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [found for i, (one, other) in pairs for found in differences(one, other, f'{where}/{i}')]
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return [] if left.dtype == right.dtype and torch.equal(left, right) else [where]
    return [] if type(left) is type(right) and left == right else [where]


@pytest.fixture
def tiny_data() -> type[TinyData]:
    """The class; every call makes a data module that begins at the first batch."""
    return TinyData


@pytest.fixture
def logging_trainer() -> Callable[..., Trainer]:
    """``logging_trainer(folder, epochs=2, **options)``: a trainer that logs each step to ``run`` in the folder."""
    return make_logging_trainer


@pytest.fixture
def fit() -> Callable[..., Trainer]:
    """``fit(task, data, folder, epochs=2)``: train a task, and return the trainer of :func:`make_logging_trainer`."""

    def run(task: LightningModule, data: LightningDataModule, folder: Path, epochs: int = 2) -> Trainer:
        trainer = make_logging_trainer(folder, epochs)
        trainer.fit(task, datamodule=data)
        return trainer

    return run


@pytest.fixture
def check_resume() -> Callable[..., tuple[Checkpoint, Checkpoint]]:
    """``check_resume(make_task, tmp_path, half=2, make_data=TinyData)``: a run of 2 · half steps, and one
    resumed in its middle.

    ``make_task()`` gives a new task for 4 bands and 32 px. The default breaks off in the middle of an epoch. Returned
    are the checkpoints of the middle and of the end of the uninterrupted run, so that a test can see that what it is
    about did change between them.
    """

    def check(
        make_task: Callable[[], LightningModule],
        tmp_path: Path,
        half: int = 2,
        make_data: Callable[[], LightningDataModule] = TinyData,
    ) -> tuple[Checkpoint, Checkpoint]:
        def train(folder: Path, seed: int, checkpoint: Path | None = None) -> list[Checkpoint]:
            seed_everything(seed)
            trainer = make_trainer(folder, 2 * half, save_every=half)
            trainer.fit(make_task(), datamodule=make_data(), ckpt_path=checkpoint, weights_only=True)
            paths = (folder / f'step={step}.ckpt' for step in (half, 2 * half))
            return [torch.load(path, weights_only=True) for path in paths if path.is_file()]

        middle, end = train(tmp_path / 'whole', seed=5)
        # whatever is not in the checkpoint differs, since the seed of the process does
        (resumed,) = train(tmp_path / 'resumed', seed=77, checkpoint=tmp_path / 'whole' / f'step={half}.ckpt')
        assert (middle['global_step'], end['global_step'], resumed['global_step']) == (half, 2 * half, 2 * half)
        for part in ('state_dict', 'optimizer_states', 'lr_schedulers', 'msssl_seed', 'msssl_total_steps'):
            assert not differences(end[part], resumed[part], part)
        assert differences(middle['state_dict'], end['state_dict'])
        return middle, end

    return check
