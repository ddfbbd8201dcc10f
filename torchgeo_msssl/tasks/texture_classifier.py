"""Segmentation by classifying hand-made features of every pixel."""

from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import SGD

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.segmentation import SegmentationLoss
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.pixel_classifiers import ClassifierName
from torchgeo_msssl.models.pixel_reservoir import PixelReservoir
from torchgeo_msssl.tasks.pixel_classification import PixelClassification
from torchgeo_msssl.tasks.pixel_network import PixelNetwork
from torchgeo_msssl.tasks.segmentation_folder import SegmentationFolder
from torchgeo_msssl.transforms.normalize import Normalize, valid_pixels
from torchgeo_msssl.transforms.texture import FeatureKind
from torchgeo_msssl.validation import check_at_least


class TextureClassifier(PixelClassification):
    """Classify every pixel by its bands, indices and texture, with logistic regression or a random forest.

    It learns in seconds and from very few labels, and is the opponent that a network has to beat. ``fit`` passes
    through the training chips, keeps a sample of their labelled pixels, and fits the classifier at the end of the
    epoch, before validation; further epochs fit it again to the chips of that epoch. ``test`` and ``predict`` work as
    those of :class:`~torchgeo_msssl.tasks.Segmentation`. The texture is that of :class:`.PixelFeatures`.
    """

    model: PixelNetwork

    def __init__(
        self,
        features: FeatureKind = 'texture',
        classifier: ClassifierName = 'logistic',
        in_channels: int = 5,
        num_classes: int = 2,
        class_names: list[str] | None = None,
        ignore_index: int = 255,
        max_pixels: int = 20_000,
        inverse_regularization: float = 0.01,
    ) -> None:
        """Build features and classifier.

        Args:
            features: ``spectral``: bands and normalized differences of single pixels; ``texture``: also what surrounds
                them, up to 30 pixels.
            classifier: ``logistic`` regression, which is fast and robust with few labels, or a random ``forest``.
            in_channels: Number of bands (this package's command line takes it from the data).
            num_classes: Number of classes.
            class_names: Names of the classes; None for the data module's.
            ignore_index: Value of unlabelled pixels in a mask.
            max_pixels: Maximum number of training pixels, shared equally by the classes.
            inverse_regularization: Logistic regression: scikit-learn's ``C``; smaller values give smoother classifiers.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        check_at_least(2, num_classes=num_classes)
        check_at_least(num_classes, max_pixels=max_pixels)
        if class_names is not None and (len(class_names) != num_classes or len(set(class_names)) != num_classes):
            raise ConfigurationError(
                f'class_names: expected {num_classes} different names (num_classes), got {", ".join(class_names)}.'
            )
        # set before BaseTask.__init__, which calls configure_models
        self._network_arguments = (features, classifier, in_channels, num_classes, inverse_regularization)
        self._class_names = list(class_names) if class_names else None
        self.ignore_index = ignore_index
        self.max_pixels = max_pixels
        self.stride = 1
        self._reservoir: PixelReservoir | None = None
        super().__init__()
        self.hparams.update({'in_channels': in_channels, 'num_classes': num_classes})
        self.automatic_optimization = False

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._network_arguments[3]

    def configure_models(self) -> None:
        """Build network and normalization."""
        self.model = PixelNetwork(*self._network_arguments)
        self.normalize = Normalize(self._network_arguments[2])

    def configure_losses(self) -> None:
        """Build the loss, which is computed for comparison only."""
        self.criterion = SegmentationLoss('ce', self.num_classes, self.ignore_index)

    # Data and checkpoints.

    def setup(self, stage: str) -> None:
        """Take over bands, statistics and class names from the data module.

        Raises:
            BandError: If the data have other bands than the classifier.
            ConfigurationError: If the data have other classes, or the run uses several devices.
        """
        if stage == 'fit' and self.trainer.world_size > 1:
            raise ConfigurationError(
                f'devices: a TextureClassifier is fitted in one process, got {self.trainer.world_size}; set '
                'trainer.devices to 1.'
            )
        super().setup(stage)
        self._choose_features()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore bands and class names, and with them the features.

        Raises:
            BandError: If the data module has other bands.
        """
        super().on_load_checkpoint(checkpoint)
        self._choose_features()

    def _choose_features(self) -> None:
        self.model.set_bands(self._provenance.get('wavelengths', ()), self.normalize.mean, self.normalize.std)

    def metadata(self) -> EncoderMetadata:
        """Return bands and statistics, with the names of classifier and features."""
        features, classifier = self._network_arguments[:2]
        return self.metadata_of('texture_classifier', f'{features}_{classifier}')

    # Steps.

    def forward(
        self, x: Tensor, valid: Tensor | None = None, scale: Tensor | None = None, offset: Tensor | None = None
    ) -> Tensor:
        """Score every pixel for every class.

        Args:
            x: Digital numbers (batch, band, height, width); :attr:`normalize` is applied.
            valid: Valid pixels (batch, 1, height, width), bool.
            scale: Scale of each sample (batch, band), instead of the buffer's.
            offset: Offset of each sample (batch, band), instead of the buffer's.

        Returns:
            Logarithms of the probabilities (batch, class, height, width).
        """
        valid = valid_pixels(x, valid)
        scores: Tensor = self.model(self.normalize(x, valid, scale, offset), valid)
        return scores

    @torch.no_grad()
    def augmented(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return training chips as they are.

        Args:
            batch: A batch of chips.

        Returns:
            Standardized values (batch, band, height, width) and labels (batch, height, width).
        """
        valid = valid_pixels(batch['image'], batch.get('valid'))
        return self.normalize.standardize(self.reflectance(batch), valid), self.labels(batch)

    def on_train_epoch_start(self) -> None:
        """Forget the pixels of earlier epochs, so that a resumed run equals an uninterrupted one."""
        self._reservoir = PixelReservoir(self.num_classes, self.max_pixels, (self._seed + self.current_epoch) % 2**63)

    @torch.no_grad()
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Collect the labelled pixels of a batch; fit the classifier after the last one.

        Raises:
            ConfigurationError: If fewer than two classes have labelled pixels.
        """
        assert self._reservoir is not None
        image, mask = self.augmented(batch)
        valid = valid_pixels(batch['image'], batch.get('valid'))
        for index in range(len(image)):
            features = self.model.features(image[index, None], valid.expand(len(image), -1, -1, -1)[index, None])
            self._reservoir.add(features, mask[index, None])
        if self.trainer.is_last_batch:
            self._fit(len(image))

    def _fit(self, batch_size: int) -> None:
        assert self._reservoir is not None
        sample, self._reservoir = self._reservoir.sample(), None
        self.model.fit(sample, self.class_names, self._seed)
        probabilities = self.model.classifier(torch.from_numpy(sample.features).to(self.device))
        labels, weights = (torch.from_numpy(array).to(self.device) for array in (sample.labels, sample.weights))
        likelihood = probabilities.gather(1, labels[:, None])[:, 0].clamp_min(1e-8).log()
        self.log('train_loss', -(likelihood * weights).mean(), on_step=False, on_epoch=True, batch_size=batch_size)
        self.optimizers().step()  # type: ignore[union-attr]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return an optimizer without effect, whose steps count the fits: checkpoints are named and saved by steps."""
        return SGD([torch.zeros(1, requires_grad=True)], lr=0.0)

    def configure_callbacks(self) -> list[Callback]:
        """Fill the run folder, under any command line."""
        return [SegmentationFolder()]
