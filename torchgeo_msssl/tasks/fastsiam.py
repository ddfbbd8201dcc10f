"""FastSiam: each view predicts the mean of the others, so that small batches suffice.

Pototzky, Sultan & Schmidt-Thieme: FastSiam, Resource-Efficient Self-supervised Learning on a Single GPU, GCPR 2022
(https://doi.org/10.1007/978-3-031-16788-1_4). With two views it is SimSiam (https://arxiv.org/abs/2011.10566).
"""

from functools import partial
from typing import Any

from torch import Tensor

from torchgeo_msssl.losses.siamese import Target, fastsiam_loss
from torchgeo_msssl.models.heads import prediction_head
from torchgeo_msssl.tasks.multi_crop import MultiCropTask, apply_to_views
from torchgeo_msssl.tasks.optimizers import ParameterGroup, parameter_groups
from torchgeo_msssl.validation import check_choice


class FastSiam(MultiCropTask):
    """Pretrain an encoder with FastSiam.

    It deliberately differs from the authors' code in two ways. All views pass the network in one batch, so that batch
    norm takes its statistics over views × batch chips instead of per view. Normalization layers and biases do not
    decay, as in SimCLR and BYOL.

    A local view (multi-crop, not in the paper) predicts the mean of all global views.

    Attributes:
        prediction_head: Projection (n, dimension) to the prediction of the other views' mean (n, dimension).
    """

    method = 'fastsiam'

    def __init__(
        self,
        views: int = 4,
        target: Target = 'mean',
        bottleneck_dim: int = 512,
        constant_predictor_lr: bool = False,
        **kwargs: Any,
    ) -> None:
        """Build encoder and heads.

        Args:
            views: Views of each chip, 2 or more.
            target: ``mean`` of the other views' projections, or ``normalized_mean`` of projections of length 1.
            bottleneck_dim: Width of the prediction head's hidden layer.
            constant_predictor_lr: Whether to keep the prediction head's learning rate constant.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.MultiCropTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        check_choice('target', target, Target)
        self._bottleneck = bottleneck_dim
        self.criterion = partial(fastsiam_loss, target=target)
        self.constant_predictor_lr = constant_predictor_lr
        super().__init__(views=views, **kwargs)

    def configure_method(self) -> None:
        """Build the prediction head."""
        self.prediction_head = prediction_head(self.dimension, self._bottleneck)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return encoder and projection head on the schedule; also the prediction head unless its rate is constant."""
        return [
            *parameter_groups([self.model, self.projection_head], self.weight_decay),
            *parameter_groups([self.prediction_head], self.weight_decay, constant_lr=self.constant_predictor_lr),
        ]

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compare each view's prediction with the mean of the other global views' projections.

        Returns:
            Loss; features (view × batch, features); projections of the first view (batch, dimension).
        """
        features = self.embed_views(batch)  # (view × batch, features)
        projections = self.projection_head(features)  # z, (view × batch, dimension)
        predictions = self.prediction_head(projections)  # p, (view × batch, dimension)
        z, p = self.split_views(projections), self.split_views(predictions)
        local = apply_to_views(self.prediction_head, self.project_local_views(batch))
        return self.criterion(p, z, local=local), features, z[0]


class SimSiam(FastSiam):
    """Pretrain an encoder with SimSiam: FastSiam with two views and a constant rate of the prediction head."""

    method = 'simsiam'

    def __init__(
        self,
        views: int = 2,
        constant_predictor_lr: bool = True,
        lr: float = 0.05 * 64 / 256,
        **kwargs: Any,
    ) -> None:
        """Build encoder and heads with the paper's defaults.

        Args:
            views: Views of each chip, 2 or more.
            constant_predictor_lr: Whether to keep the prediction head's learning rate constant.
            lr: Maximum learning rate; the paper's is 0.05 · batch size / 256, here for a batch of 64.
            **kwargs: The other options of :class:`FastSiam`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__(views=views, constant_predictor_lr=constant_predictor_lr, lr=lr, **kwargs)
