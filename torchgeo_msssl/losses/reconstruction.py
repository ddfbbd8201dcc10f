"""How far a restored image is from the original, over the pixels that count.

PSNR and SSIM (https://doi.org/10.1109/TIP.2003.819861) need a data range, the difference between black and white.
Reflectance has none that suits every band (1 is far brighter than any field), and the range of a batch differs from
batch to batch: here it is :data:`RANGE_IN_STD` standard deviations of each band, about the stretch in which people look
at a band. It is fixed by the statistics of the training data, so that values of a run can be compared.
"""

from typing import Literal, get_args

import torch
from kornia.metrics import ssim
from torch import Tensor, distributed, nn

from torchgeo_msssl.errors import ConfigurationError

PixelLoss = Literal['l1', 'mse']

#: Data range of a band, in standard deviations: its mean ± 2.
RANGE_IN_STD = 4.0
#: Side of SSIM's Gaussian window in pixels, with a standard deviation of 1.5, as in the paper.
_WINDOW = 11


def masked_loss(
    prediction: Tensor, target: Tensor, mask: Tensor, kind: PixelLoss = 'mse', all_ranks: bool = True
) -> Tensor:
    """Mean absolute or squared difference over the values that count.

    Over all ranks the mean is that over the whole batch: the sum of this rank is divided by the mean count of the
    ranks, so that DDP's mean of the gradients is the gradient of one process on the whole batch. Values that do not
    count have no effect, whatever they are (NaN included). Where nothing counts the loss is 0.

    Args:
        prediction: Any shape.
        target: The same shape.
        mask: Which values count, bool, of a shape that broadcasts to it.
        kind: ``l1`` or ``mse``.
        all_ranks: Whether to ask the other ranks of a process group, all of which then have to call this.

    Returns:
        Loss, a scalar, float32 or (for float64 input) float64.

    Raises:
        ConfigurationError: If the shapes differ or the loss is unknown.
    """
    _check(prediction, target, kind)
    mask = mask.expand_as(prediction)
    precise = torch.promote_types(prediction.dtype, torch.float32)
    # both sides, since a gradient of NaN · 0 would be NaN
    difference = torch.where(mask, prediction.to(precise), 0.0) - torch.where(mask, target.to(precise), 0.0)
    size = difference.abs() if kind == 'l1' else difference.square()
    count = mean_count(mask) if all_ranks else mask.sum()
    return size.sum() / count.to(precise).clamp_min(torch.finfo(precise).tiny)


class MaskedLoss(nn.Module):
    """Module round :func:`masked_loss`; in evaluation each rank by itself: they may have different batches."""

    def __init__(self, kind: PixelLoss = 'mse') -> None:
        """Choose the difference.

        Args:
            kind: ``l1`` or ``mse``.

        Raises:
            ConfigurationError: If the loss is unknown.
        """
        super().__init__()
        _check_kind(kind)
        self.kind: PixelLoss = kind

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            prediction: Any shape.
            target: The same shape.
            mask: Which values count, bool, of a shape that broadcasts to it.

        Returns:
            Loss, a scalar.

        Raises:
            ConfigurationError: If the shapes differ.
        """
        return masked_loss(prediction, target, mask, self.kind, all_ranks=self.training)


def mean_count(mask: Tensor) -> Tensor:
    """Number of values that count, the mean over the ranks.

    Args:
        mask: Bool, any shape.

    Returns:
        A scalar without gradient.
    """
    count = mask.sum()
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(count)
        return count / distributed.get_world_size()
    return count


def error_sums(prediction: Tensor, target: Tensor, mask: Tensor, data_range: Tensor) -> Tensor:
    """What PSNR and SSIM of many batches are made of.

    Args:
        prediction: Restored image (batch, band, height, width).
        target: The original; outside of ``mask`` the two may differ in any way.
        mask: Pixels that count, bool, (batch, 1, height, width).
        data_range: Data range of each band in units of the images, (band,).

    Returns:
        For each band the sum over the pixels that count of the squared error in units of the data range, that of SSIM
        of the target with its restored pixels filled in, and their number, (3, band).
    """
    scale = data_range[:, None, None].to(target.dtype)
    original = target / scale
    filled = torch.where(mask, prediction.to(target.dtype), target) / scale
    similarity = ssim(filled, original, _WINDOW, max_val=1.0, eps=0.0)

    parts = ((filled - original).square(), similarity, torch.ones_like(filled))
    return torch.stack([torch.where(mask, part, 0.0).sum(dim=(0, 2, 3)) for part in parts])


def psnr_and_ssim(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Peak signal-to-noise ratio and structural similarity of each band.

    Args:
        sums: Sum of the results of :func:`error_sums`, (3, band).

    Returns:
        PSNR in dB and SSIM, (band,) each; NaN where no pixel counted.
    """
    error, similarity, count = sums
    return -10 * torch.log10(error / count), similarity / count


def _check(prediction: Tensor, target: Tensor, kind: str) -> None:
    _check_kind(kind)
    if prediction.shape != target.shape:
        raise ConfigurationError(
            f'prediction and target must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}.'
        )


def _check_kind(kind: str) -> None:
    if kind not in get_args(PixelLoss):
        raise ConfigurationError(f'loss: {kind!r} is not one of {", ".join(get_args(PixelLoss))}.')
