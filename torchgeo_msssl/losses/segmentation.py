"""Losses of semantic segmentation that ignore unlabelled pixels.

Logits of pixels with the label ``ignore_index`` (NaN included) have no effect on a loss or its gradient, and a batch
without any label has loss 0. All functions take logits (batch, class, height, width), classes or ``ignore_index``
(batch, height, width), and optionally a weight of each class (class,); they return a scalar.

Papers: focal loss (https://arxiv.org/abs/1708.02002), Dice loss
(https://arxiv.org/abs/1606.04797), Jaccard loss (https://doi.org/10.1007/978-3-319-50835-1_22).
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.validation import check_at_least, check_choice

SegmentationLossName = Literal['ce', 'dice', 'focal', 'jaccard', 'ce+dice']


def focal_loss(
    logits: Tensor, target: Tensor, ignore_index: int = 255, class_weights: Tensor | None = None, gamma: float = 2.0
) -> Tensor:
    """Cross entropy in which correctly classified pixels count less.

    ``−(1 − p_t)^γ · log p_t`` with the softmax probability ``p_t`` of the labelled class; the mean over labelled
    pixels, weighted by the weight of each pixel's class as in :func:`torch.nn.functional.cross_entropy`, which it is
    for ``gamma`` 0.
    """
    logits, target, known = _labelled(logits, target, ignore_index)
    log_probability = F.log_softmax(logits, dim=1).gather(1, target[:, None]).squeeze(1)
    losses = -log_probability
    if gamma != 0:
        losses = (1 - log_probability.exp()).clamp_min(torch.finfo(logits.dtype).tiny).pow(gamma) * losses
    weight = known.to(losses.dtype) if class_weights is None else class_weights.to(losses.dtype)[target] * known
    return (losses * weight).sum() / weight.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def cross_entropy_loss(
    logits: Tensor, target: Tensor, ignore_index: int = 255, class_weights: Tensor | None = None
) -> Tensor:
    """Cross entropy over labelled pixels."""
    return focal_loss(logits, target, ignore_index, class_weights, gamma=0.0)


def overlap_loss(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
    kind: Literal['dice', 'jaccard'] = 'dice',
) -> Tensor:
    """One minus the soft overlap of probabilities and labels, over the labelled pixels of the whole batch.

    With the sums ``P`` of a class's probabilities, ``T`` of its pixels and ``I`` of its probabilities on its pixels,
    the overlap is ``2 I / (P + T)`` (Dice) or ``I / (P + T − I)`` (Jaccard). The mean is over the classes that occur in
    the labels of the batch; the range is 0 to 1.
    """
    logits, target, known = _labelled(logits, target, ignore_index)
    probability = logits.softmax(dim=1) * known[:, None]
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1) * known[:, None]
    inside, predicted, labelled = (
        part.sum(dim=(0, 2, 3)) for part in (probability * truth, probability, truth.to(probability.dtype))
    )
    tiny = torch.finfo(probability.dtype).tiny
    if kind == 'dice':
        overlap = 2 * inside / (predicted + labelled).clamp_min(tiny)
    else:
        overlap = inside / (predicted + labelled - inside).clamp_min(tiny)
    present = (labelled > 0).to(probability.dtype)
    weight = present if class_weights is None else present * class_weights.to(probability.dtype)
    return ((1 - overlap) * weight).sum() / weight.sum().clamp_min(tiny)


class SegmentationLoss(nn.Module):
    """Loss chosen by name.

    Attributes:
        class_weights: Weight of each class, or None; not saved with the network.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        loss: SegmentationLossName = 'ce',
        num_classes: int = 2,
        ignore_index: int = 255,
        class_weights: Sequence[float] | None = None,
        gamma: float = 2.0,
    ) -> None:
        """Set the loss.

        Args:
            loss: ``ce``, ``dice``, ``focal``, ``jaccard``, or ``ce+dice`` for the sum of both.
            num_classes: Number of classes.
            ignore_index: Value of unlabelled pixels in a mask.
            class_weights: Weight of each class.
            gamma: Exponent of the focal loss.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__()
        check_choice('loss', loss, SegmentationLossName)
        check_at_least(0, gamma=gamma)
        if class_weights is not None and (len(class_weights) != num_classes or not _usable(class_weights)):
            raise ConfigurationError(
                f'class_weights: expected {num_classes} numbers of 0 or more, one per class and not all 0, '
                f'got {list(class_weights)}.'
            )
        if 0 <= ignore_index < num_classes:
            raise ConfigurationError(
                f'ignore_index: {ignore_index} is one of the {num_classes} classes; set another value, like 255.'
            )
        self.loss: SegmentationLossName = loss
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.gamma = gamma
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer('class_weights', weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Raises:
            ConfigurationError: If a label is neither a class nor ``ignore_index``.
        """
        check_labels(target, self.num_classes, self.ignore_index)
        given = (logits, target, self.ignore_index, self.class_weights)
        match self.loss:
            case 'ce':
                return cross_entropy_loss(*given)
            case 'focal':
                return focal_loss(*given, gamma=self.gamma)
            case 'ce+dice':
                return cross_entropy_loss(*given) + overlap_loss(*given, kind='dice')
            case 'dice' | 'jaccard' as kind:
                return overlap_loss(*given, kind=kind)


def check_labels(target: Tensor, num_classes: int, ignore_index: int) -> None:
    """Check that labels are classes; others would raise an index error, and crash the process on a GPU.

    Args:
        target: Labels of any integer dtype and shape.
        num_classes: Number of classes.
        ignore_index: Value of unlabelled pixels.

    Raises:
        ConfigurationError: If a label is neither a class nor ``ignore_index``.
    """
    target = target.long()
    invalid = (target != ignore_index) & ((target < 0) | (target >= num_classes))
    if invalid.any():
        found = ', '.join(map(str, target[invalid].unique()[:5].tolist()))
        raise ConfigurationError(
            f'mask: {int(invalid.sum())} pixels have the labels {found}, which are neither one of the {num_classes} '
            f'classes (0 to {num_classes - 1}) nor ignore_index ({ignore_index}); check num_classes and class_names.'
        )


def _labelled(logits: Tensor, target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and labels, with zeros in unlabelled pixels, and the mask of labelled pixels."""
    known = target != ignore_index
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # not a product: NaN times 0 is NaN
    return torch.where(known[:, None], logits, 0.0), torch.where(known, target, 0).long(), known


def _usable(weights: Sequence[float]) -> bool:
    return all(0 <= weight < float('inf') for weight in weights) and any(weights)
