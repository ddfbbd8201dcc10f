"""Loss of BYOL: squared distance between a prediction and a slower network's projection of another view.

Grill et al.: Bootstrap Your Own Latent (https://arxiv.org/abs/2006.07733, equation 2 and below).
"""

from itertools import permutations, product

import torch
from lightly.loss import NegativeCosineSimilarity
from torch import Tensor

from torchgeo_msssl.losses.pairs import check_local, check_pair


def byol_loss(predictions: Tensor, targets: Tensor, local: Tensor | None = None) -> Tensor:
    """Squared distance of unit vectors, in both directions: ``(2 − 2 cos(p_1, z_2)) + (2 − 2 cos(p_2, z_1))``.

    The range is 0 to 8. Collapse reaches the minimum too, so the loss must not choose checkpoints. Gradients reach the
    predictions only.

    Args:
        predictions: Predictions p of the online network (view, batch, features).
        targets: Projections z of the target network (view, batch, features).
        local: Predictions of local views (local view, batch, features), which are compared with every target; or None.

    Returns:
        Mean over samples and over all pairs of a prediction and the target of another view: a scalar, float32 or (for
        float64 input) float64.

    Raises:
        ConfigurationError: If there are fewer than two views or two samples, or the shapes do not agree.
    """
    predictions, targets = check_pair(predictions, targets, 'predictions and targets')
    negative_cosine = NegativeCosineSimilarity(dim=-1)
    pairs = [(predictions[i], targets[j]) for i, j in permutations(range(len(targets)), 2)]
    if local is not None:
        pairs += product(check_local(local, predictions), targets)
    # the mean over ordered pairs is half the sum of both directions
    return 2 * torch.stack([2 + 2 * negative_cosine(*pair) for pair in pairs]).mean()
