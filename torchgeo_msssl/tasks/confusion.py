"""Scores from a confusion matrix.

Only one matrix of integer counts is accumulated; every score is computed from it at the end, so that it does not depend
on the batches.
"""

import torch
from torch import Tensor

#: Scores of one class, in the order in which they are reported.
CLASS_SCORES = ('iou', 'f1', 'precision', 'recall')


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Count pixels by label and prediction, except those labelled ``ignore_index``.

    Returns:
        Counts (label, prediction), int64, on the device of ``target``.
    """
    known = target != ignore_index
    pairs = target[known].long() * num_classes + prediction[known].long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(matrix: Tensor) -> dict[str, Tensor]:
    """Compute the scores of each class.

    A score is NaN if it is 0 / 0: all four for a class that occurs neither in labels nor in predictions, recall for a
    class that was never labelled, precision for one that was never predicted.

    Args:
        matrix: Counts (label, prediction).

    Returns:
        ``iou``, ``f1``, ``precision`` and ``recall``, (class,) each, float64.
    """
    counts = matrix.cpu().double()
    correct, labelled, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    return {
        'iou': correct / (labelled + predicted - correct),
        'f1': 2 * correct / (labelled + predicted),
        'precision': correct / predicted,
        'recall': correct / labelled,
    }


def mean_iou(matrix: Tensor) -> float:
    """Mean IoU over the classes that occur in labels or predictions; NaN for a matrix of zeros."""
    return float(class_scores(matrix)['iou'].nanmean())


def accuracy(matrix: Tensor) -> float:
    """Fraction of correctly classified pixels; NaN for a matrix of zeros."""
    counts = matrix.cpu().double()
    return float(counts.trace() / counts.sum())
