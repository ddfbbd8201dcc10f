"""Base of the methods that compare views of the same chip."""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, cast

from torch import Tensor, nn

from torchgeo_msssl.contract import PretrainingData, SpectralData
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.encoders import check_image_size, feature_width
from torchgeo_msssl.models.heads import MLPName, ProjectionKind, projection_features, projection_head
from torchgeo_msssl.models.momentum import MomentumEncoder
from torchgeo_msssl.tasks.base import PretrainingTask
from torchgeo_msssl.transforms.crops import ViewGeometry
from torchgeo_msssl.transforms.views import Augmentation, MultiView
from torchgeo_msssl.validation import check_at_least

log = logging.getLogger(__name__)


class JointEmbeddingTask(PretrainingTask):
    """A task that compares views of the same chip.

    All views of one size pass the network in one batch, so that batch norm takes its statistics over views × batch
    chips instead of per view: more stable for small batches, and faster than several small passes.

    A method that needs views of further sizes (multi-crop) assigns further :class:`MultiView` modules to attributes and
    passes them to :meth:`view_inputs`. A method that needs a moving average of its networks assigns
    :meth:`make_momentum_encoder` to an attribute.

    Attributes:
        mlp: Which multi-layer perceptron the projection head ``mlp`` is, see :func:`.heads.mlp_head`.
        multiview: Makes the views.
        dimension: Features of a projection, which the projection head computes from pooled features.
        criterion: Loss of the method.
    """

    mlp: MLPName = 'simsiam'
    multiview: MultiView
    criterion: Callable[..., Tensor]

    def __init__(
        self,
        views: int = 2,
        projection_head: ProjectionKind = 'mlp',
        hidden_dim: int = 2048,
        output_dim: int = 2048,
        augmentation: Augmentation | dict[str, object] | None = None,
        **kwargs: Any,
    ) -> None:
        """Build encoder and heads.

        Args:
            views: Views of each chip, 2 or more; losses of pairs are averaged over all pairs.
            projection_head: ``mlp`` (the method's own), ``linear`` or ``none``.
            hidden_dim: Width of the projection head's hidden layers.
            output_dim: Width of the projection.
            augmentation: Differences between a view and its chip: size, crop_scale, crop_ratio, flips, quarter_turns,
                blur, blur_sigma, blur_unit, noise, noise_std, noise_reference, common_gain, band_gain, band_dropout,
                min_valid (see
                :class:`~torchgeo_msssl.tasks.Augmentation`). On the command line ``--model.augmentation.blur 0.3``.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.PretrainingTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        check_at_least(2, views=views)
        self._view_options = {'views': views, **Augmentation.options(augmentation)}
        self._projection: tuple[ProjectionKind, int, int] = (projection_head, hidden_dim, output_dim)
        super().__init__(**kwargs)
        plain = {
            key: dataclasses.asdict(value) for key, value in self.hparams.items() if isinstance(value, Augmentation)
        }
        self.hparams.update(plain)

    @property
    def views(self) -> int:
        """Views of each chip."""
        return self.multiview.views

    def configure_heads(self) -> None:
        """Build views and projection head, then the method's other networks."""
        kind, hidden, out = self._projection
        features = feature_width(self.model)
        self.dimension = projection_features(kind, features, out)
        self.multiview = MultiView(**self._view_options)
        self.projection_head = self.make_projection_head(kind, features, hidden, out)
        self.configure_method()

    def make_projection_head(self, kind: ProjectionKind, features: int, hidden: int, out: int) -> nn.Module:
        """Build the projection head, (n, features of the encoder) to (n, :attr:`dimension`)."""
        return projection_head(kind, features, hidden, out, self.mlp)

    def configure_method(self) -> None:
        """Build the method's networks besides encoder, views and projection head."""

    def make_momentum_encoder(self, momentum: float | Callable[[int, int], float]) -> MomentumEncoder:
        """Build a moving average of encoder and projection head; call it in :meth:`configure_method`.

        Args:
            momentum: Fraction that each update keeps, or a schedule of it, see :class:`MomentumEncoder`.

        Returns:
            The momentum encoder, standardized views (n, band, size, size) to projections (n, dimension).
        """
        return MomentumEncoder(self.model, self.projection_head, momentum)

    def split_views(self, tensor: Tensor) -> Tensor:
        """Split (view × batch, …), view by view as :meth:`embed_views` returns it, into (view, batch, …)."""
        return tensor.unflatten(0, (self.views, -1))

    def setup(self, stage: str) -> None:
        """Extend :meth:`.PretrainingTask.setup`.

        Raises:
            ConfigurationError: If the encoder cannot take views of this size, or a batch has one chip.
        """
        super().setup(stage)
        data = self.attached_data()
        for multiview in self.children():
            if isinstance(multiview, MultiView):
                size = multiview.augmentation.size or (data.chip_size if data else None)
                check_image_size(self.model, self.hparams['model'], size)
        if data is not None and data.batch_size == 1:
            raise ConfigurationError('batch_size: chips are compared within a batch; expected 2 or more, got 1.')
        if isinstance(data, PretrainingData) and data.holds_out:
            log.warning('val_fraction: %s does not validate, so the held-out ground remains unused.', self.method)

    def input_size(self, data: SpectralData) -> int:
        """Side of the views in pixels."""
        return self.multiview.augmentation.size or data.chip_size

    def make_views(self, batch: dict[str, Tensor], multiview: MultiView | None = None) -> tuple[Tensor, Tensor]:
        """Cut the views of a batch, in reflectance.

        Args:
            batch: ``image`` (batch, band, height, width) in digital numbers, with ``valid``, ``scale`` and ``offset``
                where known, and ``positive`` with its own where views come from two chips.
            multiview: Makes the views; None for :attr:`multiview`.

        Returns:
            Views (view, batch, band, size, size) in reflectance, and their valid pixels (view, batch, 1, size, size).
        """
        views, valid, _ = self.locate_views(batch, multiview)
        return views, valid

    def locate_views(
        self, batch: dict[str, Tensor], multiview: MultiView | None = None
    ) -> tuple[Tensor, Tensor, ViewGeometry]:
        """Cut the views of a batch as :meth:`make_views` does; return their places on the chips, too."""
        return (multiview or self.multiview).located_views(
            self.reflectance(batch),
            batch.get('valid'),
            band_std=self.normalize.std,
            positive=self.reflectance(batch, 'positive') if 'positive' in batch else None,
            positive_valid=batch.get('positive_valid'),
            band_mean=self.normalize.mean,
        )

    def shown_views(self, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the views of all sizes, in the order in which they were assigned."""
        sizes = [self.make_views(batch, module) for module in self.children() if isinstance(module, MultiView)]
        return [pair for views, valid in sizes for pair in zip(views, valid, strict=True)]

    def view_inputs(self, batch: dict[str, Tensor], multiview: MultiView | None = None) -> Tensor:
        """Make views and standardize them: (view × batch, band, size, size), view by view; see :meth:`make_views`."""
        views, valid = self.make_views(batch, multiview)
        return self.normalize.standardize(views.flatten(0, 1), valid.flatten(0, 1))

    def embed_views(self, batch: dict[str, Tensor]) -> Tensor:
        """Embed the views of a batch: pooled features (view × batch, features), view by view."""
        return cast(Tensor, self.model(self.view_inputs(batch)))

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute ``criterion`` of the projections; methods with further networks override this.

        Returns:
            Loss; features (view × batch, features); projections of the first view (batch, dimension).
        """
        features = self.embed_views(batch)
        z = self.split_views(self.projection_head(features))  # (view, batch, dimension)
        return self.criterion(z), features, z[0]
