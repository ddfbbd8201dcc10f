"""VICReg: views that agree, features that vary, features that differ.

Bardes, Ponce & LeCun (https://arxiv.org/abs/2105.04906).
"""

from typing import Any

from torch import nn

from torchgeo_msssl.losses.vicreg import VICRegLoss
from torchgeo_msssl.models.heads import ProjectionKind, expander_head
from torchgeo_msssl.tasks.joint_embedding import JointEmbeddingTask
from torchgeo_msssl.tasks.optimizers import OptimizerName


class VICReg(JointEmbeddingTask):
    """Pretrain an encoder with VICReg.

    Neither negatives, nor a momentum encoder, nor a standardised loss: collapse is kept away by a term of its own,
    which asks each feature to have a standard deviation of 1. The paper's expander of 8192 and its LARS are for batches
    of 2048; the defaults here are for small ones.
    """

    method = 'vicreg'

    def __init__(
        self,
        model: str = 'resnet18',
        in_channels: int = 12,
        views: int = 2,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        optimizer: OptimizerName = 'adamw',
        lr: float = 1e-3,
        warmup_epochs: float = 1,
        **kwargs: Any,
    ) -> None:
        """Build encoder and head.

        Args:
            model: timm name of the encoder.
            in_channels: Number of bands (this package's command line takes it from the data).
            views: Views of each chip, 2 or more; the loss is the mean over all pairs.
            invariance_weight: Weight of the mean squared difference of two views.
            variance_weight: Weight of what the features' standard deviations lack to 1.
            covariance_weight: Weight of the covariances between different features.
            optimizer: ``sgd``, ``adam``, ``adamw`` or ``lars``.
            lr: Largest learning rate.
            warmup_epochs: Epochs in which the learning rate rises.
            **kwargs: The options that all joint-embedding methods share, see
                :class:`~torchgeo_msssl.tasks.JointEmbeddingTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        self._loss_weights = (invariance_weight, variance_weight, covariance_weight)
        super().__init__(
            model, in_channels, views=views, optimizer=optimizer, lr=lr, warmup_epochs=warmup_epochs, **kwargs
        )

    def make_projection_head(self, kind: ProjectionKind, features: int, hidden: int, out: int) -> nn.Module:
        """Build the expander; its ``mlp`` has three layers and no batch norm after the last."""
        if kind == 'mlp':
            return expander_head(features, hidden, out)
        return super().make_projection_head(kind, features, hidden, out)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = VICRegLoss(*self._loss_weights)
