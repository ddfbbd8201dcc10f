"""Signals of collapse in a batch of embeddings.

A joint-embedding method can reach its minimum by mapping everything to one point, or to a line, while its loss falls
as it should. These numbers show it. A NaN in the embeddings gives NaN: no signal turns it into a number.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def embedding_std(z: Tensor) -> Tensor:
    """Standard deviation of the L2-normalised embeddings, averaged over dimensions.

    About 1/√features for embeddings that fill the sphere, 0 when they are all the same; SimSiam's figure 2
    (https://arxiv.org/abs/2011.10566).

    Args:
        z: Embeddings (sample, features).

    Returns:
        Scalar, float32 or wider; NaN for fewer than two samples.
    """
    return F.normalize(_at_least_float32(z), dim=-1).std(dim=0).mean()


def mean_cosine(z: Tensor) -> Tensor:
    """Mean cosine of all pairs of distinct samples, in time and memory linear in the samples.

    About 0 for embeddings that fill the sphere, 1 when they are all the same. Uses
    ``Σ_{i≠j} u_i·u_j = |Σ_i u_i|² − Σ_i |u_i|²`` for the normalised embeddings ``u``.

    Args:
        z: Embeddings (sample, features).

    Returns:
        Scalar from −1 to 1, float32 or wider; NaN for fewer than two samples.
    """
    unit = F.normalize(_at_least_float32(z), dim=-1)
    pairs = len(unit) * (len(unit) - 1)
    return (unit.sum(dim=0).square().sum() - unit.square().sum()) / unit.new_tensor(pairs)


def rank_me(z: Tensor) -> Tensor:
    """Effective rank: the exponential of the entropy of the normalised singular values.

    RankMe (https://arxiv.org/abs/2210.02885). From 1, all embeddings on a line, to the smaller of samples and
    features. The embeddings are taken as they are, neither centred nor normalised. The paper's ε in the logarithm is
    not needed, since 0·log 0 is taken as its limit 0. The cost is that of a singular value decomposition.

    Args:
        z: Embeddings (sample, features).

    Returns:
        Scalar, float32 or wider; NaN where an embedding is not finite or all are 0.
    """
    z = _at_least_float32(z)
    # the decomposition raises an error on some devices where it should answer NaN
    if not bool(torch.isfinite(z).all()):
        return z.new_tensor(float('nan'))
    singular: Tensor = torch.linalg.svdvals(z)
    entropy: Tensor = torch.special.entr(singular / singular.sum()).sum()
    return entropy.exp()


def _at_least_float32(z: Tensor) -> Tensor:
    return z.detach().to(torch.promote_types(z.dtype, torch.float32))
