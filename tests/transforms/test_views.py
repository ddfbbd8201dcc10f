"""Views: geometry against slicing and torchvision, nodata that never bleeds, numbers that repeat."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.functional import resized_crop

from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.transforms import MultiView
from torchgeo_msssl.transforms.crops import (
    MAX_INVALID_WEIGHT,
    choose_boxes,
    crop_grid,
    random_boxes,
    sample_views,
    valid_fraction,
)
from torchgeo_msssl.transforms.views import gaussian_blur

STILL = {'blur': 0.0, 'noise': 0.0, 'common_gain': (1.0, 1.0), 'band_gain': (1.0, 1.0)}
WHOLE = {'crop_scale': (1.0, 1.0), 'crop_ratio': (1.0, 1.0)}
UNTURNED = {'flips': False, 'quarter_turns': False}


def chips(batch: int = 3, bands: int = 4, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand(batch, bands, height, width, generator=torch.Generator().manual_seed(0))


def cut(
    image: torch.Tensor,
    box: tuple[float, float, float, float],
    size: int,
    flips: tuple[float, float] = (1.0, 1.0),
    turns: int = 0,
    valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One view of each chip with the given geometry."""
    batch, _, height, width = image.shape
    boxes = torch.tensor(box).expand(1, batch, 4)
    factors = torch.tensor(flips).expand(1, batch, 2)
    grid = crop_grid(boxes, factors, torch.full((1, batch), turns), size, height, width)
    valid = torch.ones(batch, 1, height, width, dtype=torch.bool) if valid is None else valid
    views, view_valid = sample_views(image, valid, grid)
    return views[0], view_valid[0]


