"""FastSiam's loss, of which SimSiam's is the case of two views.

Papers: FastSiam (Pototzky et al., GCPR 2022, https://doi.org/10.1007/978-3-031-16788-1_4) and
SimSiam (https://arxiv.org/abs/2011.10566).
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from lightly.loss import NegativeCosineSimilarity
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError

Target = Literal['mean', 'normalized_mean']


def mean_of_others(projections: Tensor) -> Tensor:
    """Mean over all views but one, for each view.

    Args:
        projections: Projections (view, batch, features).

    Returns:
        Means (view, batch, features).
    """
    return (projections.sum(dim=0, keepdim=True) - projections) / (len(projections) - 1)


def fastsiam_loss(predictions: Tensor, projections: Tensor, target: Target = 'mean') -> Tensor:
    """Negative cosine between each view's prediction and the mean of the other views' projections.

    ``L = 1/V · Σ_i −cos(p_i, stop-gradient(mean_{j≠i} z_j))``, averaged over the batch; from −1 to 1. Its minimum is
    also reached by collapse, so it says nothing about which checkpoint is best. Gradients reach the predictions only.

    Args:
        predictions: Outputs p of the prediction head, (view, batch, features).
        projections: Outputs z of the projection head, (view, batch, features).
        target: ``mean`` of the raw projections, as in the paper, or ``normalized_mean``, where each is brought to
            length 1 first.

    Returns:
        Loss, a scalar, float32 or (for float64 input) float64.

    Raises:
        ConfigurationError: If there are fewer than two views, the shapes differ, or the target is unknown.
    """
    _check_target(target)
    if predictions.shape != projections.shape or predictions.ndim != 3 or len(predictions) < 2:
        raise ConfigurationError(
            'predictions and projections must both be (view, batch, features) with 2 views or more, '
            f'got {tuple(predictions.shape)} and {tuple(projections.shape)}: stack the views first.'
        )
    predictions, projections = _at_least_float32(predictions), _at_least_float32(projections.detach())
    if target == 'normalized_mean':
        projections = F.normalize(projections, dim=-1)
    loss: Tensor = NegativeCosineSimilarity(dim=-1)(predictions, mean_of_others(projections))
    return loss


class FastSiamLoss(nn.Module):
    """Module round :func:`fastsiam_loss`."""

    def __init__(self, target: Target = 'mean') -> None:
        """Choose the target.

        Args:
            target: ``mean`` or ``normalized_mean``.

        Raises:
            ConfigurationError: If the target is unknown.
        """
        super().__init__()
        _check_target(target)
        self.target: Target = target

    def forward(self, predictions: Tensor, projections: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            predictions: Outputs of the prediction head, (view, batch, features).
            projections: Outputs of the projection head, (view, batch, features).

        Returns:
            Loss, a scalar.

        Raises:
            ConfigurationError: If there are fewer than two views or the shapes differ.
        """
        return fastsiam_loss(predictions, projections, self.target)


def _check_target(target: str) -> None:
    if target not in get_args(Target):
        raise ConfigurationError(f'target must be one of {", ".join(get_args(Target))}, got {target!r}.')


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
