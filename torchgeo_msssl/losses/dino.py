"""Loss of DINO: the student predicts the teacher's distribution over prototypes for every other view.

Caron et al.: Emerging Properties in Self-Supervised Vision Transformers (https://arxiv.org/abs/2104.14294). The cross
entropy and the center are lightly's: the center is a buffer, hence saved, and its mean is over the global batch.
"""

import torch
from lightly.loss import DINOLoss as CrossEntropy
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.pairs import check_views
from torchgeo_msssl.validation import check_positive, check_probability


def temperature_at(step: int, warmup_steps: int, start: float, end: float) -> float:
    """Temperature of the teacher: linear from ``start`` at step 0 to ``end`` at ``warmup_steps``, constant after."""
    return end if step >= warmup_steps else start + (end - start) * step / warmup_steps


class DINOLoss(nn.Module):
    """Cross entropy of all pairs of different views, with a center that follows the teacher's outputs.

    A low temperature sharpens the teacher, which alone would lead to one prototype for everything. The center balances
    the prototypes, which alone would lead to the uniform distribution. Together they prevent collapse.
    """

    def __init__(self, output_dim: int, student_temperature: float = 0.1, center_momentum: float = 0.9) -> None:
        """Start with a center of zeros.

        Args:
            output_dim: Number of prototypes.
            student_temperature: Temperature of the student.
            center_momentum: Fraction of the center that each step keeps.

        Raises:
            ConfigurationError: If the temperature is not positive, or the momentum outside 0…1.
        """
        super().__init__()
        check_positive(student_temperature=student_temperature)
        check_probability('center_momentum', center_momentum)
        self.cross_entropy = CrossEntropy(output_dim, student_temp=student_temperature, center_momentum=center_momentum)

    @property
    def center(self) -> Tensor:
        """Moving mean of the teacher's outputs over the global batch, (output_dim,)."""
        center: Tensor = self.cross_entropy.center
        return center.flatten()

    def forward(self, teacher: Tensor, student: Tensor, teacher_temperature: float) -> Tensor:
        """Compute the loss, then update the center. Gradients reach the student only.

        Args:
            teacher: Scores of the teacher for the global views (view, batch, output_dim).
            student: Scores of the student for the same views, and after them for local views
                (view + local view, batch, output_dim).
            teacher_temperature: Temperature of the teacher at this step.

        Returns:
            Loss, a scalar, float32 or (for float64 input) float64; log(output_dim) if all is uniform.

        Raises:
            ConfigurationError: If there are fewer than two views or two samples, or the shapes do not agree.
        """
        if teacher.shape[1:] != student.shape[1:] or len(student) < len(teacher):
            raise ConfigurationError(
                'teacher and student must have scores of the same views, local views of the student after them, '
                f'got {tuple(teacher.shape)} and {tuple(student.shape)}.'
            )
        teacher, student = check_views(teacher.detach()), check_views(student)
        # autocast would round the product over prototypes to half precision
        with torch.autocast(student.device.type, enabled=False):
            loss: Tensor = self.cross_entropy(list(teacher), list(student), teacher_temp=teacher_temperature)
        return loss
