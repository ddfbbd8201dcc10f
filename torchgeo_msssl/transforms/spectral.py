"""Augmentations of reflectance, band by band.

They are multiplicative or relative to the spread of each band, work for any number of bands and clip nothing: neither
reflectance nor standardized values are confined to [0, 1]. The classes are kornia augmentations, which compose in
``kornia.augmentation.AugmentationSequential(…, data_keys=None)``, so that stock TorchGeo data modules can use them;
the arithmetic is in free functions of the random numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from kornia.augmentation.random_generator.base import RandomGeneratorBase
from torch import Tensor

from torchgeo_msssl.errors import BandError
from torchgeo_msssl.validation import check_at_least, check_interval, check_probability


def band_statistics(image: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and (biased) standard deviation of each band of each sample over its valid pixels.

    Args:
        image: Image (batch, band, height, width).
        valid: Mask of valid pixels (batch, 1, height, width), bool; None means all.

    Returns:
        Mean and standard deviation, (batch, band) each; 0 for a sample without valid pixels.
    """
    if valid is None:
        std, mean = torch.std_mean(image, dim=(-2, -1), correction=0)
        return mean, std
    count = valid.sum(dim=(-2, -1)).clamp_min(1)
    mean = torch.where(valid, image, 0.0).sum(dim=(-2, -1)) / count
    deviation = torch.where(valid, image - mean[..., None, None], 0.0)
    return mean, (deviation.square().sum(dim=(-2, -1)) / count).sqrt()


def apply_gain(image: Tensor, gain: Tensor) -> Tensor:
    """Multiply each band of images (…, band, height, width) by its gain (…, band), without clipping."""
    return image * gain[..., None, None]


def apply_band_noise(image: Tensor, noise: Tensor, std: Tensor) -> Tensor:
    """Add standard normal ``noise`` (…, band, height, width), times ``std`` (…, band), to images, without clipping."""
    return torch.addcmul(image, noise, std[..., None, None])


def apply_band_dropout(image: Tensor, dropped: Tensor, fill: Tensor) -> Tensor:
    """Replace the ``dropped`` bands (…, band), bool, of images (…, band, height, width) by their ``fill`` (…, band)."""
    return torch.where(dropped[..., None, None], fill[..., None, None].to(image.dtype), image)


def bands_to_drop(uniform: Tensor, p_band: float) -> Tensor:
    """Choose bands independently of each other, but never all of them.

    If every band would be chosen, the one with the largest number is not: any of them with the same probability.

    Args:
        uniform: Uniform numbers in [0, 1), (…, band).
        p_band: Probability of choosing each band.

    Returns:
        Chosen bands, bool, (…, band).
    """
    keeps = torch.zeros_like(uniform, dtype=torch.bool).scatter(-1, uniform.argmax(dim=-1, keepdim=True), True)
    return (uniform < p_band) & ~keeps


def uniform_between(uniform: Tensor, interval: tuple[float, float]) -> Tensor:
    """Scale uniform numbers from [0, 1) to an interval (low, high)."""
    low, high = interval
    return low + (high - low) * uniform


