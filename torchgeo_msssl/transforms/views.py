"""Several random views of each chip, cut in one batched call on the device.

Geometry (random resized crop, flips, quarter turns) is one sampling grid; validity is sampled with the same grid.
The random numbers of a call are drawn in one place, :meth:`MultiView.draw`, from the global generator of the device:
seed it (``torch.manual_seed``) before a call to get the same views again. Everything else is arithmetic in free
functions.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.transforms.spectral import (
    apply_band_dropout,
    apply_band_noise,
    apply_gain,
    band_statistics,
    bands_to_drop,
    check_interval,
    check_probability,
    uniform_between,
)

#: Crops drawn for each view; the first with enough valid pixels is taken.
CANDIDATES = 8
#: Share of a view's pixel that may come from invalid pixels. The grid is exact to about 1e-5 pixels, so a crop on whole
#: pixels would otherwise lose a ring next to nodata. What this lets in is the band mean, never the nodata value.
INVALID_SHARE = 1e-4


@dataclass(frozen=True)
class ViewDraws:
    """All random numbers of one call, already in the units in which they are used.

    Attributes:
        boxes: Crops (candidate, view, batch, 4): top, left, height, width in pixels of the chip.
        flips: Factor −1 or 1 for x and for y, (view, batch, 2).
        turns: Counter-clockwise quarter turns, 0 to 3, (view, batch).
        sigma: Standard deviation of the blur in pixels of the view, 0 for none, (view, batch).
        gain: Gain of each band (view, batch, band).
        noise_std: Standard deviation of the noise as a fraction of the band's, 0 for none, (view, batch).
        noise: Standard normal numbers (view, batch, band, size, size), or None where no noise is configured.
        dropped: Which bands become their mean, bool, (view, batch, band).
    """

    boxes: Tensor
    flips: Tensor
    turns: Tensor
    sigma: Tensor
    gain: Tensor
    noise_std: Tensor
    noise: Tensor | None
    dropped: Tensor


def random_boxes(
    uniform: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Turn uniform numbers into crops as in a random resized crop.

    The area is uniform in ``scale``, the ratio of width to height log-uniform in ``ratio``. A crop that sticks out of
    the chip is shrunk with its ratio kept (torchvision draws it again, which a batch cannot). Crops need not lie on
    whole pixels.

    Args:
        uniform: Uniform numbers in [0, 1), (…, 4): area, ratio, row, column.
        height: Height of the chip in pixels.
        width: Width of the chip in pixels.
        scale: Smallest and largest share of the chip's area.
        ratio: Smallest and largest width / height.

    Returns:
        Crops (…, 4): top, left, height, width in pixels.
    """
    area = uniform_between(uniform[..., 0], scale) * (height * width)
    aspect = torch.exp(uniform_between(uniform[..., 1], (math.log(ratio[0]), math.log(ratio[1]))))
    box_height, box_width = torch.sqrt(area / aspect), torch.sqrt(area * aspect)
    fit = torch.minimum(height / box_height, width / box_width).clamp_max(1.0)
    box_height, box_width = (box_height * fit).clamp_max(height), (box_width * fit).clamp_max(width)
    top, left = uniform[..., 2] * (height - box_height), uniform[..., 3] * (width - box_width)
    return torch.stack([top, left, box_height, box_width], dim=-1)


def valid_fraction(valid: Tensor, boxes: Tensor) -> Tensor:
    """Share of valid pixels in each crop, from an integral image of the mask.

    Args:
        valid: Mask of valid pixels (batch, 1, height, width), bool.
        boxes: Crops (…, batch, 4): top, left, height, width in pixels; ends are rounded to whole pixels.

    Returns:
        Shares from 0 to 1, (…, batch).
    """
    batch, _, height, width = valid.shape
    integral = F.pad(valid[:, 0].int().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    ends = torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1).round().long()
    top, left = ends[..., 0].clamp(0, height - 1), ends[..., 1].clamp(0, width - 1)
    bottom, right = ends[..., 2].clamp(max=height).maximum(top + 1), ends[..., 3].clamp(max=width).maximum(left + 1)
    sample = torch.arange(batch, device=valid.device)
    count = (
        integral[sample, bottom, right]
        - integral[sample, top, right]
        - integral[sample, bottom, left]
        + integral[sample, top, left]
    )
    return count / ((bottom - top) * (right - left))


