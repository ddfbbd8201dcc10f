"""Training of segmentation on unlabelled chips too, with a teacher that labels them."""

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchgeo_msssl.contract import UNLABELLED, UnlabelledData, spectral_data
from torchgeo_msssl.errors import ConfigurationError, WeightsError
from torchgeo_msssl.losses.consistency import pseudo_label_loss, pseudo_labels, sigmoid_rampup, softmax_mse_loss
from torchgeo_msssl.models.momentum import Teacher
from torchgeo_msssl.tasks.pixel_classification import PixelClassification
from torchgeo_msssl.transforms.normalize import valid_pixels
from torchgeo_msssl.transforms.perturbations import Perturbation, perturb
from torchgeo_msssl.validation import check_at_least, check_choice, check_names, check_probability

log = logging.getLogger(__name__)

Method = Literal['fixmatch', 'mean_teacher']
Predictor = Literal['teacher', 'student']


@dataclass
class SemiSupervision(Perturbation):
    """How unlabelled chips are trained on.

    Attributes:
        method: ``fixmatch``: cross entropy with the teacher's classes where it is confident; ``mean_teacher``: squared
            difference of all probabilities.
        weight: Weight of the loss of unlabelled chips; that of labelled ones is 1.
        warmup_steps: Optimizer steps in which this weight rises from almost 0.
        threshold: ``fixmatch``: smallest probability of a class that the network is trained on.
        class_fraction: ``fixmatch``: fraction of the pixels of each class, in a batch, that are trained on at least,
            the most confident ones; 0 applies the threshold alone.
        ema: Momentum of the teacher, which is the exponential moving average of the network; 0 for the network itself.
        predict_with: Network that is evaluated and that predicts: ``teacher`` or ``student``, the trained network.

    Raises:
        ConfigurationError: If an option is out of its range.
    """

    method: Method = 'fixmatch'
    weight: float = 1.0
    warmup_steps: int = 100
    threshold: float = 0.95
    class_fraction: float = 0.2
    ema: float = 0.99
    predict_with: Predictor = 'teacher'

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        check_choice('method', self.method, Method)
        check_choice('predict_with', self.predict_with, Predictor)
        check_at_least(0, weight=self.weight, warmup_steps=self.warmup_steps)
        for name in ('threshold', 'class_fraction'):
            check_probability(name, getattr(self, name))
        check_probability('ema', self.ema, below_one=True)

    @classmethod
    def of(cls, given: 'SemiSupervision | dict[str, Any] | None') -> 'SemiSupervision | None':
        """Return the options from an object, a mapping (as a checkpoint holds it) or None.

        Raises:
            ConfigurationError: If the mapping holds an unknown option.
        """
        if not isinstance(given, dict):
            return given
        check_names('semi', given, [field.name for field in dataclasses.fields(cls)])
        return cls(**given)


