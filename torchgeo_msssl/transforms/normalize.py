"""Normalization that travels with the weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.validation import check_at_least


def valid_pixels(image: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mark the pixels that hold data in every band.

    A NaN or infinite value in one band makes the whole pixel invalid, independent of the mask.

    Args:
        image: Digital numbers of any dtype, or reflectance, (batch, band, height, width).
        valid: Mask of valid pixels (batch, 1, height, width), bool; None for no mask.

    Returns:
        Mask of valid pixels (batch, 1, height, width), bool.
    """
    if not image.is_floating_point():
        return image.new_ones((), dtype=torch.bool).expand(_mask_shape(image)) if valid is None else valid
    finite = torch.isfinite(image).all(dim=1, keepdim=True)
    return finite if valid is None else finite & valid


def _mask_shape(image: Tensor) -> tuple[int, int, int, int]:
    return image.shape[0], 1, image.shape[-2], image.shape[-1]


class Normalize(nn.Module):
    """Digital numbers to reflectance to standardized values, with the constants as buffers.

    ``reflectance = (DN + offset) * scale`` and ``output = (reflectance - mean) / std``, band by band. The four
    constants are saved and loaded with the weights, so that pretraining, fine-tuning and prediction cannot disagree.

    Attributes:
        mean: Mean reflectance of each band, float32, (band,).
        std: Standard deviation of the reflectance of each band, float32, (band,).
        scale: Reflectance per digital number, float32, (band,).
        offset: Added to the digital number before scaling, float32, (band,).
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(self, in_channels: int) -> None:
        """Start as the identity: mean 0, std 1, scale 1, offset 0.

        Args:
            in_channels: Number of bands.

        Raises:
            ConfigurationError: If ``in_channels`` is below 1.
        """
        super().__init__()
        check_at_least(1, in_channels=in_channels)
        for name, value in (('mean', 0.0), ('std', 1.0), ('scale', 1.0), ('offset', 0.0)):
            self.register_buffer(name, torch.full((in_channels,), value))

    @property
    def in_channels(self) -> int:
        """Number of bands."""
        return self.mean.numel()

    def set_statistics(
        self, mean: Sequence[float], std: Sequence[float], scale: Sequence[float], offset: Sequence[float]
    ) -> None:
        """Set the four constants, one value per band each.

        A band whose std is 0 is refused instead of divided by 1: it is constant over all scenes, carries no
        information, and nearly always is a reading mistake (an empty band, or undeclared nodata).

        Args:
            mean: Mean of each band, reflectance.
            std: Standard deviation of each band, reflectance, above 0.
            scale: Reflectance per digital number, above 0.
            offset: Added to the digital number before scaling.

        Raises:
            ConfigurationError: If a length is not the number of bands, a value is not finite, or a std or scale is
                not above 0. Nothing is changed then.
        """
        constants = {'mean': mean, 'std': std, 'scale': scale, 'offset': offset}
        for name, values in constants.items():
            self._check_constant(name, values)
        for name, values in constants.items():
            self.get_buffer(name).copy_(torch.as_tensor(values))

    def _check_constant(self, name: str, values: Sequence[float]) -> None:
        if len(values) != self.in_channels:
            raise ConfigurationError(
                f'{name} must hold one value for each of the {self.in_channels} bands, got {len(values)}.'
            )
        for band, value in enumerate(values):
            if not math.isfinite(value):
                raise ConfigurationError(
                    f'{name} must be finite, got {value} for the band with index {band}: '
                    'compute the statistics over valid pixels only.'
                )
            if name in ('std', 'scale') and value <= 0:
                raise ConfigurationError(
                    f'{name} must be above 0, got {value} for the band with index {band}: '
                    'a constant band carries no information, leave it out or declare its nodata value.'
                )

    def reflectance(
        self,
        image: Tensor,
        valid: Tensor | None = None,
        scale: Tensor | None = None,
        offset: Tensor | None = None,
    ) -> Tensor:
        """Convert digital numbers to reflectance, with the band mean in invalid pixels.

        Args:
            image: Digital numbers in native dtype (uint8, uint16, int16, float32, …), (batch, band, height, width).
            valid: Mask of valid pixels (batch, 1, height, width), bool. Pixels with a non-finite value are invalid too.
            scale: Scale of each sample, (batch, band), instead of the buffer's: one batch may mix sensors' eras.
            offset: Offset of each sample, (batch, band), instead of the buffer's.

        Returns:
            Reflectance (batch, band, height, width), float32, finite.

        Raises:
            BandError: If the image has another number of bands than this module.
        """
        self._check_bands(image)
        # torch.uint16 has hardly any arithmetic, so the conversion comes first
        number = image.to(torch.float32)
        sample_scale = self.scale.expand(len(image), -1) if scale is None else scale
        sample_offset = self.offset.expand(len(image), -1) if offset is None else offset
        value = (number + _per_band(sample_offset)) * _per_band(sample_scale)
        if valid is None and not image.is_floating_point():
            return value
        return torch.where(valid_pixels(image, valid), value, _per_band(self.mean))

    def standardize(self, reflectance: Tensor, valid: Tensor | None = None) -> Tensor:
        """Standardize reflectance to zero mean and unit standard deviation, band by band.

        Args:
            reflectance: Reflectance (batch, band, height, width).
            valid: Mask of valid pixels, as in :meth:`reflectance`.

        Returns:
            Standardized values (batch, band, height, width), float32; invalid pixels are exactly 0.

        Raises:
            BandError: If the image has another number of bands than this module.
        """
        self._check_bands(reflectance)
        value = (reflectance.to(torch.float32) - _per_band(self.mean)) / _per_band(self.std)
        return value.masked_fill(~valid_pixels(reflectance, valid), 0.0)

    def to_reflectance(self, standardized: Tensor) -> Tensor:
        """Invert :meth:`standardize`, for (batch, band, height, width)."""
        return standardized * self.std[:, None, None] + self.mean[:, None, None]

    def forward(
        self,
        image: Tensor,
        valid: Tensor | None = None,
        scale: Tensor | None = None,
        offset: Tensor | None = None,
    ) -> Tensor:
        """Convert digital numbers to standardized values; arguments are those of :meth:`reflectance`.

        Returns:
            Standardized values (batch, band, height, width), float32; invalid pixels are exactly 0.

        Raises:
            BandError: If the image has another number of bands than this module.
        """
        valid = valid_pixels(image, valid)
        return self.standardize(self.reflectance(image, valid, scale, offset), valid)

    def extra_repr(self) -> str:
        """Number of bands, for ``repr``."""
        return f'in_channels={self.in_channels}'

    def _check_bands(self, image: Tensor) -> None:
        # one band would silently broadcast against twelve
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            raise BandError(
                f'Expected an image of shape (batch, {self.in_channels}, height, width), got {tuple(image.shape)}: '
                'read the bands for which the statistics were computed.'
            )


def _per_band(values: Tensor) -> Tensor:
    """(…, band) to (…, band, 1, 1), float32."""
    return values.to(torch.float32)[..., None, None]
