"""Run folder of tasks that restore images."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from torchgeo_msssl.contract import spectral_data
from torchgeo_msssl.errors import BandError
from torchgeo_msssl.tasks.column_pictures import CHIPS_SHOWN, draw_columns
from torchgeo_msssl.tasks.run_folder import Panels, RunFolder

log = logging.getLogger(__name__)

_TITLES = ('original', 'given to the network', 'restored', 'restored and visible')

#: Panels of a restoration.
PANELS: Panels = {
    'loss': ('train_loss_step', 'train_loss_epoch', 'val_loss'),
    'PSNR of hidden pixels, dB': ('val_psnr', 'val_psnr_given'),
    'SSIM of hidden pixels': ('val_ssim', 'val_ssim_given'),
    'RankMe of features': ('rank_me',),
    'learning rate': ('lr',),
    'chips / s': ('chips_per_s',),
}


def draw_restorations(
    path: Path,
    images: Sequence[Tensor],
    valid: Tensor,
    rgb_index: Sequence[int],
    rows: int = CHIPS_SHOWN,
    note: str = '',
) -> None:
    """Draw one row per chip: original, corrupted, restored, and the original with its hidden pixels restored.

    Args:
        path: PNG to write.
        images: The four in this order, in reflectance, (batch, band, height, width) each.
        valid: Valid pixels (batch, 1, height, width), bool; others are gray.
        rgb_index: Bands drawn red, green and blue, or one band drawn in gray.
        rows: Largest number of chips drawn.
        note: Remark about the restored images.

    Raises:
        BandError: If the images lack a band.
        OutputError: If the file cannot be written.
    """
    draw_columns(path, _TITLES, images, [valid] * len(images), rgb_index, rows, note)


class FirstBatchFolder(RunFolder):
    """Writes the files of every run, and a picture of the first chips after each validation.

    Attributes:
        picture: Name of the picture.
    """

    picture: str

    @abstractmethod
    def draw_outputs(self, task: Any, outputs: Any, rgb_index: Sequence[int], path: Path) -> None:
        """Draw what the validation step of the first batch returned.

        Raises:
            BandError: If the images lack a band.
        """

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the chips of the first batch."""
        if batch_idx > 0 or self.evaluation is None:
            return
        data = spectral_data(trainer)
        try:
            self.draw_outputs(
                pl_module, outputs, (0,) if data is None else data.rgb_index, self.evaluation / self.picture
            )
        except BandError as error:
            log.warning('%s was not drawn: %s', self.picture, error)


class RestorationFolder(FirstBatchFolder):
    """Writes the files of every run, and ``reconstructions.png`` after each validation."""

    picture = 'reconstructions.png'

    def panels(self, task: Any) -> Panels:
        """Return the panels of ``curves.png``."""
        return PANELS

    def draw_outputs(self, task: Any, outputs: Any, rgb_index: Sequence[int], path: Path) -> None:
        """Draw original, corrupted and restored chips."""
        images = [outputs[name] for name in ('original', 'corrupted', 'restored', 'filled')]
        draw_restorations(path, images, outputs['valid'], rgb_index, note=task.note)
