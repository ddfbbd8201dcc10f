"""Comparison of a tested network with classifiers of hand-made pixel features."""

import logging
import math
import time
from collections.abc import Sequence
from typing import cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from torchgeo_msssl.contract import LabelledData
from torchgeo_msssl.errors import MSSSLError
from torchgeo_msssl.evaluation.baseline_names import BASELINES
from torchgeo_msssl.evaluation.pixel_baselines import BaselineLimits, pixel_baselines
from torchgeo_msssl.tasks.confusion import class_scores, mean_iou
from torchgeo_msssl.tasks.pixel_classification import PixelClassification
from torchgeo_msssl.tasks.segmentation_figures import metric_name

log = logging.getLogger(__name__)


class PixelBaselines(Callback):
    """Print the scores of classifiers of hand-made pixel features next to those of a network, after a test.

    Logistic regression and random forests are trained in seconds on the labels that the network was trained on, and
    scored on its test chips. Their scores are also logged as ``test_iou_<class>/<baseline>``, and written to
    ``metrics_test.json`` under ``baselines``.
    """

    def __init__(self, max_chips: int = 256, max_pixels: int = 20_000, max_test_pixels: int = 200_000) -> None:
        """Initialize the callback.

        Args:
            max_chips: Maximum number of training chips.
            max_pixels: Maximum number of training pixels, shared equally by the classes.
            max_test_pixels: Maximum number of test pixels, on average; of more, a random part is classified.
        """
        self.limits = BaselineLimits(max_chips, max_pixels, max_test_pixels)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train, test, print and log the baselines.

        The task keeps their counts, which its own callback writes afterwards.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero or not isinstance(data, LabelledData):
            return
        task = cast(PixelClassification, pl_module)
        started = time.perf_counter()
        try:
            task.baselines = pixel_baselines(task, data, self.limits)
        except MSSSLError as error:  # the test itself has succeeded
            log.warning('No classifiers of pixels to compare with: %s', error)
            return
        print(f'IoU on the test pixels; the baselines took {time.perf_counter() - started:.0f} s:')
        for line in _table(task.confusion, task.baselines, task.class_names):
            print(f'  {line}')
        for logger in trainer.loggers:
            logger.log_metrics(_metrics(task.baselines, task.class_names), step=trainer.global_step)


def _metrics(baselines: dict[str, Tensor], class_names: Sequence[str]) -> dict[str, float]:
    found = {}
    for key, counts in baselines.items():
        found[f'test_mean_iou/{key}'] = mean_iou(counts)
        for name, value in zip(class_names, class_scores(counts)['iou'].tolist(), strict=True):
            found[f'test_iou_{metric_name(name)}/{key}'] = value
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _table(network: Tensor, baselines: dict[str, Tensor], class_names: Sequence[str]) -> list[str]:
    """Format IoU by class and on average, one line per classifier."""
    widths = [max(len(name), 5) for name in (*class_names, 'mean')]
    lines = [
        ' '.join([' ' * 30, *(f'{name:>{width}}' for name, width in zip((*class_names, 'mean'), widths, strict=True))])
    ]
    for name, counts in (('network', network), *((BASELINES[key], counts) for key, counts in baselines.items())):
        values = [*class_scores(counts)['iou'].tolist(), mean_iou(counts)]
        numbers = (f'{value:{width}.3f}' for value, width in zip(values, widths, strict=True))
        lines.append(' '.join([f'{name:<30}', *numbers]))
    return lines
