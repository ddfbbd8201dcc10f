"""BYOL's loss: the squared distance between a prediction and what a slower network says of another view.

Grill et al.: Bootstrap Your Own Latent (https://arxiv.org/abs/2006.07733, equation 2 and below).
"""

from itertools import permutations

import torch
from lightly.loss import NegativeCosineSimilarity
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.pairs import check_views


def byol_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of vectors of length 1, in both directions: ``(2 − 2 cos(p_1, z_2)) + (2 − 2 cos(p_2, z_1))``.

    From 0 to 8. Its minimum is also reached by collapse, so it says nothing about which checkpoint is best. Gradients
    reach the predictions only.

    Args:
        predictions: Predictions p of the online network (view, batch, features).
        targets: Projections z of the target network (view, batch, features).

    Returns:
        Loss, a scalar, float32 or (for float64 input) float64; the mean over samples and over all pairs of views.

    Raises:
        ConfigurationError: If there are fewer than two views or two samples, or the shapes differ.
    """
    if predictions.shape != targets.shape:
        raise ConfigurationError(
            'predictions and targets must be of the same views, '
            f'got {tuple(predictions.shape)} and {tuple(targets.shape)}.'
        )
    predictions, targets = check_views(predictions), check_views(targets.detach())
    negative_cosine = NegativeCosineSimilarity(dim=-1)
    terms = [2 + 2 * negative_cosine(predictions[i], targets[j]) for i, j in permutations(range(len(targets)), 2)]
    # the mean over ordered pairs is half of the sum of both directions
    return 2 * torch.stack(terms).mean()