class SemiSupervisedClassification(PixelClassification):
    """A pixel classification that can also train on unlabelled chips.

    The teacher classifies unlabelled chips as they are; the network learns to give the same classes for the chips
    after strong augmentation. Labelled and augmented unlabelled chips pass the network in one batch. Both networks are
    saved in checkpoints. With several processes, class thresholds are those of each process's chips.

    Attributes:
        semi: Options of the training on unlabelled chips, or None for supervised training.
        teacher: Average of the network, or None.
    """

    semi: SemiSupervision | None
    teacher: Teacher | None
    flips: bool
    quarter_turns: bool

    @property
    def predictor(self) -> nn.Module:
        """Network that is evaluated and predicts: (batch, band, height, width) to logits."""
        if self.semi is None or self.semi.predict_with == 'student':
            return self.model
        assert self.teacher is not None
        return self.teacher

    def configure_teacher(self) -> None:
        """Build the teacher; call it once the network exists."""
        self.teacher = None if self.semi is None else Teacher(self.model, self.semi.ema)

    def saved_semi(self) -> dict[str, Any] | None:
        """Return the options as plain values, which checkpoints hold."""
        return None if self.semi is None else dataclasses.asdict(self.semi)

    def setup(self, stage: str) -> None:
        """Request unlabelled chips from the data module, before it makes its loaders; see the base class."""
        super().setup(stage)
        data = spectral_data(self.trainer)
        if stage == 'fit' and self.semi is not None and isinstance(data, UnlabelledData):
            data.add_unlabelled()

    def start_teacher(self) -> None:
        """Let the teacher begin at the starting weights."""
        if self.semi is not None and self.teacher is not None:
            self.teacher.restart()
            log.info(
                'Semi-supervised training (%s): each step also reads, labels and trains on as many unlabelled chips, '
                'which takes two to three times as long.',
                self.semi.method,
            )

    def training_loss(self, batch: dict[str, Any], image: Tensor, mask: Tensor) -> Tensor:
        """Compute the loss of a batch, with that of its unlabelled chips.

        Args:
            batch: The batch.
            image: Augmented labelled chips, standardized (batch, band, height, width).
            mask: Their labels (batch, height, width).

        Returns:
            A scalar.

        Raises:
            ConfigurationError: If the batch has no unlabelled chips.
            NonFiniteLossError: If the loss of unlabelled chips is not finite.
        """
        if self.semi is None:
            loss: Tensor = self.criterion(self.segment(image), mask)
            return loss
        if UNLABELLED not in batch:
            raise ConfigurationError(
                f'semi: expected unlabelled chips under {UNLABELLED!r} in each training batch and found none; use '
                'SegmentationDataModule, or leave semi out.'
            )
        unlabelled, probability, valid = self.augmented_unlabelled(batch[UNLABELLED])
        logits, other_logits = self.segment(torch.cat([image, unlabelled])).split([len(image), len(unlabelled)])
        consistency = self._consistency(other_logits, probability, valid)
        self.check_finite(consistency, batch[UNLABELLED])
        supervised: Tensor = self.criterion(logits, mask)
        weight = self.semi.weight * sigmoid_rampup(self.global_step, self.semi.warmup_steps)
        return supervised + weight * consistency

    @torch.no_grad()
    def augmented_unlabelled(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Classify unlabelled chips with the teacher, then augment chips and classes together.

        Args:
            batch: A batch without ``mask``.

        Returns:
            Standardized values (batch, band, height, width); probabilities of the teacher
            (batch, class, height, width); valid pixels (batch, 1, height, width), bool.
        """
        assert self.semi is not None
        reflectance, valid = self.reflectance(batch), valid_pixels(batch['image'], batch.get('valid'))
        logits = self.segment(self.normalize.standardize(reflectance, valid), self.teacher)
        probability = logits.float().softmax(dim=1)
        return perturb(reflectance, probability, valid, self.normalize, self.semi, self.flips, self.quarter_turns)

    def _consistency(self, logits: Tensor, probability: Tensor, valid: Tensor) -> Tensor:
        assert self.semi is not None
        logged: dict[str, Any] = {'on_step': False, 'on_epoch': True, 'sync_dist': True, 'batch_size': len(logits)}
        if self.semi.method == 'mean_teacher':
            loss = softmax_mse_loss(logits, probability, valid)
        else:
            labels, used = pseudo_labels(probability, valid, self.semi.threshold, self.semi.class_fraction)
            loss = pseudo_label_loss(logits, labels, used, valid)
            self.log('train_pseudo_labels', used.sum() / valid.sum().clamp_min(1), **logged)
        self.log('train_consistency_loss', loss, **logged)
        return loss

    def after_step(self) -> None:
        """Update the teacher."""
        super().after_step()
        if self.teacher is not None:
            self.teacher.update(self.global_step, self._total_steps or 0)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that checkpoint and task agree on whether there is a teacher.

        Raises:
            WeightsError: If only one of them has one.
        """
        super().on_load_checkpoint(checkpoint)
        saved = any(name.startswith('teacher.') for name in checkpoint.get('state_dict', {}))
        if saved != (self.semi is not None):
            has, remedy = ('a', "set it as in the run's config.yaml") if saved else ('no', 'leave it out')
            raise WeightsError(
                f'semi: the checkpoint has {has} teacher of unlabelled chips, unlike the task; {remedy}.'
            )
