"""What the losses share that compare the views of a chip two by two."""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError


def check_views(projections: Tensor) -> Tensor:
    """See that projections are stacked view by view, and widen them to float32.

    Args:
        projections: Projections (view, batch, features).

    Returns:
        The same, in float32 or (for float64 input) float64.

    Raises:
        ConfigurationError: If there are fewer than two views or two samples, or another number of dimensions.
    """
    if projections.ndim != 3 or len(projections) < 2 or projections.shape[1] < 2:
        raise ConfigurationError(
            'projections must be (view, batch, features) with 2 views and 2 samples or more, '
            f'got {tuple(projections.shape)}: stack the views first.'
        )
    return projections.to(torch.promote_types(projections.dtype, torch.float32))


def mean_over_pairs(loss: Callable[[Tensor, Tensor], Tensor], views: Tensor) -> Tensor:
    """Mean of a loss that is symmetric in two views over all pairs of them.

    Computed in the precision of ``views``, also under autocast, which would round matrix products to half precision.

    Args:
        loss: Takes two views (batch, features) and gives a scalar.
        views: Views (view, batch, features), from :func:`check_views`.

    Returns:
        Scalar.
    """
    with torch.autocast(views.device.type, enabled=False):
        return torch.stack([loss(one, other) for one, other in combinations(views, 2)]).mean()
