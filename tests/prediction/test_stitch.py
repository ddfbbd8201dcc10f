"""Windows, weights and sums, against sums over the whole image."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.prediction.receptive import choose_blend, receptive_margin, total_stride
from torchgeo_msssl.prediction.stitch import (
    Axis,
    RowBandAccumulator,
    Stitching,
    Tiling,
    crop_axis,
    hann_axis,
    reflect_indices,
)


def sums_in_order(axis: Axis) -> NDArray[np.float32]:
    """Weights of every pixel, added one window after the other."""
    total = np.zeros(axis.extent, dtype=np.float32)
    for index, start in enumerate(axis.starts):
        for offset, weight in enumerate(axis.weights[index], start=start + axis.lead):
            if 0 <= offset < axis.extent:
                total[offset] += weight
    return total


@given(extent=st.integers(1, 500), size=st.integers(2, 96), data=st.data())
@settings(max_examples=60, deadline=None)
def test_hann_weights_sum_to_exactly_one(extent: int, size: int, data: Any) -> None:
    stride = data.draw(st.integers(max(1, size // 5), size))
    axis = hann_axis(extent, size, stride)
    np.testing.assert_array_equal(sums_in_order(axis), np.ones(extent, dtype=np.float32))
    assert (axis.weights >= 0).all()


@given(
    extent=st.integers(1, 500),
    stride=st.sampled_from([1, 2, 4, 32]),
    cores=st.integers(1, 4),
    margin=st.integers(0, 70),
)
@settings(max_examples=60, deadline=None)
def test_crop_gives_every_pixel_to_one_window_with_full_context(
    extent: int, stride: int, cores: int, margin: int
) -> None:
    rounded = -(-margin // stride) * stride
    axis = Stitching('crop', cores * stride + 2 * rounded, margin, stride).tiling(extent, 1).rows
    np.testing.assert_array_equal(sums_in_order(axis), np.ones(extent, dtype=np.float32))
    assert axis.lead >= margin
    assert axis.size - axis.lead - axis.span >= margin
    assert all(start % stride == 0 for start in axis.starts)
    assert axis.starts[-1] + axis.lead < extent, 'the last window counts somewhere'


def test_outermost_ring_has_weight() -> None:
    """Windows that are 0 at their ends leave a frame of nodata round the map."""
    for extent in (1, 2, 63, 64, 65, 1000):
        axis = hann_axis(extent, 64, 32)
        assert axis.weights[:, [0, -1]].min() > 0
        assert sums_in_order(axis)[[0, -1]].tolist() == [1, 1]


def test_weights_have_no_epsilon() -> None:
    """``w + 1e-8`` in a divisor takes half the value where weights are small; ours are exact at the borders too."""
    axis = hann_axis(100, 64, 64)  # no overlap: each pixel has one window, whose weight is tiny at its ends
    np.testing.assert_array_equal(axis.weights, np.ones_like(axis.weights))


def test_pixels_at_the_edge_have_as_many_windows_as_others() -> None:
    axis = hann_axis(200, 64, 32)
    seen = np.zeros(200, dtype=int)
    for index in range(len(axis.starts)):
        first, end = axis.counted(index)
        seen[first:end] += 1
    assert set(seen) == {2}


@given(start=st.integers(-300, 300), size=st.integers(1, 200), extent=st.integers(1, 80))
@example(start=-5, size=11, extent=1)
def test_mirrored_indexes_are_numpys(start: int, size: int, extent: int) -> None:
    before, after = max(-start, 0), max(start + size - extent, 0)
    padded = np.pad(np.arange(extent), (before, after), mode='reflect')
    np.testing.assert_array_equal(reflect_indices(start, size, extent), padded[start + before :][:size])


def full_frame(tiling: Tiling, windows: dict[tuple[int, int], NDArray[np.float32]], classes: int) -> NDArray[Any]:
    """The same sum over the whole image, padded so that no window is cut."""
    rows, cols = tiling.rows, tiling.cols
    top, left = -min(rows.starts[0], 0), -min(cols.starts[0], 0)
    frame = np.zeros((classes, rows.starts[-1] + rows.size + top, cols.starts[-1] + cols.size + left), dtype=np.float32)
    for (row, col), window in sorted(windows.items()):
        y, x = rows.starts[row] + rows.lead + top, cols.starts[col] + cols.lead + left
        part = window[:, rows.lead : rows.lead + rows.span, cols.lead : cols.lead + cols.span]
        weights = np.outer(rows.weights[row], cols.weights[col])
        frame[:, y : y + rows.span, x : x + cols.span] += part * weights
    return frame[:, top : top + rows.extent, left : left + cols.extent]


def in_bands(tiling: Tiling, windows: dict[tuple[int, int], NDArray[np.float32]], classes: int) -> NDArray[Any]:
    accumulator = RowBandAccumulator(tiling, classes)
    shape = tiling.rows.size, tiling.cols.size
    rows, following = [], 0
    for row in range(len(tiling.rows.starts)):
        for col in range(len(tiling.cols.starts)):
            accumulator.add(col, windows.get((row, col)), np.full(shape, (row, col) in windows))
        finished = accumulator.finished()
        assert finished.first == following
        following += len(finished.valid)
        rows.append(finished.probabilities.copy())
        accumulator.shift()
    assert following == tiling.rows.extent
    return np.concatenate(rows, axis=1)


STITCHINGS = [
    Stitching('hann', 32),
    Stitching('hann', 30, overlap=7),
    Stitching('hann', 24, overlap=17),
    Stitching('hann', 16, overlap=0),
    Stitching('crop', 40, margin=5, stride=4),
    Stitching('crop', 16, margin=0, stride=1),
]


@pytest.mark.parametrize('stitching', STITCHINGS, ids=lambda s: f'{s.blend}-{s.window}-{s.overlap}')
@given(height=st.integers(1, 120), width=st.integers(1, 90), missing=st.floats(0, 0.7), seed=st.integers(0, 9))
@example(height=1, width=1, missing=0, seed=0)
@example(height=17, width=100, missing=0.5, seed=0)
@settings(max_examples=15, deadline=None)
def test_row_band_equals_full_frame_bit_for_bit(
    stitching: Stitching, height: int, width: int, missing: float, seed: int
) -> None:
    tiling = stitching.tiling(height, width)
    rng = np.random.default_rng(seed)
    windows = {
        (row, col): rng.random((3, tiling.rows.size, tiling.cols.size), dtype=np.float32)
        for row in range(len(tiling.rows.starts))
        for col in range(len(tiling.cols.starts))
        if rng.random() >= missing  # a window that is passed over must not move the register
    }
    expected, got = full_frame(tiling, windows, 3), in_bands(tiling, windows, 3)
    assert got.tobytes() == expected.tobytes()


def test_sums_do_not_grow_with_the_height() -> None:
    sizes = {
        height: RowBandAccumulator(Stitching('hann', 32).tiling(height, 50), 2)._sums.nbytes for height in (100, 10_000)
    }
    assert len(set(sizes.values())) == 1


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'blend': 'mean', 'window': 64}, "expected 'crop' or 'hann', got 'mean'"),
        ({'blend': 'crop', 'window': 64, 'margin': 32}, 'nothing between two margins of 32'),
        ({'blend': 'crop', 'window': 60, 'stride': 32}, 'multiple of .* 32, got 60'),
        ({'blend': 'hann', 'window': 64, 'overlap': 64}, 'overlap: expected 0 to 63'),
        ({'blend': 'crop', 'window': 64, 'margin': -1}, 'margin: expected 0'),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Stitching(**options)


class UNet(nn.Module):
    """Small enough to reckon: two levels, batch norm, a skip connection."""

    def __init__(self, bands: int = 2, classes: int = 3) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(bands, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(4), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(16, classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        shallow = self.first(image)
        deep = nn.functional.interpolate(self.deep(shallow), scale_factor=4, mode='nearest')
        return self.last(torch.cat([shallow, deep], dim=1))


def test_margin_and_stride_of_a_network_that_can_be_reckoned() -> None:
    # What is left of a window reaches the pooled block 0 (through the first convolution), with it the deep blocks 0 and
    # 1 (columns 0 to 7), and column 8 through the last convolution: 9 columns.
    assert total_stride(UNet(), 2) == 4
    assert receptive_margin(UNet(), 2) == 9


@pytest.mark.parametrize(
    ('network', 'margin', 'stride'),
    [
        (nn.Conv2d(2, 3, 1), 0, 1),
        (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 5, padding=2)), 3, 1),
        (nn.Conv2d(2, 3, (3, 9), padding=(1, 4)), 4, 1),
        (nn.Conv2d(2, 3, 3, padding=70, dilation=70), 70, 1),
        (nn.Sequential(nn.MaxPool2d(16), nn.Upsample(scale_factor=16)), 0, 16),
    ],
)
def test_margin_and_stride(network: nn.Module, margin: int, stride: int) -> None:
    assert (receptive_margin(network, 2), total_stride(network, 2)) == (margin, stride)


def test_margin_knows_what_weights_hide() -> None:
    """Weights of 0 do not make a receptive field smaller: the next checkpoint has others."""
    network = nn.Conv2d(2, 3, 9, padding=4)
    nn.init.zeros_(network.weight)
    assert receptive_margin(network, 2) == 4


class Attention(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image * image.mean(dim=(-2, -1), keepdim=True).sigmoid()


class FixedSize(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        raise AssertionError(f'Input height ({image.shape[-2]}) does not match model (224).')


@pytest.mark.parametrize(
    ('network', 'reason'),
    [
        (Attention(), 'sees the whole image, by attention'),
        (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4)), 'group normalisation'),
        (nn.Conv2d(2, 3, 3, padding=1, padding_mode='circular'), 'sees the whole image'),
        (FixedSize(), r'does not run on images of any size: Input height'),
        (
            nn.Sequential(nn.MaxPool2d(4), nn.Upsample(scale_factor=4, mode='bilinear', align_corners=True)),
            'depends on the size of the image',
        ),
    ],
    ids=['attention', 'group norm', 'circular', 'fixed size', 'align corners'],
)
def test_networks_that_are_not_local_are_blended(network: nn.Module, reason: str) -> None:
    chosen = choose_blend(network, 2)
    assert chosen.blend == 'hann'
    assert chosen.window == 512
    assert re.search(reason, chosen.reason)
    with pytest.raises(ConfigurationError, match='crop is not exact'):
        choose_blend(network, 2, blend='crop')
    with pytest.raises(ConfigurationError, match='use blend: hann'):
        receptive_margin(network, 2)


def test_convolutional_networks_are_cropped() -> None:
    network = UNet().train()
    chosen = choose_blend(network, 2)
    assert (chosen.blend, chosen.window, chosen.margin, chosen.stride) == ('crop', 512, 12, 4)
    assert 'sees 9 pixels' in chosen.reason
    assert network.training
    assert next(network.parameters()).dtype == torch.float32


def test_a_window_too_small_to_crop_is_blended_and_said() -> None:
    chosen = choose_blend(UNet(), 2, window=16)
    assert chosen.blend == 'hann'
    assert 'a window of 28 or more and not 16' in chosen.reason
    with pytest.raises(ConfigurationError, match='take a window of 28 or more'):
        choose_blend(UNet(), 2, window=16, blend='crop')


def test_a_blend_that_is_asked_for_is_taken() -> None:
    assert choose_blend(UNet(), 2, window=64, blend='hann', overlap=10).overlap == 10
    with pytest.raises(ConfigurationError, match="expected 'auto'"):
        choose_blend(UNet(), 2, blend='mean')  # type: ignore[arg-type]


def test_small_images_get_small_windows_with_crop() -> None:
    rows = crop_axis(10, 512, 8)
    assert rows.size == 512
    tiling = Stitching('crop', 512, 8, 4).tiling(10, 600)
    assert (tiling.rows.size, tiling.cols.size) == (28, 512)
