"""What the methods share that compare views of the same chip."""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.encoders import check_image_size, feature_width
from torchgeo_msssl.models.heads import ProjectionKind, projection_features
from torchgeo_msssl.models.heads import projection_head as make_projection
from torchgeo_msssl.tasks.base import PretrainingTask
from torchgeo_msssl.tasks.optimizers import OptimizerName
from torchgeo_msssl.transforms.views import MultiView

log = logging.getLogger(__name__)


@dataclass
class Augmentation:
    """How views differ from their chip; see :class:`~torchgeo_msssl.transforms.views.MultiView`.

    Attributes:
        size: Side of a view in pixels; None takes the chip's.
        crop_scale: Smallest and largest share of the chip's area in a crop.
        crop_ratio: Smallest and largest width / height of a crop.
        flips: Whether views are flipped at random.
        quarter_turns: Whether views are turned by a random multiple of 90°.
        blur: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation of the blur, in pixels.
        noise: Probability of noise.
        noise_std: Smallest and largest standard deviation of the noise, as a fraction of the band's.
        common_gain: Smallest and largest gain common to all bands.
        band_gain: Smallest and largest gain of one band.
        band_dropout: Probability of each band to become its mean.
        min_valid: Share of valid pixels below which a crop is drawn again.
    """

    size: int | None = None
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flips: bool = True
    quarter_turns: bool = True
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    noise: float = 0.5
    noise_std: tuple[float, float] = (0.02, 0.1)
    common_gain: tuple[float, float] = (0.8, 1.2)
    band_gain: tuple[float, float] = (0.9, 1.1)
    band_dropout: float = 0.0
    min_valid: float = 0.5

    @classmethod
    def options(cls, given: 'Augmentation | dict[str, Any] | None') -> dict[str, Any]:
        """Plain keyword arguments, from an object, a mapping (as a checkpoint holds it) or nothing."""
        return dataclasses.asdict(cls(**given) if isinstance(given, dict) else given or cls())


