"""VICReg's loss for several views.

Bardes, Ponce & LeCun: VICReg, Variance-Invariance-Covariance Regularization (https://arxiv.org/abs/2105.04906). The
loss of two views is lightly's, which is the authors' (the variance terms of the two views are averaged, the covariance
terms are added) and takes variance and covariance over the global batch.
"""

from lightly.loss import VICRegLoss as PairLoss
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.pairs import check_views, mean_over_pairs


class VICRegLoss(nn.Module):
    """Make views agree, features vary over the batch, and features differ from each other.

    On several ranks, with batches of one size, the mean over ranks of loss and gradients is that of the global batch.
    """

    def __init__(
        self, invariance_weight: float = 25.0, variance_weight: float = 25.0, covariance_weight: float = 1.0
    ) -> None:
        """Choose the weights of the three terms.

        Args:
            invariance_weight: Of the mean squared difference of two views.
            variance_weight: Of what standard deviations lack to 1.
            covariance_weight: Of the squared covariances of different features.

        Raises:
            ConfigurationError: If a weight is negative.
        """
        super().__init__()
        weights = {'invariance': invariance_weight, 'variance': variance_weight, 'covariance': covariance_weight}
        for name, weight in weights.items():
            if weight < 0:
                raise ConfigurationError(f'{name}_weight: expected 0 or more, got {weight}.')
        self.pair_loss = PairLoss(invariance_weight, variance_weight, covariance_weight, gather_distributed=True)

    def forward(self, projections: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            projections: Projections of this rank (view, batch, features).

        Returns:
            Loss, a scalar, float32 or (for float64 input) float64; the mean over all pairs of views.

        Raises:
            ConfigurationError: If there are fewer than two views or two samples.
        """
        return mean_over_pairs(self.pair_loss, check_views(projections))
