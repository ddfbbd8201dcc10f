"""Comparison of a tested network with a threshold on a vegetation index."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import cast

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.contract import LabelledData, SegmentationTask
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
    """Print the scores of a threshold on NDVI, or on excess green without near infrared, after a test.

    The threshold has the highest IoU on the training pixels whose labels are used. It is scored on the same test chips
    as the network. The scores are also written to ``baseline.json`` in the run folder.
    """

    def __init__(self, class_name: str | None = None) -> None:
        """Initialize the callback.

        Args:
            class_name: Class to map; None for the last one.
        """
        self.class_name = class_name

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print and write the comparison."""
        task = cast(SegmentationTask, pl_module)
        data = trainer.datamodule  # type: ignore[attr-defined]
        folder = run_folder(trainer)  # on every rank, because it waits for all of them
        if not trainer.is_global_zero or not isinstance(data, LabelledData):
            return
        try:
            position = self._position(task.class_names)
            index, bands = find_bands(data.bands, data.wavelengths)
            trained = _count(task, data.region_loader('train'), index, bands, position)
            tested = _count(task, data.region_loader('test'), index, bands, position)
        except MSSSLError as error:  # the test itself has succeeded
            log.warning('No baseline: %s', error)
            return
        threshold = best_threshold(trained, index)
        confusion = threshold_confusion(tested, threshold)
        scores = {
            'network': {name: float(values[position]) for name, values in class_scores(task.confusion).items()},
            str(threshold): {name: float(values[1]) for name, values in class_scores(confusion).items()},
            'everything': {'iou': float(tested[1].sum() / max(tested.sum(), 1))},
        }
        name = task.class_names[position]
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


@torch.no_grad()
def _count(
    task: SegmentationTask, batches: Iterable[dict[str, Tensor]], index: str, bands: Sequence[int], position: int
) -> NDArray[np.int64]:
    """Count pixels by step of the index, (2, step): of other classes, and of the class at a position."""
    counts = np.zeros((2, STEPS), dtype=np.int64)
    for cpu in batches:
        batch = {key: value.to(task.device) for key, value in cpu.items() if isinstance(value, Tensor)}
        label = task.labels(batch)
        step = index_steps(vegetation_index(task.reflectance(batch), index, bands))
        for row, here in enumerate(((label != position) & (label != task.ignore_index), label == position)):
            counts[row] += torch.bincount(step[here], minlength=STEPS).cpu().numpy()
    return counts
