"""Reconstruction: a whole segmentation network learns to restore spoilt images, and is handed on as a whole."""

from typing import Literal, cast, get_args

from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.reconstruction import MaskedLoss, PixelLoss
from torchgeo_msssl.models.reconstruction import (
    RestorationArchitecture,
    create_restoration,
    feature_pyramid,
    mean_of_maps,
)
from torchgeo_msssl.models.segmentation import pad_to_multiple
from torchgeo_msssl.tasks.optimizers import OptimizerName
from torchgeo_msssl.tasks.restoration import RestorationTask
from torchgeo_msssl.transforms.corruptions import CorruptionName, create_corruption

LossOn = Literal['hidden', 'all']

#: Side of the windows in which whole scenes are restored, in pixels, about.
_WINDOW = 256


class Reconstruction(RestorationTask):
    """Pretrain encoder and decoder together by restoring images that were spoilt on the fly.

    ``coarse_cutout`` blanks out a few large rectangles (context encoders, https://arxiv.org/abs/1604.07379),
    ``patch_mask`` patches of a grid (SimMIM, https://arxiv.org/abs/2111.09886), and ``crappify`` adds noise and takes
    detail away. Where several are named each chip gets one of them, so that each keeps the strength it was given.

    The checkpoint starts ``Segmentation`` with the same architecture and backbone, as a whole (``transfer: network``)
    or with its encoder alone.

    Attributes:
        decoder: smp's decoder.
        restoration_head: From the decoder's output to an image of all bands.
        corruption: Spoils images.
        stride: Images are padded to multiples of this inside the network.
    """

    method = 'reconstruction'

    def __init__(
        self,
        model: str = 'resnet18',
        in_channels: int = 12,
        weights: str | None = None,
        architecture: RestorationArchitecture = 'unet',
        corruption: CorruptionName | list[CorruptionName] = 'coarse_cutout',
        cutout_count: tuple[int, int] = (1, 4),
        cutout_size: tuple[float, float] = (0.15, 0.5),
        patch_size: int = 8,
        patch_ratio: float = 0.6,
        noise: float = 0.2,
        factor: float = 4.0,
        loss: PixelLoss = 'l1',
        loss_on: LossOn = 'hidden',
        flips: bool = True,
        quarter_turns: bool = True,
        optimizer: OptimizerName = 'adamw',
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        momentum: float = 0.9,
        warmup_epochs: float = 0,
        collapse_patience: int | None = None,
    ) -> None:
        """Build the network.

        Args:
            model: timm name of the encoder.
            in_channels: Number of bands (this package's command line takes it from the data).
            weights: What the encoder starts from: a checkpoint, a safetensors file, the name of a TorchGeo weight,
                ``imagenet``, or None for random weights.
            architecture: ``unet``, ``unetplusplus``, ``fpn``, ``segformer`` or ``upernet``.
            corruption: ``coarse_cutout``, ``patch_mask``, ``crappify``, or a list, of which each chip gets one.
            cutout_count: Smallest and largest number of rectangles.
            cutout_size: Smallest and largest side of a rectangle, as a share of the chip's.
            patch_size: Side of a masked patch in pixels.
            patch_ratio: Share of the patches that are masked.
            noise: Standard deviation of crappify's noise as a fraction of each band's.
            factor: How many pixels become one in crappify: 4 halves each side, and back.
            loss: ``l1`` or ``mse``.
            loss_on: Pixels that count: those that are ``hidden`` (all that hold data, for crappify), or ``all`` that
                hold data.
            flips: Whether chips are mirrored at random.
            quarter_turns: Whether chips are turned at random.
            optimizer: ``sgd``, ``adam``, ``adamw`` or ``lars``.
            lr: Largest learning rate.
            weight_decay: Weight decay; norms and biases are exempt.
            momentum: Momentum of SGD and LARS.
            warmup_epochs: Epochs in which the learning rate rises.
            collapse_patience: Stop after so many epochs of collapse in a row; None only warns.

        Raises:
            ConfigurationError: If an option is out of its range, or architecture and encoder do not go together.
        """
        if loss_on not in get_args(LossOn):
            raise ConfigurationError(f'loss_on: {loss_on!r} is not one of {", ".join(get_args(LossOn))}.')
        self._architecture: RestorationArchitecture = architecture
        self._corruption_arguments = (corruption, cutout_count, cutout_size, patch_size, patch_ratio, noise, factor)
        self._loss: PixelLoss = loss
        self.loss_on: LossOn = loss_on
        super().__init__(
            model, in_channels, weights, flips, quarter_turns, optimizer, lr, weight_decay, momentum, warmup_epochs,
            collapse_patience,
        )  # fmt: skip

    def configure_heads(self) -> None:
        """Build the decoder and the corruption."""
        parts = create_restoration(self._architecture, self.model, *self._encoder_arguments)
        self.decoder = parts.decoder
        self.restoration_head = parts.head
        self.stride = parts.stride
        self._channels = parts.channels
        self.corruption = create_corruption(*self._corruption_arguments)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = MaskedLoss(self._loss)

    def corrupt(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Spoil images in the configured way.

        Args:
            image: Standardised values (batch, band, height, width).
            valid: Mask of valid pixels (batch, 1, height, width), bool.

        Returns:
            The spoilt image, and the mask of its changed pixels (batch, 1, height, width), bool.
        """
        return cast(tuple[Tensor, Tensor], self.corruption(image, valid))

    def predict_hidden(self, corrupted: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Restore images, which are padded with the bands' means (0) to multiples of :attr:`stride`.

        Args:
            corrupted: Standardised values (batch, band, height, width).
            hidden: Not used: the network has to find out by itself.

        Returns:
            Standardised values (batch, band, height, width), and pooled features of the encoder (batch, features).
        """
        height, width = corrupted.shape[-2:]
        maps = feature_pyramid(self.model, pad_to_multiple(corrupted, self.stride), self._channels)
        restored = self.restoration_head(self.decoder(maps))
        return restored[..., :height, :width], mean_of_maps(maps)

    def loss_of(self, prediction: Tensor, image: Tensor, valid: Tensor, hidden: Tensor) -> Tensor:
        """Mean difference over the pixels that count.

        Args:
            prediction: Restored image (batch, band, height, width).
            image: The original.
            valid: Its valid pixels (batch, 1, height, width), bool.
            hidden: Changed pixels (batch, 1, height, width), bool.

        Returns:
            Loss, a scalar.
        """
        mask = valid & hidden if self.loss_on == 'hidden' else valid
        return cast(Tensor, self.criterion(prediction, image, mask))

    def image_of(self, prediction: Tensor, image: Tensor, valid: Tensor) -> Tensor:
        """The prediction is the image.

        Args:
            prediction: Restored image (batch, band, height, width).
            image: Not used.
            valid: Not used.

        Returns:
            The prediction.
        """
        return prediction

    def tile_and_window(self, chip_size: int) -> tuple[int, int]:
        """Tiles are as large as chips; windows are larger, since the network takes any size.

        Args:
            chip_size: Side of the training chips in pixels.

        Returns:
            ``(tile, window)`` in pixels.
        """
        return chip_size, chip_size * max(2, _WINDOW // chip_size)
