"""Projection and prediction heads of the siamese methods.

SimSiam's (https://arxiv.org/abs/2011.10566, section 3): a projection of three layers, a prediction with a bottleneck.
FastSiam has the same.
"""

from typing import Literal, get_args

from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
from torch import nn

from torchgeo_msssl.errors import ConfigurationError

ProjectionKind = Literal['mlp', 'linear', 'none']


def projection_head(kind: ProjectionKind, in_features: int, hidden: int = 2048, out: int = 2048) -> nn.Module:
    """Make the head between the pooled embedding and the loss.

    Args:
        kind: ``mlp``: SimSiam's three layers, each with batch norm (so a training batch holds two samples or more).
            ``linear``: one linear layer. ``none``: the embedding itself, of ``in_features``.
        in_features: Features of the embedding.
        hidden: Features of the hidden layers; ``mlp`` only.
        out: Features of the projection; see :func:`projection_features` for what comes out.

    Returns:
        Module from (batch, in_features) to (batch, projection features).

    Raises:
        ConfigurationError: If the kind is unknown or a width is below 1.
    """
    _check_widths(in_features=in_features, hidden=hidden, out=out)
    if kind == 'mlp':
        mlp: nn.Module = SimSiamProjectionHead(in_features, hidden, out)
        return mlp
    if kind == 'linear':
        return nn.Linear(in_features, out)
    if kind == 'none':
        return nn.Identity()
    raise ConfigurationError(f'kind must be one of {", ".join(get_args(ProjectionKind))}, got {kind!r}.')


def projection_features(kind: ProjectionKind, in_features: int, out: int = 2048) -> int:
    """Features that come out of :func:`projection_head`, and so go into the prediction head.

    Args:
        kind: Kind of the projection head.
        in_features: Features of the embedding.
        out: Features asked for.

    Returns:
        ``in_features`` without a head, else ``out``.
    """
    return in_features if kind == 'none' else out


def prediction_head(features: int = 2048, hidden: int = 512) -> nn.Module:
    """Make the bottleneck that predicts one view's projection from another's.

    Args:
        features: Features of the projection, in and out.
        hidden: Features of the bottleneck; a quarter of ``features`` in the paper.

    Returns:
        Module from (batch, features) to (batch, features).

    Raises:
        ConfigurationError: If a width is below 1.
    """
    _check_widths(features=features, hidden=hidden)
    head: nn.Module = SimSiamPredictionHead(features, hidden, features)
    return head


def _check_widths(**widths: int) -> None:
    for name, width in widths.items():
        if width < 1:
            raise ConfigurationError(f'{name} must be 1 or more, got {width}.')
