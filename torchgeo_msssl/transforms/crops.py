"""Geometry of random resized crops: boxes, their valid fraction, sampling grids."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchgeo_msssl.transforms.spectral import uniform_between

#: Crops drawn for each view; the first one with enough valid pixels is taken.
CANDIDATES = 8
#: Largest weight of invalid pixels in a valid pixel of a view. The grid is exact to about 1e-5 pixels, so a crop on
#: whole pixels would otherwise lose a ring next to nodata. Invalid pixels hold the band mean, never the nodata value.
MAX_INVALID_WEIGHT = 1e-4


def random_boxes(
    uniform: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Turn uniform numbers into the boxes of random resized crops.

    The area is uniform in ``scale``, the aspect ratio log-uniform in ``ratio``. A box that exceeds the chip is shrunk
    with its ratio kept (torchvision draws it again, which a batch cannot). Boxes need not lie on whole pixels.

    Args:
        uniform: Uniform numbers in [0, 1), (…, 4): area, ratio, row, column.
        height: Height of the chip in pixels.
        width: Width of the chip in pixels.
        scale: Smallest and largest fraction of the chip's area.
        ratio: Smallest and largest width / height.

    Returns:
        Boxes (…, 4): top, left, height, width in pixels.
    """
    area = uniform_between(uniform[..., 0], scale) * (height * width)
    aspect = torch.exp(uniform_between(uniform[..., 1], (math.log(ratio[0]), math.log(ratio[1]))))
    box_height, box_width = torch.sqrt(area / aspect), torch.sqrt(area * aspect)
    fit = torch.minimum(height / box_height, width / box_width).clamp_max(1.0)
    box_height, box_width = (box_height * fit).clamp_max(height), (box_width * fit).clamp_max(width)
    top, left = uniform[..., 2] * (height - box_height), uniform[..., 3] * (width - box_width)
    return torch.stack([top, left, box_height, box_width], dim=-1)


def whole_pixel_boxes(uniform: Tensor, size: tuple[float, float], height: int, width: int) -> Tensor:
    """Turn uniform numbers into boxes on whole pixels, which lie completely inside the image.

    Height and width are drawn independently, and every position is equally probable.

    Args:
        uniform: Uniform numbers in [0, 1), (…, 4): height, width, row, column.
        size: Smallest and largest side of a box, as a fraction of the image's.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Boxes (…, 4): top, left, height, width in pixels, whole numbers of the dtype of ``uniform``.
    """
    fraction = uniform_between(uniform[..., :2], size)
    extent = fraction.new_tensor([height, width])
    side = (fraction * extent).round().clamp_min(1)
    first = (uniform[..., 2:] * (extent - side + 1)).floor()
    return torch.cat([first, side], dim=-1)


