"""Random views of multispectral chips, cut in one batched call on the device.

Geometry (random resized crop, flips, quarter turns) is one sampling grid; validity is sampled with the same grid. All
random numbers of a call are drawn in :meth:`MultiView.draw`, from the global generator of the device: seed it
(``torch.manual_seed``) before a call to get the same views again.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgeo_msssl.errors import BandError
from torchgeo_msssl.transforms.crops import (
    CANDIDATES,
    ViewGeometry,
    choose_boxes,
    crop_grid,
    random_boxes,
    sample_views,
)
from torchgeo_msssl.transforms.spectral import (
    apply_band_dropout,
    apply_band_noise,
    apply_gain,
    band_statistics,
    bands_to_drop,
    uniform_between,
)
from torchgeo_msssl.validation import check_at_least, check_choice, check_interval, check_names, check_probability


@dataclass
class Augmentation:
    """Differences between a view and its chip.

    Attributes:
        size: Side of a view in pixels; None for the chip's shorter side. Views larger than the chip are interpolated
            bilinearly: like a smaller stem of the encoder, they enlarge its last feature map, and like it they cost the
            square of the factor. Views smaller than their crop are sampled without a low-pass filter.
        crop_scale: Smallest and largest fraction of the chip's area in a crop.
        crop_ratio: Smallest and largest width / height of a crop.
        flips: Whether to flip views at random, half of them in x and half in y.
        quarter_turns: Whether to rotate views by a random multiple of 90°.
        blur: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation of the blur, in pixels of ``blur_unit``. Of stripes that
            repeat every n pixels a blur of σ pixels keeps exp(−2 (π σ / n)²) of the contrast.
        blur_unit: ``view``; or ``chip``, whose pixels have the same size on the ground in every crop and for every
            ``size``.
        noise: Probability of noise.
        noise_std: Smallest and largest standard deviation of the noise, as a fraction of the band's.
        noise_reference: Whose standard deviation of the band: that of each ``chip``, or that of the ``corpus``, which
            hides the texture of water and forest.
        common_gain: Smallest and largest gain common to all bands.
        band_gain: Smallest and largest gain of one band.
        band_dropout: Probability of replacing a band by its mean; never all bands.
        min_valid: Minimum fraction of valid pixels, below which a crop is drawn again.

    Raises:
        ConfigurationError: If an option is out of its range.
    """

    size: int | None = None
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flips: bool = True
    quarter_turns: bool = True
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_unit: Literal['view', 'chip'] = 'view'
    noise: float = 0.5
    noise_std: tuple[float, float] = (0.02, 0.1)
    noise_reference: Literal['chip', 'corpus'] = 'chip'
    common_gain: tuple[float, float] = (0.8, 1.2)
    band_gain: tuple[float, float] = (0.9, 1.1)
    band_dropout: float = 0.0
    min_valid: float = 0.5

    def __post_init__(self) -> None:
        """Check the options."""
        if self.size is not None:
            check_at_least(1, size=self.size)
        self.crop_scale = check_interval('crop_scale', self.crop_scale, 0, 1, above=True)
        self.crop_ratio = check_interval('crop_ratio', self.crop_ratio, 0, above=True)
        for name in ('blur_sigma', 'noise_std', 'common_gain', 'band_gain'):
            setattr(self, name, check_interval(name, getattr(self, name), 0))
        for name in ('blur', 'noise', 'min_valid'):
            check_probability(name, getattr(self, name))
        check_probability('band_dropout', self.band_dropout, below_one=True)
        check_choice('blur_unit', self.blur_unit, ('view', 'chip'))
        check_choice('noise_reference', self.noise_reference, ('chip', 'corpus'))

    @classmethod
    def options(cls, given: 'Augmentation | dict[str, Any] | None') -> dict[str, Any]:
        """Return plain keyword arguments from an object, a mapping (as a checkpoint holds it) or None.

        Raises:
            ConfigurationError: If the mapping holds an unknown option.
        """
        if isinstance(given, dict):
            check_names('augmentation', given, [field.name for field in dataclasses.fields(cls)])
        return dataclasses.asdict(cls(**given) if isinstance(given, dict) else given or cls())


@dataclass(frozen=True)
class ViewDraws:
    """All random numbers of one call, in the units in which they are used.

    Attributes:
        boxes: Crops (candidate, view, batch, 4): top, left, height, width in pixels of the chip.
        flips: Factor −1 or 1 for x and for y, (view, batch, 2).
        turns: Counter-clockwise quarter turns, 0 to 3, (view, batch).
        sigma: Standard deviation of the blur in pixels of ``blur_unit``, 0 for none, (view, batch).
        gain: Gain of each band (view, batch, band).
        noise_std: Standard deviation of the noise as a fraction of the band's, 0 for none, (view, batch).
        noise: Standard normal numbers (view, batch, band, size, size), or None if no noise is configured.
        dropped: Which bands to replace by their mean, bool, (view, batch, band).
    """

    boxes: Tensor
    flips: Tensor
    turns: Tensor
    sigma: Tensor
    gain: Tensor
    noise_std: Tensor
    noise: Tensor | None
    dropped: Tensor


def gaussian_blur(image: Tensor, sigma: Tensor, valid: Tensor, radius: int) -> Tensor:
    """Blur each sample with its own Gaussian, over valid pixels only.

    Weights of invalid pixels and of those beyond the border are distributed over the others (normalized convolution),
    so nothing bleeds in and nothing darkens.

    Args:
        image: Images (…, band, height, width), finite everywhere.
        sigma: Standard deviation in pixels, (…); 0 leaves a sample unchanged.
        valid: Mask of valid pixels (…, 1, height, width), bool.
        radius: Half width of the kernel in pixels; 3 sigma is enough.

    Returns:
        Images of the same shape; invalid pixels are unchanged.
    """
    bands, height, width = image.shape[-3:]
    offset = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    # a sigma of 0 would divide by zero; such samples are restored below
    kernel = torch.exp(-0.5 * (offset / sigma.reshape(-1, 1).clamp_min(1e-3)).square())
    # tiny weights would be denormal numbers, with which a CPU convolution is several times slower
    kernel = torch.where(kernel > 1e-8, kernel, 0.0)
    kernel = kernel / kernel.sum(dim=-1, keepdim=True)

    def separable(source: Tensor, channels: int) -> Tensor:
        groups = len(kernel) * channels
        weight = kernel.repeat_interleave(channels, dim=0)[:, None, None, :]
        flat = source.reshape(1, groups, height, width)
        flat = F.conv2d(flat, weight, padding=(0, radius), groups=groups)
        flat = F.conv2d(flat, weight.transpose(-1, -2), padding=(radius, 0), groups=groups)
        return flat.reshape(source.shape)

    weights = valid.to(image.dtype)
    blurred = separable(image * weights, bands) / separable(weights, 1).clamp_min(torch.finfo(image.dtype).tiny)
    return torch.where(valid & (sigma > 0)[..., None, None, None], blurred, image)


class MultiView(nn.Module):
    """Random views of one size.

    Each view is a random resized crop, flipped, rotated by quarter turns, blurred, multiplied by gains, with noise
    relative to each band's spread, and optionally with some bands dropped. Hue, grayscale and solarize are left out:
    they have no meaning beyond three bands. For views of several sizes (multi-crop, https://arxiv.org/abs/2006.09882)
    use one module per size.

    Attributes:
        views: Views of each chip.
        augmentation: Differences between views and chips.
    """

    def __init__(self, views: int = 2, **options: Any) -> None:
        """Set the options.

        Args:
            views: Views of each chip.
            **options: Fields of :class:`Augmentation`.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__()
        check_at_least(1, views=views)
        self.views = views
        self.augmentation = Augmentation(**options)

    def forward(self, image: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Cut the views of a batch of chips; arguments are those of :meth:`located_views`.

        Returns:
            Views (view, batch, band, size, size), and the mask of their valid pixels (view, batch, 1, size, size).
        """
        views, view_valid, _ = self.located_views(image, *arguments, **options)
        return views, view_valid

    @torch.no_grad()
    def located_views(
        self,
        image: Tensor,
        valid: Tensor | None = None,
        band_std: Tensor | None = None,
        positive: Tensor | None = None,
        positive_valid: Tensor | None = None,
        band_mean: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, ViewGeometry]:
        """Cut the views of a batch of chips, and locate them.

        Args:
            image: Reflectance (batch, band, height, width), float32, bfloat16 or float16.
            valid: Mask of valid pixels (batch, 1, height, width), bool; None for all. Values of invalid pixels have no
                effect on any view.
            band_std: Standard deviation of each band of the corpus, (band,), to which noise is relative if
                ``noise_reference`` is ``corpus``; None for each chip's own.
            positive: The same places at another date, or neighboring ones, in the shape of ``image``; odd-numbered
                views are cut from it.
            positive_valid: Mask of its valid pixels (batch, 1, height, width), bool; None for all.
            band_mean: Mean of each band, (band,), that replaces dropped bands and invalid pixels; None for each chip's.

        Returns:
            Views (view, batch, band, size, size) in the dtype of ``image``; the mask of their valid pixels
            (view, batch, 1, size, size), bool; the place of each view on the chip that it was cut from. Invalid pixels
            hold no information, but finite values.

        Raises:
            BandError: If ``positive`` has another shape than ``image``.
        """
        if positive is not None and positive.shape != image.shape:
            raise BandError(
                f'Expected a positive of the shape of the image {tuple(image.shape)}, got {tuple(positive.shape)}: '
                'read both with the same bands and chip size.'
            )
        draws = self.draw(image)
        # half precision would place samples pixels away from where they belong
        with torch.autocast(image.device.type, enabled=False):
            if positive is None:
                views, view_valid, mean, std, boxes = self._cut(image, valid, band_mean, draws, slice(None))
            else:
                even = self._cut(image, valid, band_mean, draws, slice(0, None, 2))
                odd = self._cut(positive, positive_valid, band_mean, draws, slice(1, None, 2))
                views, view_valid, mean, std, boxes = (_interleave(*parts) for parts in zip(even, odd, strict=True))
            if band_std is not None and self.augmentation.noise_reference == 'corpus':
                std = band_std.float()
            if self.augmentation.blur > 0:
                views = self._blur(views, view_valid, boxes, draws.sigma, image)
            views = self._alter(views, mean, std, draws)
        geometry = ViewGeometry(boxes, draws.flips, draws.turns, *image.shape[-2:])
        return views.to(image.dtype), view_valid, geometry

    def draw(self, image: Tensor) -> ViewDraws:
        """Draw all random numbers of one call from the global generator of the image's device.

        Args:
            image: Chips (batch, band, height, width); only shape and device matter.

        Returns:
            The numbers.
        """
        batch, bands, height, width = image.shape
        shape, device, size, options = (self.views, batch), image.device, self._side(image), self.augmentation

        def uniform(*dims: int) -> Tensor:
            return torch.rand(*dims, device=device)

        def with_probability(probability: float, interval: tuple[float, float]) -> Tensor:
            amount = uniform_between(uniform(*shape), interval)
            return torch.where(uniform(*shape) < probability, amount, 0.0)

        boxes = random_boxes(uniform(CANDIDATES, *shape, 4), height, width, options.crop_scale, options.crop_ratio)
        flips = torch.where(uniform(*shape, 2) < (0.5 if options.flips else 0.0), -1.0, 1.0)
        turns = (uniform(*shape) * (4 if options.quarter_turns else 1)).long()
        common = uniform_between(uniform(*shape, 1), options.common_gain)
        return ViewDraws(
            boxes=boxes,
            flips=flips,
            turns=turns,
            sigma=with_probability(options.blur, options.blur_sigma),
            gain=common * uniform_between(uniform(*shape, bands), options.band_gain),
            noise_std=with_probability(options.noise, options.noise_std),
            noise=torch.randn(*shape, bands, size, size, device=device) if options.noise > 0 else None,
            dropped=bands_to_drop(uniform(*shape, bands), options.band_dropout),
        )

    def _side(self, image: Tensor) -> int:
        return min(image.shape[-2:]) if self.augmentation.size is None else self.augmentation.size

    def _cut(
        self, image: Tensor, valid: Tensor | None, band_mean: Tensor | None, draws: ViewDraws, which: slice
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Views numbered ``which``, their validity, the mean and std of their chip's bands, and their boxes."""
        height, width = image.shape[-2:]
        if valid is None:
            valid = image.new_ones((), dtype=torch.bool).expand(len(image), 1, height, width)
        image = image.float()
        mean, std = band_statistics(image, valid)
        if band_mean is not None:
            mean = band_mean.float().expand_as(mean)
        # values of invalid pixels (65535, −9999, NaN) must not reach a view, not even with weight 0
        image = torch.where(valid, image, mean[..., None, None])
        boxes = choose_boxes(valid, draws.boxes[:, which], self.augmentation.min_valid)
        grid = crop_grid(boxes, draws.flips[which], draws.turns[which], self._side(image), height, width)
        views, view_valid = sample_views(image, valid, grid)
        return views, view_valid, mean.expand(len(views), -1, -1), std.expand(len(views), -1, -1), boxes

    def _blur(self, views: Tensor, valid: Tensor, boxes: Tensor, sigma: Tensor, image: Tensor) -> Tensor:
        """Blur by ``sigma`` (view, batch) in pixels of ``blur_unit``; the chips give the largest enlargement."""
        options, largest = self.augmentation, 1.0
        if options.blur_unit == 'chip':
            sigma = sigma * self._side(image) / boxes[..., 2:].prod(dim=-1).sqrt()
            largest = self._side(image) / math.sqrt(options.crop_scale[0] * image.shape[-2] * image.shape[-1])
        return gaussian_blur(views, sigma, valid, math.ceil(3 * options.blur_sigma[1] * max(1.0, largest)))

    def _alter(self, views: Tensor, mean: Tensor, std: Tensor, draws: ViewDraws) -> Tensor:
        """Apply gain, noise and dropout."""
        options = self.augmentation
        views = apply_gain(views, draws.gain)
        if draws.noise is not None:
            views = apply_band_noise(views, draws.noise, draws.noise_std[..., None] * std)
        if options.band_dropout > 0:
            views = apply_band_dropout(views, draws.dropped, mean)
        return views.contiguous()


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """Merge tensors (view, …) of even-numbered and of odd-numbered views in order."""
    views = even.new_empty(len(even) + len(odd), *even.shape[1:])
    views[0::2], views[1::2] = even, odd
    return views
