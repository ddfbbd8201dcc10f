"""Features of single pixels and of the texture around them.

``spectral`` features are the bands and normalized differences of them. ``texture`` features add local means and
standard deviations at several scales, band-pass energies (Laws 1980) and the coherence of the structure tensor (Bigün &
Granlund 1987), which is high where the surroundings have one direction, as rows of vines do.

Every local mean is a normalized convolution (Knutsson & Westin 1993, https://doi.org/10.1109/CVPR.1993.341081): invalid
pixels, and what lies beyond the edge of the image, have the weight 0. A feature depends on the pixels within
:attr:`PixelFeatures.receptive_radius` alone, to the last bit, so that features of a window equal those of the image.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgeo_msssl.errors import BandError
from torchgeo_msssl.validation import check_at_least, check_choice

__all__ = ('SCALES', 'FeatureKind', 'PixelFeatures', 'band_groups', 'box_sums', 'index_pairs', 'local_means')

FeatureKind = Literal['spectral', 'texture']

#: Sides of the windows of local means, in pixels: each is twice the previous one plus one, see :func:`box_sums`.
SCALES = (3, 7, 15, 31)
#: Scales over which the structure tensor is averaged.
_TENSOR_SCALES = (15, 31)

#: First wavelengths of the groups of bands in nanometres: visible; red edge and near infrared; short-wave infrared;
#: beyond.
_GROUP_EDGES = (0.0, 690.0, 1300.0, 2500.0)
#: Wavelengths whose nearest bands form indices, in nanometres, and the maximum distance of a band from them.
_INDEX_WAVELENGTHS = (490.0, 560.0, 665.0, 710.0, 840.0, 1610.0, 2200.0)
_NEAR = 60.0
#: Maximum number of bands of unknown wavelength of which all pairs are compared.
_MOST_UNKNOWN = 6

#: Variance of standardized values below which texture is rounding.
_FLAT = 1e-4


def band_groups(wavelengths: Sequence[float | None]) -> list[list[int]]:
    """Group bands by wavelength: visible, red edge and near infrared, short-wave infrared, beyond, unknown.

    Args:
        wavelengths: Central wavelength of each band in nanometres, None where unknown.

    Returns:
        Channels of each group that has any.
    """
    groups: list[list[int]] = [[] for _ in range(len(_GROUP_EDGES) + 1)]
    for channel, wavelength in enumerate(wavelengths):
        group = -1 if wavelength is None else sum(wavelength >= edge for edge in _GROUP_EDGES[1:])
        groups[group].append(channel)
    return [group for group in groups if group]


def index_pairs(wavelengths: Sequence[float | None]) -> list[tuple[int, int]]:
    """Choose the pairs of bands whose normalized differences are features.

    These are all pairs of the bands next to blue, green, red, red edge, near infrared and two short-wave infrared
    wavelengths: NDVI, NDWI, NDRE, NDMI, NBR and others. Bands of unknown wavelengths give all pairs if they are six or
    fewer, otherwise pairs of neighbours.

    Args:
        wavelengths: Central wavelength of each band in nanometres, None where unknown.

    Returns:
        Channels of each pair, in rising order.
    """
    known = {channel: value for channel, value in enumerate(wavelengths) if value is not None}
    if not known:
        channels = range(len(wavelengths))
        return list(combinations(channels, 2) if len(channels) <= _MOST_UNKNOWN else pairwise(channels))
    nearest = (min(known, key=lambda channel: abs(known[channel] - aim)) for aim in _INDEX_WAVELENGTHS)
    chosen = {
        channel for aim, channel in zip(_INDEX_WAVELENGTHS, nearest, strict=True) if abs(known[channel] - aim) <= _NEAR
    }
    return list(combinations(sorted(chosen), 2))


def box_sums(image: Tensor, levels: int = len(SCALES)) -> list[Tensor]:
    """Sum images over square windows of 3, 7, 15, … pixels, with zeros beyond the edges.

    A window of 2k + 1 pixels is two windows of k pixels and the pixel between them, so that each further scale costs
    two additions per axis. The order of additions depends on the position within the window alone.

    Args:
        image: (…, height, width).
        levels: Number of scales.

    Returns:
        Sums of each scale, (…, height, width).
    """
    # windows whose centres lie beyond the edges are parts of larger ones
    border = 2**levels - 1
    image = F.pad(image, (border,) * 4)
    sums, row = [], image
    for level in range(levels):
        row = _widen(image, row, 2**level, -1)
        total = row
        for step in range(level + 1):
            total = _widen(row, total, 2**step, -2)
        sums.append(total[..., border:-border, border:-border])
    return sums


def _widen(pixel: Tensor, narrow: Tensor, half: int, dim: int) -> Tensor:
    """Join windows of ``2 · half − 1`` pixels on both sides of a pixel with it."""
    total, rest = pixel.clone(), pixel.shape[dim] - half
    total.narrow(dim, half, rest).add_(narrow.narrow(dim, 0, rest))
    total.narrow(dim, 0, rest).add_(narrow.narrow(dim, half, rest))
    return total


def local_means(image: Tensor, weight: Tensor, levels: int = len(SCALES)) -> list[Tensor]:
    """Average images over square windows of 3, 7, 15, … pixels, by normalized convolution.

    Args:
        image: (batch, channel, height, width), 0 where the weight is.
        weight: 1 where pixels count, else 0, (batch, channel or 1, height, width).
        levels: Number of scales.

    Returns:
        Means of each scale, (batch, channel, height, width); 0 where no pixel of the window counts.
    """
    counts = box_sums(weight, levels)
    return [total / count.clamp_min(1) for total, count in zip(box_sums(image, levels), counts, strict=True)]


class PixelFeatures(nn.Module):
    """Features of every pixel, from standardized images with any number of bands.

    Attributes:
        mean: Mean reflectance of each band, which turns standardized values back into reflectance for indices, (band,).
        std: Standard deviation of the reflectance of each band, (band,).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, kind: FeatureKind, in_channels: int, wavelengths: Sequence[float | None] = ()) -> None:
        """Choose features.

        Args:
            kind: ``spectral`` or ``texture``.
            in_channels: Number of bands.
            wavelengths: Central wavelength of each band in nanometres, None where unknown; empty if all are.

        Raises:
            BandError: If there is not one wavelength per band.
            ConfigurationError: If an option is out of range.
        """
        super().__init__()
        check_choice('features', kind, FeatureKind)
        check_at_least(1, in_channels=in_channels)
        self.kind: FeatureKind = kind
        self.in_channels = in_channels
        self.register_buffer('mean', torch.zeros(in_channels))
        self.register_buffer('std', torch.ones(in_channels))
        self.set_wavelengths(wavelengths)

    def set_wavelengths(self, wavelengths: Sequence[float | None]) -> None:
        """Group the bands, and choose those of indices.

        Args:
            wavelengths: As in the constructor.

        Raises:
            BandError: If there is not one wavelength per band.
        """
        wavelengths = list(wavelengths) or [None] * self.in_channels
        if len(wavelengths) != self.in_channels:
            raise BandError(f'wavelengths: expected one for each of {self.in_channels} bands, got {len(wavelengths)}.')
        self.groups, self.pairs = band_groups(wavelengths), index_pairs(wavelengths)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and standard deviation of the bands' reflectance, (band,) each."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    @property
    def receptive_radius(self) -> int:
        """Distance in pixels up to which other pixels influence the features of a pixel."""
        # band-pass energies: windows of the largest scale within windows of that scale
        return 0 if self.kind == 'spectral' else 2 * (SCALES[-1] // 2)

    @property
    def spectral_count(self) -> int:
        """Number of spectral features, which precede those of texture."""
        return self.in_channels + len(self.pairs)

    @property
    def count(self) -> int:
        """Number of features."""
        per_group = 3 * len(SCALES) + 2 * len(_TENSOR_SCALES)
        return self.spectral_count + (per_group * len(self.groups) if self.kind == 'texture' else 0)

    def forward(self, image: Tensor, valid: Tensor | None = None) -> Tensor:
        """Compute the features of every pixel.

        Args:
            image: Standardized values (batch, band, height, width).
            valid: Valid pixels (batch, 1, height, width), bool; None for all.

        Returns:
            Features (batch, feature, height, width), 0 at invalid pixels.
        """
        weight = torch.ones_like(image[:, :1]) if valid is None else valid.to(image.dtype)
        if valid is not None:
            image = image.masked_fill(~valid, 0.0)
        parts = [image, *self._indices(image)]
        if self.kind == 'texture':
            groups = torch.stack([image[:, group].mean(dim=1) for group in self.groups], dim=1)
            parts += texture(groups, weight)
        features = torch.cat(parts, dim=1)
        return features if valid is None else features.masked_fill(~valid, 0.0)

    def _indices(self, image: Tensor) -> list[Tensor]:
        """Normalized differences of reflectance, from −1 to 1, (batch, 1, height, width) each."""
        reflectance = image * self.std[:, None, None] + self.mean[:, None, None]
        found = []
        for first, second in self.pairs:
            one, other = reflectance[:, first, None], reflectance[:, second, None]
            total = one + other
            known = total.abs() > 1e-6
            index = (other - one) / total.where(known, 1.0)
            found.append(torch.where(known, index, 0.0).clamp(-1, 1))
        return found


def texture(image: Tensor, weight: Tensor) -> list[Tensor]:
    """Describe the surroundings of every pixel.

    Args:
        image: Standardized values (batch, group, height, width), 0 where the weight is.
        weight: 1 at valid pixels, else 0, (batch, 1, height, width).

    Returns:
        Local means, logarithms of local standard deviations and of band-pass energies at each of :data:`SCALES`, then
        coherence and logarithm of the energy of the structure tensor at two of them, (batch, group, height, width)
        each.
    """
    means = local_means(image, weight)
    squares = local_means(image.square(), weight)
    parts = [*means]
    parts += [_log_energy(square - mean.square()) for square, mean in zip(squares, means, strict=True)]
    finer = image
    for level, mean in enumerate(means):
        band_pass = (finer - mean).square() * weight
        parts.append(_log_energy(local_means(band_pass, weight, level + 1)[-1]))
        finer = mean
    return [*parts, *_structure_tensor(means[0], weight)]


def _log_energy(variance: Tensor) -> Tensor:
    """Logarithm of a standard deviation; linear classifiers need ratios of them, and their spread is skewed."""
    return 0.5 * (variance.clamp_min(0) + _FLAT).log()


def _structure_tensor(image: Tensor, weight: Tensor) -> list[Tensor]:
    """Coherence and energy of the gradient of images (batch, group, height, width) around every pixel."""
    down, down_weight = _gradient(image, weight, -2)
    across, across_weight = _gradient(image, weight, -1)
    known = down_weight * across_weight
    products = torch.stack([down * down, across * across, down * across]) * known
    group = image.shape[1]
    flat = products.permute(1, 0, 2, 3, 4).flatten(1, 2)
    parts = []
    for scale, mean in zip(SCALES, local_means(flat, known), strict=True):
        if scale in _TENSOR_SCALES:
            dd, aa, da = mean.unflatten(1, (3, group)).unbind(1)
            trace = dd + aa
            parts += [((dd - aa).square() + 4 * da.square()).sqrt() / (trace + _FLAT), _log_energy(trace)]
    return parts


def _gradient(image: Tensor, weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Central differences along an axis, and 1 where both neighbours are valid, else 0; both are 0 at the edges."""
    rest = image.shape[dim] - 2
    gradient, known = torch.zeros_like(image), torch.zeros_like(weight)
    if rest > 0:
        ahead, behind = (image.narrow(dim, start, rest) for start in (2, 0))
        gradient.narrow(dim, 1, rest).copy_((ahead - behind) / 2)
        ahead, behind = (weight.narrow(dim, start, rest) for start in (2, 0))
        known.narrow(dim, 1, rest).copy_(ahead * behind)
    return gradient * known, known
