"""Losses between a network and the teacher that labels its images.

All take logits and probabilities (batch, class, height, width) and the mask of valid pixels (batch, 1, height, width),
bool. Values of invalid pixels, NaN included, have no effect on a loss or its gradient, and a batch without valid pixels
has loss 0.

Papers: FixMatch (https://arxiv.org/abs/2001.07685), Mean Teacher (https://arxiv.org/abs/1703.01780), for segmentation
https://arxiv.org/abs/1906.01916; class-balanced self-training (https://arxiv.org/abs/1810.07911).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_rampup(step: int, warmup_steps: int) -> float:
    """Factor on a loss that rises from e⁻⁵ to 1: ``exp(−5 (1 − step / warmup_steps)²)`` (Mean Teacher, B).

    Args:
        step: Optimizer steps before this one, from 0.
        warmup_steps: Steps until the factor is 1; 0 for none.

    Returns:
        The factor.
    """
    if step >= warmup_steps:
        return 1.0
    return math.exp(-5 * (1 - step / warmup_steps) ** 2)


def class_thresholds(
    confidence: Tensor, labels: Tensor, valid: Tensor, num_classes: int, threshold: float, class_fraction: float
) -> Tensor:
    """Lower the threshold of classes of which hardly any pixel would be used.

    A class's threshold is the smaller of ``threshold`` and of the confidence that ``class_fraction`` of the valid
    pixels with its pseudo-label reach, so that rare and difficult classes are not lost (class-balanced self-training,
    equation 6).

    Args:
        confidence: Largest probability of each pixel (batch, height, width).
        labels: Its class (batch, height, width), int64.
        valid: Valid pixels (batch, height, width), bool.
        num_classes: Number of classes.
        threshold: Confidence above which any pixel is used.
        class_fraction: Fraction of the pixels of each class that is used at least.

    Returns:
        Threshold of each class (class,).
    """
    thresholds = confidence.new_full((num_classes,), threshold)
    if class_fraction == 0:
        return thresholds
    for index in range(num_classes):
        own = confidence[valid & (labels == index)]
        if len(own):
            wanted = max(1, math.ceil(class_fraction * len(own)))
            thresholds[index] = own.topk(wanted, sorted=True).values[-1].clamp_max(threshold)
    return thresholds


def pseudo_labels(
    probability: Tensor, valid: Tensor, threshold: float = 0.95, class_fraction: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Take the teacher's classes where it is confident.

    Args:
        probability: Probabilities of the teacher.
        valid: Valid pixels.
        threshold: Smallest probability of a pseudo-label.
        class_fraction: Fraction of the pixels of each class that is used at least, see :func:`class_thresholds`.

    Returns:
        Classes (batch, height, width), int64, and which of them are used, bool.
    """
    confidence, labels = probability.max(dim=1)
    valid = valid.squeeze(1)
    thresholds = class_thresholds(confidence, labels, valid, probability.shape[1], threshold, class_fraction)
    return labels, valid & (confidence >= thresholds[labels])


def pseudo_label_loss(logits: Tensor, labels: Tensor, used: Tensor, valid: Tensor) -> Tensor:
    """Cross entropy with pseudo-labels, summed over used pixels and divided by the number of valid ones (FixMatch, 4).

    Args:
        logits: Logits of the network.
        labels: Classes (batch, height, width), int64.
        used: Pixels whose pseudo-label is used (batch, height, width), bool.
        valid: Valid pixels.

    Returns:
        A scalar.
    """
    logits = torch.where(valid, logits.float(), 0.0)  # not a product: NaN times 0 is NaN
    loss = F.cross_entropy(logits, labels, reduction='none')
    return torch.where(used, loss, 0.0).sum() / valid.sum().clamp_min(1)


def softmax_mse_loss(logits: Tensor, probability: Tensor, valid: Tensor) -> Tensor:
    """Squared difference of probabilities, mean over classes and valid pixels (Mean Teacher).

    Args:
        logits: Logits of the network.
        probability: Probabilities of the teacher.
        valid: Valid pixels.

    Returns:
        A scalar.
    """
    logits = torch.where(valid, logits.float(), 0.0)
    difference = torch.where(valid, logits.softmax(dim=1) - probability.float(), 0.0)
    return difference.square().mean(dim=1).sum() / valid.sum().clamp_min(1)
