"""FastSiam: each view predicts the mean of the others, so that small batches are enough.

Pototzky, Sultan & Schmidt-Thieme: FastSiam, Resource-Efficient Self-supervised Learning on a Single GPU, GCPR 2022
(https://doi.org/10.1007/978-3-031-16788-1_4). With two views it is SimSiam (https://arxiv.org/abs/2011.10566).
"""

from typing import Any

from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.siamese import FastSiamLoss, Target
from torchgeo_msssl.models.encoders import feature_width
from torchgeo_msssl.models.heads import ProjectionKind, projection_features
from torchgeo_msssl.models.heads import prediction_head as make_prediction
from torchgeo_msssl.models.heads import projection_head as make_projection
from torchgeo_msssl.tasks.base import Augmentation, JointEmbeddingTask
from torchgeo_msssl.tasks.optimizers import OptimizerName, ParameterGroup, parameter_groups
from torchgeo_msssl.transforms.views import MultiView


class FastSiam(JointEmbeddingTask):
    """Pretrain an encoder with FastSiam.

    In two things it is not the authors' code, on purpose. All views pass the network in one batch, so that batch norm
    takes its statistics over views × batch chips instead of once a view: steadier for small batches, and one large
    pass instead of several small ones. Norms and biases do not decay, as in SimCLR and BYOL; theirs decay all.
    """

    method = 'fastsiam'

    def __init__(
        self,
        model: str = 'resnet18',
        in_channels: int = 12,
        weights: str | None = None,
        views: int = 4,
        target: Target = 'mean',
        projection_head: ProjectionKind = 'mlp',
        hidden_dim: int = 2048,
        output_dim: int = 2048,
        bottleneck_dim: int = 512,
        constant_predictor_lr: bool = False,
        optimizer: OptimizerName = 'sgd',
        lr: float = 0.06,
        weight_decay: float = 1e-4,
        momentum: float = 0.9,
        warmup_epochs: float = 0,
        collapse_patience: int | None = None,
        augmentation: Augmentation | dict[str, object] | None = None,
    ) -> None:
        """Build encoder and heads.

        Args:
            model: timm name of the encoder.
            in_channels: Number of bands (this package's command line takes it from the data).
            weights: What the encoder starts from: a checkpoint, a safetensors file, the name of a TorchGeo weight,
                ``imagenet``, or None for random weights.
            views: Views of each chip, 2 or more.
            target: ``mean`` of the other views' projections, or ``normalized_mean`` of projections of length 1.
            projection_head: ``mlp`` (three layers), ``linear`` or ``none``.
            hidden_dim: Width of the projection head's hidden layers.
            output_dim: Width of the projection.
            bottleneck_dim: Width of the prediction head's hidden layer.
            constant_predictor_lr: Keep the prediction head's learning rate constant.
            optimizer: ``sgd``, ``adam``, ``adamw`` (for ViT and Swin) or ``lars``.
            lr: Largest learning rate.
            weight_decay: Weight decay; norms and biases are exempt.
            momentum: Momentum of SGD and LARS.
            warmup_epochs: Epochs in which the learning rate rises.
            collapse_patience: Stop after so many epochs of collapse in a row; None only warns.
            augmentation: How views differ from their chip: size, crop_scale, crop_ratio, flips, quarter_turns, blur,
                blur_sigma, noise, noise_std, common_gain, band_gain, band_dropout, min_valid (see
                :class:`~torchgeo_msssl.tasks.Augmentation`). On the command line ``--model.augmentation.blur 0.3``.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        if views < 2:
            raise ConfigurationError(f'views: expected 2 or more, got {views}.')
        self._view_options = {'views': views, **Augmentation.options(augmentation)}
        self._head_options = (projection_head, hidden_dim, output_dim, bottleneck_dim)
        self._target: Target = target
        self.constant_predictor_lr = constant_predictor_lr
        super().__init__(
            model, in_channels, weights, optimizer, lr, weight_decay, momentum, warmup_epochs, collapse_patience
        )

    def configure_heads(self) -> None:
        """Build views, projection head and prediction head."""
        kind, hidden, out, bottleneck = self._head_options
        features = feature_width(self.model)
        dimension = projection_features(kind, features, out)
        self.multiview = MultiView(**self._view_options)
        self.projection_head = make_projection(kind, features, hidden, out)
        self.prediction_head = make_prediction(dimension, bottleneck)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = FastSiamLoss(self._target)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Encoder and projection head on the schedule; the prediction head too, unless its rate is constant."""
        return [
            *parameter_groups([self.model, self.projection_head], self.weight_decay),
            *parameter_groups([self.prediction_head], self.weight_decay, constant_lr=self.constant_predictor_lr),
        ]

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss: every view in turn predicts the mean of the others.

        Args:
            batch: A batch of chips.

        Returns:
            Loss; features (view × batch, features); projections of the first view (batch, dimension).
        """
        features = self.embed_views(batch)  # (view × batch, features)
        projections = self.projection_head(features)  # z, (view × batch, dimension)
        predictions = self.prediction_head(projections)  # p, (view × batch, dimension)
        z, p = (each.unflatten(0, (self.multiview.views, -1)) for each in (projections, predictions))
        return self.criterion(p, z), features, z[0]


class SimSiam(FastSiam):
    """Pretrain an encoder with SimSiam: FastSiam with two views and a constant rate of the prediction head."""

    method = 'simsiam'

    def __init__(
        self, views: int = 2, constant_predictor_lr: bool = True, lr: float = 0.05 * 64 / 256, **kwargs: Any
    ) -> None:
        """Build encoder and heads with the paper's defaults.

        Args:
            views: Views of each chip.
            constant_predictor_lr: Keep the prediction head's learning rate constant.
            lr: Largest learning rate; the paper's is 0.05 · batch size / 256, here for a batch of 64.
            **kwargs: The other options of :class:`FastSiam`, with its defaults.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__(views=views, constant_predictor_lr=constant_predictor_lr, lr=lr, **kwargs)
