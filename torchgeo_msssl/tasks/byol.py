"""BYOL: a network predicts its own moving average's projection of another view.

Grill et al.: Bootstrap Your Own Latent (https://arxiv.org/abs/2006.07733).
"""

from functools import partial
from typing import Any

from torch import Tensor

from torchgeo_msssl.losses.byol import byol_loss
from torchgeo_msssl.models.heads import mlp_head
from torchgeo_msssl.models.momentum import momentum_at
from torchgeo_msssl.tasks.multi_crop import MultiCropTask, apply_to_views
from torchgeo_msssl.tasks.optimizers import OptimizerName
from torchgeo_msssl.validation import check_probability


class BYOL(MultiCropTask):
    """Pretrain an encoder with BYOL.

    The target network ξ is :attr:`momentum_encoder`; the online network θ, which is saved as the encoder, has an
    additional prediction head. The paper's LARS, hidden layers of 4096 and target decay rate of 0.996 are for batches
    of 4096 and 300,000 steps; the defaults here are for small batches. The target network sees global views only; local
    views (multi-crop) are not in the paper.

    Attributes:
        momentum_encoder: Moving average of encoder and projection head.
        prediction_head: Projection (n, dimension) to the prediction of the target's (n, dimension).
    """

    method = 'byol'
    mlp = 'byol'
    criterion = staticmethod(byol_loss)

    def __init__(
        self,
        encoder_momentum: float = 0.996,
        output_dim: int = 256,
        optimizer: OptimizerName = 'adamw',
        lr: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        """Build online and target network.

        Args:
            encoder_momentum: The paper's τ_base: fraction of the target network that the first step keeps; it rises to
                1 as half a cosine. Short runs need less, about 0.99.
            output_dim: Width of the projection.
            optimizer: ``adamw``, ``adam``, ``sgd`` or ``lars`` (the paper's, with lr 0.2 · batch size / 256).
            lr: Maximum learning rate, here for AdamW, batches of 64 and short runs.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.MultiCropTask`; ``hidden_dim`` is also the width
                of the prediction head's hidden layer.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        self._encoder_momentum = check_probability('encoder_momentum', encoder_momentum)
        super().__init__(output_dim=output_dim, optimizer=optimizer, lr=lr, **kwargs)

    def configure_method(self) -> None:
        """Build the target network and the prediction head."""
        # the paper's τ_k = 1 − (1 − τ_base) · (cos(πk/K) + 1)/2 for step k of K, from 0
        self.momentum_encoder = self.make_momentum_encoder(partial(momentum_at, base=self._encoder_momentum))
        _, hidden, _ = self._projection
        self.prediction_head = mlp_head('byol', self.dimension, hidden, self.dimension)

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compare each view's prediction with the target network's projection of every other view.

        Returns:
            Loss; features (view × batch, features); projections of the first view (batch, dimension).
        """
        inputs = self.view_inputs(batch)
        features: Tensor = self.model(inputs)
        projections = self.projection_head(features)  # (view × batch, dimension)
        targets, predictions = self.momentum_encoder(inputs), self.prediction_head(projections)
        local = apply_to_views(self.prediction_head, self.project_local_views(batch))
        loss = self.criterion(self.split_views(predictions), self.split_views(targets), local)
        return loss, features, self.split_views(projections)[0]
