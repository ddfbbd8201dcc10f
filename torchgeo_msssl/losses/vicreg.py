"""Loss of VICReg for several views.

Bardes, Ponce & LeCun: VICReg, Variance-Invariance-Covariance Regularization (https://arxiv.org/abs/2105.04906). The
loss of two views is lightly's, which is the authors' (the variance terms of the two views are averaged, the covariance
terms are added) and takes variance and covariance over the global batch.
"""

from lightly.loss import VICRegLoss as PairLoss
from torch import Tensor, nn

from torchgeo_msssl.losses.pairs import check_views, mean_over_pairs
from torchgeo_msssl.validation import check_at_least


class VICRegLoss(nn.Module):
    """Make views agree, features vary over the batch, and features differ from each other.

    On several ranks, with batches of one size, the mean over ranks of loss and gradients is that of the global batch.
    """

    def __init__(
        self, invariance_weight: float = 25.0, variance_weight: float = 25.0, covariance_weight: float = 1.0
    ) -> None:
        """Set the weights of the three terms.

        Args:
            invariance_weight: Weight of the mean squared difference of two views.
            variance_weight: Weight of the shortfall of the features' standard deviations from 1.
            covariance_weight: Weight of the squared covariances of different features.

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
        self.pair_loss = PairLoss(invariance_weight, variance_weight, covariance_weight, gather_distributed=True)

    def forward(self, projections: Tensor) -> Tensor:
        """Compute the mean over all pairs of views of projections of this rank (view, batch, features)."""
        return mean_over_pairs(self.pair_loss, check_views(projections))
