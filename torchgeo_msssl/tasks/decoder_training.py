"""Base of pretraining methods that train a decoder with the encoder, whose output follows the stem."""

from abc import abstractmethod
from typing import Any, cast

from torch import Tensor, nn

from torchgeo_msssl.losses.reconstruction import MaskedLoss, PixelLoss
from torchgeo_msssl.models.reconstruction import (
    RestorationArchitecture,
    create_restoration,
    feature_pyramid,
    mean_of_maps,
)
from torchgeo_msssl.models.segmentation import FIXED_STRIDES, check_stem_of, pad_to_multiple, rescale_head
from torchgeo_msssl.models.stems import Stem, reduction_of, stem_of
from torchgeo_msssl.tasks.base import PretrainingTask
from torchgeo_msssl.tasks.optimizers import OptimizerName


class DecoderTraining(PretrainingTask):
    """A task that trains the parts of :func:`.create_restoration`.

    Attributes:
        stride: Images are padded to multiples of this inside the network.
    """

    stride: int

    def __init__(
        self,
        architecture: RestorationArchitecture = 'unet',
        optimizer: OptimizerName = 'adamw',
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        **kwargs: Any,
    ) -> None:
        """Build the network.

        Args:
            architecture: ``unet``, ``unetplusplus``, ``fpn``, ``segformer`` or ``upernet``.
            optimizer: ``adamw``, ``adam``, ``sgd`` or ``lars``.
            lr: Maximum learning rate.
            weight_decay: Weight decay; normalization layers and biases are exempt.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.PretrainingTask`.

        Raises:
            ConfigurationError: If an option is out of its range, or architecture and encoder are incompatible.
        """
        self._architecture: RestorationArchitecture = architecture
        super().__init__(optimizer=optimizer, lr=lr, weight_decay=weight_decay, **kwargs)

    @property
    @abstractmethod
    def output_head(self) -> nn.Sequential:
        """Head after the decoder, which upsamples to the size of the image."""

    def automatic_stem(self, size: int) -> Stem:
        """Stem of ``auto`` for chips of a size in pixels; some decoders allow the standard one only."""
        return 'standard' if self._architecture in FIXED_STRIDES else super().automatic_stem(size)

    def apply_stem(self, stem: Stem) -> None:
        """Change the stem of the encoder, and adapt the decoder's output and the padding to it.

        Raises:
            ConfigurationError: If architecture or encoder do not allow it.
        """
        check_stem_of(self._architecture, stem)
        before = stem_of(self.encoder)
        super().apply_stem(stem)
        rescale_head(self.output_head, before, stem)
        self.stride = self.stride * reduction_of(before) // reduction_of(stem)


class ImagePrediction(DecoderTraining):
    """A task whose network predicts an image of all bands from an image.

    Attributes:
        decoder: smp's decoder.
        restoration_head: From the decoder's output to an image of all bands.
    """

    def __init__(self, loss: PixelLoss = 'l1', **kwargs: Any) -> None:
        """Build the network.

        Args:
            loss: ``l1`` or ``mse``.
            **kwargs: The options of :class:`DecoderTraining`.

        Raises:
            ConfigurationError: If an option is out of its range, or architecture and encoder are incompatible.
        """
        self._loss: PixelLoss = loss
        super().__init__(**kwargs)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = MaskedLoss(self._loss)

    def configure_heads(self) -> None:
        """Build the decoder."""
        parts = create_restoration(self._architecture, self.model, *self._encoder_arguments)
        self.decoder = parts.decoder
        self.restoration_head = parts.head
        self.stride = parts.stride
        self._channels = parts.channels

    @property
    def output_head(self) -> nn.Sequential:
        """The head that returns images."""
        return cast(nn.Sequential, self.restoration_head)

    def predict_image(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on images, padded with the bands' means (0) to multiples of :attr:`stride`.

        Args:
            image: Standardized values (batch, band, height, width).

        Returns:
            Output (batch, band, height, width), and pooled features of the encoder (batch, features).
        """
        height, width = image.shape[-2:]
        maps = feature_pyramid(self.model, pad_to_multiple(image, self.stride), self._channels)
        output = self.restoration_head(self.decoder(maps))
        return output[..., :height, :width], mean_of_maps(maps)
