"""SimCLR: the views of a chip find each other among those of all chips of the batch.

Chen et al.: A Simple Framework for Contrastive Learning of Visual Representations (https://arxiv.org/abs/2002.05709).
"""

from typing import Any

from torch import nn

from torchgeo_msssl.losses.contrastive import NTXentLoss
from torchgeo_msssl.models.heads import ProjectionKind, simclr_head
from torchgeo_msssl.tasks.joint_embedding import JointEmbeddingTask
from torchgeo_msssl.tasks.optimizers import OptimizerName


class SimCLR(JointEmbeddingTask):
    """Pretrain an encoder with SimCLR.

    The negatives are the other chips of the global batch, so larger batches are better ones. There is no memory bank:
    keys of an earlier, different encoder need one that changes slowly, which is :class:`~torchgeo_msssl.tasks.MoCo`.
    """

    method = 'simclr'

    def __init__(
        self,
        model: str = 'resnet18',
        in_channels: int = 12,
        views: int = 2,
        temperature: float = 0.5,
        hidden_dim: int = 256,
        output_dim: int = 128,
        optimizer: OptimizerName = 'adam',
        lr: float = 1e-3,
        weight_decay: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        """Build encoder and head.

        Args:
            model: timm name of the encoder.
            in_channels: Number of bands (this package's command line takes it from the data).
            views: Views of each chip, 2 or more; the loss is the mean over all pairs.
            temperature: Temperature τ; 0.5 for small data, the paper's 0.1 for batches of thousands.
            hidden_dim: Width of the projection head's hidden layer; 256 for ResNet-18 and 34, 2048 for ResNet-50.
            output_dim: Width of the projection.
            optimizer: ``adam``, ``lars`` (the paper's, for batches of thousands), ``sgd`` or ``adamw``.
            lr: Largest learning rate; for LARS the paper's is 0.3 · batch size / 256.
            weight_decay: Weight decay; norms and biases are exempt.
            **kwargs: The options that all joint-embedding methods share, see
                :class:`~torchgeo_msssl.tasks.JointEmbeddingTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        self._temperature = temperature
        super().__init__(
            model,
            in_channels,
            views=views,
            hidden_dim=hidden_dim,
            output_dim=output_dim,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            **kwargs,
        )

    def make_projection_head(self, kind: ProjectionKind, features: int, hidden: int, out: int) -> nn.Module:
        """Build the projection head; its ``mlp`` has two layers."""
        if kind == 'mlp':
            return simclr_head(features, hidden, out)
        return super().make_projection_head(kind, features, hidden, out)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = NTXentLoss(self._temperature)
