"""What the methods share whose targets come from a moving average of the network."""

from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from torchgeo_msssl.models.momentum import frozen_copy, update_average
from torchgeo_msssl.tasks.joint_embedding import JointEmbeddingTask


class MomentumTask(JointEmbeddingTask):
    """A task with frozen copies of encoder and projection head that follow them as a moving average.

    The copies start from the same weights, also where ``weights`` were loaded, and are saved with a checkpoint. See
    :mod:`torchgeo_msssl.models.momentum` for how they treat batch norm.

    Attributes:
        momentum_encoder: Copy of the encoder.
        momentum_projection_head: Copy of the projection head.
    """

    def configure_method(self) -> None:
        """Make the copies."""
        self.momentum_encoder = frozen_copy(self.model)
        self.momentum_projection_head = frozen_copy(self.projection_head)

    def setup(self, stage: str) -> None:
        """Take bands, statistics and starting weights over, the latter for the copy too.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            BandError: If the data module has another number of bands than the encoder.
            ConfigurationError: If the encoder cannot take views of this size, or there is one chip in a batch.
        """
        to_load = self.weights is not None
        super().setup(stage)
        if to_load and self.weights is None:
            self.momentum_encoder.load_state_dict(self.model.state_dict())

    def embed_twice(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Embed the views of a batch with the network and with its copy.

        Args:
            batch: A batch of chips.

        Returns:
            Features (view × batch, features) and projections (view × batch, dimension) of the network, and
            projections (view × batch, dimension) of the copy, without gradient; all view by view.
        """
        inputs = self.view_inputs(batch)
        features = cast(Tensor, self.model(inputs))
        with torch.no_grad():
            targets = self.momentum_projection_head(self.momentum_encoder(inputs))
        return features, self.projection_head(features), targets

    @abstractmethod
    def momentum_after(self, step: int) -> float:
        """How much of the copies stays in the update that follows a step.

        Args:
            step: Optimizer steps before that one, from 0.

        Returns:
            From 0, when they become the network, to 1, when they stay.
        """

    def after_step(self) -> None:
        """Let the copies follow."""
        # taken together, because a projection head may have no parameters
        copies = nn.ModuleList([self.momentum_encoder, self.momentum_projection_head])
        update_average(copies, nn.ModuleList([self.model, self.projection_head]), self.momentum_after(self.global_step))
