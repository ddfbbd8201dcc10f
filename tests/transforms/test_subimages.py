"""Sub-images and the masks of their places, against brute force."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.transforms.crops import inside_boxes, whole_pixel_boxes
from torchgeo_msssl.transforms.subimages import RandomSubimage, cut_boxes

PLAIN: dict[str, Any] = {'common_gain': (1.0, 1.0), 'band_gain': (1.0, 1.0)}


def numbered(batch: int = 6, bands: int = 2, height: int = 24, width: int = 20) -> tuple[Tensor, Tensor]:
    """Images in which every value occurs once, and their valid pixels."""
    count = batch * bands * height * width
    image = torch.arange(1, count + 1, dtype=torch.float64).reshape(batch, bands, height, width)
    return image, torch.ones(batch, 1, height, width, dtype=torch.bool)


def test_boxes_are_cut_as_by_slices() -> None:
    image, _ = numbered(40)
    boxes = whole_pixel_boxes(torch.rand(40, 4, generator=torch.Generator().manual_seed(0)), (0.1, 0.9), 24, 20)
    canvas, inside = cut_boxes(image, boxes, 24), inside_boxes(boxes, 24, 20)
    for sample, (top, left, height, width) in enumerate(boxes.int().tolist()):
        expected = torch.zeros(2, 24, 24, dtype=torch.float64)
        expected[:, :height, :width] = image[sample, :, top : top + height, left : left + width]
        assert torch.equal(canvas[sample], expected)
        mask = torch.zeros(24, 20, dtype=torch.bool)
        mask[top : top + height, left : left + width] = True
        assert torch.equal(inside[sample], mask)


@pytest.mark.parametrize(('flips', 'quarter_turns'), product([False, True], repeat=2))
def test_the_mask_marks_the_pixels_of_the_sub_image(flips: bool, quarter_turns: bool) -> None:
    image, valid = numbered(30)
    torch.manual_seed(0)
    part = RandomSubimage(flips=flips, quarter_turns=quarter_turns, **PLAIN)(image, valid)
    assert part.image.shape == (30, 2, 12, 12)
    ways = set()
    for sample in range(30):
        inside = torch.isin(image[sample], part.image[sample][part.valid[sample].expand(2, -1, -1)])
        assert torch.equal(inside[0], part.overlap[sample])
        assert torch.equal(inside[1], part.overlap[sample])
        rows, columns = (part.overlap[sample].any(dim=axis).sum() for axis in (1, 0))
        cut = image[sample, 0][part.overlap[sample]].reshape(rows, columns).numpy()
        kept = part.valid[sample, 0]
        shown = part.image[sample, 0][kept].reshape(kept.any(dim=1).sum(), kept.any(dim=0).sum()).numpy()
        found = [
            (turns, flip)
            for turns, flip in product(range(4), (False, True))
            if np.array_equal(np.rot90(np.fliplr(cut) if flip else cut, turns), shown)
        ]
        assert len(found) == 1  # the sub-image is one symmetry of the rectangle, pixel for pixel
        ways.add(found[0])
    expected = {(turns, flip) for turns in range(4) for flip in (False, True)}
    assert ways <= expected
    assert len(ways) == {(0, 0): 1, (1, 0): 4, (0, 1): 4, (1, 1): 8}[flips, quarter_turns]


def test_gains_are_of_the_sub_image_and_in_their_range() -> None:
    image, valid = torch.full((200, 3, 16, 16), 2.0), torch.ones(200, 1, 16, 16, dtype=torch.bool)
    torch.manual_seed(0)
    part = RandomSubimage(size=(0.5, 0.5), common_gain=(0.5, 1.5), band_gain=(0.9, 1.1))(image, valid)
    gain = part.image / 2
    assert torch.equal(gain, gain[..., :1, :1].expand_as(gain))
    assert gain.min() > 0.45
    assert gain.max() < 1.65
    band = gain[:, :, 0, 0]
    assert (band.amax(dim=1) / band.amin(dim=1)).max() < 1.1 / 0.9
    assert band.amin() < 0.6
    assert band.amax() > 1.4


def test_sizes_and_places_are_uniform() -> None:
    image, valid = torch.ones(2000, 1, 32, 32), torch.ones(2000, 1, 32, 32, dtype=torch.bool)
    torch.manual_seed(0)
    overlap = RandomSubimage(size=(0.25, 0.5))(image, valid).overlap
    sides = torch.stack([overlap.any(dim=axis).sum(dim=-1) for axis in (1, 2)])
    assert (sides.min(), sides.max()) == (8, 16)
    assert sides.float().mean().item() == pytest.approx(12, abs=0.2)
    assert abs(torch.corrcoef(sides.float())[0, 1].item()) < 0.1
    rows = overlap.any(dim=2)
    first, last = rows.float().argmax(dim=1), 31 - rows.flip(1).float().argmax(dim=1)
    assert (first == 0).any()
    assert (last == 31).any()
    assert (first + 31 - last).float().mean().item() == pytest.approx(20, abs=0.2)


def test_nodata_is_avoided_and_masked() -> None:
    image, valid = numbered(50)
    valid[..., :12, :] = False
    torch.manual_seed(0)
    part = RandomSubimage(min_valid=0.9, **PLAIN)(image, valid)
    for sample in range(50):
        assert (valid[sample, 0] & part.overlap[sample]).sum() == part.valid[sample].sum()
        kept = part.image[sample][part.valid[sample].expand(2, -1, -1)]
        assert torch.isin(kept, image[sample][valid[sample].expand(2, -1, -1)]).all()
    shares = part.valid.sum(dim=(1, 2, 3)) / part.overlap.sum(dim=(1, 2))
    assert (shares >= 0.9).float().mean() > 0.9
    nothing = RandomSubimage()(image, torch.zeros_like(valid))
    assert not nothing.valid.any()


def test_the_canvas_holds_the_largest_sub_image() -> None:
    for side, size in ((33, 0.5), (50, 0.33), (10, 0.05), (7, 1.0)):
        image, valid = torch.ones(200, 1, side, side), torch.ones(200, 1, side, side, dtype=torch.bool)
        part = RandomSubimage(size=(size, size), **PLAIN)(image, valid)
        assert part.image.shape[-1] == max(1, math.ceil(size * side))
        assert torch.equal(part.overlap.sum(dim=(1, 2)), part.valid.sum(dim=(1, 2, 3)))


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'size': (0.0, 0.5)}, 'subimage_size'),
        ({'size': (0.5, 0.25)}, 'subimage_size'),
        ({'size': (0.5, 1.5)}, 'subimage_size'),
        ({'common_gain': (0.0, 1.0)}, 'common_gain'),
        ({'band_gain': (1.2, 0.8)}, 'band_gain'),
        ({'min_valid': 1.5}, 'min_valid'),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        RandomSubimage(**options)
