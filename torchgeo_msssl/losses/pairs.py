"""Losses that compare the views of a chip two by two."""

from collections.abc import Callable, Sequence
from itertools import combinations, product

import torch
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError


def check_views(projections: Tensor) -> Tensor:
    """Check that projections are stacked view by view, and widen them to float32.

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
    return at_least_float32(projections)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Widen half precision to float32; float32 and float64 stay."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_pair(one: Tensor, other: Tensor, names: str) -> tuple[Tensor, Tensor]:
    """Check two stacks of views that are compared; the second one is detached.

    Args:
        one: Vectors (view, batch, features).
        other: Targets of the same shape.
        names: What the two are, for the message.

    Returns:
        Both, in float32 or (for float64 input) float64; the second one without gradient.

    Raises:
        ConfigurationError: If the shapes differ, or there are fewer than two views or two samples.
    """
    if one.shape != other.shape:
        raise ConfigurationError(f'{names} must be of the same views, got {tuple(one.shape)} and {tuple(other.shape)}.')
    return check_views(one), check_views(other.detach())


def check_local(local: Tensor, views: Tensor) -> Tensor:
    """Check that vectors of local views (multi-crop) are of the same chips as those of the views.

    Args:
        local: Vectors (local view, batch, features).
        views: Vectors (view, batch, features).

    Returns:
        The former, in the dtype of the latter.

    Raises:
        ConfigurationError: If batch or features differ.
    """
    if local.ndim != 3 or local.shape[1:] != views.shape[1:]:
        raise ConfigurationError(
            'local views must be (local view, batch, features) of the same chips as the views, got '
            f'{tuple(local.shape)} and {tuple(views.shape)}.'
        )
    return local.to(views.dtype)


def compare_views[View](
    loss: Callable[[View, View], Tensor], views: Sequence[View], local: Sequence[View] = ()
) -> Tensor:
    """Mean of a symmetric loss over all ordered pairs of a view and another view or a local one (multi-crop).

    Args:
        loss: Maps two views to a scalar, the same in both orders.
        views: Views.
        local: Local views, which are not compared with each other.

    Returns:
        Scalar.
    """
    both_ways = 2 * [loss(one, other) for one, other in combinations(views, 2)]
    return torch.stack([*both_ways, *(loss(one, other) for one, other in product(views, local))]).mean()


def mean_over_pairs(loss: Callable[[Tensor, Tensor], Tensor], views: Tensor) -> Tensor:
    """Mean of a symmetric loss over all pairs of views.

    Computed in the precision of ``views``, also under autocast, which would round matrix products to half precision.

    Args:
        loss: Maps two views (batch, features) to a scalar.
        views: Views (view, batch, features), from :func:`check_views`.

    Returns:
        Scalar.
    """
    with torch.autocast(views.device.type, enabled=False):
        return compare_views(loss, list(views))
