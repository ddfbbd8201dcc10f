"""Loss of VICRegL: VICReg of whole views, and of matching cells of their feature maps.

Bardes, Ponce & LeCun: VICRegL, Self-Supervised Learning of Local Visual Features (https://arxiv.org/abs/2210.01571).
lightly's ``VICRegLLoss`` is not used: it orders matches by distance, the authors by place, which gives other variances
and covariances (they are taken for the k-th match over the batch), and it knows no cells without data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from lightly.loss.vicreg_loss import invariance_loss
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.pairs import at_least_float32, compare_views
from torchgeo_msssl.losses.vicreg import VICRegLoss, regularization
from torchgeo_msssl.validation import check_positive, check_probability


@dataclass(frozen=True)
class LocalVectors:
    """Cells of the feature map of one view.

    Attributes:
        vectors: Projections (batch, cell, features).
        centers: Places on the chip (batch, cell, 2), in pixels.
        valid: Cells with data (batch, cell), bool; None for all.
    """

    vectors: Tensor
    centers: Tensor
    valid: Tensor | None = None

    def to_at_least_float32(self) -> 'LocalVectors':
        """Widen vectors and centers in half precision."""
        return LocalVectors(at_least_float32(self.vectors), at_least_float32(self.centers), self.valid)


def nearest_matches(distances: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Match each cell with its nearest candidate, and keep the closest pairs.

    Args:
        distances: Distances (batch, cell, candidate).
        count: Number of pairs to keep, at most the number of cells.

    Returns:
        Indices (batch, count) of cells, in ascending order, and of their candidates.
    """
    nearest, candidates = distances.min(dim=2)
    cells = nearest.topk(count, dim=1, largest=False).indices.sort(dim=1).values
    return cells, candidates.gather(1, cells)


def take(vectors: Tensor, indices: Tensor) -> Tensor:
    """Take the vectors (batch, index, features) at ``indices`` (batch, index) of (batch, cell, features)."""
    return vectors.gather(1, indices[..., None].expand(-1, -1, vectors.shape[-1]))


class VICRegLLoss(nn.Module):
    """Weighted sum of a global and a local criterion: ``L = α · L_global + (1 − α) · (L_location + L_feature)``.

    The global criterion is VICReg of the projected pooled features. For the local ones, each cell of one feature map is
    matched with the cell of the other that is nearest on the chip (location), or whose projection is nearest (feature);
    of these matches those with the smallest distance are kept, and VICReg compares them, in both directions. Cells
    without data are matched last.

    In the authors' code the covariance terms of two views are averaged, not added as in VICReg; by default, the
    features are matched without leaving out distant pairs, which the paper leaves out, and places ignore flips, which
    the paper does not. Here it is as in the paper.

    On several ranks, with batches of one size, the mean over ranks of loss and gradients is that of the global batch.

    Attributes:
        alpha: Weight α of the global criterion.
        match_fraction: Fraction of the cells of a feature map that are compared.
        global_loss: The global criterion.
    """

    def __init__(
        self,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        alpha: float = 0.75,
        match_fraction: float = 0.4,
    ) -> None:
        """Set the weights.

        Args:
            invariance_weight: Weight of the mean squared difference of two vectors.
            variance_weight: Weight of the shortfall of the features' standard deviations from 1.
            covariance_weight: Weight of the squared covariances of different features.
            alpha: Weight of the global criterion, from 0 to 1; the local one has the rest.
            match_fraction: Fraction of the cells of a feature map that are compared, those nearest to their match.

        Raises:
            ConfigurationError: If a weight is negative, or a fraction is outside 0…1.
        """
        super().__init__()
        self.alpha = check_probability('alpha', alpha)
        check_positive(match_fraction=match_fraction)
        self.match_fraction = check_probability('match_fraction', match_fraction)
        self.global_loss = VICRegLoss(invariance_weight, variance_weight, covariance_weight / 2)
        self.weights = (invariance_weight, variance_weight, covariance_weight)

    def forward(
        self,
        projections: Tensor,
        maps: Sequence[LocalVectors],
        local_projections: Tensor | None = None,
        local_maps: Sequence[LocalVectors] = (),
    ) -> Tensor:
        """Compute the loss on this rank.

        Args:
            projections: Projections of pooled features (view, batch, features).
            maps: Projected feature map of each view.
            local_projections: The same of local views (multi-crop), which are compared with the others only, or None.
            local_maps: Projected feature map of each local view.

        Returns:
            Scalar, float32 or (for float64 input) float64.

        Raises:
            ConfigurationError: If there are fewer than two views or two samples.
        """
        if len(maps) != len(projections):
            raise ConfigurationError(
                f'maps: expected one feature map per view, got {len(maps)} of {len(projections)} views.'
            )
        whole = self.global_loss(projections, local_projections)
        large, small = ([part.to_at_least_float32() for part in views] for views in (maps, local_maps))
        # autocast would round distances and matrix products to half precision
        with torch.autocast(projections.device.type, enabled=False):
            local = compare_views(self._both_ways, large, small)
        loss: Tensor = self.alpha * whole + (1 - self.alpha) * local
        return loss

    def _both_ways(self, one: LocalVectors, other: LocalVectors) -> Tensor:
        """Mean of both directions of matching."""
        return (self._one_way(one, other) + self._one_way(other, one)) / 2

    def _one_way(self, cells: LocalVectors, candidates: LocalVectors) -> Tensor:
        """Compare the cells of one view with those of another, by place and by feature."""
        apart = _distances(cells.centers, candidates.centers), _distances(cells.vectors, candidates.vectors)
        return torch.stack([self._criterion(cells, candidates, distances) for distances in apart]).sum()

    def _criterion(self, cells: LocalVectors, candidates: LocalVectors, distances: Tensor) -> Tensor:
        """VICReg of the closest matches by the given distances (batch, cell, candidate)."""
        count = max(1, round(self.match_fraction * distances.shape[1]))
        ours, theirs = nearest_matches(_exclude(distances, cells.valid, candidates.valid), count)
        one, other = take(cells.vectors, ours), take(candidates.vectors, theirs)
        invariance, variance, covariance = self.weights
        spread = regularization(one, variance, covariance) + regularization(other, variance, covariance)
        loss: Tensor = invariance * invariance_loss(one, other) + spread / 2
        return loss


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """Euclidean distances (batch, cell, candidate), without gradient and without the rounding of a matrix product."""
    with torch.no_grad():
        return torch.cdist(one, other, compute_mode='donot_use_mm_for_euclid_dist')


def _exclude(distances: Tensor, cells: Tensor | None, candidates: Tensor | None) -> Tensor:
    """Make distances to and from cells without data infinite."""
    for valid, axis in ((cells, 2), (candidates, 1)):
        if valid is not None:
            distances = distances.masked_fill(~valid.unsqueeze(axis), torch.inf)
    return distances
