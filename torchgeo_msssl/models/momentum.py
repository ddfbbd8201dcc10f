"""Momentum encoder: networks that follow others as exponential moving averages.

The momentum encoder of MoCo (https://arxiv.org/abs/1911.05722, 3.2), the target network of BYOL
(https://arxiv.org/abs/2006.07733, 3.1) and the teachers of DINO (https://arxiv.org/abs/2104.14294, 3.1) and of Mean
Teacher (https://arxiv.org/abs/1703.01780, 2).
"""

import copy
import functools
import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

#: Momentum of an update, from the number of optimizer steps before it and the number of steps of the whole run.
MomentumSchedule = Callable[[int, int], float]


def momentum_at(step: int, total_steps: int, base: float) -> float:
    """Momentum that rises to 1 as half a cosine: ``1 − (1 − base) · (cos(π step / total_steps) + 1) / 2``.

    Args:
        step: Optimizer steps before this one, from 0.
        total_steps: Steps of the whole run.
        base: Momentum at step 0.

    Returns:
        Momentum of this step.
    """
    return 1 - (1 - base) * (math.cos(math.pi * min(step, total_steps) / total_steps) + 1) / 2


class MomentumEncoder(nn.Module):
    """Frozen copies of an encoder and a projection head that follow them as exponential moving averages.

    A pretraining task owns one by assigning it to an attribute in ``configure_heads`` or ``configure_method``. The task
    then updates it after each optimizer step, restarts it when starting weights were loaded, saves it in checkpoints
    and keeps it out of the optimizer.

    Parameters are averaged, buffers are not: in training mode the copies normalize by the statistics of their own
    batches and keep running statistics of their own, as in the authors' code of MoCo and BYOL.

    Attributes:
        encoder: Copy of the encoder.
        projection_head: Copy of the projection head.
    """

    def __init__(
        self, encoder: nn.Module, projection_head: nn.Module | None = None, momentum: float | MomentumSchedule = 0.999
    ) -> None:
        """Copy the networks.

        Args:
            encoder: Network to follow, images to features.
            projection_head: Network to follow, features to projections; None for none.
            momentum: Fraction of the average that an update keeps, from 0 (copy the network) to 1 (stay): a constant,
                or a schedule.
        """
        super().__init__()
        # a tuple, so that the followed networks do not become children of this module too
        self._followed = (encoder, projection_head or nn.Identity())
        self.encoder, self.projection_head = (copy.deepcopy(part).requires_grad_(False) for part in self._followed)
        self._momentum = momentum

    def momentum_at(self, step: int, total_steps: int) -> float:
        """Momentum of the update that follows a step.

        Args:
            step: Optimizer steps before that one, from 0.
            total_steps: Steps of the whole run.

        Returns:
            Fraction of the average that is kept.
        """
        return self._momentum(step, total_steps) if callable(self._momentum) else self._momentum

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Project images without gradient.

        Args:
            images: Standardized images (batch, band, height, width).

        Returns:
            Projections (batch, dimension).
        """
        return cast(Tensor, self.projection_head(self.encoder(images)))

    def update(self, step: int, total_steps: int) -> None:
        """Follow the networks: ``average ← momentum · average + (1 − momentum) · network``.

        Args:
            step: Optimizer steps before the one that has just been taken, from 0.
            total_steps: Steps of the whole run.
        """
        followed = [parameter for network in self._followed for parameter in network.parameters()]
        get_ema_multi_avg_fn(self.momentum_at(step, total_steps))(list(self.parameters()), followed, 0)

    def restart(self) -> None:
        """Copy parameters and buffers of the followed networks."""
        for average, network in zip((self.encoder, self.projection_head), self._followed, strict=True):
            average.load_state_dict(network.state_dict())


def teacher_momentum(step: int, total_steps: int, base: float) -> float:
    """Momentum of Mean Teacher: ``min(1 − 1 / (step + 1), base)``, the mean of all steps until ``base`` is reached.

    Args:
        step: Optimizer steps before this one, from 0.
        total_steps: Steps of the whole run, which have no influence.
        base: Largest momentum.

    Returns:
        Momentum of this step.
    """
    return min(1 - 1 / (step + 1), base)


class Teacher(MomentumEncoder):
    """Copy of a whole network that follows it and predicts in its place.

    In contrast to a :class:`MomentumEncoder`, buffers such as running statistics are averaged like parameters (counters
    are copied), and the copy always is in evaluation mode: a prediction does not depend on the other images of a
    batch. This is the teacher of UniMatch V2 (https://arxiv.org/abs/2410.10777).
    """

    def __init__(self, network: nn.Module, ema: float = 0.99) -> None:
        """Copy the network.

        Args:
            network: Network to follow.
            ema: Largest momentum, see :func:`teacher_momentum`; 0 copies the network at each step.
        """
        super().__init__(network, momentum=functools.partial(teacher_momentum, base=ema))
        self.train(False)

    def train(self, mode: bool = True) -> 'Teacher':
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, step: int, total_steps: int) -> None:
        """Follow parameters and buffers of the network.

        Args:
            step: Optimizer steps before the one that has just been taken, from 0.
            total_steps: Steps of the whole run.
        """
        super().update(step, total_steps)
        kept = self.momentum_at(step, total_steps)
        for average, buffer in zip(self.encoder.buffers(), self._followed[0].buffers(), strict=True):
            if average.is_floating_point():
                average.lerp_(buffer, 1 - kept)
            else:
                average.copy_(buffer)
