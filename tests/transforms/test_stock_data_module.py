"""Spectral augmentations inside a stock TorchGeo data module and task."""

from pathlib import Path
from typing import Any

import kornia.augmentation as K
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchgeo.datamodules import NonGeoDataModule
from torchgeo.datasets import NonGeoDataset
from torchgeo.tasks import SemanticSegmentation

from torchgeo_msssl.transforms import RandomBandDropout, RandomBandNoise, RandomGain

BANDS = 5


class Chips(NonGeoDataset):
    """Chips of reflectance whose class 1 is bright in the last band."""

    def __init__(self, split: str = 'train') -> None:
        generator = torch.Generator().manual_seed(len(split))
        self.images = torch.rand(8, BANDS, 32, 32, generator=generator)
        self.masks = (self.images[:, -1] > 0.5).long()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'image': self.images[index], 'mask': self.masks[index]}


class StockDataModule(NonGeoDataModule):
    """A TorchGeo data module with our augmentations, as in docs/extending.md."""

    mean, std = torch.full((BANDS,), 0.5), torch.full((BANDS,), 0.3)

    def __init__(self, batch_size: int = 4, num_workers: int = 0, **kwargs: Any) -> None:
        super().__init__(Chips, batch_size, num_workers, **kwargs)
        self.train_aug = K.AugmentationSequential(
            RandomGain(common=(0.8, 1.2), per_band=(0.9, 1.1)),
            RandomBandNoise(std=(0.02, 0.1), p=0.5),
            RandomBandDropout(p_band=0.1),
            K.RandomHorizontalFlip(p=0.5),
            K.Normalize(mean=self.mean, std=self.std),
            data_keys=None,
            keepdim=True,
        )

    def setup(self, stage: str) -> None:
        self.train_dataset = Chips('train')
        self.val_dataset = Chips('val')


class Recorder(SemanticSegmentation):
    """Keeps the batches of the training steps."""

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        self.seen = [*getattr(self, 'seen', []), {key: value.clone() for key, value in batch.items()}]
        return super().training_step(batch, batch_idx, dataloader_idx)


def test_a_stock_task_trains_on_augmented_chips(tmp_path: Path) -> None:
    task = Recorder(model='unet', backbone='resnet18', in_channels=BANDS, num_classes=2, loss='ce')
    before = {key: value.clone() for key, value in task.model.state_dict().items()}
    data = StockDataModule()
    Trainer(
        default_root_dir=tmp_path,
        max_epochs=1,
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(task, datamodule=data)
    assert len(task.seen) == 2
    for batch in task.seen:
        assert batch['image'].shape == (4, BANDS, 32, 32)
        assert torch.isfinite(batch['image']).all()
        assert set(batch['mask'].unique().tolist()) <= {0, 1}
    normalized = (data.train_dataset.images - 0.5) / 0.3
    same = [torch.isclose(chip, normalized).flatten(1).all(1).any() for batch in task.seen for chip in batch['image']]
    assert not any(same)
    assert any(not torch.equal(before[key], value) for key, value in task.model.state_dict().items())


def test_validation_is_not_augmented(tmp_path: Path) -> None:
    data = StockDataModule()
    data.setup('validate')
    data.trainer = Trainer(default_root_dir=tmp_path, accelerator='cpu', logger=False, enable_checkpointing=False)
    data.trainer.validating = True
    batch = next(iter(data.val_dataloader()))
    after = data.on_after_batch_transfer({key: value.clone() for key, value in batch.items()}, 0)
    torch.testing.assert_close(after['image'], (batch['image'] - 0.5) / 0.3)
