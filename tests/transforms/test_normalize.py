"""Normalisation against its formula, in every dtype that scenes come in."""

import pytest
import torch

from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.transforms import Normalize, valid_pixels

BANDS = 4


@pytest.fixture
def normalize() -> Normalize:
    module = Normalize(BANDS)
    module.set_statistics(
        mean=[0.1, 0.2, 0.3, 0.4], std=[0.01, 0.02, 0.05, 0.1], scale=[1e-4] * BANDS, offset=[-1000, 0, 0, 50]
    )
    return module


def numbers(high: int = 250) -> torch.Tensor:
    return torch.randint(0, high, (2, BANDS, 5, 7), generator=torch.Generator().manual_seed(0))


def test_starts_as_identity() -> None:
    image = numbers().float()
    assert torch.equal(Normalize(BANDS)(image), image)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.uint16, torch.int16, torch.int32, torch.float32, torch.float64])
def test_formula_in_every_dtype(normalize: Normalize, dtype: torch.dtype) -> None:
    image = numbers()
    offset = torch.tensor([-1000.0, 0, 0, 50]).view(1, -1, 1, 1)
    mean = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, -1, 1, 1)
    std = torch.tensor([0.01, 0.02, 0.05, 0.1]).view(1, -1, 1, 1)
    expected = (image + offset) * 1e-4
    reflectance = normalize.reflectance(image.to(dtype))
    assert reflectance.dtype == torch.float32
    torch.testing.assert_close(reflectance, expected)
    torch.testing.assert_close(normalize(image.to(dtype)), (expected - mean) / std)


def test_uint16_above_the_range_of_int16() -> None:
    image = torch.full((1, BANDS, 2, 2), 60000).to(torch.uint16)
    assert (Normalize(BANDS).reflectance(image) == 60000).all()


@pytest.mark.parametrize('dtype', [torch.uint16, torch.float32])
def test_invalid_pixels_hold_the_mean_and_become_exactly_zero(normalize: Normalize, dtype: torch.dtype) -> None:
    image, valid = numbers(), torch.ones(2, 1, 5, 7, dtype=torch.bool)
    image[1, :, 2, 3], valid[1, 0, 2, 3] = 65535, False
    image = image.to(dtype)
    reflectance, output = normalize.reflectance(image, valid), normalize(image, valid)
    assert torch.equal(reflectance[1, :, 2, 3], normalize.mean)
    assert torch.equal(output[1, :, 2, 3], torch.zeros(BANDS))
    everywhere = normalize(image)
    inside = valid.expand_as(output)
    assert torch.equal(output[inside], everywhere[inside])
    assert (everywhere[1, :, 2, 3] != 0).all()


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_non_finite_values_are_invalid_whatever_the_mask_says(normalize: Normalize, value: float) -> None:
    image, valid = numbers().float(), torch.ones(2, 1, 5, 7, dtype=torch.bool)
    image[0, 1, 4, 6] = value
    for output in (normalize(image, valid), normalize(image)):
        assert torch.isfinite(output).all()
        assert torch.equal(output[0, :, 4, 6], torch.zeros(BANDS))
    assert torch.equal(normalize.reflectance(image, valid)[0, :, 4, 6], normalize.mean)
    assert torch.equal(normalize.standardize(image, valid)[0, :, 4, 6], torch.zeros(BANDS))
    assert valid_pixels(image).sum() == 2 * 5 * 7 - 1
    assert valid_pixels(image, valid).shape == (2, 1, 5, 7)


def test_scale_and_offset_of_each_sample(normalize: Normalize) -> None:
    """The same ground before and after Sentinel-2's baseline 04.00 gives the same reflectance."""
    ground = numbers()[:1]
    image = torch.cat([ground, ground + 1000]).to(torch.uint16)
    offset = torch.tensor([[0.0], [-1000.0]]).expand(2, BANDS)
    scale = torch.tensor([[1e-4], [1e-4]]).expand(2, BANDS)
    reflectance = normalize.reflectance(image, scale=scale, offset=offset)
    assert torch.equal(reflectance[0], reflectance[1])
    torch.testing.assert_close(reflectance[0], ground[0] * 1e-4)


def test_statistics_travel_in_the_state_dict(normalize: Normalize) -> None:
    other = Normalize(BANDS)
    other.load_state_dict(normalize.state_dict())
    assert set(normalize.state_dict()) == {'mean', 'std', 'scale', 'offset'}
    assert torch.equal(other(numbers()), normalize(numbers()))


@pytest.mark.parametrize(
    ('name', 'values', 'message'),
    [
        ('mean', [0.1], '4 bands, got 1'),
        ('offset', [0.0] * 5, '4 bands, got 5'),
        ('std', [1.0, 0.0, 1.0, 1.0], 'index 1'),
        ('std', [1.0, 1.0, -1.0, 1.0], 'index 2'),
        ('scale', [1.0, 1.0, 1.0, 0.0], 'index 3'),
        ('mean', [float('nan'), 0.0, 0.0, 0.0], 'index 0'),
    ],
)
def test_bad_statistics_are_refused_and_change_nothing(
    normalize: Normalize, name: str, values: list[float], message: str
) -> None:
    before = {key: value.clone() for key, value in normalize.state_dict().items()}
    constants = {'mean': [9.0] * BANDS, 'std': [9.0] * BANDS, 'scale': [9.0] * BANDS, 'offset': [9.0] * BANDS}
    with pytest.raises(ConfigurationError, match=message):
        normalize.set_statistics(**(constants | {name: values}))
    assert all(torch.equal(before[key], value) for key, value in normalize.state_dict().items())


def test_another_number_of_bands_is_refused(normalize: Normalize) -> None:
    with pytest.raises(BandError, match=r'\(batch, 4, height, width\)'):
        normalize(torch.zeros(2, 1, 5, 7))
    with pytest.raises(BandError):
        normalize.standardize(torch.zeros(4, 5, 7))
    with pytest.raises(ConfigurationError):
        Normalize(0)
