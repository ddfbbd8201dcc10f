"""Corruptions of images that a network learns to restore.

They work on standardized values of any number of bands, where 0 is a band's mean and 1 its standard deviation, batched
and on the device. The classes draw random numbers from the global generator of the device: seed it
(``torch.manual_seed``) to get the same ones again. Each maps ``(image, valid)`` to ``(image, changed)``: standardized
values (batch, band, height, width) with a mask of valid pixels (batch, 1, height, width), bool, to the corrupted image
with a mask of its changed pixels that hold data. Invalid pixels are never changed and never affect others.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.transforms.crops import inside_boxes, whole_pixel_boxes
from torchgeo_msssl.validation import check_at_least, check_interval, check_positive, check_probability

CorruptionName = Literal['coarse_cutout', 'patch_mask', 'crappify']


def rectangles(uniform: Tensor, count: Tensor, size: tuple[float, float], height: int, width: int) -> Tensor:
    """Union of random rectangles that lie completely inside the image.

    Args:
        uniform: Uniform numbers in [0, 1), (batch, rectangle, 4): height, width, row, column.
        count: Number of rectangles of each sample that are used, (batch,).
        size: Smallest and largest side of a rectangle, as a fraction of the image's.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Pixels inside a rectangle, bool, (batch, 1, height, width).
    """
    used = torch.arange(uniform.shape[1], device=uniform.device) < count[:, None]
    covered = inside_boxes(whole_pixel_boxes(uniform, size, height, width), height, width) & used[..., None, None]
    return covered.any(dim=1, keepdim=True)


def patches_to_hide(uniform: Tensor, hidden: int) -> Tensor:
    """Choose the same number of patches in each sample.

    Args:
        uniform: Uniform numbers (batch, patch).
        hidden: Number of patches to choose.

    Returns:
        Chosen patches, bool, (batch, patch).
    """
    return uniform.argsort(dim=1).argsort(dim=1) < hidden


def spread_patches(chosen: Tensor, patch: tuple[int, int], height: int, width: int) -> Tensor:
    """Convert a mask of patches to one of pixels.

    Args:
        chosen: Patches, row by row, bool, (batch, patch); those at the bottom and on the right may be cut.
        patch: Height and width of a patch in pixels.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Pixels, bool, (batch, 1, height, width).
    """
    grid = chosen.unflatten(1, (-(-height // patch[0]), -(-width // patch[1])))
    pixels = grid.repeat_interleave(patch[0], dim=1).repeat_interleave(patch[1], dim=2)
    return pixels[:, None, :height, :width]


def blur_by_resampling(image: Tensor, valid: Tensor, factor: float) -> Tensor:
    """Resample an image to a lower resolution and back, which removes detail.

    Each side is divided by ``√factor``, by bilinear interpolation with a low-pass filter, and restored by bilinear
    interpolation. Weights of invalid pixels are distributed over the others.

    Args:
        image: Image (batch, band, height, width), finite everywhere.
        valid: Mask of valid pixels (batch, 1, height, width), bool.
        factor: Number of pixels that become one.

    Returns:
        Image of the same shape, without meaning in invalid pixels.
    """
    height, width = image.shape[-2:]
    small = tuple(max(1, round(side / math.sqrt(factor))) for side in (height, width))

    def resample(source: Tensor) -> Tensor:
        less = F.interpolate(source, small, mode='bilinear', antialias=True, align_corners=False)
        return F.interpolate(less, (height, width), mode='bilinear', align_corners=False)

    weight = valid.to(image.dtype)
    return resample(image * weight) / resample(weight).clamp_min(torch.finfo(image.dtype).eps)


class CoarseCutout(nn.Module):
    """Replace a few large rectangles by the band's mean (0)."""

    def __init__(self, count: tuple[int, int] = (1, 4), size: tuple[float, float] = (0.15, 0.5)) -> None:
        """Set number and size.

        Args:
            count: Smallest and largest number of rectangles.
            size: Smallest and largest side of a rectangle, as a fraction of the image's.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__()
        check_interval('cutout_count', count, 1)
        self.count = (int(count[0]), int(count[1]))
        self.size = check_interval('cutout_size', size, 0, 1)

    def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Erase rectangles; ``changed`` are the valid pixels in them."""
        batch, _, height, width = image.shape
        low, high = self.count
        count = low + (torch.rand(batch, device=image.device) * (high - low + 1)).floor()
        uniform = torch.rand(batch, high, 4, device=image.device)
        hidden = rectangles(uniform, count, self.size, height, width) & valid
        return image.masked_fill(hidden, 0.0), hidden


