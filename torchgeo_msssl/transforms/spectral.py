"""Augmentations of reflectance, band by band.

They are multiplicative or relative to the spread of each band, work for any number of bands and clip nothing:
reflectance is not confined to [0, 1], and standardised values are not either. The classes are kornia augmentations,
so that they compose in ``kornia.augmentation.AugmentationSequential(…, data_keys=None)`` and serve stock TorchGeo
tasks; the arithmetic is in free functions that are given their random numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from kornia.augmentation.random_generator.base import RandomGeneratorBase
from torch import Tensor

from torchgeo_msssl.errors import BandError, ConfigurationError


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
    """Multiply each band with its gain.

    Args:
        image: Reflectance (…, band, height, width).
        gain: Gain (…, band).

    Returns:
        Image of the same shape, not clipped.
    """
    return image * gain[..., None, None]


def apply_band_noise(image: Tensor, noise: Tensor, std: Tensor) -> Tensor:
    """Add noise with a standard deviation of its own for each band.

    Args:
        image: Image (…, band, height, width).
        noise: Standard normal numbers (…, band, height, width).
        std: Standard deviation of the noise (…, band), in units of the image.

    Returns:
        Image of the same shape, not clipped.
    """
    return torch.addcmul(image, noise, std[..., None, None])


def apply_band_dropout(image: Tensor, dropped: Tensor, fill: Tensor) -> Tensor:
    """Replace whole bands by a constant.

    Args:
        image: Image (…, band, height, width).
        dropped: Which bands to replace, bool, (…, band).
        fill: Value of a replaced band (…, band), its mean.

    Returns:
        Image of the same shape.
    """
    return torch.where(dropped[..., None, None], fill[..., None, None].to(image.dtype), image)


def bands_to_drop(uniform: Tensor, p_band: float) -> Tensor:
    """Choose bands independently of each other, but never all of them.

    Where every band would go, the one with the largest number stays; that is any of them with the same chance.

    Args:
        uniform: Uniform numbers in [0, 1), (…, band).
        p_band: Probability of each band to be chosen.

    Returns:
        Chosen bands, bool, (…, band).
    """
    keeps = torch.zeros_like(uniform, dtype=torch.bool).scatter(-1, uniform.argmax(dim=-1, keepdim=True), True)
    return (uniform < p_band) & ~keeps


def uniform_between(uniform: Tensor, interval: tuple[float, float]) -> Tensor:
    """Stretch uniform numbers from [0, 1) to an interval.

    Args:
        uniform: Uniform numbers in [0, 1), any shape.
        interval: Lower and upper end.

    Returns:
        Numbers in the interval, same shape.
    """
    low, high = interval
    return low + (high - low) * uniform


def check_interval(name: str, interval: Sequence[float], low: float, high: float = float('inf')) -> tuple[float, float]:
    """Check that an option is an ordered pair of numbers in a range.

    Args:
        name: Name of the option, for the message.
        interval: The option.
        low: Smallest value allowed.
        high: Largest value allowed.

    Returns:
        The pair.

    Raises:
        ConfigurationError: If it is not.
    """
    if len(interval) != 2 or not low <= interval[0] <= interval[1] <= high or interval[1] == float('inf'):
        raise ConfigurationError(
            f'{name} must be two numbers (smallest, largest) between {low} and {high}, got {interval}.'
        )
    return float(interval[0]), float(interval[1])


def check_probability(name: str, value: float, below_one: bool = False) -> float:
    """Check that an option is a probability.

    Args:
        name: Name of the option, for the message.
        value: The option.
        below_one: Whether 1 is refused.

    Returns:
        The value.

    Raises:
        ConfigurationError: If it is not.
    """
    if not 0 <= value <= 1 or (below_one and value == 1):
        end = 'below 1' if below_one else '1'
        raise ConfigurationError(f'{name} must be a probability from 0 to {end}, got {value}.')
    return float(value)


class _Generator(RandomGeneratorBase):
    """Draws uniform numbers for each sample and band, on demand normal ones for each pixel too."""

    def __init__(self, normal: bool = False) -> None:
        super().__init__()
        self.normal = normal

    def __repr__(self) -> str:
        return f'normal={self.normal}'

    def make_samplers(self, device: torch.device, dtype: torch.dtype) -> None:
        """Do nothing: the numbers are drawn in ``forward`` on the device and in the dtype that kornia keeps."""

    def forward(self, batch_shape: tuple[int, ...], same_on_batch: bool = False) -> dict[str, Tensor]:
        """Draw the numbers of one call.

        Args:
            batch_shape: (batch, band, height, width).
            same_on_batch: Whether all samples share their numbers.

        Returns:
            ``common`` (sample, 1) and ``per_band`` (sample, band), uniform in [0, 1), and ``noise``
            (sample, band, height, width), standard normal, where asked for; sample is 1 if they are shared.
        """
        samples, bands = 1 if same_on_batch else batch_shape[0], batch_shape[1]
        place: dict[str, Any] = {'device': self.device, 'dtype': self.dtype}
        numbers = {'common': torch.rand(samples, 1, **place), 'per_band': torch.rand(samples, bands, **place)}
        if self.normal:
            numbers['noise'] = torch.randn(samples, *batch_shape[1:], **place)
        return numbers


class RandomGain(IntensityAugmentationBase2D):
    """Multiply reflectance with a gain common to all bands and one of each band's own.

    The first stands for illumination, the second for calibration and atmosphere. Ratios between pixels of a band stay
    as they are, and nothing is clipped.
    """

    def __init__(
        self,
        common: tuple[float, float] = (0.8, 1.2),
        per_band: tuple[float, float] = (0.9, 1.1),
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        """Set the ranges.

        Args:
            common: Smallest and largest gain common to all bands.
            per_band: Smallest and largest gain of one band.
            p: Probability for each sample.
            same_on_batch: Whether all samples share their gains.
            keepdim: Whether an image without batch dimension is returned without.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__(p=check_probability('p', p), same_on_batch=same_on_batch, keepdim=keepdim)
        self._param_generator = _Generator()
        self.flags = {
            'common': check_interval('common', common, 0),
            'per_band': check_interval('per_band', per_band, 0),
        }

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Multiply; see :func:`apply_gain`.

        Args:
            input: Reflectance (batch, band, height, width).
            params: Numbers of :class:`_Generator`.
            flags: The two ranges.
            transform: Not used.

        Returns:
            Image of the same shape.
        """
        common = uniform_between(params['common'], flags['common'])
        per_band = uniform_between(params['per_band'], flags['per_band'])
        return apply_gain(input, (common * per_band).to(input))


class RandomBandNoise(IntensityAugmentationBase2D):
    """Add Gaussian noise whose standard deviation is a fraction of each band's own.

    Dark bands (blue over vegetation) and bright ones (near infrared) so lose the same share of their contrast.
    """

    def __init__(
        self,
        std: tuple[float, float] = (0.02, 0.1),
        band_std: Sequence[float] | None = None,
        p: float = 0.5,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        """Set the amount.

        Args:
            std: Smallest and largest standard deviation of the noise, as a fraction of the band's.
            band_std: Standard deviation of each band in units of the image; None takes that of each sample's band.
            p: Probability for each sample.
            same_on_batch: Whether all samples share their noise.
            keepdim: Whether an image without batch dimension is returned without.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__(p=check_probability('p', p), same_on_batch=same_on_batch, keepdim=keepdim)
        self._param_generator = _Generator(normal=True)
        self.flags = {'std': check_interval('std', std, 0)}
        if band_std is not None and min(band_std, default=-1.0) < 0:
            raise ConfigurationError(f'band_std must hold one number of 0 or more for each band, got {band_std}.')
        self.band_std = None if band_std is None else tuple(band_std)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Add noise; see :func:`apply_band_noise`.

        Args:
            input: Image (batch, band, height, width).
            params: Numbers of :class:`_Generator`.
            flags: The range of the standard deviation.
            transform: Not used.

        Returns:
            Image of the same shape.

        Raises:
            BandError: If ``band_std`` was given for another number of bands.
        """
        spread = band_statistics(input)[1] if self.band_std is None else _as_bands('band_std', self.band_std, input)
        amount = uniform_between(params['common'], flags['std']).to(input)
        return apply_band_noise(input, params['noise'].to(input), amount * spread)


class RandomBandDropout(IntensityAugmentationBase2D):
    """Replace some bands by their mean, never all of them."""

    def __init__(
        self,
        p_band: float = 0.1,
        fill: Sequence[float] | None = None,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
    ) -> None:
        """Set the probability.

        Args:
            p_band: Probability of each band to be dropped.
            fill: Value of each dropped band in units of the image (its mean over the data set; 0 after
                standardisation); None takes the mean of each sample's band.
            p: Probability for each sample.
            same_on_batch: Whether all samples lose the same bands.
            keepdim: Whether an image without batch dimension is returned without.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__(p=check_probability('p', p), same_on_batch=same_on_batch, keepdim=keepdim)
        self._param_generator = _Generator()
        self.flags = {'p_band': check_probability('p_band', p_band)}
        self.fill = None if fill is None else tuple(fill)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Replace bands; see :func:`apply_band_dropout`.

        Args:
            input: Image (batch, band, height, width).
            params: Numbers of :class:`_Generator`.
            flags: The probability of a band.
            transform: Not used.

        Returns:
            Image of the same shape.

        Raises:
            BandError: If ``fill`` was given for another number of bands.
        """
        fill = input.mean(dim=(-2, -1)) if self.fill is None else _as_bands('fill', self.fill, input)
        dropped = bands_to_drop(params['per_band'], flags['p_band'])
        return apply_band_dropout(input, dropped.to(input.device), fill)


def _as_bands(name: str, values: tuple[float, ...], image: Tensor) -> Tensor:
    if len(values) != image.shape[1]:
        raise BandError(f'{name} must hold one value for each of the {image.shape[1]} bands, got {len(values)}.')
    return torch.tensor(values, dtype=image.dtype, device=image.device)
