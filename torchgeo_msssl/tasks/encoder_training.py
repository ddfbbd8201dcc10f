"""Base of tasks that train an encoder whose stem can be adapted to small images."""

import dataclasses
import logging
from abc import abstractmethod
from typing import Any

from torch import nn

from torchgeo_msssl.errors import WeightsError
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.stems import Stem, StemOption, choose_stem, stem_of
from torchgeo_msssl.models.weights import CHECKPOINT_KEY
from torchgeo_msssl.tasks.starting_weights import stem_of_weights
from torchgeo_msssl.tasks.training import TrainingTask
from torchgeo_msssl.validation import check_choice

log = logging.getLogger(__name__)


class EncoderTraining(TrainingTask):
    """A task that trains an encoder.

    The stem of the encoder (:mod:`torchgeo_msssl.models.stems`) is part of the metadata of checkpoints and exported
    encoders, since tensors do not show it. The options fix it, or it is chosen when the first fit starts.
    """

    def __init__(self, stem: StemOption | None = None, **kwargs: Any) -> None:
        """Build the networks.

        Args:
            stem: Stride of the encoder's first layers: ``standard``; for small chips ``medium``, half of it, or
                ``small``, a quarter (about 4 and 16 times the computing time). ``auto`` takes the stem that the weights
                were trained with, without weights the one of the largest stride that gives a last feature map of 4×4.
                None takes that of the weights, without weights ``standard``.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.TrainingTask`.

        Raises:
            ConfigurationError: If an option is out of its range, or the encoder has no such stem.
        """
        if stem is not None:
            check_choice('stem', stem, StemOption)
        self.stem: StemOption | None = stem
        self._stem_open = stem in (None, 'auto')  # until the first fit or a checkpoint decides
        super().__init__(**kwargs)
        if stem is not None and stem != 'auto':
            self.apply_stem(stem)

    @property
    @abstractmethod
    def encoder(self) -> nn.Module:
        """The encoder: a timm network, or smp's version of one."""

    @abstractmethod
    def apply_stem(self, stem: Stem) -> None:
        """Change the stem of the encoder, its copies, and what depends on its stride."""

    def automatic_stem(self, size: int) -> Stem:
        """Stem of ``auto`` for images of a size in pixels."""
        return choose_stem(self.encoder, size)

    def resolve_stem(self, weights: str | None, size: int | None) -> None:
        """Choose the stem if the options leave it open and neither an earlier fit nor a checkpoint has chosen it.

        Args:
            weights: Starting weights of the encoder, or None.
            size: Side of the images in pixels, or None if unknown.
        """
        if not self._stem_open:
            return
        self._stem_open = False
        stem = stem_of_weights(weights)
        if stem is None:
            stem = self.automatic_stem(size) if self.stem == 'auto' and size else 'standard'
        if stem != stem_of(self.encoder):
            log.info('stem: %s.', stem)
            self.apply_stem(stem)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the stem of the checkpoint.

        Raises:
            WeightsError: If the options name another one.
        """
        super().on_load_checkpoint(checkpoint)
        stem = checkpoint.get(CHECKPOINT_KEY, {}).get('stem', 'standard')
        if self.stem not in (None, 'auto', stem):
            raise WeightsError(
                f'ckpt_path: the checkpoint has stem {stem!r}, not {self.stem!r}; set model.stem to {stem}.'
            )
        self._stem_open = False
        self.apply_stem(stem)

    def metadata_of(self, method: str, model: str) -> EncoderMetadata:
        """Extend :meth:`.TrainingTask.metadata_of` by the stem."""
        return dataclasses.replace(super().metadata_of(method, model), stem=stem_of(self.encoder))
