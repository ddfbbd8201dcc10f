"""Subimage Overlap Prediction (https://arxiv.org/abs/2601.01781): a segmentation network finds parts of its images."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from torchgeo_msssl.losses.segmentation import SegmentationLoss, SegmentationLossName
from torchgeo_msssl.models.reconstruction import (
    create_restoration,
    feature_pyramid,
    mean_of_maps,
)
from torchgeo_msssl.models.segmentation import pad_to_multiple
from torchgeo_msssl.models.subimage_matching import SubimageMatching
from torchgeo_msssl.tasks.collapse import CollapseMonitor
from torchgeo_msssl.tasks.confusion import class_scores, confusion_matrix
from torchgeo_msssl.tasks.decoder_training import DecoderTraining
from torchgeo_msssl.tasks.subimage_folder import SubimageFolder
from torchgeo_msssl.transforms.normalize import valid_pixels
from torchgeo_msssl.transforms.subimages import RandomSubimage
from torchgeo_msssl.transforms.symmetries import move_at_random

#: Value of pixels without data in the mask.
_UNLABELLED = 255


@dataclass(frozen=True)
class SubimageExample:
    """Input and target of a batch.

    Attributes:
        image: Standardized chips (batch, band, height, width).
        valid: Their valid pixels (batch, 1, height, width), bool.
        subimage: Standardized sub-images in their canvases (batch, band, side, side).
        subimage_valid: Their valid pixels (batch, 1, side, side), bool.
        target: 1 in the sub-image's place, 0 elsewhere, 255 for pixels without data, (batch, height, width), int64.
    """

    image: Tensor
    valid: Tensor
    subimage: Tensor
    subimage_valid: Tensor
    target: Tensor


class SubimageOverlap(DecoderTraining):
    """Pretrain encoder and decoder together by predicting which pixels of a chip are in a sub-image cut from it.

    The paper defines the task: from an image and a rectangle cut out of it, a segmentation network predicts the
    rectangle's mask. How the network sees both is decided here such that every tensor of encoder and decoder can be
    transferred. One encoder computes the feature maps of both, from as many bands as the data have. Those of the
    sub-image are compared with the chip's in every place, and the result is added to the chip's maps before the decoder
    (:class:`.SubimageMatching`). Flips, quarter turns and gains of the sub-image keep the task from being a comparison
    of pixels.

    The checkpoint can start ``Segmentation`` with the same architecture and backbone, as a whole
    (``transfer: network``) or with its encoder alone. With a validation loader the task logs ``val_iou`` of the place
    in held-out chips, and ``val_iou_everywhere``, the score of predicting whole chips. Every epoch cuts the same
    sub-images out of a validation chip.

    Attributes:
        decoder: smp's decoder.
        overlap_head: From the decoder's output to scores of the two classes.
        matching: Compares feature maps of chip and sub-image.
        stride: Images are padded to multiples of this inside the network.
        confusion: Counts (label, prediction) of the current or last validation.
    """

    method = 'subimage_overlap'
    view_titles = ('augmented chip', 'sub-image', 'its place')

    confusion: Tensor

    def __init__(
        self,
        subimage_size: tuple[float, float] = (0.25, 0.5),
        min_valid: float = 0.5,
        flips: bool = True,
        quarter_turns: bool = True,
        common_gain: tuple[float, float] = (0.9, 1.1),
        band_gain: tuple[float, float] = (0.95, 1.05),
        matching_dim: int = 64,
        temperature: float = 0.02,
        loss: SegmentationLossName = 'ce+dice',
        **kwargs: Any,
    ) -> None:
        """Build the network.

        Args:
            subimage_size: Smallest and largest side of a sub-image, as a fraction of the chip's.
            min_valid: Minimum fraction of valid pixels, below which a sub-image is drawn again.
            flips: Whether to flip chips, and their sub-images independently of them, at random.
            quarter_turns: Whether to rotate them by quarter turns at random.
            common_gain: Smallest and largest gain of a sub-image common to all bands.
            band_gain: Smallest and largest gain of one band of a sub-image.
            matching_dim: Number of features in which chip and sub-image are compared, at each resolution.
            temperature: Softness of the choice among the places where a sub-image may lie.
            loss: ``ce``, ``dice``, ``focal``, ``jaccard`` or ``ce+dice``, over valid pixels.
            **kwargs: The options of :class:`.DecoderTraining`.

        Raises:
            ConfigurationError: If an option is out of its range, or architecture and encoder are incompatible.
        """
        self._subimage_arguments = (subimage_size, flips, quarter_turns, common_gain, band_gain, min_valid)
        self._matching_arguments = (matching_dim, temperature)
        self._loss: SegmentationLossName = loss
        self.flips = flips
        self.quarter_turns = quarter_turns
        super().__init__(**kwargs)

    def configure_heads(self) -> None:
        """Build decoder, head and matching."""
        parts = create_restoration(self._architecture, self.model, *self._encoder_arguments, out_channels=2)
        self.decoder = parts.decoder
        self.overlap_head = parts.head
        self.stride = parts.stride
        self._channels = parts.channels
        self.matching = SubimageMatching(parts.channels, *self._matching_arguments)
        self.random_subimage = RandomSubimage(*self._subimage_arguments)

    @property
    def output_head(self) -> nn.Sequential:
        """The head that returns scores of the two classes."""
        return cast(nn.Sequential, self.overlap_head)

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = SegmentationLoss(self._loss, 2, _UNLABELLED)

    def configure_metrics(self) -> None:
        """Allocate the counts of validation."""
        self.register_buffer('confusion', torch.zeros(2, 2, dtype=torch.int64), persistent=False)

    # Data.

    @torch.no_grad()
    def make_example(self, batch: dict[str, Tensor], augment: bool = True) -> SubimageExample:
        """Cut a sub-image out of each chip.

        Args:
            batch: ``image`` with ``valid``, ``scale`` and ``offset`` where known.
            augment: Whether to flip and rotate the chips as configured; sub-images always are.

        Returns:
            Input and target.
        """
        image, valid = self.reflectance(batch), valid_pixels(batch['image'], batch.get('valid'))
        if augment:
            image, valid = move_at_random(image, valid, flips=self.flips, quarter_turns=self.quarter_turns)
        part = self.random_subimage(image, valid)
        return SubimageExample(
            image=self.normalize.standardize(image, valid),
            valid=valid,
            subimage=self.normalize.standardize(part.image, part.valid),
            subimage_valid=part.valid,
            target=torch.where(valid[:, 0], part.overlap.long(), _UNLABELLED),
        )

    def pictures(self, example: SubimageExample) -> list[tuple[Tensor, Tensor]]:
        """Return chip, sub-image, and the chip with all pixels outside of the sub-image's place invalid.

        Returns:
            Reflectance (batch, band, height, width) and valid pixels (batch, 1, height, width) of each.
        """
        image, part = (self.normalize.to_reflectance(values) for values in (example.image, example.subimage))
        return [(image, example.valid), (part, example.subimage_valid), (image, (example.target == 1)[:, None])]

    def shown_views(self, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the chip, the sub-image and its place."""
        return self.pictures(self.make_example(batch))

    # Steps.

    def predict_overlap(self, image: Tensor, subimage: Tensor, subimage_valid: Tensor) -> tuple[Tensor, Tensor]:
        """Predict where sub-images lie; images are padded with the bands' means (0) to multiples of :attr:`stride`.

        Args:
            image: Standardized chips (batch, band, height, width).
            subimage: Standardized sub-images in their canvases (batch, band, side, side).
            subimage_valid: Their valid pixels (batch, 1, side, side), bool.

        Returns:
            Logits (batch, 2, height, width), and pooled features of the chips (batch, features).
        """
        height, width = image.shape[-2:]
        maps, part = (
            feature_pyramid(self.model, pad_to_multiple(values, self.stride), self._channels)
            for values in (image, subimage)
        )
        known = pad_to_multiple(subimage_valid, self.stride)
        logits = self.overlap_head(self.decoder(self.matching(maps, part, known)))
        return logits[..., :height, :width], mean_of_maps(maps)

    def loss_of(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean of the chips' losses, each over its valid pixels.

        Each chip counts the same, however large its sub-image is and however many pixels are valid, so that DDP's mean
        over the ranks is the loss of the global batch.

        Args:
            logits: From :meth:`predict_overlap`.
            target: See :class:`SubimageExample`.

        Returns:
            Loss, a scalar.
        """
        losses = [self.criterion(scores[None], mask[None]) for scores, mask in zip(logits, target, strict=True)]
        return torch.stack(losses).mean()

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss; features of the encoder (batch, features) are also the embedding."""
        example = self.make_example(batch)
        logits, features = self.predict_overlap(example.image, example.subimage, example.subimage_valid)
        return self.loss_of(logits, example.target), features, features

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Count labels and predictions of a batch; ``batch_idx`` decides what is cut out.

        Returns:
            ``pictures``: those of :meth:`pictures`, and the chip with all pixels outside the predicted place invalid.
        """
        self.seed_step(batch_idx)
        example = self.make_example(batch, augment=False)
        logits, _ = self.predict_overlap(example.image, example.subimage, example.subimage_valid)
        loss = self.loss_of(logits, example.target)
        self.log('val_loss', loss, batch_size=len(logits), sync_dist=True)
        prediction = logits.argmax(dim=1)
        self.confusion += confusion_matrix(prediction, example.target, 2, _UNLABELLED)
        pictures = self.pictures(example)
        return {'pictures': [*pictures, (pictures[0][0], example.valid & (prediction == 1)[:, None])]}

    def on_validation_start(self) -> None:
        """Check that the task is trained.

        Raises:
            ConfigurationError: If it is neither trained nor loaded.
        """
        self.check_trained()

    def on_validation_epoch_start(self) -> None:
        """Reset the counts."""
        self.confusion.zero_()

    def on_validation_epoch_end(self) -> None:
        """Log the IoU of the places, and that of predicting whole chips."""
        if self.trainer.world_size > 1:
            self.confusion.copy_(self.trainer.strategy.reduce(self.confusion, reduce_op='sum'))
        counts = self.confusion.double()
        self.log('val_iou', class_scores(self.confusion)['iou'][1].float(), prog_bar=True)
        self.log('val_iou_everywhere', (counts[1].sum() / counts.sum()).float())

    def configure_callbacks(self) -> list[Callback]:
        """Monitor collapse and fill the run folder, under any command line."""
        return [CollapseMonitor(self.collapse_patience), SubimageFolder()]
