"""SimCLR: views of a chip find each other among the views of all chips of the batch.

Chen et al.: A Simple Framework for Contrastive Learning of Visual Representations (https://arxiv.org/abs/2002.05709).
"""

from functools import partial
from typing import Any

from torchgeo_msssl.losses.contrastive import nt_xent_loss
from torchgeo_msssl.tasks.joint_embedding import JointEmbeddingTask
from torchgeo_msssl.tasks.optimizers import OptimizerName
from torchgeo_msssl.validation import check_positive


class SimCLR(JointEmbeddingTask):
    """Pretrain an encoder with SimCLR.

    The negatives are the other chips of the global batch, so large batches help. There is no memory bank: keys of
    earlier steps need an encoder that changes slowly, which is :class:`~torchgeo_msssl.tasks.MoCo`.
    """

    method = 'simclr'
    mlp = 'simclr'

    def __init__(
        self,
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
            temperature: Temperature τ; 0.5 for small data, the paper's 0.1 for batches of thousands.
            hidden_dim: Width of the projection head's hidden layer; 256 for ResNet-18 and 34, 2048 for ResNet-50.
            output_dim: Width of the projection.
            optimizer: ``adam``, ``lars`` (the paper's, for batches of thousands), ``sgd`` or ``adamw``.
            lr: Maximum learning rate; for LARS the paper's is 0.3 · batch size / 256.
            weight_decay: Weight decay; normalization layers and biases are exempt.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.JointEmbeddingTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        check_positive(temperature=temperature)
        self.criterion = partial(nt_xent_loss, temperature=temperature)
        super().__init__(
            hidden_dim=hidden_dim,
            output_dim=output_dim,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            **kwargs,
        )