class PatchMask(nn.Module):
    """Replace patches of a grid by the band's mean (0); SimMIM (https://arxiv.org/abs/2111.09886)."""

    def __init__(self, patch_size: int = 8, ratio: float = 0.6) -> None:
        """Set the grid.

        Args:
            patch_size: Side of a patch in pixels.
            ratio: Fraction of the patches that is hidden (rounded up, as in SimMIM).

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__()
        check_at_least(1, patch_size=patch_size)
        check_positive(patch_ratio=ratio)
        check_probability('patch_ratio', ratio, below_one=True)
        self.patch_size = patch_size
        self.ratio = ratio

    def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Erase patches, smaller ones at the end of sides that are no multiple; ``changed`` are their valid pixels."""
        batch, _, height, width = image.shape
        side = self.patch_size
        patches = -(-height // side) * -(-width // side)
        # a product such as 0.1 · 30 is slightly above the intended integer
        number = math.ceil(self.ratio * patches - 1e-9)
        chosen = patches_to_hide(torch.rand(batch, patches, device=image.device), number)
        hidden = spread_patches(chosen, (side, side), height, width) & valid
        return image.masked_fill(hidden, 0.0), hidden


class Crappify(nn.Module):
    """Add noise, then remove detail by resampling; every pixel changes."""

    def __init__(self, noise: float = 0.2, factor: float = 4.0) -> None:
        """Set the amounts.

        Args:
            noise: Standard deviation of the noise as a fraction of each band's, before resampling reduces it.
            factor: Number of pixels that become one: 4 halves each side, and resamples back; 1 keeps the detail.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__()
        check_at_least(0, noise=noise)
        check_at_least(1, factor=factor)
        self.noise = noise
        self.factor = factor

    def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Add noise and resample; ``changed`` are all valid pixels."""
        corrupted = image + self.noise * torch.randn_like(image)
        if self.factor > 1:
            corrupted = blur_by_resampling(corrupted, valid, self.factor)
        return torch.where(valid, corrupted, image), valid


class OneOf(nn.Module):
    """Corrupt each sample in one of several ways, all with the same probability."""

    def __init__(self, corruptions: Sequence[nn.Module]) -> None:
        """Set the ways.

        Args:
            corruptions: Modules from ``(image, valid)`` to ``(image, changed)``, one or more.
        """
        super().__init__()
        self.corruptions = nn.ModuleList(corruptions)

    def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Corrupt every sample in every way, and choose one of the results."""
        choice = (torch.rand(len(image), device=image.device) * len(self.corruptions)).long()[:, None, None, None]
        result, changed = image, torch.zeros_like(valid)
        for number, corruption in enumerate(self.corruptions):
            candidate, mask = corruption(image, valid)
            result = torch.where(choice == number, candidate, result)
            changed = torch.where(choice == number, mask, changed)
        return result, changed


def create_corruption(
    names: CorruptionName | Sequence[CorruptionName],
    cutout_count: tuple[int, int] = (1, 4),
    cutout_size: tuple[float, float] = (0.15, 0.5),
    patch_size: int = 8,
    patch_ratio: float = 0.6,
    noise: float = 0.2,
    factor: float = 4.0,
) -> nn.Module:
    """Build one corruption, or several of which each sample gets one, with the options of the classes.

    Raises:
        ConfigurationError: If a name is unknown or repeated, or an option is out of its range.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    if not wanted or len(set(wanted)) != len(wanted) or not set(wanted) <= set(get_args(CorruptionName)):
        raise ConfigurationError(
            f'corruption: expected one or several different ones of {", ".join(get_args(CorruptionName))}, '
            f'got {", ".join(map(str, wanted)) or "none"}.'
        )
    known: dict[str, nn.Module] = {
        'coarse_cutout': CoarseCutout(cutout_count, cutout_size),
        'patch_mask': PatchMask(patch_size, patch_ratio),
        'crappify': Crappify(noise, factor),
    }
    chosen = [known[name] for name in wanted]
    return chosen[0] if len(chosen) == 1 else OneOf(chosen)
