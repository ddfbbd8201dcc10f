"""Texture features: sums against convolution, locality to the last bit, invalid pixels, known patterns."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from torchgeo_msssl.bands import SENSORS
from torchgeo_msssl.errors import BandError
from torchgeo_msssl.prediction.receptive_field import measure_receptive_field
from torchgeo_msssl.transforms.texture import (
    SCALES,
    PixelFeatures,
    band_groups,
    box_sums,
    index_pairs,
    local_means,
)

RGB = [650.0, 550.0, 450.0]
S2 = [band.wavelength for band in SENSORS['sentinel2_l2a'].bands]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_sums_are_those_of_a_convolution(height: int, width: int, seed: int) -> None:
    image = noise(1, 1, height, width, seed=seed).double()
    for scale, total in zip(SCALES, box_sums(image), strict=True):
        kernel = torch.ones(1, 1, scale, scale, dtype=torch.float64)
        torch.testing.assert_close(total, F.conv2d(image, kernel, padding=scale // 2))


def test_means_ignore_pixels_without_weight() -> None:
    weight = (noise(1, 1, 40, 40, seed=1) > 0).float()
    for mean, count in zip(local_means(5 * weight, weight), box_sums(weight), strict=True):
        torch.testing.assert_close(mean, 5.0 * (count > 0))


@pytest.mark.parametrize('bands', [1, 3, 12])
def test_features_of_a_window_are_those_of_the_image(bands: int) -> None:
    features = PixelFeatures('texture', bands, {3: RGB, 12: S2}.get(bands, ()))
    image, valid = noise(1, bands, 100, 90), noise(1, 1, 100, 90, seed=1) > -1
    whole, radius = features(image, valid), features.receptive_radius
    part = (..., slice(5, 80), slice(7, 85))
    window = features(image[part], valid[part])
    inner = (..., slice(radius, -radius), slice(radius, -radius))
    assert whole.shape == (1, features.count, 100, 90)
    assert torch.equal(window[inner], whole[part][inner])


def test_the_radius_is_what_influences_a_pixel() -> None:
    """NaN reaches exactly that far."""

    class Sum(nn.Module):
        """Without a stated radius."""

        def __init__(self) -> None:
            super().__init__()
            self.features = PixelFeatures('texture', 2)

        def forward(self, image: Tensor) -> Tensor:
            return self.features(image).sum(dim=1, keepdim=True)

    field = measure_receptive_field(Sum(), 2)
    assert (field.margin, field.stride) == (PixelFeatures('texture', 2).receptive_radius, 1)
    assert PixelFeatures('spectral', 2).receptive_radius == 0


def test_invalid_pixels_have_no_influence() -> None:
    features = PixelFeatures('texture', 3, RGB)
    image, valid = noise(1, 3, 50, 50), noise(1, 1, 50, 50, seed=1) > 0
    expected = features(image, valid)
    for value in (1e9, torch.nan):
        assert torch.equal(features(torch.where(valid, image, value), valid), expected)
    assert (expected.masked_select(~valid) == 0).all()
    assert expected.isfinite().all()


def test_a_hole_in_even_ground_is_no_texture() -> None:
    """Without normalization the edges of the hole would be contrast."""
    features = PixelFeatures('texture', 1)
    valid = torch.ones(1, 1, 60, 60, dtype=torch.bool)
    valid[..., 20:35, 25:45] = False
    image = torch.full((1, 1, 60, 60), 2.0)
    holed, even = (features(image.where(mask, 0.0), mask) for mask in (valid, torch.ones_like(valid)))
    torch.testing.assert_close(holed, even.masked_fill(~valid, 0.0), atol=1e-3, rtol=1e-3)


def test_coherence_tells_rows_from_noise_in_any_direction() -> None:
    features = PixelFeatures('texture', 1)
    rows = torch.sin(torch.arange(96) / 2).expand(96, 96)
    diagonal = torch.sin((torch.arange(96)[:, None] + torch.arange(96)) / 3)
    image = torch.stack([rows, rows.T, diagonal, noise(96, 96)])[:, None]
    coherence = features(image)[:, -2, 40:56, 40:56].mean(dim=(1, 2))
    assert (coherence[:3] > 0.95).all()
    assert coherence[3] < 0.3


def test_a_turned_image_has_turned_features() -> None:
    features = PixelFeatures('texture', 3, RGB)
    image = noise(1, 3, 50, 40)
    turned = features(image.rot90(1, (-2, -1))).rot90(-1, (-2, -1))
    torch.testing.assert_close(turned, features(image), atol=1e-4, rtol=1e-4)


def test_an_index_is_that_of_reflectance() -> None:
    features = PixelFeatures('spectral', 2, [665.0, 842.0])
    red, nir = torch.tensor([0.05, 0.2, 0.0]), torch.tensor([0.45, 0.3, 0.0])
    reflectance = torch.stack([red, nir])[None, :, None]
    mean, std = torch.tensor([0.1, 0.3]), torch.tensor([0.05, 0.1])
    features.set_statistics(mean, std)
    ndvi = features((reflectance - mean[:, None, None]) / std[:, None, None])[0, 2, 0]
    np.testing.assert_allclose(ndvi, [0.8, 0.2, 0.0], atol=1e-6)


def test_bands_are_grouped_by_wavelength() -> None:
    assert band_groups(S2) == [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9], [10, 11]]
    assert band_groups([*RGB, None, 11000.0]) == [[0, 1, 2], [4], [3]]
    assert band_groups([None] * 4) == [[0, 1, 2, 3]]


def test_indices_pair_the_usual_bands() -> None:
    names = SENSORS['sentinel2_l2a'].names
    pairs = {tuple(names[channel] for channel in pair) for pair in index_pairs(S2)}
    assert {('B04', 'B08'), ('B03', 'B08'), ('B05', 'B08'), ('B08', 'B11'), ('B08', 'B12')} <= pairs
    assert len(pairs) == 21
    assert index_pairs([None] * 3) == [(0, 1), (0, 2), (1, 2)]
    assert len(index_pairs([None] * 20)) == 19
    assert index_pairs([None]) == []


def test_wavelengths_fit_the_bands() -> None:
    with pytest.raises(BandError, match='one for each of 4 bands, got 3'):
        PixelFeatures('texture', 4, RGB)