def choose_boxes(valid: Tensor, boxes: Tensor, min_valid: float) -> Tensor:
    """Take for each view the first candidate with enough valid pixels, else the one with most.

    Args:
        valid: Mask of valid pixels (batch, 1, height, width), bool.
        boxes: Candidates (candidate, …, batch, 4): top, left, height, width in pixels.
        min_valid: Share of valid pixels that is enough.

    Returns:
        Crops (…, batch, 4).
    """
    fraction = valid_fraction(valid, boxes)
    # any good candidate outranks every share, and an earlier one outranks a later one
    rank = torch.arange(len(boxes), 0, -1, device=boxes.device).view(-1, *[1] * (fraction.ndim - 1))
    best = torch.where(fraction >= min_valid, 1.0 + rank, fraction).argmax(dim=0)
    return boxes.gather(0, best[None, ..., None].expand(1, *boxes.shape[1:])).squeeze(0)


def crop_grid(boxes: Tensor, flips: Tensor, turns: Tensor, size: int, height: int, width: int) -> Tensor:
    """Sampling grid of crops that are flipped first and then turned.

    The affine map is written out, element by element, because a matrix product may be rounded to TF32 on a GPU.

    Args:
        boxes: Crops (…, 4): top, left, height, width in pixels.
        flips: Factor −1 or 1 for x and for y, (…, 2).
        turns: Counter-clockwise quarter turns as in ``torch.rot90``, (…).
        size: Side of the view in pixels.
        height: Height of the chip in pixels.
        width: Width of the chip in pixels.

    Returns:
        Grid (…, size, size, 2) of x, y for ``grid_sample`` with ``align_corners=False``.
    """
    centre = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) * 2 + 1) / size - 1
    cosine = boxes.new_tensor([1.0, 0.0, -1.0, 0.0])[turns][..., None, None]
    sine = boxes.new_tensor([0.0, 1.0, 0.0, -1.0])[turns][..., None, None]
    column, row = centre[None, :], centre[:, None]
    top, left, box_height, box_width = (part[..., None, None] for part in boxes.unbind(-1))
    flip_x, flip_y = (part[..., None, None] for part in flips.unbind(-1))
    x = (2 * left + box_width) / width - 1 + flip_x * box_width / width * (cosine * column - sine * row)
    y = (2 * top + box_height) / height - 1 + flip_y * box_height / height * (sine * column + cosine * row)
    return torch.stack([x, y], dim=-1)