def inside_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Mark the pixels inside each box.

    Args:
        boxes: Boxes (…, 4): top, left, height, width in whole pixels.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        Pixels inside, bool, (…, height, width).
    """
    rows, columns = (
        (position >= boxes[..., axis, None]) & (position < (boxes[..., axis] + boxes[..., axis + 2])[..., None])
        for axis, position in enumerate(torch.arange(length, device=boxes.device) for length in (height, width))
    )
    return rows[..., :, None] & columns[..., None, :]


def valid_fraction(valid: Tensor, boxes: Tensor) -> Tensor:
    """Fraction of valid pixels in each box, from an integral image of the mask.

    Args:
        valid: Mask of valid pixels (batch, 1, height, width), bool.
        boxes: Boxes (…, batch, 4): top, left, height, width in pixels; edges are rounded to whole pixels.

    Returns:
        Fractions from 0 to 1, (…, batch).
    """
    batch, _, height, width = valid.shape
    integral = F.pad(valid[:, 0].int().cumsum(-1).cumsum(-2), (1, 0, 1, 0))
    edges = torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1).round().long()
    top, left = edges[..., 0].clamp(0, height - 1), edges[..., 1].clamp(0, width - 1)
    bottom, right = edges[..., 2].clamp(max=height).maximum(top + 1), edges[..., 3].clamp(max=width).maximum(left + 1)
    sample = torch.arange(batch, device=valid.device)
    count = (
        integral[sample, bottom, right]
        - integral[sample, top, right]
        - integral[sample, bottom, left]
        + integral[sample, top, left]
    )
    return count / ((bottom - top) * (right - left))


def choose_boxes(valid: Tensor, boxes: Tensor, min_valid: float) -> Tensor:
    """Choose for each view the first candidate with enough valid pixels, else the one with most.

    Args:
        valid: Mask of valid pixels (batch, 1, height, width), bool.
        boxes: Candidates (candidate, …, batch, 4): top, left, height, width in pixels.
        min_valid: Sufficient fraction of valid pixels.

    Returns:
        Boxes (…, batch, 4).
    """
    fraction = valid_fraction(valid, boxes)
    # any sufficient candidate outranks every fraction, and an earlier one outranks a later one
    rank = torch.arange(len(boxes), 0, -1, device=boxes.device).view(-1, *[1] * (fraction.ndim - 1))
    best = torch.where(fraction >= min_valid, 1.0 + rank, fraction).argmax(dim=0)
    return boxes.gather(0, best[None, ..., None].expand(1, *boxes.shape[1:])).squeeze(0)


def crop_grid(boxes: Tensor, flips: Tensor, turns: Tensor, size: int, height: int, width: int) -> Tensor:
    """Sampling grid of crops that are flipped first and rotated then.

    The affine map is written element by element, because a GPU may round a matrix product to TF32.

    Args:
        boxes: Boxes (…, 4): top, left, height, width in pixels.
        flips: Factor −1 or 1 for x and for y, (…, 2).
        turns: Counter-clockwise quarter turns as in ``torch.rot90``, (…).
        size: Side of the view in pixels.
        height: Height of the chip in pixels.
        width: Width of the chip in pixels.

    Returns:
        Grid (…, size, size, 2) of x, y for ``grid_sample`` with ``align_corners=False``.
    """
    center = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) * 2 + 1) / size - 1
    cosine = boxes.new_tensor([1.0, 0.0, -1.0, 0.0])[turns][..., None, None]
    sine = boxes.new_tensor([0.0, 1.0, 0.0, -1.0])[turns][..., None, None]
    column, row = center[None, :], center[:, None]
    top, left, box_height, box_width = (part[..., None, None] for part in boxes.unbind(-1))
    flip_x, flip_y = (part[..., None, None] for part in flips.unbind(-1))
    x = (2 * left + box_width) / width - 1 + flip_x * box_width / width * (cosine * column - sine * row)
    y = (2 * top + box_height) / height - 1 + flip_y * box_height / height * (sine * column + cosine * row)
    return torch.stack([x, y], dim=-1)


@dataclass(frozen=True)
class ViewGeometry:
    """Place of each view on its chip.

    Attributes:
        boxes: Boxes (view, batch, 4): top, left, height, width in pixels of the chip.
        flips: Factor −1 or 1 for x and for y, (view, batch, 2).
        turns: Counter-clockwise quarter turns, (view, batch).
        height: Height of the chip in pixels.
        width: Width of the chip in pixels.
    """

    boxes: Tensor
    flips: Tensor
    turns: Tensor
    height: int
    width: int

    def cell_centers(self, cells: int) -> Tensor:
        """Locate the cells of a feature map on the chip.

        The cells divide the view evenly, in rows and columns from its top left corner, however it is flipped and
        rotated.

        Args:
            cells: Rows and columns of the feature map.

        Returns:
            Centers (view, batch, cells, cells, 2): x, y in pixels from the top left corner of the chip, whose first
            pixel has its center at 0.5.
        """
        # a view of as many pixels as the map has cells is sampled at the centers of the cells
        grid = crop_grid(self.boxes, self.flips, self.turns, cells, self.height, self.width)
        return (grid + 1) / 2 * grid.new_tensor([self.width, self.height])


def sample_views(image: Tensor, valid: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Sample every view of every chip bilinearly in one call.

    Args:
        image: Chips (batch, band, height, width), finite everywhere.
        valid: Mask of valid pixels (batch, 1, height, width), bool.
        grid: Grid (view, batch, size, size, 2) of x, y in [−1, 1].

    Returns:
        Views (view, batch, band, size, size) and their validity (view, batch, 1, size, size): a pixel is valid if
        all the pixels it was interpolated from are.
    """
    views, batch, size = grid.shape[:3]
    # the views of a chip lie below each other in one tall grid, so that the chips need not be copied
    tall = grid.transpose(0, 1).reshape(batch, views * size, size, 2)

    def sample(source: Tensor) -> Tensor:
        sampled = F.grid_sample(source, tall, mode='bilinear', padding_mode='border', align_corners=False)
        return sampled.reshape(batch, -1, views, size, size).permute(2, 0, 1, 3, 4)

    return sample(image), sample((~valid).to(image.dtype)) <= MAX_INVALID_WEIGHT
