"""Receptive fields that can be computed by hand, and networks that have none."""

import re

import pytest
import torch
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.prediction.receptive_field import (
    NotLocalError,
    ReceptiveField,
    choose_blend,
    measure_receptive_field,
)


class UNet(nn.Module):
    """Small enough to compute by hand: two levels, batch norm, a skip connection."""

    def __init__(self, bands: int = 2, classes: int = 3) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(bands, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(4), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(16, classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        shallow = self.first(image)
        deep = nn.functional.interpolate(self.deep(shallow), scale_factor=4, mode='nearest')
        return self.last(torch.cat([shallow, deep], dim=1))


def test_margin_and_stride_of_a_network_computed_by_hand() -> None:
    # What is left of a window reaches the pooled block 0 (through the first convolution), with it the deep blocks 0 and
    # 1 (columns 0 to 7), and column 8 through the last convolution: 9 columns.
    assert measure_receptive_field(UNet(), 2) == ReceptiveField(margin=9, stride=4)


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
    assert measure_receptive_field(network, 2) == ReceptiveField(margin, stride)


def test_margin_knows_what_weights_hide() -> None:
    """Weights of 0 do not make a receptive field smaller: the next checkpoint has others."""
    network = nn.Conv2d(2, 3, 9, padding=4)
    nn.init.zeros_(network.weight)
    assert measure_receptive_field(network, 2).margin == 4


class Attention(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image * image.mean(dim=(-2, -1), keepdim=True).sigmoid()


class FixedSize(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        raise AssertionError(f'Input height ({image.shape[-2]}) does not match model (224).')


@pytest.mark.parametrize(
    ('network', 'reason'),
    [
        (Attention(), 'sees the whole image, through attention'),
        (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4)), 'group normalization'),
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
    with pytest.raises(NotLocalError, match=reason):
        measure_receptive_field(network, 2)


def test_convolutional_networks_are_cropped() -> None:
    network = UNet().train()
    chosen = choose_blend(network, 2)
    assert (chosen.blend, chosen.window, chosen.margin, chosen.stride) == ('crop', 512, 12, 4)
    assert 'sees 9 pixels' in chosen.reason
    assert network.training
    assert next(network.parameters()).dtype == torch.float32


def test_a_window_too_small_to_crop_is_blended_and_reported() -> None:
    chosen = choose_blend(UNet(), 2, window=16)
    assert chosen.blend == 'hann'
    assert 'a window of 28 or more, got 16' in chosen.reason
    with pytest.raises(ConfigurationError, match='take a window of 28 or more'):
        choose_blend(UNet(), 2, window=16, blend='crop')


def test_a_given_blend_is_used() -> None:
    assert choose_blend(UNet(), 2, window=64, blend='hann', overlap=10).overlap == 10
    with pytest.raises(ConfigurationError, match="expected 'auto'"):
        choose_blend(UNet(), 2, blend='mean')  # type: ignore[arg-type]
