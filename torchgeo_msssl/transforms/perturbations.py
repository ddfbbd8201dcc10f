"""Strong augmentation of unlabelled chips, with targets that move along.

Blur, gains and noise act on reflectance as in :mod:`torchgeo_msssl.transforms.views`. CutMix replaces a rectangle of
each chip by that of the next chip of the batch (https://arxiv.org/abs/1905.04899; for segmentation without labels
https://arxiv.org/abs/1906.01916).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torchgeo_msssl.transforms.corruptions import rectangles
from torchgeo_msssl.transforms.normalize import Normalize
from torchgeo_msssl.transforms.spectral import apply_band_noise, apply_gain, band_statistics, uniform_between
from torchgeo_msssl.transforms.symmetries import move_at_random
from torchgeo_msssl.transforms.views import gaussian_blur
from torchgeo_msssl.validation import check_interval, check_probability

#: Smallest and largest side of the rectangle of CutMix, as a fraction of the chip's: 2 % to 50 % of its area.
_CUT_SIZE = (0.15, 0.7)


@dataclass
class Perturbation:
    """Strong augmentation of unlabelled chips.

    Attributes:
        common_gain: Smallest and largest gain common to all bands.
        band_gain: Smallest and largest gain of one band.
        blur: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation of the blur, in pixels.
        noise: Probability of noise.
        noise_std: Smallest and largest standard deviation of the noise, as a fraction of the chip's in each band.
        cutmix: Probability of replacing a rectangle by that of another chip of the batch.

    Raises:
        ConfigurationError: If an option is out of its range.
    """

    common_gain: tuple[float, float] = (0.7, 1.3)
    band_gain: tuple[float, float] = (0.9, 1.1)
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 1.0)
    noise: float = 0.5
    noise_std: tuple[float, float] = (0.02, 0.1)
    cutmix: float = 0.5

    def __post_init__(self) -> None:
        """Check the options."""
        for name in ('common_gain', 'band_gain', 'blur_sigma', 'noise_std'):
            setattr(self, name, check_interval(name, getattr(self, name), 0))
        for name in ('blur', 'noise', 'cutmix'):
            check_probability(name, getattr(self, name))


def perturb_reflectance(reflectance: Tensor, valid: Tensor, how: Perturbation) -> Tensor:
    """Blur chips, multiply them by gains and add noise; all random numbers are from the device's global generator.

    Args:
        reflectance: Reflectance (batch, band, height, width), finite.
        valid: Valid pixels (batch, 1, height, width), bool; values of others have no effect on them.
        how: The options.

    Returns:
        Reflectance of the same shape, without meaning in invalid pixels.
    """
    batch, bands = reflectance.shape[:2]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=reflectance.device)

    def with_probability(probability: float, interval: tuple[float, float]) -> Tensor:
        return torch.where(uniform(batch) < probability, uniform_between(uniform(batch), interval), 0.0)

    sigma, noise_std = with_probability(how.blur, how.blur_sigma), with_probability(how.noise, how.noise_std)
    gain = uniform_between(uniform(batch, 1), how.common_gain) * uniform_between(uniform(batch, bands), how.band_gain)
    noise = torch.randn(reflectance.shape, device=reflectance.device)
    std = band_statistics(reflectance, valid)[1]
    image = gaussian_blur(reflectance, sigma, valid, math.ceil(3 * how.blur_sigma[1]))
    return apply_gain(apply_band_noise(image, noise, noise_std[:, None] * std), gain)


def cut_and_mix(images: tuple[Tensor, ...], inside: Tensor) -> tuple[Tensor, ...]:
    """Replace pixels by those of the next sample of the batch; the last sample is followed by the first.

    Args:
        images: Images, targets and masks (batch, …, height, width), four dimensions each.
        inside: Pixels to replace (batch, 1, height, width), bool.

    Returns:
        Tensors of the same shapes.
    """
    return tuple(torch.where(inside, image.roll(-1, dims=0), image) for image in images)


def perturb(
    reflectance: Tensor,
    target: Tensor,
    valid: Tensor,
    normalize: Normalize,
    how: Perturbation,
    flips: bool = True,
    quarter_turns: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Augment chips strongly; targets and masks are flipped, turned and mixed as the chips are.

    Args:
        reflectance: Reflectance (batch, band, height, width), finite.
        target: Values of each pixel of the chips as they are (batch, channel, height, width).
        valid: Valid pixels (batch, 1, height, width), bool.
        normalize: Standardization.
        how: Strength.
        flips: Whether to flip at random.
        quarter_turns: Whether to rotate by quarter turns at random.

    Returns:
        Standardized values, 0 in invalid pixels; targets; valid pixels, in the shapes given.
    """
    size, _, height, width = reflectance.shape
    image = normalize.standardize(perturb_reflectance(reflectance, valid, how), valid)
    moved = move_at_random(image, target, valid, flips=flips, quarter_turns=quarter_turns)
    mixed = (torch.rand(size, device=image.device) < how.cutmix).long()
    inside = rectangles(torch.rand(size, 1, 4, device=image.device), mixed, _CUT_SIZE, height, width)
    image, target, valid = cut_and_mix(moved, inside)
    return image, target, valid
