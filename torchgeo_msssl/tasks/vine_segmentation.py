"""Segmentation of vines in drone or aerial images."""

from typing import Any

from torchgeo_msssl.losses.segmentation import SegmentationLossName
from torchgeo_msssl.tasks.segmentation import Segmentation


class VineSegmentation(Segmentation):
    """Segment vines in drone or aerial images: :class:`Segmentation` with other defaults.

    Vines cover a small part of the ground in thin rows, so the loss includes overlap, and a pretrained encoder has a
    smaller learning rate than the new decoder.
    """

    def __init__(
        self,
        in_channels: int = 5,
        loss: SegmentationLossName = 'ce+dice',
        encoder_lr_factor: float = 0.3,
        **kwargs: Any,
    ) -> None:
        """Build the network.

        Args:
            in_channels: Number of bands (this package's command line takes it from the data).
            loss: ``ce``, ``dice``, ``focal``, ``jaccard`` or ``ce+dice``.
            encoder_lr_factor: Factor on the encoder's learning rate.
            **kwargs: The other options of :class:`Segmentation`; two classes without names are ``background`` and
                ``vine``.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__(in_channels=in_channels, loss=loss, encoder_lr_factor=encoder_lr_factor, **kwargs)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return self._class_names or (['background', 'vine'] if self.num_classes == 2 else super().class_names)
