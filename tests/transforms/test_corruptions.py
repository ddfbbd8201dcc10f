"""Corruptions against transcriptions and other libraries: what they change, by how much, and what they never touch."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.transforms.corruptions import (
    CoarseCutout,
    Crappify,
    OneOf,
    PatchMask,
    create_corruption,
    rectangles,
    spread_patches,
)

EVERY: list[Callable[[], nn.Module]] = [CoarseCutout, PatchMask, Crappify, lambda: OneOf([PatchMask(), Crappify()])]


def draw(batch: int = 4, bands: int = 5, height: int = 32, width: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An image without zeros, and its valid pixels: a corner lacks."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, bands, height, width, generator=generator) + 0.5
    valid = torch.ones(batch, 1, height, width, dtype=torch.bool)
    valid[:, :, :9, :13] = False
    return image, valid


@pytest.mark.parametrize('make', EVERY)
@pytest.mark.parametrize('bands', [1, 5, 12])
def test_what_is_not_marked_is_not_touched(make: Callable[[], nn.Module], bands: int) -> None:
    image, valid = draw(bands=bands)
    torch.manual_seed(1)
    corrupted, changed = make()(image, valid)
    assert corrupted.shape == image.shape
    assert changed.shape == valid.shape
    assert changed.dtype == torch.bool
    assert not (changed & ~valid).any()
    assert changed.flatten(1).any(dim=1).all()
    same = (corrupted == image).all(dim=1, keepdim=True)
    assert torch.equal(same, ~changed)


@pytest.mark.parametrize('make', EVERY)
def test_the_seed_decides(make: Callable[[], nn.Module]) -> None:
    image, valid = draw()

    def corrupt(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return make()(image, valid)[0]

    assert torch.equal(corrupt(3), corrupt(3))
    assert not torch.equal(corrupt(3), corrupt(4))


@pytest.mark.parametrize('make', EVERY)
def test_values_without_data_reach_nothing(make: Callable[[], nn.Module]) -> None:
    image, valid = draw()
    results = []
    for value in (0.0, 1e4):
        torch.manual_seed(2)
        corrupted, _ = make()(torch.where(valid, image, value), valid)
        assert (corrupted[~valid.expand_as(corrupted)] == value).all()
        results.append(torch.where(valid, corrupted, 0.0))
    torch.testing.assert_close(*results, rtol=0, atol=0)


# Rectangles.


def test_rectangles_are_those_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform, count = torch.rand(6, 3, 4, generator=generator), torch.tensor([0, 1, 2, 3, 3, 1])
    found = rectangles(uniform, count, (0.1, 0.6), 20, 30)
    expected = np.zeros((6, 1, 20, 30), dtype=bool)
    for sample in range(6):
        for number in range(int(count[sample])):
            high, wide, down, right = uniform[sample, number].tolist()
            height, width = round((0.1 + 0.5 * high) * 20), round((0.1 + 0.5 * wide) * 30)
            top, left = int(down * (20 - height + 1)), int(right * (30 - width + 1))
            expected[sample, 0, top : top + height, left : left + width] = True
    assert (found.numpy() == expected).all()


def test_a_rectangle_has_the_size_that_was_asked_for() -> None:
    image = torch.ones(50, 3, 32, 40)
    torch.manual_seed(0)
    corrupted, hidden = CoarseCutout((1, 1), (0.5, 0.5))(image, torch.ones(50, 1, 32, 40, dtype=torch.bool))
    assert (hidden.sum(dim=(1, 2, 3)) == 16 * 20).all()
    assert (corrupted[hidden.expand_as(corrupted)] == 0).all()
    # each stands somewhere else, and they reach every edge
    assert len({tuple(one.nonzero()[0].tolist()) for one in hidden}) > 30
    assert hidden[..., 0, :].any()
    assert hidden[..., -1, :].any()
    assert hidden[..., 0].any()
    assert hidden[..., -1].any()


def test_the_number_of_rectangles_is_uniform() -> None:
    torch.manual_seed(0)
    image = torch.ones(3000, 1, 64, 64)
    # so small that two hardly ever meet
    _, hidden = CoarseCutout((1, 3), (0.01, 0.015))(image, torch.ones_like(image, dtype=torch.bool))
    share = torch.bincount(hidden.sum(dim=(1, 2, 3)), minlength=4)[1:4] / 3000
    assert share.tolist() == pytest.approx([1 / 3] * 3, abs=0.03)


# Patches.


@pytest.mark.parametrize(('height', 'width', 'side', 'ratio'), [(32, 48, 8, 0.6), (30, 44, 8, 0.75), (64, 64, 16, 0.1)])
def test_as_many_patches_are_hidden_as_in_simmim(height: int, width: int, side: int, ratio: float) -> None:
    image = torch.ones(5, 2, height, width)
    torch.manual_seed(0)
    _, hidden = PatchMask(side, ratio)(image, torch.ones(5, 1, height, width, dtype=torch.bool))
    rows, cols = math.ceil(height / side), math.ceil(width / side)
    seen = set()
    for one in hidden[:, 0]:
        chosen = [
            bool(block.all())
            for strip in one.split(side, dim=0)
            for block in strip.split(side, dim=1)
            if block.all() or not block.any()
        ]
        assert len(chosen) == rows * cols  # whole patches only
        assert sum(chosen) == int(np.ceil(rows * cols * ratio))  # MaskGenerator of the authors' code
        seen.add(tuple(chosen))
    assert len(seen) > 1


def test_a_product_that_is_a_hair_too_large_is_not_rounded_up() -> None:
    assert 0.14 * 50 > 7
    _, hidden = PatchMask(1, 0.14)(torch.ones(1, 1, 5, 10), torch.ones(1, 1, 5, 10, dtype=torch.bool))
    assert hidden.sum() == 7


def test_patches_of_two_sides() -> None:
    chosen = torch.tensor([[True, False, False, False, False, True]])
    pixels = spread_patches(chosen, (2, 3), 4, 9)[0, 0]
    assert torch.equal(pixels, torch.kron(chosen.reshape(2, 3).int(), torch.ones(2, 3, dtype=torch.int)).bool())


# Noise and detail.


@pytest.mark.parametrize('noise', [0.1, 0.5])
def test_noise_has_the_std_that_was_asked_for(noise: float) -> None:
    """Within 5 %, on an image that is constant, in every band."""
    image = torch.full((4, 5, 64, 64), 0.7)
    torch.manual_seed(0)
    corrupted, _ = Crappify(noise, factor=1)(image, torch.ones(4, 1, 64, 64, dtype=torch.bool))
    std = (corrupted - image).transpose(0, 1).flatten(1).std(dim=1)
    assert std.tolist() == pytest.approx([noise] * 5, rel=0.05)


@pytest.mark.parametrize(('factor', 'side'), [(4.0, 2.0), (16.0, 4.0), (9.0, 3.0)])
def test_a_factor_of_four_halves_each_side_and_back(factor: float, side: float) -> None:
    """Pillow's bilinear filter has the same low-pass."""
    image, _ = draw(1, 1, 48, 36)
    corrupted, _ = Crappify(noise=0.0, factor=factor)(image, torch.ones(1, 1, 48, 36, dtype=torch.bool))
    picture = Image.fromarray(image[0, 0].numpy())
    small = picture.resize((round(36 / side), round(48 / side)), Image.Resampling.BILINEAR)
    expected = np.asarray(small.resize((36, 48), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(corrupted[0, 0].numpy(), expected, atol=1e-6)


def test_a_constant_stays_constant_beside_nodata() -> None:
    _, valid = draw()
    image = torch.full((4, 5, 32, 40), 0.7)
    corrupted, _ = Crappify(noise=0.0, factor=16.0)(torch.where(valid, image, 0.0), valid)
    torch.testing.assert_close(torch.where(valid, corrupted, 0.7), image)


# Several.


def test_each_sample_gets_one_of_several() -> None:
    image, valid = draw(batch=2000, bands=1, height=8, width=8)
    valid = torch.ones_like(valid)

    class Add(nn.Module):
        def __init__(self, number: float) -> None:
            super().__init__()
            self.number = number

        def forward(self, image: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
            return image + self.number, valid & (image > self.number / 10)

    torch.manual_seed(0)
    corrupted, changed = OneOf([Add(1), Add(2), Add(4)])(image, valid)
    added = (corrupted - image).flatten(1)
    which = added[:, 0].round()
    torch.testing.assert_close(added, which[:, None].expand_as(added))
    assert torch.equal(changed, image > which[:, None, None, None] / 10)
    shares = [(which == number).float().mean().item() for number in (1, 2, 4)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.04)


def test_corruptions_by_name() -> None:
    assert isinstance(create_corruption('patch_mask', patch_size=4), PatchMask)
    several = create_corruption(['coarse_cutout', 'crappify'], noise=0.3)
    assert isinstance(several, OneOf)
    assert [type(one) for one in several.corruptions] == [CoarseCutout, Crappify]
    assert several.corruptions[1].noise == 0.3


@pytest.mark.parametrize(
    ('names', 'options', 'named'),
    [
        ('blur', {}, 'corruption'),
        ([], {}, 'corruption'),
        (['crappify', 'crappify'], {}, 'corruption'),
        ('coarse_cutout', {'cutout_count': (0, 2)}, 'cutout_count'),
        ('coarse_cutout', {'cutout_size': (0.5, 1.5)}, 'cutout_size'),
        ('patch_mask', {'patch_size': 0}, 'patch_size'),
        ('patch_mask', {'patch_ratio': 1.0}, 'patch_ratio'),
        ('crappify', {'noise': -0.1}, 'noise'),
        ('crappify', {'factor': 0.5}, 'factor'),
    ],
)
def test_options_out_of_range_are_named(names: object, options: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        create_corruption(names, **options)
