"""DINO: a student predicts what its own moving average says of the other views.

Caron et al. (https://arxiv.org/abs/2104.14294).
"""

from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.dino import DINOLoss, temperature_at
from torchgeo_msssl.models.heads import DINOHead, ProjectionKind
from torchgeo_msssl.models.momentum import momentum_at
from torchgeo_msssl.tasks.momentum import MomentumTask
from torchgeo_msssl.tasks.optimizers import OptimizerName


class DINO(MomentumTask):
    """Pretrain an encoder with DINO.

    Every view passes student and teacher, and all pairs of different views are compared; there are no small local
    crops, which chips of a few dozen pixels have no room for. The teacher is :attr:`momentum_encoder` with
    :attr:`momentum_projection_head`; the student is what is saved as the encoder.
    """

    method = 'dino'
    projection_head: DINOHead

    def __init__(
        self,
        model: str = 'resnet18',
        in_channels: int = 12,
        views: int = 2,
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
            model: timm name of the encoder.
            in_channels: Number of bands (this package's command line takes it from the data).
            views: Views of each chip, 2 or more.
            output_dim: Number of prototypes. The paper's 65,536 are for a million images: they would be more parameters
                than a ResNet-18 has, and most would never be the nearest of any of a few thousand chips.
            bottleneck_dim: Width of the vectors that are compared with the prototypes.
            encoder_momentum: How much of the teacher stays at the first step; it rises to 1 as half a cosine.
            teacher_temperature: Temperature of the teacher after its warm-up; above 0.07 most runs of the authors were
                unstable.
            warmup_teacher_temperature: Temperature of the teacher at the first step; lower it where the loss does not
                fall.
            warmup_temperature_epochs: Epochs in which it moves from one to the other.
            student_temperature: Temperature of the student.
            center_momentum: How much of the centre stays at each step.
            freeze_last_layer_epochs: Epochs in which the prototypes are not trained, which steadies the beginning.
            optimizer: ``sgd``, ``adam``, ``adamw`` or ``lars``.
            lr: Largest learning rate.
            weight_decay: Weight decay; norms and biases are exempt.
            warmup_epochs: Epochs in which the learning rate rises.
            **kwargs: The options that all joint-embedding methods share, see
                :class:`~torchgeo_msssl.tasks.JointEmbeddingTask`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        for name, value in (
            ('teacher_temperature', teacher_temperature),
            ('warmup_teacher_temperature', warmup_teacher_temperature),
        ):
            if not value > 0:
                raise ConfigurationError(f'{name}: expected a positive number, got {value}.')
        for name, value in (
            ('warmup_temperature_epochs', warmup_temperature_epochs),
            ('freeze_last_layer_epochs', freeze_last_layer_epochs),
        ):
            if value < 0:
                raise ConfigurationError(f'{name}: expected 0 or more, got {value}.')
        if not 0 <= encoder_momentum <= 1:
            raise ConfigurationError(f'encoder_momentum: expected 0 to 1, got {encoder_momentum}.')
        self._bottleneck = bottleneck_dim
        self._encoder_momentum = encoder_momentum
        self._temperatures = (warmup_teacher_temperature, teacher_temperature)
        self._warmup_temperature_epochs = warmup_temperature_epochs
        self._freeze_epochs = freeze_last_layer_epochs
        self._warmup_temperature_steps = self._frozen_steps = 0
        self._loss_options = (output_dim, student_temperature, center_momentum)
        super().__init__(
            model,
            in_channels,
            views=views,
            output_dim=output_dim,
            optimizer=optimizer,
            lr=lr,
            weight_decay=weight_decay,
            warmup_epochs=warmup_epochs,
            **kwargs,
        )

    def make_projection_head(self, kind: ProjectionKind, features: int, hidden: int, out: int) -> DINOHead:
        """Build DINO's head; ``kind`` is what stands before its prototypes."""
        return DINOHead(kind, features, hidden, self._bottleneck, out)

    def configure_method(self) -> None:
        """Build the teacher."""
        super().configure_method()
        self.dimension = self.projection_head.last_layer.out_features

    def configure_losses(self) -> None:
        """Build the loss."""
        self.criterion = DINOLoss(*self._loss_options)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and schedules.

        Returns:
            Optimizer and scheduler of the learning rate.
        """
        _, self._warmup_temperature_steps = self.schedule_steps(self._warmup_temperature_epochs)
        _, self._frozen_steps = self.schedule_steps(self._freeze_epochs)
        return super().configure_optimizers()

    @property
    def teacher_temperature(self) -> float:
        """Temperature of the teacher at this step."""
        return temperature_at(self.global_step, self._warmup_temperature_steps, *self._temperatures)

    def compute_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss: every view of the student against every other view of the teacher.

        Args:
            batch: A batch of chips.

        Returns:
            Loss; features (view × batch, features); cosines of the first view with the prototypes (batch, output_dim).
        """
        features, student, teacher = self.embed_twice(batch)
        scores = self.split_views(student)  # (view, batch, output_dim)
        return self.criterion(self.split_views(teacher), scores, self.teacher_temperature), features, scores[0]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave the prototypes alone at first.

        Without a gradient the optimizer passes them over, as in the authors' code: neither does weight decay shrink
        them, nor does Adam count steps, which would make its first real ones too large. Gradients are computed and
        averaged over ranks all the same, so that DDP finds what it expects.

        Args:
            optimizer: Optimizer.
        """
        if self.global_step < self._frozen_steps:
            self.projection_head.last_layer.weight.grad = None

    def momentum_after(self, step: int) -> float:
        """Half a cosine from ``encoder_momentum`` to 1 over the run."""
        assert self._total_steps is not None, 'configure_optimizers sets it'
        return momentum_at(step, self._total_steps, self._encoder_momentum)
