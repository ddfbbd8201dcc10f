"""Loss of BYOL: squared distance between a prediction and a slower network's projection of another view.

Grill et al.: Bootstrap Your Own Latent (https://arxiv.org/abs/2006.07733, equation 2 and below).
"""

from itertools import permutations

import torch
from lightly.loss import NegativeCosineSimilarity
from torch import Tensor

from torchgeo_msssl.losses.pairs import check_pair


def byol_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Squared distance of unit vectors, in both directions: ``(2 − 2 cos(p_1, z_2)) + (2 − 2 cos(p_2, z_1))``.

    The range is 0 to 8. Collapse reaches the minimum too, so the loss must not choose checkpoints. Gradients reach the
    predictions only.

    Args:
        predictions: Predictions p of the online network (view, batch, features).
        targets: Projections z of the target network (view, batch, features).

    Returns:
        Mean over samples and over all pairs of views: a scalar, float32 or (for float64 input) float64.

    Raises:
        ConfigurationError: If there are fewer than two views or two samples, or the shapes differ.
    """
    predictions, targets = check_pair(predictions, targets, 'predictions and targets')
    negative_cosine = NegativeCosineSimilarity(dim=-1)
    terms = [2 + 2 * negative_cosine(predictions[i], targets[j]) for i, j in permutations(range(len(targets)), 2)]
    # the mean over ordered pairs is half the sum of both directions
    return 2 * torch.stack(terms).mean()
