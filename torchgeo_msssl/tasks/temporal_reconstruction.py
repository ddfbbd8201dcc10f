"""Temporal reconstruction: a whole segmentation network learns to predict a place on another date."""

from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from torchgeo_msssl.contract import DATED_POSITIVES, PositivesData
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.tasks.collapse import CollapseMonitor
from torchgeo_msssl.tasks.decoder_training import ImagePrediction
from torchgeo_msssl.tasks.temporal_folder import TemporalFolder
from torchgeo_msssl.transforms.normalize import valid_pixels
from torchgeo_msssl.transforms.symmetries import move_at_random


class TemporalReconstruction(ImagePrediction):
    """Pretrain encoder and decoder together by predicting the same place on another date.

    The network sees a chip and predicts by how much the other date differs from it. To predict what was there before a
    forest died, it must recognize dead trees, and to predict a field in another season, its crop. The other date is
    never an input, so the network has the same input as the one that is fine-tuned. ``data.positives`` chooses the
    dates: ``earlier`` where labels show what happened (damage, harvest, construction), ``temporal`` for any.

    Time series transformers learn to predict hidden dates from the others (Presto, https://arxiv.org/abs/2304.14065;
    U-BARN, https://doi.org/10.1109/JSTARS.2024.3358066). Here only one date is given, as in forecasting.

    The checkpoint can start ``Segmentation`` with the same architecture and backbone, as a whole
    (``transfer: network``) or with its encoder alone. The task logs ``train_loss_given``, the loss of predicting no
    difference. It does not validate.
    """

    method = 'temporal_reconstruction'
    view_titles = ('input', 'other date')

    def __init__(
        self,
        flips: bool = True,
        quarter_turns: bool = True,
        **kwargs: Any,
    ) -> None:
        """Build the network.

        Args:
            flips: Whether to flip chips at random, both dates alike.
            quarter_turns: Whether to rotate chips by quarter turns at random, both dates alike.
            **kwargs: The options of :class:`.ImagePrediction`; the loss is over pixels that are valid on both dates.

        Raises:
            ConfigurationError: If an option is out of its range, or architecture and encoder are incompatible.
        """
        self.flips = flips
        self.quarter_turns = quarter_turns
        super().__init__(**kwargs)

    def setup(self, stage: str) -> None:
        """Extend :meth:`.PretrainingTask.setup`.

        Raises:
            ConfigurationError: If chips come without another date.
        """
        data = self.attached_data()
        if stage == 'fit' and isinstance(data, PositivesData) and data.positives not in DATED_POSITIVES:
            raise ConfigurationError(
                f'positives: TemporalReconstruction predicts another date, got {data.positives!r}; set data.positives '
                'to earlier, later or temporal.'
            )
        super().setup(stage)

    @torch.no_grad()
    def pairs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Standardize both dates of a batch, flipped and rotated at random.

        Args:
            batch: ``image`` with ``valid``, ``scale`` and ``offset``, and ``positive`` with its own.

        Returns:
            Standardized values of the chips and of the other date (batch, band, height, width), the chips' valid
            pixels, and those that are valid on both dates (batch, 1, height, width), bool.

        Raises:
            ConfigurationError: If the batch has no other date.
        """
        if 'positive' not in batch:
            raise ConfigurationError(
                'positives: TemporalReconstruction needs chips with another date; use PretrainingDataModule with '
                'data.positives earlier, later or temporal.'
            )
        valid = valid_pixels(batch['image'], batch.get('valid'))
        other_valid = valid_pixels(batch['positive'], batch.get('positive_valid'))
        image = self.normalize.standardize(self.reflectance(batch), valid)
        other = self.normalize.standardize(self.reflectance(batch, 'positive'), other_valid)
        image, other, valid, both = move_at_random(
            image, other, valid, valid & other_valid, flips=self.flips, quarter_turns=self.quarter_turns
        )
        return image, other, valid, both

    def shown_views(self, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the network's input and the other date."""
        image, other, valid, both = self.pairs(batch)
        return [(self.normalize.to_reflectance(image), valid), (self.normalize.to_reflectance(other), both)]

    @torch.no_grad()
    def pictures(self, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the chips, the other date and its prediction.

        Returns:
            Reflectance (batch, band, height, width) and valid pixels (batch, 1, height, width) of each.
        """
        image, other, valid, both = self.pairs(batch)
        predicted = image + self.predict_image(image)[0].float()
        shown = ((image, valid), (other, both), (predicted, valid))
        return [(self.normalize.to_reflectance(part), known) for part, known in shown]

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss; features of the encoder (batch, features) are also the embedding."""
        image, other, _, both = self.pairs(batch)
        difference, features = self.predict_image(image)
        given = self.criterion(torch.zeros_like(image), other - image, both)
        self.log('train_loss_given', given, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(image))
        return self.criterion(difference, other - image, both), features, features

    def configure_callbacks(self) -> list[Callback]:
        """Monitor collapse and fill the run folder, under any command line."""
        return [CollapseMonitor(self.collapse_patience), TemporalFolder()]
