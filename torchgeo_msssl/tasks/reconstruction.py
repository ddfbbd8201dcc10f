"""Reconstruction: a whole segmentation network learns to restore corrupted images, to be fine-tuned as a whole."""

from typing import Any, Literal, cast

from torch import Tensor

from torchgeo_msssl.tasks.decoder_training import ImagePrediction
from torchgeo_msssl.tasks.restoration import RestorationTask
from torchgeo_msssl.transforms.corruptions import CorruptionName, create_corruption
from torchgeo_msssl.validation import check_choice

LossOn = Literal['hidden', 'all']

#: Approximate side in pixels of the windows in which whole scenes are restored.
_WINDOW = 256


class Reconstruction(ImagePrediction, RestorationTask):
    """Pretrain encoder and decoder together by restoring images that were corrupted on the fly.

    ``coarse_cutout`` erases a few large rectangles (context encoders, https://arxiv.org/abs/1604.07379),
    ``patch_mask`` patches of a grid (SimMIM, https://arxiv.org/abs/2111.09886), and ``crappify`` adds noise and removes
    detail. With several of them each chip gets one, chosen at random, so that each keeps its configured strength.

    The checkpoint can start ``Segmentation`` with the same architecture and backbone, as a whole
    (``transfer: network``) or with its encoder alone.
    """

    method = 'reconstruction'

    def __init__(
        self,
        corruption: CorruptionName | list[CorruptionName] = 'coarse_cutout',
        cutout_count: tuple[int, int] = (1, 4),
        cutout_size: tuple[float, float] = (0.15, 0.5),
        patch_size: int = 8,
        patch_ratio: float = 0.6,
        noise: float = 0.2,
        factor: float = 4.0,
        loss_on: LossOn = 'hidden',
        **kwargs: Any,
    ) -> None:
        """Build the network.

        Args:
            corruption: ``coarse_cutout``, ``patch_mask``, ``crappify``, or a list, of which each chip gets one.
            cutout_count: Smallest and largest number of rectangles.
            cutout_size: Smallest and largest side of a rectangle, as a fraction of the chip's.
            patch_size: Side of a masked patch in pixels.
            patch_ratio: Fraction of the patches that is masked.
            noise: Standard deviation of crappify's noise as a fraction of each band's.
            factor: Number of pixels that crappify merges into one: 4 halves each side, and resamples back.
            loss_on: Pixels that count: ``hidden`` ones (for crappify all valid ones), or ``all`` valid ones.
            **kwargs: The options of :class:`.ImagePrediction` and :class:`~torchgeo_msssl.tasks.RestorationTask`.

        Raises:
            ConfigurationError: If an option is out of its range, or architecture and encoder are incompatible.
        """
        check_choice('loss_on', loss_on, LossOn)
        self._corruption_arguments = (corruption, cutout_count, cutout_size, patch_size, patch_ratio, noise, factor)
        self.loss_on: LossOn = loss_on
        super().__init__(**kwargs)

    def configure_heads(self) -> None:
        """Build the decoder and the corruption."""
        super().configure_heads()
        self.corruption = create_corruption(*self._corruption_arguments)

    def corrupt(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Corrupt images in the configured way; see :meth:`.RestorationTask.corrupt`."""
        return cast(tuple[Tensor, Tensor], self.corruption(image, valid))

    def predict_hidden(self, corrupted: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Restore images, see :meth:`.ImagePrediction.predict_image`.

        Args:
            corrupted: Standardized values (batch, band, height, width).
            hidden: Not used: the network does not know it.

        Returns:
            Standardized values (batch, band, height, width), and pooled features of the encoder (batch, features).
        """
        return self.predict_image(corrupted)

    def loss_of(self, prediction: Tensor, image: Tensor, valid: Tensor, hidden: Tensor) -> Tensor:
        """Mean difference over the pixels that count; see :meth:`.RestorationTask.loss_of`."""
        mask = valid & hidden if self.loss_on == 'hidden' else valid
        return cast(Tensor, self.criterion(prediction, image, mask))

    def image_of(self, prediction: Tensor, image: Tensor, valid: Tensor) -> Tensor:
        """Return the prediction, which is the image."""
        return prediction

    def tile_and_window(self, chip_size: int) -> tuple[int, int]:
        """Corrupt tiles of the size of a chip; restore larger windows, since the network takes any size."""
        return chip_size, chip_size * max(2, _WINDOW // chip_size)
