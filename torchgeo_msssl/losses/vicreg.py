"""Loss of VICReg for several views.

Bardes, Ponce & LeCun: VICReg, Variance-Invariance-Covariance Regularization (https://arxiv.org/abs/2105.04906). The
three terms are lightly's; variance and covariance are taken over the global batch.
"""

import torch
from lightly.loss.vicreg_loss import covariance_loss, invariance_loss, variance_loss
from lightly.utils import dist
from torch import Tensor, nn

from torchgeo_msssl.losses.pairs import check_local, check_views, compare_views
from torchgeo_msssl.validation import check_at_least


def regularization(vectors: Tensor, variance_weight: float, covariance_weight: float) -> Tensor:
    """Weighted shortfall of the standard deviations from 1 and covariances of different features.

    Args:
        vectors: Vectors of this rank (batch, …, features). Statistics are taken over the global batch, for each element
            of the dimensions in between separately, and averaged over them.
        variance_weight: Weight μ of ``1/d · Σ_j max(0, 1 − sqrt(Var(z_j) + ε))``.
        covariance_weight: Weight ν of ``1/d · Σ_{i≠j} Cov(z_i, z_j)²``.

    Returns:
        Scalar, the same on all ranks.
    """
    if dist.world_size() > 1:
        vectors = torch.cat(dist.gather(vectors.contiguous()), dim=0)
    terms: Tensor = variance_weight * variance_loss(vectors) + covariance_weight * covariance_loss(vectors)
    return terms


class VICRegLoss(nn.Module):
    """Make views agree, features vary over the batch, and features differ from each other.

    ``L = λ · mean over pairs of ‖z − z'‖²/d + mean over views of (μ · variance + 2ν · covariance)``: of two views the
    variance terms are averaged and the covariance terms added, as in the authors' code. Local views (multi-crop) are
    compared with global ones only, as in the authors' VICRegL (https://arxiv.org/abs/2210.01571).

    On several ranks, with batches of one size, the mean over ranks of loss and gradients is that of the global batch.

    Attributes:
        weights: Weights λ, μ and ν.
    """

    def __init__(
        self, invariance_weight: float = 25.0, variance_weight: float = 25.0, covariance_weight: float = 1.0
    ) -> None:
        """Set the weights of the three terms.

        Args:
            invariance_weight: Weight λ of the mean squared difference of two views.
            variance_weight: Weight μ of the shortfall of the features' standard deviations from 1.
            covariance_weight: Weight ν of the squared covariances of different features.

        Raises:
            ConfigurationError: If a weight is negative.
        """
        super().__init__()
        check_at_least(
            0,
            invariance_weight=invariance_weight,
            variance_weight=variance_weight,
            covariance_weight=covariance_weight,
        )
        self.weights = (invariance_weight, variance_weight, covariance_weight)

    def forward(self, projections: Tensor, local: Tensor | None = None) -> Tensor:
        """Compute the loss of the projections of this rank.

        Args:
            projections: Projections of the views (view, batch, features).
            local: Projections of local views (local view, batch, features), or None.

        Returns:
            Scalar, float32 or (for float64 input) float64.

        Raises:
            ConfigurationError: If there are fewer than two views or two samples, or local views of other chips.
        """
        views = check_views(projections)
        small = views[:0] if local is None else check_local(local, views)
        invariance, variance, covariance = self.weights
        # autocast would round matrix products to half precision
        with torch.autocast(views.device.type, enabled=False):
            distance = compare_views(invariance_loss, list(views), list(small))
            terms = [regularization(view, variance, 2 * covariance) for view in (*views, *small)]
            return invariance * distance + torch.stack(terms).mean()
