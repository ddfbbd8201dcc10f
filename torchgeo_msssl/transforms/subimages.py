"""Sub-images that are cut from chips, and the masks of the places that they are from."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchgeo_msssl.transforms.crops import CANDIDATES, choose_boxes, inside_boxes, whole_pixel_boxes
from torchgeo_msssl.transforms.spectral import apply_gain, uniform_between
from torchgeo_msssl.transforms.symmetries import apply_symmetries, random_symmetries
from torchgeo_msssl.validation import check_interval, check_probability


@dataclass(frozen=True)
class Subimage:
    """One sub-image of each chip of a batch.

    Attributes:
        image: Reflectance (batch, band, side, side), the sub-image in one corner of a square canvas.
        valid: Its valid pixels (batch, 1, side, side), bool; False in the rest of the canvas.
        overlap: Pixels of the chip that are in the sub-image (batch, height, width), bool.
    """

    image: Tensor
    valid: Tensor
    overlap: Tensor


def cut_boxes(image: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Cut a box out of each image, without interpolation.

    Args:
        image: Images or masks (batch, channel, height, width) of any dtype.
        boxes: Boxes (batch, 4): top, left, height, width in whole pixels.
        side: Side of the canvas in pixels, at least that of the largest box.

    Returns:
        The boxes in the upper left corners of canvases (batch, channel, side, side), whose other pixels are 0.
    """
    height, width = image.shape[-2:]
    top, left, *_ = boxes.long().unbind(-1)
    offset = torch.arange(side, device=image.device)
    # pixels beyond the image are outside the box, and removed below
    rows = (top[:, None] + offset).clamp_max(height - 1)[:, None, :, None]
    columns = (left[:, None] + offset).clamp_max(width - 1)[:, None, None, :]
    sample = torch.arange(len(image), device=image.device)[:, None, None, None]
    channel = torch.arange(image.shape[1], device=image.device)[None, :, None, None]
    canvas = image[sample, channel, rows, columns]
    corner = torch.cat([torch.zeros_like(boxes[:, :2]), boxes[:, 2:]], dim=-1)
    return canvas * inside_boxes(corner, side, side)[:, None]


class RandomSubimage(nn.Module):
    """Cut one sub-image of random size and place out of each chip, at the resolution of the chip.

    So that pixels cannot be compared one by one, the sub-image is flipped, rotated by quarter turns and multiplied by
    gains. None of these interpolates: the ground sampling distance stays, and the mask of its place is exact.
    """

    def __init__(
        self,
        size: tuple[float, float] = (0.25, 0.5),
        flips: bool = True,
        quarter_turns: bool = True,
        common_gain: tuple[float, float] = (0.9, 1.1),
        band_gain: tuple[float, float] = (0.95, 1.05),
        min_valid: float = 0.5,
    ) -> None:
        """Set the options.

        Args:
            size: Smallest and largest side of a sub-image, as a fraction of the chip's.
            flips: Whether to flip sub-images at random.
            quarter_turns: Whether to rotate sub-images by quarter turns at random.
            common_gain: Smallest and largest gain common to all bands.
            band_gain: Smallest and largest gain of one band.
            min_valid: Minimum fraction of valid pixels, below which a sub-image is drawn again.

        Raises:
            ConfigurationError: If an option is out of its range.
        """
        super().__init__()
        self.size = check_interval('subimage_size', size, 0, 1, above=True)
        self.flips = flips
        self.quarter_turns = quarter_turns
        self.common_gain = check_interval('common_gain', common_gain, 0, above=True)
        self.band_gain = check_interval('band_gain', band_gain, 0, above=True)
        self.min_valid = check_probability('min_valid', min_valid)

    @torch.no_grad()
    def forward(self, image: Tensor, valid: Tensor) -> Subimage:
        """Cut the sub-images of a batch.

        Args:
            image: Reflectance (batch, band, height, width).
            valid: Mask of valid pixels (batch, 1, height, width), bool.

        Returns:
            The sub-images.
        """
        batch, bands, height, width = image.shape
        device = image.device
        uniform = torch.rand(CANDIDATES, batch, 4, device=device)
        common = uniform_between(torch.rand(batch, 1, device=device), self.common_gain)
        gain = common * uniform_between(torch.rand(batch, bands, device=device), self.band_gain)
        symmetries = random_symmetries(batch, True, self.flips, self.quarter_turns, device)
        boxes = choose_boxes(valid, whole_pixel_boxes(uniform, self.size, height, width), self.min_valid)
        side = math.ceil(self.size[1] * max(height, width))
        return Subimage(
            apply_symmetries(apply_gain(cut_boxes(image, boxes, side), gain), symmetries),
            apply_symmetries(cut_boxes(valid, boxes, side), symmetries),
            inside_boxes(boxes, height, width),
        )
