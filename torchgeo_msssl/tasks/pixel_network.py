"""Network that computes features of every pixel and classifies them."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.pixel_classifiers import ClassifierName, PixelClassifier, create_classifier
from torchgeo_msssl.models.pixel_reservoir import PixelSample
from torchgeo_msssl.transforms.texture import FeatureKind, PixelFeatures
from torchgeo_msssl.validation import check_choice, check_positive

__all__ = ('PixelNetwork', 'check_classes')

log = logging.getLogger(__name__)

#: Smallest probability, so that losses remain finite where a classifier is certain.
_LEAST = 1e-8


class PixelNetwork(nn.Module):
    """Features of every pixel, followed by logistic regression or a random forest.

    Attributes:
        features: Features of the pixels.
        classifier: Classifier of the features.
    """

    def __init__(
        self,
        features: FeatureKind,
        classifier: ClassifierName,
        in_channels: int,
        num_classes: int,
        inverse_regularization: float = 0.01,
    ) -> None:
        """Build the network.

        Args:
            features: ``spectral`` or ``texture``.
            classifier: ``logistic`` or ``forest``.
            in_channels: Number of bands.
            num_classes: Number of classes.
            inverse_regularization: Option of logistic regression, scikit-learn's ``C``.

        Raises:
            ConfigurationError: If an option is out of range.
        """
        super().__init__()
        check_choice('classifier', classifier, ClassifierName)
        check_positive(inverse_regularization=inverse_regularization)
        self.features = PixelFeatures(features, in_channels)
        self.classifier: PixelClassifier = create_classifier(
            classifier, self.features.count, num_classes, inverse_regularization
        )

    @property
    def receptive_radius(self) -> int:
        """Distance in pixels up to which other pixels influence a prediction."""
        return self.features.receptive_radius

    def set_bands(self, wavelengths: Sequence[float | None], mean: Tensor, std: Tensor) -> None:
        """Choose the features of some bands; a classifier of other features is reset.

        Args:
            wavelengths: Central wavelength of each band in nanometres, None where unknown; empty if all are.
            mean: Mean reflectance of each band, (band,).
            std: Standard deviation of the reflectance of each band, (band,).

        Raises:
            BandError: If there is not one wavelength per band.
        """
        before = self.features.count
        self.features.set_wavelengths(wavelengths)
        self.features.set_statistics(mean, std)
        if self.features.count != before:
            self.classifier.reset(self.features.count)

    def fit(self, sample: PixelSample, class_names: Sequence[str], seed: int = 0) -> None:
        """Fit the classifier.

        Args:
            sample: Features of labelled pixels.
            class_names: Names of the classes.
            seed: Seed of everything random.

        Raises:
            ConfigurationError: If fewer than two classes have pixels.
        """
        check_classes(sample, class_names)
        self.classifier.fit(sample, seed)

    def forward(self, image: Tensor, valid: Tensor | None = None) -> Tensor:
        """Score every pixel for every class, one image at a time to save memory.

        Args:
            image: Standardized values (batch, band, height, width).
            valid: Valid pixels (batch, 1, height, width), bool; None for all.

        Returns:
            Logarithms of the probabilities (batch, class, height, width).
        """
        masks: Sequence[Tensor | None] = [None] * len(image) if valid is None else valid.split(1)
        return torch.cat([self._score(one, mask) for one, mask in zip(image.split(1), masks, strict=True)])

    def _score(self, image: Tensor, valid: Tensor | None) -> Tensor:
        features = self.features(image, valid)
        probabilities: Tensor = self.classifier(features.flatten(2)[0].T.contiguous())
        return probabilities.T.clamp_min(_LEAST).log().reshape(1, -1, *image.shape[-2:])


def check_classes(sample: PixelSample, class_names: Sequence[str]) -> None:
    """Check that a classifier can be fitted, and log the classes that have no pixel.

    Args:
        sample: Features of labelled pixels.
        class_names: Names of the classes.

    Raises:
        ConfigurationError: If fewer than two classes have pixels.
    """
    present = [name for name, count in zip(class_names, sample.counts, strict=True) if count]
    absent = [name for name in class_names if name not in present]
    if len(present) < 2:
        found = f'of {present[0]} only' if present else 'of no class'
        raise ConfigurationError(
            f'labels: the training chips have labelled pixels {found}, and a classifier needs two classes; label '
            f'{", ".join(absent)} too, or use more or other blocks (data.shots, data.label_fraction, data.seed).'
        )
    if absent:
        log.warning('The training chips have no labelled pixel of %s; no map will show it.', ', '.join(absent))
