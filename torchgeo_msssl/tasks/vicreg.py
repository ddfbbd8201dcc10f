"""VICReg: views agree, features vary, and features differ from each other.

Bardes, Ponce & LeCun (https://arxiv.org/abs/2105.04906).
"""

from typing import Any

from torch import Tensor

from torchgeo_msssl.losses.vicreg import VICRegLoss
from torchgeo_msssl.tasks.multi_crop import MultiCropTask
from torchgeo_msssl.tasks.optimizers import OptimizerName


class VICReg(MultiCropTask):
    """Pretrain an encoder with VICReg.

    It needs neither negatives, nor a momentum encoder, nor a standardized loss: a separate term, which pulls the
    standard deviation of each feature to 1, prevents collapse. The paper's expander of 8192 and its LARS are for
    batches of 2048; the defaults here are for small ones. Local views (multi-crop) are treated as in VICRegL.
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
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.MultiCropTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        self._loss_weights = (invariance_weight, variance_weight, covariance_weight)
        super().__init__(optimizer=optimizer, lr=lr, warmup_epochs=warmup_epochs, **kwargs)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = VICRegLoss(*self._loss_weights)

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compare the views' projections.

        Returns:
            Loss; features of the global views (view × batch, features); projections of the first view
            (batch, dimension).
        """
        features = self.embed_views(batch)
        z = self.split_views(self.projection_head(features))  # (view, batch, dimension)
        return self.criterion(z, self.project_local_views(batch)), features, z[0]
