"""Run folder of the task that predicts another date."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchgeo_msssl.contract import spectral_data
from torchgeo_msssl.tasks.column_pictures import CHIPS_SHOWN, draw_columns
from torchgeo_msssl.tasks.run_folder import Panels, RunFolder

_TITLES = ('chip', 'other date', 'predicted')

#: Panels of the task.
PANELS: Panels = {
    'loss': ('train_loss_step', 'train_loss_epoch', 'train_loss_given'),
    'RankMe of features': ('rank_me',),
    'learning rate': ('lr',),
    'chips / s': ('chips_per_s',),
}


class TemporalFolder(RunFolder):
    """Writes the files of every run, and ``predictions.png`` at its end.

    Attributes:
        batch: Chips that the picture shows, the first of the run.
    """

    def __init__(self) -> None:
        """Start without a folder and without chips."""
        super().__init__()
        self.batch: dict[str, Tensor] | None = None

    def panels(self, task: Any) -> Panels:
        """Return the panels of ``curves.png``."""
        return PANELS

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Keep the first chips."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self.folder is not None and self.batch is None:
            self.batch = {key: value[:CHIPS_SHOWN] for key, value in batch.items() if isinstance(value, Tensor)}

    def write_results(self, task: Any, folder: Path) -> None:
        """Write the encoder, and draw chips, their other date and its prediction."""
        super().write_results(task, folder)
        if self.batch is None:
            return
        data = spectral_data(task.trainer)
        training = task.training
        with torch.random.fork_rng():
            task.eval()
            task.seed_step(0)
            images, valid = zip(*task.pictures(self.batch), strict=True)
            task.train(training)
        draw_columns(folder / 'predictions.png', _TITLES, images, valid, (0,) if data is None else data.rgb_index)
