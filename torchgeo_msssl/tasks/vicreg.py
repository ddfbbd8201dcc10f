"""VICReg: views agree, features vary, and features differ from each other.

Bardes, Ponce & LeCun (https://arxiv.org/abs/2105.04906).
"""

from typing import Any

from torchgeo_msssl.losses.vicreg import VICRegLoss
from torchgeo_msssl.tasks.joint_embedding import JointEmbeddingTask
from torchgeo_msssl.tasks.optimizers import OptimizerName


class VICReg(JointEmbeddingTask):
    """Pretrain an encoder with VICReg.

    It needs neither negatives, nor a momentum encoder, nor a standardized loss: a separate term, which pulls the
    standard deviation of each feature to 1, prevents collapse. The paper's expander of 8192 and its LARS are for
    batches of 2048; the defaults here are for small ones.
    """

    method = 'vicreg'
    mlp = 'expander'

    def __init__(
        self,
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
            invariance_weight: Weight of the mean squared difference of two views.
            variance_weight: Weight of the shortfall of the features' standard deviations from 1.
            covariance_weight: Weight of the covariances between different features.
            optimizer: ``adamw``, ``adam``, ``sgd`` or ``lars``.
            lr: Maximum learning rate.
            warmup_epochs: Epochs in which the learning rate rises linearly.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.JointEmbeddingTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        self._loss_weights = (invariance_weight, variance_weight, covariance_weight)
        super().__init__(optimizer=optimizer, lr=lr, warmup_epochs=warmup_epochs, **kwargs)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = VICRegLoss(*self._loss_weights)
