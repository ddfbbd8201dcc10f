"""DINO's loss: each view's distribution over prototypes predicts what the teacher says of the other views.

Caron et al.: Emerging Properties in Self-Supervised Vision Transformers (https://arxiv.org/abs/2104.14294). The cross
entropy and the centre are lightly's: the centre is a buffer, hence saved, and its mean is over the global batch.
"""

import torch
from lightly.loss import DINOLoss as CrossEntropy
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.pairs import check_views


def temperature_at(step: int, warmup_steps: int, start: float, end: float) -> float:
    """Temperature of the teacher, which moves linearly in the warm-up and then stays.

    Args:
        step: Optimizer steps before this one, from 0.
        warmup_steps: Steps of the warm-up; 0 for none.
        start: Temperature at step 0.
        end: Temperature from ``warmup_steps`` on.

    Returns:
        Temperature of this step.
    """
    return end if step >= warmup_steps else start + (end - start) * step / warmup_steps


class DINOLoss(nn.Module):
    """Cross entropy of all pairs of different views, with a centre that follows the teacher's outputs.

    A low temperature sharpens the teacher, which alone would end in one prototype for everything; the centre evens
    the prototypes out, which alone would end in the uniform distribution; together they prevent collapse.
    """

    def __init__(self, output_dim: int, student_temperature: float = 0.1, center_momentum: float = 0.9) -> None:
        """Make a centre of zeros.

        Args:
            output_dim: Number of prototypes.
            student_temperature: Temperature of the student.
            center_momentum: How much of the centre stays at each step.

        Raises:
            ConfigurationError: If the temperature is not positive, or the momentum outside 0…1.
        """
        super().__init__()
        if not student_temperature > 0:
            raise ConfigurationError(f'student_temperature: expected a positive number, got {student_temperature}.')
        if not 0 <= center_momentum <= 1:
            raise ConfigurationError(f'center_momentum: expected 0 to 1, got {center_momentum}.')
        self.cross_entropy = CrossEntropy(output_dim, student_temp=student_temperature, center_momentum=center_momentum)

    @property
    def center(self) -> Tensor:
        """Moving mean of the teacher's outputs over the global batch, (output_dim,)."""
        center: Tensor = self.cross_entropy.center
        return center.flatten()

    def forward(self, teacher: Tensor, student: Tensor, teacher_temperature: float) -> Tensor:
        """Compute the loss, then let the centre follow.

        Gradients reach the student only.

        Args:
            teacher: Scores of the teacher (view, batch, output_dim).
            student: Scores of the student for the same views, (view, batch, output_dim).
            teacher_temperature: Temperature of the teacher at this step.

        Returns:
            Loss, a scalar, float32 or (for float64 input) float64; log(output_dim) where all is uniform.

        Raises:
            ConfigurationError: If there are fewer than two views or two samples, or the shapes differ.
        """
        if teacher.shape != student.shape:
            raise ConfigurationError(
                'teacher and student must have scores of the same views, '
                f'got {tuple(teacher.shape)} and {tuple(student.shape)}.'
            )
        teacher, student = check_views(teacher.detach()), check_views(student)
        # autocast would round the product over prototypes to half precision
        with torch.autocast(student.device.type, enabled=False):
            loss: Tensor = self.cross_entropy(list(teacher), list(student), teacher_temp=teacher_temperature)
        return loss
