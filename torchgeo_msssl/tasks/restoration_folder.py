"""Run folder of tasks that restore images."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from torchgeo_msssl.contract import spectral_data
from torchgeo_msssl.errors import BandError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.tasks.run_folder import Panels, RunFolder
from torchgeo_msssl.transforms.pictures import contact_sheet

log = logging.getLogger(__name__)

_CHIPS_SHOWN = 8
_SEPARATOR = 2
#: Approximate height and width of a chip in the picture.
_SIDE = 160
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
    rows: int = _CHIPS_SHOWN,
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


def draw_columns(
    path: Path,
    titles: Sequence[str],
    images: Sequence[Tensor],
    valid: Sequence[Tensor],
    rgb_index: Sequence[int],
    rows: int = _CHIPS_SHOWN,
    note: str = '',
) -> None:
    """Draw one row per chip: the chip and other images of it, in columns with titles.

    Args:
        path: PNG to write.
        titles: Title of each column.
        images: One per column, in reflectance, (batch, band, height, width) each; the first one is the largest.
        valid: Valid pixels of each, (batch, 1, height, width), bool; others are gray.
        rgb_index: Bands drawn red, green and blue, or one band drawn in gray.
        rows: Largest number of chips drawn.
        note: Remark below the picture's upper edge.

    Raises:
        BandError: If the images lack a band.
        OutputError: If the file cannot be written.
    """
    height, width = images[0].shape[-2:]
    zoom = max(1, _SIDE // max(height, width))
    sheet = contact_sheet(images[0], images[1:], rgb_index, valid[0], valid[1:], rows, zoom, _SEPARATOR)
    dpi, title = 100, 45 if note else 30
    figure = Figure(figsize=(sheet.shape[1] / dpi, (sheet.shape[0] + title) / dpi), dpi=dpi)
    axes = figure.add_axes((0, 0, 1, sheet.shape[0] / (sheet.shape[0] + title)))
    axes.imshow(sheet, interpolation='nearest', aspect='auto')
    axes.set_axis_off()
    for column, text in enumerate(titles):
        axes.text((column + 0.5) * (width * zoom + _SEPARATOR), -8, text, ha='center', fontsize=8)
    axes.text(0, -26, note, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


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
