"""Run folder of the task that finds sub-images."""

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from torchgeo_msssl.contract import spectral_data
from torchgeo_msssl.errors import BandError
from torchgeo_msssl.tasks.restoration_folder import draw_columns
from torchgeo_msssl.tasks.run_folder import Panels, RunFolder

log = logging.getLogger(__name__)

_TITLES = ('chip', 'sub-image', 'its place', 'predicted place')

#: Panels of the task.
PANELS: Panels = {
    'loss': ('train_loss_step', 'train_loss_epoch', 'val_loss'),
    'IoU of the place': ('val_iou', 'val_iou_everywhere'),
    'RankMe of features': ('rank_me',),
    'learning rate': ('lr',),
    'chips / s': ('chips_per_s',),
}


class SubimageFolder(RunFolder):
    """Writes the files of every run, and ``overlaps.png`` after each validation."""

    def panels(self, task: Any) -> Panels:
        """Return the panels of ``curves.png``."""
        return PANELS

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
        images, valid = zip(*outputs['pictures'], strict=True)
        data = spectral_data(trainer)
        rgb = (0,) if data is None else data.rgb_index
        try:
            draw_columns(self.evaluation / 'overlaps.png', _TITLES, images, valid, rgb)
        except BandError as error:
            log.warning('overlaps.png was not drawn: %s', error)
