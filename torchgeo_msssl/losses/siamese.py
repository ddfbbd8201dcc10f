"""Loss of FastSiam; SimSiam's is the case of two views.

Papers: FastSiam (Pototzky et al., GCPR 2022, https://doi.org/10.1007/978-3-031-16788-1_4) and
SimSiam (https://arxiv.org/abs/2011.10566).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from lightly.loss import NegativeCosineSimilarity
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.pairs import at_least_float32, check_local
from torchgeo_msssl.validation import check_choice

Target = Literal['mean', 'normalized_mean']


def mean_of_others(projections: Tensor) -> Tensor:
    """Mean over all other views, for each view: (view, batch, features) to the same shape."""
    return (projections.sum(dim=0, keepdim=True) - projections) / (len(projections) - 1)


def fastsiam_loss(
    predictions: Tensor, projections: Tensor, target: Target = 'mean', local: Tensor | None = None
) -> Tensor:
    """Negative cosine between each view's prediction and the mean of the other views' projections.

    ``L = 1/V · Σ_i −cos(p_i, stop-gradient(mean_{j≠i} z_j))``, averaged over the batch; from −1 to 1. Collapse reaches
    the minimum too, so the loss must not choose checkpoints. Gradients reach the predictions only.

    Args:
        predictions: Outputs p of the prediction head, (view, batch, features).
        projections: Outputs z of the projection head, (view, batch, features).
        target: ``mean`` of the raw projections, as in the paper, or ``normalized_mean``, where each is first normalized
            to length 1.
        local: Predictions of local views (local view, batch, features), whose target is the mean over all views; or
            None.

    Returns:
        Loss, a scalar, float32 or (for float64 input) float64.

    Raises:
        ConfigurationError: If there are fewer than two views, the shapes differ, or the target is unknown.
    """
    check_choice('target', target, Target)
    if predictions.shape != projections.shape or predictions.ndim != 3 or len(predictions) < 2:
        raise ConfigurationError(
            'predictions and projections must both be (view, batch, features) with 2 views or more, '
            f'got {tuple(predictions.shape)} and {tuple(projections.shape)}: stack the views first.'
        )
    predictions, projections = at_least_float32(predictions), at_least_float32(projections.detach())
    if target == 'normalized_mean':
        projections = F.normalize(projections, dim=-1)
    targets = mean_of_others(projections)
    if local is not None:
        predictions = torch.cat([predictions, check_local(local, predictions)])
        targets = torch.cat([targets, projections.mean(dim=0).expand(len(local), -1, -1)])
    loss: Tensor = NegativeCosineSimilarity(dim=-1)(predictions, targets)
    return loss
