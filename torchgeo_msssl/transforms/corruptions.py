"""Ways to spoil an image so that a network can learn to restore it.

They work on standardised values of any number of bands, where 0 is a band's mean and 1 its standard deviation, batched
and on the device. The classes draw random numbers from the global generator of the device: seed it
(``torch.manual_seed``) to get the same ones again. Pixels without data are never touched, and never reach others.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.transforms.spectral import uniform_between
from torchgeo_msssl.validation import check_interval

CorruptionName = Literal['coarse_cutout', 'patch_mask', 'crappify']


def rectangles(uniform: Tensor, count: Tensor, size: tuple[float, float], height: int, width: int) -> Tensor:
    """Union of random rectangles that lie wholly inside the image.

    Args:
        uniform: Uniform numbers in [0, 1), (batch, rectangle, 4): height, width, row, column.
        count: How many of each sample's rectangles count, (batch,).
        size: Smallest and largest side of a rectangle, as a share of the image's.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Pixels inside a rectangle, bool, (batch, 1, height, width).
    """
    share = uniform_between(uniform[..., :2], size)
    extent = share.new_tensor([height, width])
    side = (share * extent).round().clamp_min(1)  # (batch, rectangle, 2)
    first = (uniform[..., 2:] * (extent - side + 1)).floor()
    inside = []
    for axis, length in enumerate((height, width)):
        place = torch.arange(length, device=uniform.device)
        start = first[..., axis, None]
        inside.append((place >= start) & (place < start + side[..., axis, None]))  # (batch, rectangle, length)
    used = torch.arange(uniform.shape[1], device=uniform.device) < count[:, None]
    covered = inside[0][..., :, None] & inside[1][..., None, :] & used[..., None, None]
    return covered.any(dim=1, keepdim=True)


def patches_to_hide(uniform: Tensor, hidden: int) -> Tensor:
    """Choose the same number of patches in each sample.

    Args:
        uniform: Uniform numbers (batch, patch).
        hidden: Patches to choose.

    Returns:
        Chosen patches, bool, (batch, patch).
    """
    return uniform.argsort(dim=1).argsort(dim=1) < hidden


def spread_patches(chosen: Tensor, patch: tuple[int, int], height: int, width: int) -> Tensor:
    """Turn a choice of patches into one of pixels.

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
    """Make an image smaller and large again, so that detail is lost.

    Each side becomes ``1 / √factor`` of what it was, by bilinear interpolation with a low-pass filter, and is brought
    back by bilinear interpolation. Weights of pixels without data are shared out among the others.

    Args:
        image: Image (batch, band, height, width), finite everywhere.
        valid: Mask of valid pixels (batch, 1, height, width), bool.
        factor: How many pixels become one.

    Returns:
        Image of the same shape; without meaning where there are no data.
    """
    height, width = image.shape[-2:]
    small = tuple(max(1, round(side / math.sqrt(factor))) for side in (height, width))

    def there_and_back(source: Tensor) -> Tensor:
        less = F.interpolate(source, small, mode='bilinear', antialias=True, align_corners=False)
        return F.interpolate(less, (height, width), mode='bilinear', align_corners=False)

    weight = valid.to(image.dtype)
    return there_and_back(image * weight) / there_and_back(weight).clamp_min(torch.finfo(image.dtype).eps)


class CoarseCutout(nn.Module):
    """Blank out a few large rectangles, which become the band's mean (0)."""

    def __init__(self, count: tuple[int, int] = (1, 4), size: tuple[float, float] = (0.15, 0.5)) -> None:
        """Set number and size.

        Args:
            count: Smallest and largest number of rectangles.
            size: Smallest and largest side of a rectangle, as a share of the image's.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__()
        check_interval('cutout_count', count, 1)
        self.count = (int(count[0]), int(count[1]))
        self.size = check_interval('cutout_size', size, 0, 1)

    def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Blank rectangles out.

        Args:
            image: Standardised values (batch, band, height, width).
            valid: Mask of valid pixels (batch, 1, height, width), bool.

        Returns:
            The image with holes, and the mask of the pixels in them that hold data (batch, 1, height, width).
        """
        batch, _, height, width = image.shape
        low, high = self.count
        count = low + (torch.rand(batch, device=image.device) * (high - low + 1)).floor()
        uniform = torch.rand(batch, high, 4, device=image.device)
        hidden = rectangles(uniform, count, self.size, height, width) & valid
        return image.masked_fill(hidden, 0.0), hidden


