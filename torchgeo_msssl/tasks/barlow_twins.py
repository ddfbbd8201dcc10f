"""Barlow Twins: features that agree between views, each of which says something else.

Zbontar et al. (https://arxiv.org/abs/2103.03230).
"""

from typing import Any

from torch import nn

from torchgeo_msssl.losses.barlow_twins import BarlowTwinsLoss
from torchgeo_msssl.models.heads import ProjectionKind, expander_head
from torchgeo_msssl.tasks.joint_embedding import JointEmbeddingTask
from torchgeo_msssl.tasks.optimizers import OptimizerName


class BarlowTwins(JointEmbeddingTask):
    """Pretrain an encoder with Barlow Twins.

    Neither negatives nor a momentum encoder: features are standardised over the batch, so that a constant one costs as
    much as one that disagrees. The paper's projector of 8192 and its LARS are for batches of 2048; the defaults here
    are for small ones.
    """

    method = 'barlow_twins'

    def __init__(
        self,
        model: str = 'resnet18',
        in_channels: int = 12,
        views: int = 2,
        redundancy_weight: float = 5e-3,
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
            redundancy_weight: Weight λ of the correlations between different features.
            optimizer: ``sgd``, ``adam``, ``adamw`` or ``lars``. The loss is a sum over features, so that it and its
                gradients grow with ``output_dim``, which AdamW and LARS do not see and SGD does.
            lr: Largest learning rate.
            warmup_epochs: Epochs in which the learning rate rises.
            **kwargs: The options that all joint-embedding methods share, see
                :class:`~torchgeo_msssl.tasks.JointEmbeddingTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        self._redundancy_weight = redundancy_weight
        super().__init__(
            model, in_channels, views=views, optimizer=optimizer, lr=lr, warmup_epochs=warmup_epochs, **kwargs
        )

    def make_projection_head(self, kind: ProjectionKind, features: int, hidden: int, out: int) -> nn.Module:
        """Build the projector; its ``mlp`` has three layers and no batch norm after the last."""
        if kind == 'mlp':
            return expander_head(features, hidden, out)
        return super().make_projection_head(kind, features, hidden, out)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = BarlowTwinsLoss(self._redundancy_weight)
