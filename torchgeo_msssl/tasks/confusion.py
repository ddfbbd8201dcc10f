"""From a confusion matrix to scores.

One matrix of whole counts is all that is accumulated; every score is computed from it at the end, so that it does not
depend on how pixels were put into batches.
"""

import torch
from torch import Tensor

#: Scores of one class, in the order in which they are reported.
CLASS_SCORES = ('iou', 'f1', 'precision', 'recall')


def confusion_matrix(prediction: Tensor, target: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Count pixels by label and prediction.

    Args:
        prediction: Predicted classes, any shape.
        target: Labels of the same shape: classes, or ``ignore_index`` for pixels that are not counted.
        num_classes: Number of classes.
        ignore_index: Label of pixels that are left out.

    Returns:
        Counts (label, prediction), int64, on the device of ``target``.
    """
    known = target != ignore_index
    pairs = target[known].long() * num_classes + prediction[known].long()
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_scores(matrix: Tensor) -> dict[str, Tensor]:
    """Compute the scores of each class.

    A score is NaN where it is 0 / 0: all four for a class that occurs neither in labels nor in predictions, recall for
    one that was never labelled, precision for one that was never predicted.

    Args:
        matrix: Counts (label, prediction).

    Returns:
        ``iou``, ``f1``, ``precision`` and ``recall``, (class,) each, float64.
    """
    counts = matrix.cpu().double()
    right, labelled, predicted = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)
    return {
        'iou': right / (labelled + predicted - right),
        'f1': 2 * right / (labelled + predicted),
        'precision': right / predicted,
        'recall': right / labelled,
    }


def mean_iou(matrix: Tensor) -> float:
    """Mean IoU over the classes that occur in labels or predictions.

    Args:
        matrix: Counts (label, prediction).

    Returns:
        The mean; NaN where nothing was counted.
    """
    return float(class_scores(matrix)['iou'].nanmean())


def accuracy(matrix: Tensor) -> float:
    """Share of pixels whose class is right.

    Args:
        matrix: Counts (label, prediction).

    Returns:
        The share; NaN where nothing was counted.
    """
    counts = matrix.cpu().double()
    return float(counts.trace() / counts.sum())