class _Generator(RandomGeneratorBase):
    """Draws uniform numbers for each sample and band, and optionally normal ones for each pixel."""

    def __init__(self, normal: bool = False) -> None:
        super().__init__()
        self.normal = normal

    def __repr__(self) -> str:
        return f'normal={self.normal}'

    def make_samplers(self, device: torch.device, dtype: torch.dtype) -> None:
        """Do nothing: ``forward`` draws the numbers on the device and in the dtype that kornia keeps."""

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Draw the numbers of one call.

        Args:
            batch_shape: (batch, band, height, width).
            same_on_batch: Whether all samples share their numbers.

        Returns:
            ``common`` (sample, 1) and ``per_band`` (sample, band), uniform in [0, 1), and optionally ``noise``
            (sample, band, height, width), standard normal; sample is 1 if they are shared.
        """
        samples, bands = 1 if same_on_batch else batch_shape[0], batch_shape[1]
        target: dict[str, Any] = {'device': self.device, 'dtype': self.dtype}
        numbers = {'common': torch.rand(samples, 1, **target), 'per_band': torch.rand(samples, bands, **target)}
        if self.normal:
            numbers['noise'] = torch.randn(samples, *batch_shape[1:], **target)
        return numbers


class SpectralAugmentation(IntensityAugmentationBase2D):
    """Base of the kornia augmentations in this module."""

    def __init__(
        self, p: float = 1.0, same_on_batch: bool = False, keepdim: bool = False, *, normal: bool = False
    ) -> None:
        """Set what all augmentations share.

        Args:
            p: Probability for each sample.
            same_on_batch: Whether all samples share their random numbers.
            keepdim: Whether to return an image without batch dimension if it was given without.
            normal: Whether to draw standard normal numbers for each pixel.

        Raises:
            ConfigurationError: If ``p`` is out of its range.
        """
        super().__init__(p=check_probability('p', p), same_on_batch=same_on_batch, keepdim=keepdim)
        self._param_generator = _Generator(normal)


class RandomGain(SpectralAugmentation):
    """Multiply reflectance by a gain common to all bands and one of each band's own.

    The first stands for illumination, the second for calibration and atmosphere. Ratios between pixels of a band stay,
    and nothing is clipped.
    """

    def __init__(
        self, common: tuple[float, float] = (0.8, 1.2), per_band: tuple[float, float] = (0.9, 1.1), **kwargs: Any
    ) -> None:
        """Set the ranges.

        Args:
            common: Smallest and largest gain common to all bands.
            per_band: Smallest and largest gain of one band.
            **kwargs: ``p``, ``same_on_batch`` and ``keepdim`` of :class:`SpectralAugmentation`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__(**kwargs)
        self.flags = {
            'common': check_interval('common', common, 0),
            'per_band': check_interval('per_band', per_band, 0),
        }

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Apply :func:`apply_gain`."""
        common = uniform_between(params['common'], flags['common'])
        per_band = uniform_between(params['per_band'], flags['per_band'])
        return apply_gain(input, (common * per_band).to(input))


class RandomBandNoise(SpectralAugmentation):
    """Add Gaussian noise whose standard deviation is a fraction of each band's own.

    Dark bands (blue over vegetation) and bright ones (near infrared) thus lose the same fraction of their contrast.
    """

    def __init__(
        self,
        std: tuple[float, float] = (0.02, 0.1),
        band_std: Sequence[float] | None = None,
        p: float = 0.5,
        **kwargs: Any,
    ) -> None:
        """Set the amount.

        Args:
            std: Smallest and largest standard deviation of the noise, as a fraction of the band's.
            band_std: Standard deviation of each band in units of the image; None for that of each sample's band.
            p: Probability for each sample.
            **kwargs: ``same_on_batch`` and ``keepdim`` of :class:`SpectralAugmentation`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__(p, **kwargs, normal=True)
        self.flags = {'std': check_interval('std', std, 0)}
        for value in band_std or ():
            check_at_least(0, band_std=value)
        self.band_std = None if band_std is None else tuple(band_std)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Apply :func:`apply_band_noise`; raises BandError if ``band_std`` is of another number of bands."""
        spread = band_statistics(input)[1] if self.band_std is None else _as_bands('band_std', self.band_std, input)
        amount = uniform_between(params['common'], flags['std']).to(input)
        return apply_band_noise(input, params['noise'].to(input), amount * spread)


class RandomBandDropout(SpectralAugmentation):
    """Replace some bands by their mean, never all of them."""

    def __init__(self, p_band: float = 0.1, fill: Sequence[float] | None = None, **kwargs: Any) -> None:
        """Set the probability.

        Args:
            p_band: Probability of dropping each band.
            fill: Value of each dropped band in units of the image (its mean over the data set; 0 after
                standardization); None for the mean of each sample's band.
            **kwargs: ``p``, ``same_on_batch`` and ``keepdim`` of :class:`SpectralAugmentation`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__(**kwargs)
        self.flags = {'p_band': check_probability('p_band', p_band)}
        self.fill = None if fill is None else tuple(fill)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Apply :func:`apply_band_dropout`; raises BandError if ``fill`` is of another number of bands."""
        fill = input.mean(dim=(-2, -1)) if self.fill is None else _as_bands('fill', self.fill, input)
        dropped = bands_to_drop(params['per_band'], flags['p_band'])
        return apply_band_dropout(input, dropped.to(input.device), fill)


def _as_bands(name: str, values: tuple[float, ...], image: Tensor) -> Tensor:
    if len(values) != image.shape[1]:
        raise BandError(f'{name} must hold one value for each of the {image.shape[1]} bands, got {len(values)}.')
    return torch.tensor(values, dtype=image.dtype, device=image.device)
