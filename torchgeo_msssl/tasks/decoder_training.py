"""Base of pretraining methods that train a decoder with the encoder, whose output follows the stem."""

from abc import abstractmethod

from torch import nn

from torchgeo_msssl.models.reconstruction import RestorationArchitecture
from torchgeo_msssl.models.segmentation import FIXED_STRIDES, check_stem_of, rescale_head
from torchgeo_msssl.models.stems import Stem, reduction_of, stem_of
from torchgeo_msssl.tasks.base import PretrainingTask


class DecoderTraining(PretrainingTask):
    """A task that trains the parts of :func:`.create_restoration`.

    Attributes:
        stride: Images are padded to multiples of this inside the network.
    """

    stride: int
    _architecture: RestorationArchitecture

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
