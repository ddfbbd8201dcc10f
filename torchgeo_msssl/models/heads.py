"""Projection and prediction heads.

SimSiam's (https://arxiv.org/abs/2011.10566, section 3), which FastSiam has too: a projection of three layers, a
prediction with a bottleneck. Other methods put their own in the place of the projection of kind ``mlp``.
"""

from typing import Literal, get_args

import torch.nn.functional as F
from lightly.models.modules.heads import (
    BYOLProjectionHead,
    MoCoProjectionHead,
    ProjectionHead,
    SimCLRProjectionHead,
    SimSiamPredictionHead,
    SimSiamProjectionHead,
)
from torch import Tensor, nn

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


def simclr_head(in_features: int, hidden: int = 256, out: int = 128) -> nn.Module:
    """Make SimCLR's projection of two layers (https://arxiv.org/abs/2002.05709, section 2.1).

    Both have batch norm, as in the authors' code.

    Args:
        in_features: Features of the embedding.
        hidden: Features of the hidden layer.
        out: Features of the projection.

    Returns:
        Module from (batch, in_features) to (batch, out).

    Raises:
        ConfigurationError: If a width is below 1.
    """
    _check_widths(in_features=in_features, hidden=hidden, out=out)
    head: nn.Module = SimCLRProjectionHead(in_features, hidden, out)
    return head


def moco_head(
    in_features: int, hidden: int = 2048, out: int = 128, layers: int = 2, batch_norm: bool = False
) -> nn.Module:
    """Make a head of MoCo.

    In version 2 (https://arxiv.org/abs/2003.04297) the projection has two layers. In version 3
    (https://arxiv.org/abs/2104.02057) the projection has three and the prediction two, all with batch norm.

    Args:
        in_features: Features of the embedding, or of the projection.
        hidden: Features of the hidden layers.
        out: Features that come out.
        layers: Linear layers.
        batch_norm: Whether batch norm follows each.

    Returns:
        Module from (batch, in_features) to (batch, out).

    Raises:
        ConfigurationError: If a width is below 1.
    """
    _check_widths(in_features=in_features, hidden=hidden, out=out)
    head: nn.Module = MoCoProjectionHead(in_features, hidden, out, num_layers=layers, batch_norm=batch_norm)
    return head


def byol_head(in_features: int, hidden: int = 4096, out: int = 256) -> nn.Module:
    """Make BYOL's projection or prediction, which are alike (https://arxiv.org/abs/2006.07733, section 3.3).

    Args:
        in_features: Features of the embedding, or of the projection.
        hidden: Features of the hidden layer, which is the one with batch norm.
        out: Features that come out.

    Returns:
        Module from (batch, in_features) to (batch, out).

    Raises:
        ConfigurationError: If a width is below 1.
    """
    _check_widths(in_features=in_features, hidden=hidden, out=out)
    head: nn.Module = BYOLProjectionHead(in_features, hidden, out)
    return head


def expander_head(in_features: int, hidden: int = 2048, out: int = 2048) -> nn.Module:
    """Make the projector of Barlow Twins, which is VICReg's expander too.

    Three linear layers, batch norm and ReLU after all but the last (https://arxiv.org/abs/2103.03230, section 2.2;
    https://arxiv.org/abs/2105.04906, section 4.2). The last has no bias, as in the authors' code of both (lightly's
    has): the losses do not see one, so an optimizer would let it drift.

    Args:
        in_features: Features of the embedding.
        hidden: Features of the hidden layers.
        out: Features of the projection.

    Returns:
        Module from (batch, in_features) to (batch, out).

    Raises:
        ConfigurationError: If a width is below 1.
    """
    _check_widths(in_features=in_features, hidden=hidden, out=out)
    head: nn.Module = ProjectionHead([
        (in_features, hidden, nn.BatchNorm1d(hidden), nn.ReLU()),
        (hidden, hidden, nn.BatchNorm1d(hidden), nn.ReLU()),
        (hidden, out, None, None, False),
    ])  # fmt: skip
    return head


class DINOHead(nn.Module):
    """Cosines of an embedding with prototypes, as in DINO (https://arxiv.org/abs/2104.14294, section 3.1).

    Layers that lead to a bottleneck, which is brought to length 1, and a linear layer whose weights are brought to
    length 1. That is weight normalisation with its gain fixed at 1, the authors' default, without the two parameters
    under other names that torch makes of it.

    Attributes:
        layers: (batch, in_features) to the bottleneck.
        last_layer: The prototypes.
    """

    def __init__(
        self, kind: ProjectionKind, in_features: int, hidden: int = 2048, bottleneck: int = 256, out: int = 4096
    ) -> None:
        """Build the layers.

        Args:
            kind: What leads to the bottleneck. ``mlp``: three layers with GELU. ``linear``: one linear layer.
                ``none``: nothing, so that the embedding itself is compared with the prototypes.
            in_features: Features of the embedding.
            hidden: Features of the hidden layers; ``mlp`` only.
            bottleneck: Features of the bottleneck.
            out: Number of prototypes.

        Raises:
            ConfigurationError: If the kind is unknown or a width is below 1.
        """
        super().__init__()
        _check_widths(in_features=in_features, hidden=hidden, bottleneck=bottleneck, out=out)
        if kind == 'mlp':
            self.layers: nn.Module = nn.Sequential(
                nn.Linear(in_features, hidden), nn.GELU(),
                nn.Linear(hidden, hidden), nn.GELU(),
                nn.Linear(hidden, bottleneck),
            )  # fmt: skip
        else:
            self.layers = projection_head(kind, in_features, out=bottleneck)
        for layer in self.layers.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = nn.Linear(projection_features(kind, in_features, bottleneck), out, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Compare with the prototypes.

        Args:
            features: Pooled features (batch, in_features).

        Returns:
            Cosines (batch, out).
        """
        embedding = F.normalize(self.layers(features), dim=-1)
        return F.linear(embedding, F.normalize(self.last_layer.weight, dim=-1))


def _check_widths(**widths: int) -> None:
    for name, width in widths.items():
        if width < 1:
            raise ConfigurationError(f'{name} must be 1 or more, got {width}.')
