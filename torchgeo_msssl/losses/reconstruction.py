"""Distance of a restored image from the original, over the pixels that count.

PSNR and SSIM (https://doi.org/10.1109/TIP.2003.819861) need a data range, the difference between black and white.
Reflectance has none that suits every band (1 is far brighter than any field), and the range of a batch varies. Here it
is :data:`RANGE_IN_STD` standard deviations of each band, about the usual stretch for display. It is fixed by the
statistics of the training data, so that values of a run are comparable.
"""

from typing import Literal

import torch
from kornia.metrics import ssim
from torch import Tensor, distributed, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.validation import check_choice

PixelLoss = Literal['l1', 'mse']

#: Data range of a band, in standard deviations: its mean ± 2.
RANGE_IN_STD = 4.0
#: Side of SSIM's Gaussian window in pixels, with a standard deviation of 1.5, as in the paper.
_WINDOW = 11


def masked_loss(
    prediction: Tensor, target: Tensor, mask: Tensor, kind: PixelLoss = 'mse', all_ranks: bool = True
) -> Tensor:
    """Mean absolute or squared difference over the values that count.

    The mean is over the global batch: the sum of this rank is divided by the mean count of the ranks, so that DDP's
    mean of the gradients is the gradient of one process on the global batch. Values that do not count have no effect,
    even if they are NaN. If nothing counts, the loss is 0.

    Args:
        prediction: Any shape.
        target: The same shape.
        mask: Which values count, bool, of a shape that broadcasts to it.
        kind: ``l1`` or ``mse``.
        all_ranks: Whether to count over all ranks of a process group, all of which must then call this.

    Returns:
        Loss, a scalar, float32 or (for float64 input) float64.

    Raises:
        ConfigurationError: If the shapes differ or the loss is unknown.
    """
    check_choice('loss', kind, PixelLoss)
    if prediction.shape != target.shape:
        raise ConfigurationError(
            f'prediction and target must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}.'
        )
    mask = mask.expand_as(prediction)
    precise = torch.promote_types(prediction.dtype, torch.float32)
    # both sides, since a gradient of NaN · 0 would be NaN
    difference = torch.where(mask, prediction.to(precise), 0.0) - torch.where(mask, target.to(precise), 0.0)
    size = difference.abs() if kind == 'l1' else difference.square()
    count = mean_count(mask) if all_ranks else mask.sum()
    return size.sum() / count.to(precise).clamp_min(torch.finfo(precise).tiny)


class MaskedLoss(nn.Module):
    """:func:`masked_loss` as a module; in evaluation each rank counts alone, since ranks may have different batches."""

    def __init__(self, kind: PixelLoss = 'mse') -> None:
        """Set the kind of difference.

        Args:
            kind: ``l1`` or ``mse``.

        Raises:
            ConfigurationError: If the loss is unknown.
        """
        super().__init__()
        check_choice('loss', kind, PixelLoss)
        self.kind: PixelLoss = kind

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Compute the loss; arguments and errors are those of :func:`masked_loss`."""
        return masked_loss(prediction, target, mask, self.kind, all_ranks=self.training)


def mean_count(mask: Tensor) -> Tensor:
    """Count True values, the mean over the ranks: a scalar without gradient."""
    count = mask.sum()
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(count)
        return count / distributed.get_world_size()
    return count


def error_sums(prediction: Tensor, target: Tensor, mask: Tensor, data_range: Tensor) -> Tensor:
    """Sums from which PSNR and SSIM of many batches are computed.

    Args:
        prediction: Restored image (batch, band, height, width).
        target: The original; outside of ``mask`` the two may differ arbitrarily.
        mask: Pixels that count, bool, (batch, 1, height, width).
        data_range: Data range of each band in units of the images, (band,).

    Returns:
        Sums over the pixels that count, (3, band): squared error in units of the data range, SSIM between the target
        and the target with its restored pixels filled in, and the number of pixels.
    """
    scale = data_range[:, None, None].to(target.dtype)
    original = target / scale
    filled = torch.where(mask, prediction.to(target.dtype), target) / scale
    similarity = ssim(filled, original, _WINDOW, max_val=1.0, eps=0.0)

    parts = ((filled - original).square(), similarity, torch.ones_like(filled))
    return torch.stack([torch.where(mask, part, 0.0).sum(dim=(0, 2, 3)) for part in parts])


def psnr_and_ssim(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Peak signal-to-noise ratio in dB and structural similarity of each band, (band,) each.

    Args:
        sums: Sum of the results of :func:`error_sums`, (3, band); without any pixel the scores are NaN.
    """
    error, similarity, count = sums
    return -10 * torch.log10(error / count), similarity / count
