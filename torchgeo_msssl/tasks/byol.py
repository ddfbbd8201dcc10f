"""BYOL: a network predicts what its own moving average says of another view.

Grill et al.: Bootstrap Your Own Latent (https://arxiv.org/abs/2006.07733).
"""

from typing import Any

from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.byol import byol_loss
from torchgeo_msssl.models.heads import ProjectionKind, byol_head
from torchgeo_msssl.models.momentum import momentum_at
from torchgeo_msssl.tasks.momentum import MomentumTask
from torchgeo_msssl.tasks.optimizers import OptimizerName


class BYOL(MomentumTask):
    """Pretrain an encoder with BYOL.

    The target network ξ is :attr:`momentum_encoder` with :attr:`momentum_projection_head`; the online network θ, which
    is saved as the encoder, has a prediction head besides. The paper's LARS, hidden layers of 4096 and target decay
    rate of 0.996 are for batches of 4096 and 300,000 steps; the defaults here are for small batches.

    Attributes:
        prediction_head: Projection (n, dimension) to the prediction of the target's (n, dimension).
    """

    method = 'byol'

    def __init__(
        self,
        model: str = 'resnet18',
        in_channels: int = 12,
        views: int = 2,
        encoder_momentum: float = 0.996,
        output_dim: int = 256,
        optimizer: OptimizerName = 'adamw',
        lr: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        """Build online and target network.

        Args:
            model: timm name of the encoder.
            in_channels: Number of bands (this package's command line takes it from the data).
            views: Views of each chip, 2 or more; the loss is the mean over all pairs.
            encoder_momentum: The paper's τ_base: how much of the target network stays at the first step; it rises to
                1 as half a cosine. Runs of few steps need less, about 0.99.
            output_dim: Width of the projection.
            optimizer: ``adamw``, ``adam``, ``sgd`` or ``lars`` (the paper's, of 0.2 · batch size / 256).
            lr: Largest learning rate, here for AdamW, batches of 64 and short runs.
            **kwargs: The options that all joint-embedding methods share, see
                :class:`~torchgeo_msssl.tasks.JointEmbeddingTask`; the hidden layer of the prediction head is as wide
                as ``hidden_dim``, like the projection head's.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        if not 0 <= encoder_momentum <= 1:
            raise ConfigurationError(f'encoder_momentum: expected 0 to 1, got {encoder_momentum}.')
        self._encoder_momentum = encoder_momentum
        super().__init__(model, in_channels, views=views, output_dim=output_dim, optimizer=optimizer, lr=lr, **kwargs)

    def make_projection_head(self, kind: ProjectionKind, features: int, hidden: int, out: int) -> nn.Module:
        """Build the projection head; its ``mlp`` has two layers and no batch norm after the last."""
        if kind == 'mlp':
            return byol_head(features, hidden, out)
        return super().make_projection_head(kind, features, hidden, out)

    def configure_method(self) -> None:
        """Build the target network and the prediction head."""
        super().configure_method()
        _, hidden, _ = self._projection
        self.prediction_head = byol_head(self.dimension, hidden, self.dimension)

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss: each view's prediction against the target's projection of every other view.

        Args:
            batch: A batch of chips.

        Returns:
            Loss; features (view × batch, features); projections of the first view (batch, dimension).
        """
        features, projections, targets = self.embed_twice(batch)
        predictions = self.prediction_head(projections)  # (view × batch, dimension)
        loss = byol_loss(self.split_views(predictions), self.split_views(targets))
        return loss, features, self.split_views(projections)[0]

    def momentum_after(self, step: int) -> float:
        """The paper's τ_k, ``1 − (1 − τ_base) · (cos(πk/K) + 1)/2`` for step k of K, counted from 0."""
        assert self._total_steps is not None, 'configure_optimizers sets it'
        return momentum_at(step, self._total_steps, self._encoder_momentum)