class PatchMask(nn.Module):
    """Blank out patches of a grid, which become the band's mean (0); SimMIM (https://arxiv.org/abs/2111.09886)."""

    def __init__(self, patch_size: int = 8, ratio: float = 0.6) -> None:
        """Set the grid.

        Args:
            patch_size: Side of a patch in pixels.
            ratio: Share of the patches that are hidden (rounded up, as in SimMIM).

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__()
        if patch_size < 1:
            raise ConfigurationError(f'patch_size: expected 1 pixel or more, got {patch_size}.')
        if not 0 < ratio < 1:
            raise ConfigurationError(f'patch_ratio: expected above 0 and below 1, got {ratio}.')
        self.patch_size = patch_size
        self.ratio = ratio

    def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Blank patches out.

        Args:
            image: Standardised values (batch, band, height, width); the last patches of sides that are no multiple of
                the patch are smaller.
            valid: Mask of valid pixels (batch, 1, height, width), bool.

        Returns:
            The image with holes, and the mask of the pixels in them that hold data (batch, 1, height, width).
        """
        batch, _, height, width = image.shape
        side = self.patch_size
        patches = -(-height // side) * -(-width // side)
        # a product such as 0.1 · 30 is a hair above the whole number that is meant
        number = math.ceil(self.ratio * patches - 1e-9)
        chosen = patches_to_hide(torch.rand(batch, patches, device=image.device), number)
        hidden = spread_patches(chosen, (side, side), height, width) & valid
        return image.masked_fill(hidden, 0.0), hidden


class Crappify(nn.Module):
    """Add noise, then take detail away by resampling; every pixel changes."""

    def __init__(self, noise: float = 0.2, factor: float = 4.0) -> None:
        """Set the amounts.

        Args:
            noise: Standard deviation of the noise as a fraction of each band's; what is left of it after resampling is
                less.
            factor: How many pixels become one: 4 halves each side, and back; 1 leaves the detail.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__()
        if not 0 <= noise < math.inf:
            raise ConfigurationError(f'noise: expected 0 or more, got {noise}.')
        if not 1 <= factor < math.inf:
            raise ConfigurationError(f'factor: expected 1 or more, got {factor}.')
        self.noise = noise
        self.factor = factor

    def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Add noise and resample.

        Args:
            image: Standardised values (batch, band, height, width).
            valid: Mask of valid pixels (batch, 1, height, width), bool.

        Returns:
            The spoilt image, and the mask of the pixels that hold data (batch, 1, height, width): all of them changed.
        """
        spoilt = image + self.noise * torch.randn_like(image)
        if self.factor > 1:
            spoilt = blur_by_resampling(spoilt, valid, self.factor)
        return torch.where(valid, spoilt, image), valid


class OneOf(nn.Module):
    """Spoil each sample in one of several ways, all with the same chance."""

    def __init__(self, corruptions: Sequence[nn.Module]) -> None:
        """Take the ways.

        Args:
            corruptions: Modules from ``(image, valid)`` to ``(image, changed)``, one or more.
        """
        super().__init__()
        self.corruptions = nn.ModuleList(corruptions)

    def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Spoil every sample in every way, and take one of the results.

        Args:
            image: Standardised values (batch, band, height, width).
            valid: Mask of valid pixels (batch, 1, height, width), bool.

        Returns:
            The spoilt image, and the mask of the changed pixels that hold data (batch, 1, height, width).
        """
        choice = (torch.rand(len(image), device=image.device) * len(self.corruptions)).long()[:, None, None, None]
        spoilt, changed = image, torch.zeros_like(valid)
        for number, corruption in enumerate(self.corruptions):
            candidate, where = corruption(image, valid)
            spoilt = torch.where(choice == number, candidate, spoilt)
            changed = torch.where(choice == number, where, changed)
        return spoilt, changed


def create_corruption(
    names: CorruptionName | Sequence[CorruptionName],
    cutout_count: tuple[int, int] = (1, 4),
    cutout_size: tuple[float, float] = (0.15, 0.5),
    patch_size: int = 8,
    patch_ratio: float = 0.6,
    noise: float = 0.2,
    factor: float = 4.0,
) -> nn.Module:
    """Build a corruption by name.

    Args:
        names: ``coarse_cutout``, ``patch_mask``, ``crappify``, or several of them, of which each sample gets one.
        cutout_count: See :class:`CoarseCutout`.
        cutout_size: See :class:`CoarseCutout`.
        patch_size: See :class:`PatchMask`.
        patch_ratio: See :class:`PatchMask`.
        noise: See :class:`Crappify`.
        factor: See :class:`Crappify`.

    Returns:
        Module from ``(image, valid)`` to ``(image, changed)``.

    Raises:
        ConfigurationError: If a name is unknown, comes twice, or an option is out of its range.
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
