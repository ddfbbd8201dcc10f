"""Signals of collapse in a batch of embeddings.

A joint-embedding method can minimize its loss by mapping everything to one point or to a line. The loss does not show
this; these signals do. A NaN in the embeddings gives NaN.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgeo_msssl.losses.pairs import at_least_float32


def embedding_std(z: Tensor) -> Tensor:
    """Standard deviation of the L2-normalized embeddings, averaged over dimensions.

    About 1/√features for embeddings (sample, features) that fill the sphere, 0 if they are all equal; SimSiam's figure
    2 (https://arxiv.org/abs/2011.10566). NaN for fewer than two samples.
    """
    return F.normalize(at_least_float32(z.detach()), dim=-1).std(dim=0).mean()


def mean_cosine(z: Tensor) -> Tensor:
    """Mean cosine of all pairs of distinct samples, in time and memory linear in the samples.

    About 0 for embeddings that fill the sphere, 1 if they are all equal. Uses
    ``Σ_{i≠j} u_i·u_j = |Σ_i u_i|² − Σ_i |u_i|²`` for the normalized embeddings ``u``.

    Args:
        z: Embeddings (sample, features).

    Returns:
        Scalar from −1 to 1, float32 or wider; NaN for fewer than two samples.
    """
    unit = F.normalize(at_least_float32(z.detach()), dim=-1)
    pairs = len(unit) * (len(unit) - 1)
    return (unit.sum(dim=0).square().sum() - unit.square().sum()) / unit.new_tensor(pairs)


def rank_me(z: Tensor) -> Tensor:
    """Effective rank: the exponential of the entropy of the normalized singular values.

    RankMe (https://arxiv.org/abs/2210.02885), from 1 (all embeddings on a line) to the smaller of samples and
    features. The embeddings are neither centered nor normalized. The paper's ε in the logarithm is not needed, since
    the limit of x·log x at 0 is 0. The cost is that of a singular value decomposition.

    Args:
        z: Embeddings (sample, features).

    Returns:
        Scalar, float32 or wider; NaN where an embedding is not finite or all are 0.
    """
    z = at_least_float32(z.detach())
    # on some devices the decomposition raises an error instead of returning NaN
    if not bool(torch.isfinite(z).all()):
        return z.new_tensor(float('nan'))
    singular: Tensor = torch.linalg.svdvals(z)
    entropy: Tensor = torch.special.entr(singular / singular.sum()).sum()
    return entropy.exp()


def alpha_req(z: Tensor, first: int = 4, last: int = 100) -> Tensor:
    """Exponent of the power law ``λ_i ∝ i^−α`` of the eigenvalues of the embeddings' covariance.

    α-ReQ, Agrawal et al. 2022
    (https://papers.neurips.cc/paper_files/paper/2022/hash/70596d70542c51c8d9b4e423f4bf2736-Abstract-Conference.html):
    about 1 for representations that transfer well; larger for a spectrum that falls too fast (towards collapse),
    smaller for a flat one. As in the authors' code, a line is fitted to ``log λ_i`` over ``log i`` with weights
    ``1/i``, over the ranks 4 to 100. Eigenvalues that are 0 up to rounding are left out.

    Args:
        z: Embeddings (sample, features).
        first: First rank of the fit, from 1; lower if there are too few eigenvalues.
        last: Last rank of the fit.

    Returns:
        Scalar, float32 or wider; NaN where an embedding is not finite, or fewer than two eigenvalues are above 0.
    """
    z = at_least_float32(z.detach())
    if not bool(torch.isfinite(z).all()) or len(z) < 2:
        return z.new_tensor(float('nan'))
    centered = z - z.mean(dim=0)
    singular = torch.linalg.svdvals(centered)
    zero = max(z.shape) * torch.finfo(z.dtype).eps * torch.linalg.vector_norm(z, ord=2)
    spectrum = singular[singular > zero].square()[:last]
    start = min(first - 1, max(0, len(spectrum) - 2))
    return -_log_log_slope(spectrum, start) if len(spectrum) >= 2 else z.new_tensor(float('nan'))


def lidar(views: Tensor, delta: float = 1e-4) -> Tensor:
    """Effective rank of the linear discriminant analysis that separates chips by several views of each.

    LiDAR (https://arxiv.org/abs/2312.04000, Thilak et al. 2023): each chip is a class, its views are the class's
    samples. With the covariance of the class means ``Σ_b`` and the mean covariance within classes ``Σ_w + δI``, it is
    the exponential of the entropy of the normalized eigenvalues of ``Σ_w^−½ Σ_b Σ_w^−½``, from 1 to the smaller of
    chips − 1 and features. Unlike RankMe it ignores differences between views of one chip. The paper's ε in the
    logarithm is not needed, since the limit of x·log x at 0 is 0.

    Args:
        views: Embeddings (chip, view, features).
        delta: Added to the diagonal of the covariance within classes, in the embeddings' unit squared.

    Returns:
        Scalar, float64; NaN where an embedding is not finite or all chips are the same.
    """
    e = views.detach().double()
    if not bool(torch.isfinite(e).all()):
        return e.new_tensor(float('nan'))
    chips, number, features = e.shape
    means = e.mean(dim=1)
    between = means - means.mean(dim=0)
    inner = (e - means[:, None]).reshape(-1, features)
    within = inner.T @ inner / (chips * number) + delta * torch.eye(features, dtype=e.dtype, device=e.device)
    # with Σ_w = L Lᵀ the eigenvalues of Σ_w^−½ Σ_b Σ_w^−½ are those of L^−1 Σ_b L^−T: squared singular values
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(within), between.T, upper=False)
    spectrum: Tensor = torch.linalg.svdvals(whitened).square()
    entropy: Tensor = torch.special.entr(spectrum / spectrum.sum()).sum()
    return entropy.exp()


def _log_log_slope(spectrum: Tensor, start: int) -> Tensor:
    """Slope of ``log λ_i`` over ``log i`` by least squares with weights ``1/i``, from index ``start``."""
    rank = torch.arange(start + 1, len(spectrum) + 1, dtype=spectrum.dtype, device=spectrum.device)
    weight = (1 / rank) / (1 / rank).sum()
    x, y = rank.log(), spectrum[start:].log()
    x = x - (weight * x).sum()
    return (weight * x * y).sum() / (weight * x.square()).sum()