class JointEmbeddingTask(PretrainingTask):
    """A task that compares views of the same chip.

    All views pass the network in one batch, so that batch norm takes its statistics over views × batch chips instead
    of once a view: steadier for small batches, and one large pass instead of several small ones.

    Attributes:
        multiview: Makes the views.
        projection_head: Pooled features (n, features) to the vectors (n, :attr:`dimension`) that are compared.
        dimension: Features of a projection.
    """

    multiview: MultiView
    criterion: nn.Module

    def __init__(
        self,
        model: str = 'resnet18',
        in_channels: int = 12,
        weights: str | None = None,
        views: int = 2,
        projection_head: ProjectionKind = 'mlp',
        hidden_dim: int = 2048,
        output_dim: int = 2048,
        augmentation: Augmentation | dict[str, object] | None = None,
        optimizer: OptimizerName = 'sgd',
        lr: float = 0.06,
        weight_decay: float = 1e-4,
        momentum: float = 0.9,
        warmup_epochs: float = 0,
        collapse_patience: int | None = None,
    ) -> None:
        """Build encoder and heads.

        Args:
            model: timm name of the encoder.
            in_channels: Number of bands (this package's command line takes it from the data).
            weights: What the encoder starts from: a checkpoint, a safetensors file, the name of a TorchGeo weight,
                ``imagenet``, or None for random weights.
            views: Views of each chip, 2 or more.
            projection_head: ``mlp`` (the method's own), ``linear`` or ``none``.
            hidden_dim: Width of the projection head's hidden layers.
            output_dim: Width of the projection.
            augmentation: How views differ from their chip: size, crop_scale, crop_ratio, flips, quarter_turns, blur,
                blur_sigma, noise, noise_std, common_gain, band_gain, band_dropout, min_valid (see
                :class:`~torchgeo_msssl.tasks.Augmentation`). On the command line ``--model.augmentation.blur 0.3``.
            optimizer: ``sgd``, ``adam``, ``adamw`` (for ViT and Swin) or ``lars``.
            lr: Largest learning rate.
            weight_decay: Weight decay; norms and biases are exempt.
            momentum: Momentum of SGD and LARS.
            warmup_epochs: Epochs in which the learning rate rises.
            collapse_patience: Stop after so many epochs of collapse in a row; None only warns.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        if views < 2:
            raise ConfigurationError(f'views: expected 2 or more, got {views}.')
        self._view_options = {'views': views, **Augmentation.options(augmentation)}
        self._projection: tuple[ProjectionKind, int, int] = (projection_head, hidden_dim, output_dim)
        super().__init__(
            model, in_channels, weights, optimizer, lr, weight_decay, momentum, warmup_epochs, collapse_patience
        )
        plain = {
            key: dataclasses.asdict(value) for key, value in self.hparams.items() if isinstance(value, Augmentation)
        }
        self.hparams.update(plain)

    @property
    def views(self) -> int:
        """Views of each chip."""
        return self.multiview.views

    def configure_heads(self) -> None:
        """Build views and projection head, then what else the method has."""
        kind, hidden, out = self._projection
        features = feature_width(self.model)
        self.dimension = projection_features(kind, features, out)
        self.multiview = MultiView(**self._view_options)
        self.projection_head = self.make_projection_head(kind, features, hidden, out)
        self.configure_method()

    def make_projection_head(self, kind: ProjectionKind, features: int, hidden: int, out: int) -> nn.Module:
        """Build the projection head; a method whose ``mlp`` is another overrides this.

        Args:
            kind: ``mlp``, ``linear`` or ``none``.
            features: Features of the encoder.
            hidden: Width of the hidden layers.
            out: Width of the projection.

        Returns:
            Module from (n, features) to (n, projection features).
        """
        return make_projection(kind, features, hidden, out)

    def configure_method(self) -> None:
        """Build what the method has besides encoder, views and projection head."""

    def split_views(self, tensor: Tensor) -> Tensor:
        """Take a batch of views apart.

        Args:
            tensor: (view × batch, …), view by view, as :meth:`embed_views` gives it.

        Returns:
            (view, batch, …).
        """
        return tensor.unflatten(0, (self.views, -1))

    def setup(self, stage: str) -> None:
        """Take bands and statistics over, and see that chips and batches suit.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            BandError: If the data module has another number of bands than the encoder.
            ConfigurationError: If the encoder cannot take views of this size, or there is one chip in a batch.
        """
        super().setup(stage)
        data = getattr(self.trainer, 'datamodule', None)
        check_image_size(self.model, self.hparams['model'], self.multiview.size or getattr(data, 'chip_size', None))
        if getattr(data, 'val_fraction', 0) > 0:
            log.warning(
                'val_fraction: %s does not validate, so the ground that is kept apart is not used at all.', self.method
            )
        if getattr(data, 'batch_size', None) == 1:
            raise ConfigurationError('batch_size: chips are compared within a batch; expected 2 or more, got 1.')

    def make_views(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cut the views of a batch, in reflectance.

        Args:
            batch: ``image`` (batch, band, height, width) in digital numbers, with ``valid``, ``scale`` and ``offset``
                where they are known, and ``positive`` with its own where views come from two chips.

        Returns:
            Views (view, batch, band, size, size) in reflectance, and their valid pixels (view, batch, 1, size, size).
        """
        image = self.reflectance(batch)
        positive = self.reflectance(batch, 'positive') if 'positive' in batch else None
        return cast(
            tuple[Tensor, Tensor],
            self.multiview(
                image,
                batch.get('valid'),
                band_std=self.normalize.std,
                positive=positive,
                positive_valid=batch.get('positive_valid'),
                band_mean=self.normalize.mean,
            ),
        )

    def view_inputs(self, batch: dict[str, Tensor]) -> Tensor:
        """Make what the networks see of a batch.

        Args:
            batch: A batch of chips.

        Returns:
            Standardised views (view × batch, band, size, size), view by view.
        """
        views, valid = self.make_views(batch)
        return self.normalize.standardise(views.flatten(0, 1), valid.flatten(0, 1))

    def embed_views(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed the views of a batch.

        Args:
            batch: A batch of chips.

        Returns:
            Pooled features (view × batch, features), view by view.
        """
        return cast(Tensor, self.model(self.view_inputs(batch)))

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss of the projections alone; methods with more networks than that override this.

        Args:
            batch: A batch of chips.

        Returns:
            Loss, from ``criterion`` on projections (view, batch, dimension); features (view × batch, features);
            projections of the first view (batch, dimension).
        """
        features = self.embed_views(batch)
        z = self.split_views(self.projection_head(features))
        return self.criterion(z), features, z[0]