def sample_views(image: Tensor, valid: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Sample every view of every chip bilinearly in one call.

    Args:
        image: Chips (batch, band, height, width), finite everywhere.
        valid: Mask of valid pixels (batch, 1, height, width), bool.
        grid: Grid (view, batch, size, size, 2) of x, y in [−1, 1].

    Returns:
        Views (view, batch, band, size, size) and their validity (view, batch, 1, size, size): a pixel is valid where
        all the pixels it was interpolated from are.
    """
    views, batch, size = grid.shape[:3]
    # the views of a chip lie below each other in one tall grid, so that the chips need not be copied
    tall = grid.transpose(0, 1).reshape(batch, views * size, size, 2)

    def sample(source: Tensor) -> Tensor:
        sampled = F.grid_sample(source, tall, mode='bilinear', padding_mode='border', align_corners=False)
        return sampled.reshape(batch, -1, views, size, size).permute(2, 0, 1, 3, 4)

    return sample(image), sample((~valid).to(image.dtype)) <= INVALID_SHARE


def gaussian_blur(image: Tensor, sigma: Tensor, valid: Tensor, radius: int) -> Tensor:
    """Blur each sample with a Gaussian of its own, over valid pixels only.

    Weights of invalid pixels, and of those beyond the border, are shared out among the others (normalised
    convolution), so nothing bleeds in and nothing darkens.

    Args:
        image: Images (…, band, height, width), finite everywhere.
        sigma: Standard deviation in pixels, (…); 0 leaves a sample as it is.
        valid: Mask of valid pixels (…, 1, height, width), bool.
        radius: Pixels on each side that the kernel reaches; 3 sigma is enough.

    Returns:
        Images of the same shape; invalid pixels are unchanged.
    """
    bands, height, width = image.shape[-3:]
    offset = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    # a sigma of 0 would divide by zero; such samples are put back below
    kernel = torch.exp(-0.5 * (offset / sigma.reshape(-1, 1).clamp_min(1e-3)).square())
    # weights that round away anyway would be denormal numbers, with which a CPU convolution is several times slower
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
    """Random views of multispectral chips, on the device and in one batched call.

    Each view is a random resized crop, flipped, turned by quarters, blurred, multiplied with gains, given noise
    relative to each band's spread, and perhaps robbed of some bands. There is no hue, grey or solarise: they make no
    sense beyond three bands.

    Views that are smaller than their crop are sampled without a low-pass filter: choose ``size`` near the chip's.
    """

    def __init__(
        self,
        views: int = 2,
        size: int | None = None,
        crop_scale: tuple[float, float] = (0.2, 1.0),
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flips: bool = True,
        quarter_turns: bool = True,
        blur: float = 0.5,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        noise: float = 0.5,
        noise_std: tuple[float, float] = (0.02, 0.1),
        common_gain: tuple[float, float] = (0.8, 1.2),
        band_gain: tuple[float, float] = (0.9, 1.1),
        band_dropout: float = 0.0,
        min_valid: float = 0.5,
    ) -> None:
        """Set what views are made of.

        Args:
            views: Views of each chip.
            size: Side of a view in pixels; None takes the chip's shorter side.
            crop_scale: Smallest and largest share of the chip's area in a crop.
            crop_ratio: Smallest and largest width / height of a crop.
            flips: Whether views are flipped, half of them in x and half in y.
            quarter_turns: Whether views are turned by a random multiple of 90°.
            blur: Probability of a Gaussian blur.
            blur_sigma: Smallest and largest standard deviation of the blur, in pixels of the view.
            noise: Probability of noise.
            noise_std: Smallest and largest standard deviation of the noise, as a fraction of the band's.
            common_gain: Smallest and largest gain common to all bands.
            band_gain: Smallest and largest gain of one band.
            band_dropout: Probability of each band to become its mean; never all of them do.
            min_valid: Share of valid pixels below which a crop is drawn again.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__()
        if views < 2:
            raise ConfigurationError(f'views must be 2 or more, got {views}: a view is compared with another one.')
        if size is not None and size < 1:
            raise ConfigurationError(f"size must be 1 pixel or more, or None for the chip's, got {size}.")
        if crop_scale[0] <= 0 or crop_ratio[0] <= 0:
            raise ConfigurationError(f'crop_scale and crop_ratio must be above 0, got {crop_scale} and {crop_ratio}.')
        self.views = views
        self.size = size
        self.crop_scale = check_interval('crop_scale', crop_scale, 0, 1)
        self.crop_ratio = check_interval('crop_ratio', crop_ratio, 0)
        self.flips = flips
        self.quarter_turns = quarter_turns
        self.blur = check_probability('blur', blur)
        self.blur_sigma = check_interval('blur_sigma', blur_sigma, 0)
        self.noise = check_probability('noise', noise)
        self.noise_std = check_interval('noise_std', noise_std, 0)
        self.common_gain = check_interval('common_gain', common_gain, 0)
        self.band_gain = check_interval('band_gain', band_gain, 0)
        self.band_dropout = check_probability('band_dropout', band_dropout, below_one=True)
        self.min_valid = check_probability('min_valid', min_valid)

    @torch.no_grad()
    def forward(
        self,
        image: Tensor,
        valid: Tensor | None = None,
        band_std: Tensor | None = None,
        positive: Tensor | None = None,
        positive_valid: Tensor | None = None,
        band_mean: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Cut the views of a batch of chips.

        Args:
            image: Reflectance (batch, band, height, width), float32, bfloat16 or float16.
            valid: Mask of valid pixels (batch, 1, height, width), bool; None means all. Values of invalid pixels
                have no effect on any view.
            band_std: Standard deviation of each band, (band,), to which noise is relative; None takes each chip's own.
            positive: The same places at another date, or neighbouring ones, shape of ``image``. Views with an odd
                number are then cut from it.
            positive_valid: Mask of its valid pixels (batch, 1, height, width), bool; None means all.
            band_mean: Mean of each band, (band,), which dropped bands and invalid pixels take; None takes each chip's.

        Returns:
            Views (view, batch, band, size, size) in the dtype of ``image``, and the mask of their valid pixels
            (view, batch, 1, size, size), bool. Invalid pixels hold no information, but finite values.

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
                views, view_valid, mean, std = self._cut(image, valid, band_mean, draws, slice(None))
            else:
                even = self._cut(image, valid, band_mean, draws, slice(0, None, 2))
                odd = self._cut(positive, positive_valid, band_mean, draws, slice(1, None, 2))
                views, view_valid, mean, std = (_interleave(*parts) for parts in zip(even, odd, strict=True))
            views = self._alter(views, view_valid, mean, std if band_std is None else band_std.float(), draws)
        return views.to(image.dtype), view_valid

    def draw(self, image: Tensor) -> ViewDraws:
        """Draw all random numbers of one call from the global generator of the image's device.

        Args:
            image: Chips (batch, band, height, width); only shape and device matter.

        Returns:
            The numbers.
        """
        batch, bands, height, width = image.shape
        shape, device, size = (self.views, batch), image.device, self._side(image)

        def uniform(*dims: int) -> Tensor:
            return torch.rand(*dims, device=device)

        def at_times(probability: float, interval: tuple[float, float]) -> Tensor:
            amount = uniform_between(uniform(*shape), interval)
            return torch.where(uniform(*shape) < probability, amount, 0.0)

        boxes = random_boxes(uniform(CANDIDATES, *shape, 4), height, width, self.crop_scale, self.crop_ratio)
        flips = torch.where(uniform(*shape, 2) < (0.5 if self.flips else 0.0), -1.0, 1.0)
        turns = (uniform(*shape) * (4 if self.quarter_turns else 1)).long()
        common = uniform_between(uniform(*shape, 1), self.common_gain)
        return ViewDraws(
            boxes=boxes,
            flips=flips,
            turns=turns,
            sigma=at_times(self.blur, self.blur_sigma),
            gain=common * uniform_between(uniform(*shape, bands), self.band_gain),
            noise_std=at_times(self.noise, self.noise_std),
            noise=torch.randn(*shape, bands, size, size, device=device) if self.noise > 0 else None,
            dropped=bands_to_drop(uniform(*shape, bands), self.band_dropout),
        )

    def _side(self, image: Tensor) -> int:
        return min(image.shape[-2:]) if self.size is None else self.size

    def _cut(
        self, image: Tensor, valid: Tensor | None, band_mean: Tensor | None, draws: ViewDraws, which: slice
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Views numbered ``which``, their validity, and the mean and std of their chip's bands."""
        height, width = image.shape[-2:]
        if valid is None:
            valid = image.new_ones((), dtype=torch.bool).expand(len(image), 1, height, width)
        image = image.float()
        mean, std = band_statistics(image, valid)
        if band_mean is not None:
            mean = band_mean.float().expand_as(mean)
        # whatever invalid pixels hold (65535, −9999, NaN) must not reach a view, not even with weight 0
        image = torch.where(valid, image, mean[..., None, None])
        boxes = choose_boxes(valid, draws.boxes[:, which], self.min_valid)
        grid = crop_grid(boxes, draws.flips[which], draws.turns[which], self._side(image), height, width)
        views, view_valid = sample_views(image, valid, grid)
        return views, view_valid, mean.expand(len(views), -1, -1), std.expand(len(views), -1, -1)

    def _alter(self, views: Tensor, valid: Tensor, mean: Tensor, std: Tensor, draws: ViewDraws) -> Tensor:
        """Blur, gain, noise and dropout."""
        if self.blur > 0:
            views = gaussian_blur(views, draws.sigma, valid, math.ceil(3 * self.blur_sigma[1]))
        views = apply_gain(views, draws.gain)
        if draws.noise is not None:
            views = apply_band_noise(views, draws.noise, draws.noise_std[..., None] * std)
        if self.band_dropout > 0:
            views = apply_band_dropout(views, draws.dropped, mean)
        return views.contiguous()


def _interleave(even: Tensor, odd: Tensor) -> Tensor:
    """Put tensors (view, …) of even and of odd numbered views in order."""
    views = even.new_empty(len(even) + len(odd), *even.shape[1:])
    views[0::2], views[1::2] = even, odd
    return views
