"""The dumb baseline of vegetation maps: a threshold on an index."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.errors import ConfigurationError, MSSSLError
from torchgeo_msssl.evaluation.vegetation_index import (
    STEPS,
    best_threshold,
    find_bands,
    index_steps,
    threshold_confusion,
    vegetation_index,
)
from torchgeo_msssl.files import write_json
from torchgeo_msssl.runs import run_folder
from torchgeo_msssl.tasks.confusion import class_scores

log = logging.getLogger(__name__)


class IndexBaseline(Callback):
    """Beside the scores of a test, prints those of a threshold on NDVI, or on excess green without near infrared.

    The threshold is the best one for the training pixels whose labels are used, the scores are those of the same test
    chips as the network's. They are also written to ``baseline.json`` in the run folder.
    """

    def __init__(self, class_name: str | None = None) -> None:
        """Choose the class.

        Args:
            class_name: Class that is looked for; None for the last one.
        """
        self.class_name = class_name

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the comparison."""
        task: Any = pl_module
        data = getattr(trainer, 'datamodule', None)
        folder = run_folder(trainer)  # not on rank 0 alone: the others would wait for it for ever
        if not trainer.is_global_zero or data is None or not hasattr(data, 'region_loader'):
            return
        try:
            wanted = self._position(task.class_names)
            index, positions = find_bands(data.bands, data.wavelengths)
            known = self._count(task, data.region_loader('train'), index, positions, wanted)
            tested = self._count(task, data.region_loader('test'), index, positions, wanted)
        except MSSSLError as error:  # that there is no baseline is no failure of the test
            log.warning('No baseline: %s', error)
            return
        threshold = best_threshold(known, index)
        hits = threshold_confusion(tested, threshold)
        scores = {
            'network': {name: float(values[wanted]) for name, values in class_scores(task.confusion).items()},
            str(threshold): {name: float(values[1]) for name, values in class_scores(hits).items()},
            'everything': {'iou': float(tested[1].sum() / max(tested.sum(), 1))},
        }
        name = task.class_names[wanted]
        print(f'IoU of {name} on {int(tested.sum()):,} labelled test pixels:')
        for what, score in scores.items():
            print(f'  {what:<22} {score["iou"]:.3f}')
        if folder is not None:
            write_json(folder / 'baseline.json', {'class': name, 'threshold': asdict(threshold), 'scores': scores})

    def _position(self, names: Sequence[str]) -> int:
        if self.class_name is None:
            return len(names) - 1
        if self.class_name not in names:
            raise ConfigurationError(f'class_name: {self.class_name!r} is not one of {", ".join(names)}.')
        return names.index(self.class_name)

    @staticmethod
    @torch.no_grad()
    def _count(task: Any, loader: ChipLoader, index: str, positions: Sequence[int], wanted: int) -> NDArray[np.int64]:
        counts = np.zeros((2, STEPS), dtype=np.int64)
        for cpu in loader:
            batch = {key: value.to(task.device) for key, value in cpu.items() if isinstance(value, Tensor)}
            label = task.labels(batch)
            values = vegetation_index(task.reflectance(batch), index, positions)
            step = index_steps(values)
            for row, here in enumerate(((label != wanted) & (label != task.ignore_index), label == wanted)):
                counts[row] += torch.bincount(step[here], minlength=STEPS).cpu().numpy()
        return counts
