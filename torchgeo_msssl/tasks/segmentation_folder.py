"""Run folder of a segmentation task."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from torchgeo_msssl.contract import SegmentationTask, spectral_data
from torchgeo_msssl.errors import BandError
from torchgeo_msssl.files import write_json
from torchgeo_msssl.tasks.run_folder import Panels, RunFolder
from torchgeo_msssl.tasks.segmentation_figures import (
    ChipPicture,
    draw_chips,
    draw_confusion,
    metric_name,
    score_report,
    write_confusion,
)
from torchgeo_msssl.transforms.normalize import valid_pixels

log = logging.getLogger(__name__)

_CHIPS_SHOWN = 6
_BATCHES_SEARCHED = 16


class SegmentationFolder(RunFolder):
    """Writes metrics and curves of every run, and pictures of input, predictions and confusion.

    In the run folder: ``views.png`` (augmented chips and labels of the first step), and after validation or test
    ``confusion_matrix.csv`` and ``.png``, ``sample_predictions.png`` and ``metrics_val.json`` or ``metrics_test.json``.
    Files of an earlier evaluation in the same folder are overwritten; during training, pictures are drawn at the end.
    """

    def __init__(self) -> None:
        """Start without chips."""
        super().__init__()
        self.chips: list[ChipPicture] = []

    def panels(self, task: SegmentationTask) -> Panels:
        """Return the panels of ``curves.png``."""
        return {
            'loss': ('train_loss_step', 'train_loss_epoch', 'val_loss'),
            'IoU': ('val_mean_iou', *(f'val_iou_{metric_name(name)}' for name in task.class_names)),
            'learning rate': ('lr',),
            'chips / s': ('chips_per_s',),
        }

    def draw_input(self, task: Any, batch: dict[str, Tensor], path: Path) -> None:
        """Draw augmented chips and their labels."""
        image, mask = task.augmented(batch)
        valid = torch.ones_like(mask[:, None], dtype=torch.bool)
        parts = (task.normalize.to_reflectance(image), valid, mask)
        chips = [ChipPicture(*(part[index].cpu() for part in parts)) for index in range(min(_CHIPS_SHOWN, len(image)))]
        self._draw(chips, task, path)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the folder, and forget earlier chips."""
        super().on_validation_start(trainer, pl_module)
        self.chips = []

    on_test_start = on_validation_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the chips with most classes."""
        if batch_idx < _BATCHES_SEARCHED and self.evaluation is not None:
            task: Any = pl_module
            self.chips = _most_classes([*self.chips, *_pictures(task, batch, outputs)], task.ignore_index)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the counts, and pictures unless the run continues."""
        self._write_evaluation(pl_module, 'val', pictures=trainer.state.fn != TrainerFn.FITTING)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write counts and pictures."""
        self._write_evaluation(pl_module, 'test', pictures=True)
        if self.evaluation is not None:
            print(f'Run folder: {self.evaluation}')

    def _write_evaluation(self, task: Any, stage: str, pictures: bool) -> None:
        if self.evaluation is None:
            return
        matrix, names = task.confusion.cpu(), task.class_names
        write_confusion(self.evaluation / 'confusion_matrix.csv', matrix, names)
        baselines = {name: score_report(counts, names) for name, counts in task.baselines.items()}
        report = score_report(matrix, names) | ({'baselines': baselines} if baselines else {})
        write_json(self.evaluation / f'metrics_{stage}.json', report)
        if pictures:
            self.write_results(task, self.evaluation)

    def write_results(self, task: Any, folder: Path) -> None:
        """Draw confusion matrix and sample predictions."""
        if int(task.confusion.sum()):
            draw_confusion(folder / 'confusion_matrix.png', task.confusion.cpu(), task.class_names)
        if self.chips:
            self._draw(self.chips, task, folder / 'sample_predictions.png')

    @staticmethod
    def _draw(chips: Sequence[ChipPicture], task: Any, path: Path) -> None:
        data = spectral_data(task.trainer)
        rgb = (0,) if data is None else data.rgb_index
        try:
            draw_chips(path, chips, task.class_names, rgb, task.ignore_index)
        except BandError as error:
            log.warning('%s was not drawn for %d bands: %s', path.name, chips[0].image.shape[0], error)


def _pictures(task: SegmentationTask, batch: dict[str, Tensor], prediction: Tensor) -> list[ChipPicture]:
    label = task.labels(batch)
    image = task.reflectance(batch).float()
    valid = valid_pixels(batch['image'], batch.get('valid'))
    return [
        ChipPicture(*(part[index].cpu() for part in (image, valid, label, prediction)))
        for index in range(len(label))
        if (label[index] != task.ignore_index).any()
    ]


def _most_classes(chips: list[ChipPicture], ignore_index: int) -> list[ChipPicture]:
    """Chips with most classes first, of these the ones with most labelled pixels; equal ones in their order."""

    def content(chip: ChipPicture) -> tuple[int, int]:
        labelled = chip.label[chip.label != ignore_index]
        return labelled.unique().numel(), labelled.numel()

    return sorted(chips, key=content, reverse=True)[:_CHIPS_SHOWN]
