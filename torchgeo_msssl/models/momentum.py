"""Networks that follow another one as a moving average.

The momentum encoder of MoCo (https://arxiv.org/abs/1911.05722, 3.2) and the target network of BYOL
(https://arxiv.org/abs/2006.07733, 3.1).

**Batch norm.** Parameters are averaged. Buffers are not: the copy passes its own images in training mode, normalises
them by their own batch and gathers its own running statistics, as in the authors' code of both papers.
"""

import copy
import math

import torch
from torch import nn


def frozen_copy(network: nn.Module) -> nn.Module:
    """Copy a network, parameters and buffers, as something that is not trained.

    Args:
        network: Network.

    Returns:
        Another object of the same values, without gradients.
    """
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, momentum: float) -> None:
    """Let an average follow its network one step: ``average ← momentum · average + (1 − momentum) · network``.

    Args:
        average: From :func:`frozen_copy`; changed in place.
        network: What it follows.
        momentum: From 0 (becomes the network) to 1 (stays).
    """
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - momentum)


def momentum_at(step: int, total_steps: int, base: float) -> float:
    """Momentum that rises to 1 as half a cosine: ``1 − (1 − base) · (cos(π step / total_steps) + 1) / 2``.

    Args:
        step: Optimizer steps before this one, from 0.
        total_steps: Steps of the whole run.
        base: Momentum at the beginning.

    Returns:
        Momentum of this step.
    """
    return 1 - (1 - base) * (math.cos(math.pi * min(step, total_steps) / total_steps) + 1) / 2
