"""Learning rates of a loaded encoder, layer by layer.

Layers near the input hold general features and change little; those near the output adapt most (ULMFiT,
https://arxiv.org/abs/1801.06146; BEiT, https://arxiv.org/abs/2106.08254, section 3.2).
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import timm
from timm.models import group_parameters
from torch import nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.matching import align_keys, inner_encoder
from torchgeo_msssl.tasks.optimizers import ParameterGroup


def encoder_depths(network: nn.Module, backbone: str) -> dict[nn.Parameter, int]:
    """Number the layers of an encoder from the input on, as timm groups them.

    Args:
        network: An smp network.
        backbone: Name of its encoder.

    Returns:
        Depth of each parameter of the encoder: 0 for the stem, then one number per stage of a hierarchical network or
        per block of a transformer.

    Raises:
        ConfigurationError: If timm does not have this encoder.
    """
    name = backbone.removeprefix('tu-')
    if not timm.is_model(name):
        raise ConfigurationError(
            f'layer_decay: timm does not know the layers of {backbone}; set layer_decay to 1, or use another backbone.'
        )
    reference = create_encoder(name, 1)
    layers = group_parameters(reference, cast(Any, reference).group_matcher(coarse=True), reverse=True)
    own = dict(inner_encoder(network).named_parameters())
    partners = align_keys(layers, own)
    found = {name: layers[partner] for name, partner in partners.items()}
    if missing := [name for name in own if name not in found]:
        raise ConfigurationError(
            f'layer_decay: {missing[0]} of {backbone} belongs to no layer of timm; set layer_decay to 1.'
        )
    ranks = {layer: rank for rank, layer in enumerate(sorted(set(found.values())))}
    return {parameter: ranks[found[name]] for name, parameter in own.items()}


def decayed_groups(
    groups: Sequence[ParameterGroup], depths: Mapping[nn.Parameter, int], lr: float, layer_decay: float
) -> list[ParameterGroup]:
    """Split parameter groups by depth, with smaller learning rates near the input.

    The layer at depth *d* of 0…*D* learns at ``lr × layer_decay^(D + 1 − d)``; what follows the encoder learns at the
    full rate, as in timm and BEiT.

    Args:
        groups: Parameter groups of the encoder.
        depths: Depth of each parameter.
        lr: Learning rate of the encoder.
        layer_decay: Factor from one layer to the one before it.

    Returns:
        Groups with ``lr``, those of the same depth next to each other.
    """
    deepest = max(depths.values())
    split = []
    for depth in range(deepest + 1):
        rate = lr * layer_decay ** (deepest + 1 - depth)
        for group in groups:
            members = [parameter for parameter in group['params'] if depths[parameter] == depth]
            if members:
                split.append(group | {'params': members, 'lr': rate})
    return split