class TestGeometry:
    @pytest.mark.parametrize('side', [32, 64])
    def test_whole_chip_is_the_chip_exactly(self, side: int) -> None:
        image = chips(height=side, width=side)
        views, valid = cut(image, (0, 0, side, side), side)
        assert torch.equal(views, image)
        assert valid.all()

    @pytest.mark.parametrize(('height', 'width', 'top', 'left', 'side'), [(40, 52, 7, 11, 19), (33, 90, 0, 71, 19)])
    def test_integer_crop_is_a_slice(self, height: int, width: int, top: int, left: int, side: int) -> None:
        image = chips(height=height, width=width)
        views, _ = cut(image, (top, left, side, side), side)
        torch.testing.assert_close(views, image[..., top : top + side, left : left + side], rtol=0, atol=2e-5)

    @pytest.mark.parametrize('turns', range(4))
    @pytest.mark.parametrize('flips', [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)])
    def test_flips_then_turns_are_torchs(self, flips: tuple[float, float], turns: int) -> None:
        image = chips()
        views, _ = cut(image, (0, 0, 32, 32), 32, flips, turns)
        flipped = image.flip([axis for axis, factor in ((-1, flips[0]), (-2, flips[1])) if factor < 0])
        assert torch.equal(views, torch.rot90(flipped, turns, dims=(-2, -1)))

    @pytest.mark.parametrize(('box', 'size'), [((4, 6, 20, 20), 40), ((3, 9, 24, 16), 48), ((0, 0, 32, 32), 80)])
    def test_against_torchvision(self, box: tuple[int, int, int, int], size: int) -> None:
        """torchvision clamps at the crop's edge, a grid sees beyond it: compare inside, or the whole chip."""
        image = chips()
        views, _ = cut(image, box, size)
        expected = resized_crop(image, *box, [size, size], antialias=False)
        rim = 0 if box == (0, 0, 32, 32) else math.ceil(size / min(box[2:]) / 2)
        inside = (..., slice(rim, size - rim), slice(rim, size - rim))
        torch.testing.assert_close(views[inside], expected[inside], rtol=0, atol=1e-5)

    def test_turned_crop_keeps_its_place(self) -> None:
        image = chips(height=24, width=48)
        views, _ = cut(image, (5, 20, 16, 16), 16, turns=1)
        torch.testing.assert_close(views, torch.rot90(image[..., 5:21, 20:36], 1, (-2, -1)), rtol=0, atol=2e-5)

    @pytest.mark.parametrize('positive', [False, True])
    def test_cells_lie_on_the_pixels_that_the_view_shows(self, positive: bool) -> None:
        """The image holds its own coordinates, so that the mean of a cell's pixels is the cell's center."""
        height, width, cells = 24, 40, 4
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing='ij')
        image = torch.stack([x, y]).expand(50, -1, -1, -1)
        torch.manual_seed(0)
        module = MultiView(views=2, size=20, **STILL)
        # of the odd views the coordinates are those of the other chip, here the same numbers
        views, _, geometry = module.located_views(image, positive=image.clone() if positive else None)
        centers = geometry.cell_centers(cells)
        assert centers.shape == (2, 50, cells, cells, 2)
        shown = F.avg_pool2d(views.flatten(0, 1), 20 // cells).unflatten(0, (2, 50)).movedim(2, -1)
        # a pixel within half a pixel of the border repeats the border's
        inside = ((centers > 4) & (centers < torch.tensor([width, height]) - 4)).all(dim=-1)
        assert inside.float().mean() > 0.5
        torch.testing.assert_close(centers[inside], shown[inside], rtol=0, atol=1e-3)
        torch.testing.assert_close(centers, shown, rtol=0, atol=0.3)
        poses = torch.cat([geometry.flips, geometry.turns[..., None]], dim=-1)
        assert len(poses.flatten(0, 1).unique(dim=0)) == 16

    @pytest.mark.parametrize(('height', 'width'), [(64, 64), (40, 120), (120, 40)])
    def test_random_boxes_stay_inside_with_the_area_and_ratio_asked(self, height: int, width: int) -> None:
        uniform = torch.rand(5000, 4, generator=torch.Generator().manual_seed(0))
        top, left, box_height, box_width = random_boxes(uniform, height, width, (0.2, 1.0), (3 / 4, 4 / 3)).unbind(-1)
        slack = 1e-4 * max(height, width)
        assert top.min() >= 0
        assert left.min() >= 0
        assert (top + box_height).max() <= height + slack
        assert (left + box_width).max() <= width + slack
        ratio = box_width / box_height
        assert ratio.min() >= 3 / 4 - 1e-4
        assert ratio.max() <= 4 / 3 + 1e-4
        area = box_height * box_width / (height * width)
        fits = (box_height < height - slack) & (box_width < width - slack)
        torch.testing.assert_close(area[fits], 0.2 + 0.8 * uniform[fits, 0], rtol=1e-4, atol=1e-4)
        if height == width:
            assert fits.float().mean() > 0.8

    @pytest.mark.parametrize('bands', [1, 4, 12])
    def test_views_of_oblong_chips(self, bands: int) -> None:
        image = chips(bands=bands, height=24, width=40)
        views, valid = MultiView(views=3)(image)
        assert views.shape == (3, 3, bands, 24, 24)
        assert valid.shape == (3, 3, 1, 24, 24)
        assert valid.all()
        assert MultiView(views=2, size=17)(image)[0].shape == (2, 3, bands, 17, 17)

    def test_every_pose_comes_up(self) -> None:
        """Whole crops of one chip: each of the 8 poses of a square, about equally often."""
        torch.manual_seed(0)
        image = chips(batch=1, bands=1, height=8, width=8).expand(800, -1, -1, -1)
        views, _ = MultiView(views=2, **STILL, **WHOLE)(image)
        poses = torch.stack(
            [torch.rot90(part, k, (-2, -1)) for part in (image[0], image[0].flip(-1)) for k in range(4)]
        )
        match = (views.flatten(0, 1)[:, None] == poses).flatten(2).all(-1)
        assert torch.equal(match.sum(1), torch.ones(1600, dtype=torch.long))
        assert match.sum(0).min() > 140

    def test_unturned_whole_view_is_the_chip(self) -> None:
        image = chips()
        views, _ = MultiView(views=2, **STILL, **WHOLE, **UNTURNED)(image)
        assert torch.equal(views, image.expand(2, -1, -1, -1, -1))


class TestNodata:
    @pytest.mark.parametrize('rubbish', [1e9, -9999.0, math.nan, math.inf])
    def test_values_of_invalid_pixels_reach_no_view(self, rubbish: float) -> None:
        image = chips(batch=8)
        valid = F.interpolate(torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(1)), size=(32, 32)) > 0.3
        module = MultiView(views=4, blur=0.7, noise=0.7, band_dropout=0.3)
        torch.manual_seed(5)
        views, view_valid = module(image, valid)
        torch.manual_seed(5)
        changed, changed_valid = module(image.masked_fill(~valid, rubbish), valid)
        assert 0.2 < view_valid.float().mean() < 0.95
        assert torch.equal(view_valid, changed_valid)
        assert torch.equal(views, changed)
        assert torch.isfinite(views).all()

    def test_valid_pixels_have_only_valid_sources(self) -> None:
        """Oracle: the sources of each pixel, written out corner by corner."""
        image = chips(batch=2, bands=1)
        valid = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(2)) > 0.02
        box, size = (3.3, 5.7, 20.6, 17.2), 32
        _, view_valid = cut(image, box, size, valid=valid)
        y = box[0] + (torch.arange(size) + 0.5) * box[2] / size - 0.5
        x = box[1] + (torch.arange(size) + 0.5) * box[3] / size - 0.5
        share = torch.zeros(2, size, size)
        for row, of_row in ((y.floor(), 1 - y.frac()), (y.floor() + 1, y.frac())):
            for column, of_column in ((x.floor(), 1 - x.frac()), (x.floor() + 1, x.frac())):
                share += torch.outer(of_row, of_column) * ~valid[:, 0, row.long()][:, :, column.long()]
        expected = share <= MAX_INVALID_WEIGHT
        assert torch.equal(view_valid[:, 0], expected)
        assert 0 < (~expected).sum() < expected.numel() // 2

    def test_valid_views_do_not_depend_on_the_fill(self) -> None:
        """Inside, away from blur and noise, a valid pixel is what it would be without any nodata."""
        image = chips(batch=4)
        valid = torch.ones(4, 1, 32, 32, dtype=torch.bool)
        valid[:, :, :12] = False
        module = MultiView(views=4, min_valid=0.0, **STILL)
        torch.manual_seed(0)
        views, view_valid = module(image, valid)
        torch.manual_seed(0)
        plain, _ = module(image)
        inside = view_valid.expand_as(views)
        torch.testing.assert_close(views[inside], plain[inside], rtol=0, atol=2e-4)
        assert not torch.allclose(views[~inside], plain[~inside], atol=1e-2)

    def test_valid_fraction_equals_counting(self) -> None:
        valid = torch.rand(3, 1, 20, 30, generator=torch.Generator().manual_seed(0)) > 0.4
        boxes = torch.tensor([[0.0, 0, 20, 30], [3, 4, 5, 6], [19, 29, 1, 1], [10.2, 7.9, 4.1, 8.2]])
        fractions = valid_fraction(valid, boxes[:, None].expand(4, 3, 4))
        slices = [(0, 20, 0, 30), (3, 8, 4, 10), (19, 20, 29, 30), (10, 14, 8, 16)]
        for row, (top, bottom, left, right) in enumerate(slices):
            expected = valid[:, 0, top:bottom, left:right].float().mean((-2, -1))
            torch.testing.assert_close(fractions[row], expected)
        assert valid_fraction(valid, torch.tensor([19.9, 29.9, 0.1, 0.1]).expand(3, 4)).min() >= 0

    def test_first_good_candidate_else_the_best(self) -> None:
        valid = torch.zeros(1, 1, 10, 10, dtype=torch.bool)
        valid[..., :5] = True
        lefts = torch.tensor([8.0, 3.0, 0.0, 1.0])
        zeros, fours = torch.zeros(4), torch.full((4,), 4.0)
        boxes = torch.stack([zeros, lefts, fours, fours], dim=-1).view(4, 1, 1, 4)
        for min_valid, left in ((0.0, 8), (0.5, 3), (0.9, 0), (1.0, 0)):
            assert choose_boxes(valid, boxes, min_valid)[0, 0, 1] == left
        assert choose_boxes(valid, boxes[:2], 0.9)[0, 0, 1] == 3

    def test_crops_avoid_nodata(self) -> None:
        image, valid = chips(batch=64), torch.zeros(64, 1, 32, 32, dtype=torch.bool)
        valid[..., :14] = True
        shares = {}
        for min_valid in (0.0, 0.5):
            torch.manual_seed(0)
            _, view_valid = MultiView(views=4, crop_scale=(0.1, 0.4), min_valid=min_valid)(image, valid)
            shares[min_valid] = view_valid.float().mean((-3, -2, -1))
        assert (shares[0.0] < 0.4).float().mean() > 0.3
        assert (shares[0.5] < 0.4).float().mean() < 0.03

    def test_wholly_invalid_chip(self) -> None:
        views, valid = MultiView(band_dropout=0.2)(torch.full((2, 3, 16, 16), math.nan), torch.zeros(2, 1, 16, 16) > 0)
        assert torch.isfinite(views).all()
        assert not valid.any()


