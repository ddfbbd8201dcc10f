"""DINO: a student predicts the output of its own moving average for the other views.

Caron et al. (https://arxiv.org/abs/2104.14294).
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer

from torchgeo_msssl.losses.dino import DINOLoss, temperature_at
from torchgeo_msssl.models.heads import DINOHead, ProjectionKind
from torchgeo_msssl.models.momentum import momentum_at
from torchgeo_msssl.tasks.multi_crop import MultiCropTask
from torchgeo_msssl.tasks.optimizers import OptimizerName
from torchgeo_msssl.validation import check_at_least, check_positive, check_probability


class DINO(MultiCropTask):
    """Pretrain an encoder with DINO.

    The teacher, which is :attr:`momentum_encoder`, sees the global views only; the student, which is saved as the
    encoder, sees local views too: 8 in the paper, with ``global_crops_scale`` from 0.4 to 1. Each view of the student
    is compared with every other view of the teacher.

    Attributes:
        momentum_encoder: The teacher, a moving average of encoder and projection head.
    """

    method = 'dino'
    projection_head: DINOHead

    def __init__(
        self,
        output_dim: int = 4096,
        bottleneck_dim: int = 256,
        encoder_momentum: float = 0.996,
        teacher_temperature: float = 0.04,
        warmup_teacher_temperature: float = 0.04,
        warmup_temperature_epochs: float = 0,
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
        freeze_last_layer_epochs: float = 1,
        optimizer: OptimizerName = 'adamw',
        lr: float = 5e-4,
        weight_decay: float = 0.04,
        warmup_epochs: float = 1,
        **kwargs: Any,
    ) -> None:
        """Build student and teacher.

        Args:
            output_dim: Number of prototypes. The paper's 65,536 is for a million images: it would be more parameters
                than a ResNet-18 has, and most would never be the nearest of any of a few thousand chips.
            bottleneck_dim: Width of the vectors that are compared with the prototypes.
            encoder_momentum: Fraction of the teacher that the first step keeps; it rises to 1 as half a cosine.
            teacher_temperature: Temperature of the teacher after its warm-up; above 0.07 most runs of the authors were
                unstable.
            warmup_teacher_temperature: Temperature of the teacher at the first step; lower it if the loss does not
                fall.
            warmup_temperature_epochs: Epochs in which it moves linearly from one to the other.
            student_temperature: Temperature of the student.
            center_momentum: Fraction of the center that each step keeps.
            freeze_last_layer_epochs: Epochs in which the prototypes are not trained, which stabilizes the beginning.
            optimizer: ``adamw``, ``adam``, ``sgd`` or ``lars``.
            lr: Maximum learning rate.
            weight_decay: Weight decay; normalization layers and biases are exempt.
            warmup_epochs: Epochs in which the learning rate rises linearly.
            **kwargs: The options of :class:`~torchgeo_msssl.tasks.MultiCropTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        check_positive(teacher_temperature=teacher_temperature, warmup_teacher_temperature=warmup_teacher_temperature)
        check_at_least(
            0,
            warmup_temperature_epochs=warmup_temperature_epochs,
            freeze_last_layer_epochs=freeze_last_layer_epochs,
        )
        self._bottleneck = bottleneck_dim
        self._encoder_momentum = check_probability('encoder_momentum', encoder_momentum)
        self._temperatures = (warmup_teacher_temperature, teacher_temperature)
        self._warmup_temperature_epochs = warmup_temperature_epochs
        self._freeze_epochs = freeze_last_layer_epochs
        self._warmup_temperature_steps = self._frozen_steps = 0
        self._loss_options = (output_dim, student_temperature, center_momentum)
        super().__init__(
            output_dim=output_dim,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            **kwargs,
        )

    def make_projection_head(self, kind: ProjectionKind, features: int, hidden: int, out: int) -> DINOHead:
        """Build DINO's head; ``kind`` is the part before its prototypes."""
        return DINOHead(kind, features, hidden, self._bottleneck, out)

    def configure_method(self) -> None:
        """Build the teacher."""
        self.dimension = self.projection_head.last_layer.out_features
        self.momentum_encoder = self.make_momentum_encoder(partial(momentum_at, base=self._encoder_momentum))

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = DINOLoss(*self._loss_options)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and schedules."""
        _, self._warmup_temperature_steps = self.schedule_steps(self._warmup_temperature_epochs)
        _, self._frozen_steps = self.schedule_steps(self._freeze_epochs)
        return super().configure_optimizers()

    @property
    def teacher_temperature(self) -> float:
        """Temperature of the teacher at this step."""
        return temperature_at(self.global_step, self._warmup_temperature_steps, *self._temperatures)

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compare every view of the student with every other view of the teacher.

        Returns:
            Loss; features of the global views (view × batch, features); cosines of the first view with the prototypes
            (batch, output_dim).
        """
        inputs = self.view_inputs(batch)
        teacher = self.split_views(self.momentum_encoder(inputs))  # (view, batch, output_dim)
        features: Tensor = self.model(inputs)
        student = self.split_views(self.projection_head(features))
        local = self.project_local_views(batch)
        student = student if local is None else torch.cat([student, local])
        return self.criterion(teacher, student, self.teacher_temperature), features, student[0]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Freeze the prototypes at the beginning.

        Without a gradient the optimizer skips them, as in the authors' code: weight decay does not shrink them, and
        Adam does not count steps, which would make its first real ones too large. Gradients are computed and averaged
        over ranks nevertheless, as DDP expects.
        """
        if self.global_step < self._frozen_steps:
            self.projection_head.last_layer.weight.grad = None
