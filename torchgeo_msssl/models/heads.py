"""Projection and prediction heads of the methods, as in their papers."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal

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

from torchgeo_msssl.validation import check_at_least, check_choice

ProjectionKind = Literal['mlp', 'linear', 'none']
MLPName = Literal['simsiam', 'simclr', 'moco_v2', 'moco_v3', 'moco_v3_prediction', 'byol', 'expander']


def _expander(in_features: int, hidden: int, out: int) -> nn.Module:
    """Projector of Barlow Twins and VICReg; lightly's has a bias in the last layer, the authors' has none."""
    head: nn.Module = ProjectionHead(
        [
            (in_features, hidden, nn.BatchNorm1d(hidden), nn.ReLU(), False),
            (hidden, hidden, nn.BatchNorm1d(hidden), nn.ReLU(), False),
            (hidden, out, None, None, False),
        ]
    )
    return head


#: From the widths of input, hidden layers and output to a head.
_MLPS: dict[MLPName, Callable[[int, int, int], nn.Module]] = {
    'simsiam': SimSiamProjectionHead,
    'simclr': SimCLRProjectionHead,
    'moco_v2': partial(MoCoProjectionHead, num_layers=2, batch_norm=False),
    'moco_v3': partial(MoCoProjectionHead, num_layers=3, batch_norm=True),
    'moco_v3_prediction': partial(MoCoProjectionHead, num_layers=2, batch_norm=True),
    'byol': BYOLProjectionHead,
    'expander': _expander,
}


def mlp_head(name: MLPName, in_features: int, hidden: int, out: int) -> nn.Module:
    """Build a multi-layer perceptron as in a paper.

    ======================  ======  ===================================  =====================================
    name                    layers  batch norm                           paper
    ======================  ======  ===================================  =====================================
    ``simsiam``             3       after each                           https://arxiv.org/abs/2011.10566, 3
    ``simclr``              2       after each, as in the authors' code  https://arxiv.org/abs/2002.05709, 2.1
    ``moco_v2``             2       none                                 https://arxiv.org/abs/2003.04297
    ``moco_v3``             3       after each                           https://arxiv.org/abs/2104.02057
    ``moco_v3_prediction``  2       after each                           https://arxiv.org/abs/2104.02057
    ``byol``                2       after the first                      https://arxiv.org/abs/2006.07733, 3.3
    ``expander``            3       after all but the last               https://arxiv.org/abs/2103.03230, 2.2
    ======================  ======  ===================================  =====================================

    ``expander`` is the projector of Barlow Twins and the expander of VICReg (https://arxiv.org/abs/2105.04906, 4.2);
    ``byol`` is both projection and prediction.

    Args:
        name: Name in the table.
        in_features: Features of the input.
        hidden: Features of the hidden layers.
        out: Features of the output.

    Returns:
        Module from (batch, in_features) to (batch, out).

    Raises:
        ConfigurationError: If a width is below 1.
    """
    check_at_least(1, in_features=in_features, hidden=hidden, out=out)
    return _MLPS[name](in_features, hidden, out)


def projection_head(
    kind: ProjectionKind, in_features: int, hidden: int = 2048, out: int = 2048, mlp: MLPName = 'simsiam'
) -> nn.Module:
    """Build the head between the pooled embedding and the loss.

    Args:
        kind: ``mlp``; ``linear`` for one linear layer; ``none`` for the embedding itself.
        in_features: Features of the embedding.
        hidden: Features of the hidden layers, for ``mlp`` only.
        out: Features of the projection; see :func:`projection_features` for those of ``none``.
        mlp: Which one, see :func:`mlp_head`.

    Returns:
        Module from (batch, in_features) to (batch, projection features).

    Raises:
        ConfigurationError: If the kind is unknown or a width is below 1.
    """
    check_choice('kind', kind, ProjectionKind)
    check_at_least(1, in_features=in_features, hidden=hidden, out=out)
    if kind == 'mlp':
        return mlp_head(mlp, in_features, hidden, out)
    return nn.Linear(in_features, out) if kind == 'linear' else nn.Identity()


def projection_features(kind: ProjectionKind, in_features: int, out: int = 2048) -> int:
    """Features of the output of :func:`projection_head`: ``in_features`` without a head, else ``out``."""
    return in_features if kind == 'none' else out


def prediction_head(features: int = 2048, hidden: int = 512) -> nn.Module:
    """Build SimSiam's bottleneck, which predicts the projection of one view from that of another.

    Args:
        features: Features of the projection, input and output.
        hidden: Features of the bottleneck; a quarter of ``features`` in the paper.

    Returns:
        Module from (batch, features) to (batch, features).

    Raises:
        ConfigurationError: If a width is below 1.
    """
    check_at_least(1, features=features, hidden=hidden)
    head: nn.Module = SimSiamPredictionHead(features, hidden, features)
    return head


class DINOHead(nn.Module):
    """Cosine similarity of an embedding with prototypes, as in DINO (https://arxiv.org/abs/2104.14294, 3.1).

    Layers end in a bottleneck, which is normalized to length 1; a linear layer follows whose weights are normalized to
    length 1. This is weight normalization with its gain fixed at 1, the authors' default, without the renamed
    parameters that torch's own makes.

    Attributes:
        layers: (batch, in_features) to (batch, bottleneck).
        last_layer: The prototypes.
    """

    def __init__(
        self, kind: ProjectionKind, in_features: int, hidden: int = 2048, bottleneck: int = 256, out: int = 4096
    ) -> None:
        """Build the layers.

        Args:
            kind: Layers before the prototypes: ``mlp`` for three with GELU, ``linear`` for one, ``none`` for none.
            in_features: Features of the embedding.
            hidden: Features of the hidden layers, for ``mlp`` only.
            bottleneck: Features of the bottleneck.
            out: Number of prototypes.

        Raises:
            ConfigurationError: If the kind is unknown or a width is below 1.
        """
        super().__init__()
        check_at_least(1, in_features=in_features, hidden=hidden, bottleneck=bottleneck, out=out)
        if kind == 'mlp':
            sizes = (in_features, hidden, hidden, bottleneck)
            linear = [nn.Linear(*widths) for widths in pairwise(sizes)]
            self.layers: nn.Module = nn.Sequential(linear[0], nn.GELU(), linear[1], nn.GELU(), linear[2])
        else:
            self.layers = projection_head(kind, in_features, out=bottleneck)
        for layer in self.layers.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last_layer = nn.Linear(projection_features(kind, in_features, bottleneck), out, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Compare pooled features (batch, in_features) with the prototypes: cosines (batch, out)."""
        embedding = F.normalize(self.layers(features), dim=-1)
        return F.linear(embedding, F.normalize(self.last_layer.weight, dim=-1))