class TestBlur:
    def test_against_a_dense_gaussian(self) -> None:
        image = chips(batch=2, height=21, width=23)
        sigma, valid = torch.tensor([0.8, 1.9]), torch.ones(2, 1, 21, 23, dtype=torch.bool)
        blurred = gaussian_blur(image, sigma, valid, radius=6)
        offsets = torch.arange(-6.0, 7.0)
        for sample in range(2):
            line = torch.exp(-(offsets**2) / (2 * sigma[sample] ** 2))
            kernel = torch.outer(line, line)[None, None]
            norm = F.conv2d(torch.ones(1, 1, 21, 23), kernel, padding=6)
            expected = F.conv2d(image[sample][:, None], kernel, padding=6)[:, 0] / norm[0]
            torch.testing.assert_close(blurred[sample], expected)

    def test_constant_stays_constant_next_to_nodata_and_border(self) -> None:
        valid = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0)) > 0.3
        image = torch.where(valid, 0.3, 500.0).expand(1, 4, 20, 20)
        blurred = gaussian_blur(image, torch.tensor([1.5]), valid, radius=5)
        inside = valid.expand_as(blurred)
        torch.testing.assert_close(blurred[inside], torch.full_like(blurred[inside], 0.3))
        assert (blurred[~inside] == 500).all()

    def test_sigma_zero_changes_nothing_and_probability_gates(self) -> None:
        image = chips(batch=200, height=8, width=8)
        options = STILL | {'blur': 0.5, 'blur_sigma': (1.0, 2.0)}
        torch.manual_seed(0)
        views, _ = MultiView(**options, **WHOLE, **UNTURNED)(image)
        same = (views == image).flatten(2).all(-1)
        assert 140 < same.sum() < 260
        smooth = views.diff(dim=-1).abs().mean((-3, -2, -1)) / image.diff(dim=-1).abs().mean((-3, -2, -1))
        assert smooth[~same].max() < 0.6

    @pytest.mark.parametrize(('unit', 'size'), [('view', 32), ('view', 96), ('chip', 32), ('chip', 96)])
    def test_blurred_stripes_keep_the_contrast_of_the_formula(self, unit: str, size: int) -> None:
        """Stripes of 8 px: exp(−2 (π σ / 8)²); in pixels of the view a blur of an enlarged view is weaker."""
        stripes = torch.sin(2 * math.pi * (torch.arange(32) + 0.5) / 8).expand(1, 1, 32, 32)
        options = STILL | {'blur': 1.0, 'blur_sigma': (1.5, 1.5), 'blur_unit': unit, 'size': size}
        sharp, blurred = (
            MultiView(**(options | more), **WHOLE, **UNTURNED)(stripes)[0][0, 0, 0, size // 4 : -size // 4]
            for more in ({'blur': 0.0}, {})
        )
        middle = slice(size // 4, -size // 4)
        kept = blurred[:, middle].std() / sharp[:, middle].std()
        sigma = 1.5 if unit == 'chip' else 1.5 * 32 / size
        assert kept.item() == pytest.approx(math.exp(-2 * (math.pi * sigma / 8) ** 2), rel=0.02)

    def test_blur_in_pixels_of_the_chip_follows_the_crop(self) -> None:
        """A quarter of the chip's area is shown twice as large and needs twice the blur."""
        image = chips(batch=4)
        quarter = {'crop_scale': (0.25, 0.25), 'crop_ratio': (1.0, 1.0), **UNTURNED}
        torch.manual_seed(3)
        one, _ = MultiView(**(STILL | {'blur': 1.0, 'blur_sigma': (1.0, 1.0), 'blur_unit': 'chip'}), **quarter)(image)
        torch.manual_seed(3)
        two, _ = MultiView(**(STILL | {'blur': 1.0, 'blur_sigma': (2.0, 2.0)}), **quarter)(image)
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)

    def test_views_larger_than_the_chip_interpolate_it(self) -> None:
        """As torch.nn.functional.interpolate does, away from nothing: the whole chip at three times its side."""
        image = chips()
        views, valid = MultiView(size=96, **STILL, **WHOLE, **UNTURNED)(image)
        expected = F.interpolate(image, size=(96, 96), mode='bilinear', align_corners=False)
        torch.testing.assert_close(views[0], expected, rtol=1e-4, atol=1e-5)
        assert valid.all()


class TestPhotometry:
    def test_gain_is_one_factor_a_band_and_view(self) -> None:
        image = chips(batch=50) + 1
        options = STILL | {'common_gain': (0.8, 1.2), 'band_gain': (0.9, 1.1)}
        torch.manual_seed(0)
        views, _ = MultiView(views=4, **options, **WHOLE, **UNTURNED)(image)
        gain = (views / image).flatten(3)
        torch.testing.assert_close(gain, gain[..., :1].expand_as(gain))
        assert 0.72 - 1e-4 <= gain.min() < 0.8
        assert 1.25 < gain.max() <= 1.32 + 1e-4

    @pytest.mark.parametrize('reference', ['chip', 'corpus'])
    def test_noise_is_relative_to_the_spread_of_each_band(self, reference: str) -> None:
        spread = torch.tensor([0.01, 1.0, 30.0, 5.0])
        image = chips(height=64, width=64) * spread.view(-1, 1, 1)
        image[0] *= 0.01  # water
        valid = torch.ones(3, 1, 64, 64, dtype=torch.bool)
        options = STILL | {'noise': 1.0, 'noise_std': (0.1, 0.1), 'noise_reference': reference}
        torch.manual_seed(0)
        views, _ = MultiView(**options, **WHOLE, **UNTURNED)(image, valid, spread)
        relative = (views - image).std((-2, -1)) / (spread if reference == 'corpus' else image.std((-2, -1)))
        torch.testing.assert_close(relative, torch.full_like(relative, 0.1), rtol=0.06, atol=0)

    def test_nothing_is_clipped(self) -> None:
        image = 10 * (chips() - 0.5)
        views, _ = MultiView(views=4)(image)
        assert views.min() < -3
        assert views.max() > 3

    def test_dropped_bands_become_the_mean_and_never_all(self) -> None:
        image, mean = chips(batch=100, height=8, width=8), torch.tensor([7.0, 8.0, 9.0, 10.0])
        torch.manual_seed(0)
        views, _ = MultiView(**(STILL | {'band_dropout': 0.8}), **WHOLE, **UNTURNED)(image, band_mean=mean)
        dropped = (views != image).flatten(3).any(-1)
        assert torch.equal(views[dropped], mean.view(-1, 1, 1).expand_as(views)[dropped])
        assert 0.5 < dropped.float().mean() < 0.8
        assert dropped.sum(-1).max() == 3
        own, _ = MultiView(**(STILL | {'band_dropout': 0.8}), **WHOLE, **UNTURNED)(image)
        dropped = (own != image).flatten(3).any(-1)
        expected = image.mean((-2, -1), keepdim=True).expand_as(own)
        torch.testing.assert_close(own[dropped], expected[dropped])


class TestCalls:
    @pytest.mark.parametrize('views', [2, 3, 4])
    def test_odd_views_come_from_the_positive(self, views: int) -> None:
        image = chips()
        output, valid = MultiView(views=views, **STILL)(image, None, None, image + 10, torch.zeros(3, 1, 32, 32) > 0)
        assert output.shape[0] == views
        assert output[0::2].max() <= 1 + 1e-5
        assert valid[0::2].all()
        assert not valid[1::2].any()
        output, valid = MultiView(views=views, **STILL)(image, positive=image + 10)
        assert output[0::2].max() <= 1 + 1e-5
        assert output[1::2].min() >= 10 - 1e-5
        assert valid.all()

    def test_positive_has_the_geometry_it_would_have_as_image(self) -> None:
        image, other, module = chips(), chips().flip(0), MultiView(views=4, band_dropout=0.2)
        results = []
        for first, second in ((image, None), (image, other), (other, None)):
            torch.manual_seed(1)
            results.append(module(first, positive=second)[0])
        torch.testing.assert_close(results[1][0::2], results[0][0::2])
        torch.testing.assert_close(results[1][1::2], results[2][1::2])

    def test_seed_repeats_the_views_and_views_differ(self) -> None:
        module, image = MultiView(views=4, band_dropout=0.1), chips()
        torch.manual_seed(0)
        first = module(image)[0]
        torch.manual_seed(0)
        assert torch.equal(module(image)[0], first)
        assert not torch.equal(module(image)[0], first)
        assert (torch.pdist(first[:, 0].flatten(1)) > 0.1).all()

    def test_half_precision_is_computed_in_float32(self) -> None:
        module, image = MultiView(), chips().bfloat16()
        torch.manual_seed(0)
        half, _ = module(image)
        torch.manual_seed(0)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            full, _ = module(image.float())
        assert half.dtype == torch.bfloat16
        assert full.dtype == torch.float32
        assert torch.equal(half, full.bfloat16())

    def test_input_is_left_alone_and_output_is_packed(self) -> None:
        image = chips()
        before = image.clone()
        views, _ = MultiView(**STILL)(image.requires_grad_())
        assert torch.equal(image, before)
        assert views.is_contiguous()
        assert not views.requires_grad

    def test_has_no_state(self) -> None:
        assert not MultiView().state_dict()

    @pytest.mark.parametrize(
        'options',
        [
            {'views': 0},
            {'size': 0},
            {'crop_scale': (0.0, 1.0)},
            {'crop_scale': (0.5, 1.5)},
            {'crop_ratio': (1.5, 1.0)},
            {'crop_ratio': (0.0, 1.0)},
            {'blur': 1.1},
            {'blur_sigma': (-1.0, 1.0)},
            {'noise': -0.1},
            {'noise_reference': 'band'},
            {'blur_unit': 'metre'},
            {'noise_std': (0.2, 0.1)},
            {'common_gain': (-1.0, 1.0)},
            {'band_gain': (1.0, math.inf)},
            {'band_dropout': 1.0},
            {'min_valid': 2.0},
        ],
    )
    def test_bad_options_are_refused(self, options: dict[str, object]) -> None:
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            MultiView(**options)

    def test_positive_of_another_shape_is_refused(self) -> None:
        with pytest.raises(BandError, match='positive'):
            MultiView()(chips(), positive=chips(bands=3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_same_arithmetic_on_the_gpu() -> None:
    image = chips(batch=8, bands=12)
    valid = F.interpolate(torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1)), size=(32, 32)) > 0.2
    draws = MultiView(views=4, band_dropout=0.2).draw(image)
    module = MultiView(views=4, band_dropout=0.2)
    results = []
    for device in ('cpu', 'cuda'):
        moved = {name: value.to(device) for name, value in vars(draws).items()}
        module.draw = lambda image, moved=moved: type(draws)(**moved)  # type: ignore[method-assign]
        views, view_valid = module(image.to(device), valid.to(device))
        results.append((views.cpu(), view_valid.cpu()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-4)
    assert (results[0][1] != results[1][1]).float().mean() < 1e-3
