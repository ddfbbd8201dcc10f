"""Loss of Barlow Twins, with statistics of the global batch.

Zbontar et al.: Barlow Twins, Self-Supervised Learning via Redundancy Reduction (https://arxiv.org/abs/2103.03230).
lightly's loss standardizes on each rank separately, which gives other values and gradients than one process does.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

from torchgeo_msssl.losses.pairs import check_views, mean_over_pairs

#: Added to the variance, as in the authors' ``BatchNorm1d(affine=False)``.
_EPSILON = 1e-5


def standardize(projections: Tensor) -> Tensor:
    """Bring each feature of (view, batch, features) to mean 0 and (biased) variance 1 over the global batch."""
    centered = projections - _global_mean(projections)
    return centered / torch.sqrt(_global_mean(centered.square()) + _EPSILON)


def cross_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Correlate the features of two standardized views (batch, features): (features, features) on all ranks."""
    return _mean_over_ranks(one.T @ other / len(one))


def redundancy(correlation: Tensor, redundancy_weight: float) -> Tensor:
    """Distance of a correlation matrix C from the identity: ``Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij²``."""
    diagonal = correlation.diagonal()
    off_diagonal = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + redundancy_weight * off_diagonal


def barlow_twins_loss(projections: Tensor, redundancy_weight: float = 5e-3) -> Tensor:
    """Make each feature agree between views and differ from the other features.

    On several ranks, with batches of one size, the loss is that of the global batch, the same on each rank; the mean of
    the gradients over ranks is its gradient.

    Args:
        projections: Projections of this rank (view, batch, features).
        redundancy_weight: Weight λ of the off-diagonal, which has many more elements than the diagonal.

    Returns:
        Mean over all pairs of views: a scalar, float32 or (for float64 input) float64.

    Raises:
        ConfigurationError: If there are fewer than two views or two samples.
    """
    standardized = standardize(check_views(projections))
    return mean_over_pairs(
        lambda one, other: redundancy(cross_correlation(one, other), redundancy_weight), standardized
    )


def _global_mean(projections: Tensor) -> Tensor:
    """Mean over the samples of all ranks, (view, 1, features)."""
    return _mean_over_ranks(projections.mean(dim=1, keepdim=True))


def _mean_over_ranks(tensor: Tensor) -> Tensor:
    """Mean over ranks; gradients flow back to all of them."""
    if not (dist.is_available() and dist.is_initialized()):
        return tensor
    total: Tensor = all_reduce(tensor)
    return total / dist.get_world_size()
