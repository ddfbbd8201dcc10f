"""Run folder of the task that finds sub-images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchgeo_msssl.tasks.column_pictures import draw_columns
from torchgeo_msssl.tasks.restoration_folder import FirstBatchFolder
from torchgeo_msssl.tasks.run_folder import Panels

_TITLES = ('chip', 'sub-image', 'its place', 'predicted place')

#: Panels of the task.
PANELS: Panels = {
    'loss': ('train_loss_step', 'train_loss_epoch', 'val_loss'),
    'IoU of the place': ('val_iou', 'val_iou_everywhere'),
    'RankMe of features': ('rank_me',),
    'learning rate': ('lr',),
    'chips / s': ('chips_per_s',),
}


class SubimageFolder(FirstBatchFolder):
    """Writes the files of every run, and ``overlaps.png`` after each validation."""

    picture = 'overlaps.png'

    def panels(self, task: Any) -> Panels:
        """Return the panels of ``curves.png``."""
        return PANELS

    def draw_outputs(self, task: Any, outputs: Any, rgb_index: Sequence[int], path: Path) -> None:
        """Draw chips, their sub-images, and the true and the predicted place."""
        images, valid = zip(*outputs['pictures'], strict=True)
        draw_columns(path, _TITLES, images, valid, rgb_index)
