"""Spectral augmentations: their arithmetic, and their place among kornia's."""

import kornia.augmentation as K
import pytest
import torch

from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.transforms import RandomBandDropout, RandomBandNoise, RandomGain
from torchgeo_msssl.transforms.spectral import band_statistics, bands_to_drop


def image(batch: int = 6, bands: int = 5, size: int = 16) -> torch.Tensor:
    """Standardised values: most of them outside [0, 1]."""
    return 3 * torch.randn(batch, bands, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('bands', [1, 4, 12])
def test_gain_is_one_factor_a_band(bands: int) -> None:
    torch.manual_seed(0)
    before = image(batch=64, bands=bands)
    gain = (RandomGain(common=(0.8, 1.2), per_band=(0.9, 1.1))(before) / before).flatten(2)
    torch.testing.assert_close(gain, gain[..., :1].expand_as(gain))
    factors = gain[..., 0]
    assert factors.min() >= 0.8 * 0.9 - 1e-5
    assert factors.max() <= 1.2 * 1.1 + 1e-5
    assert len(factors.unique()) > 0.9 * factors.numel()


def test_common_gain_is_common() -> None:
    before = image()
    gain = RandomGain(common=(0.5, 2.0), per_band=(1.0, 1.0))(before) / before
    torch.testing.assert_close(gain, gain[:, :1, :1, :1].expand_as(gain))
    assert gain[:, 0, 0, 0].std() > 0.05


@pytest.mark.parametrize('augmentation', [RandomGain(), RandomBandNoise(p=1.0), RandomBandDropout(0.3)])
def test_nothing_is_clipped(augmentation: torch.nn.Module) -> None:
    before = image(batch=32)
    after = augmentation(before)
    assert not torch.equal(after, before)
    # a clip to [0, 1] would leave none of these; dropout takes some bands with it
    assert (after < -1).sum() > 0.5 * (before < -1).sum()
    assert (after > 2).sum() > 0.5 * (before > 2).sum()


def test_noise_has_the_std_asked_for_in_each_band() -> None:
    torch.manual_seed(0)
    spread = torch.tensor([0.1, 1.0, 20.0])
    before = image(batch=4, bands=3, size=128) * spread.view(-1, 1, 1)
    own = RandomBandNoise(std=(0.1, 0.1), p=1.0)(before) - before
    torch.testing.assert_close(
        own.std(dim=(-2, -1)) / before.std(dim=(-2, -1)), torch.full((4, 3), 0.1), rtol=0.05, atol=0
    )
    given = RandomBandNoise(std=(0.1, 0.1), band_std=[1.0, 2.0, 0.0], p=1.0)(before) - before
    torch.testing.assert_close(
        given.std(dim=(-2, -1)), torch.tensor([0.1, 0.2, 0.0]).expand(4, 3), rtol=0.05, atol=1e-6
    )
    assert given[:, :2].mean().abs() < 0.01


@pytest.mark.parametrize('bands', [1, 2, 4])
def test_dropout_never_takes_all_bands(bands: int) -> None:
    torch.manual_seed(0)
    before = image(batch=500, bands=bands, size=2)
    same = (RandomBandDropout(p_band=1.0)(before) == before).flatten(2).all(-1)
    assert torch.equal(same.sum(dim=1), torch.ones(500, dtype=torch.long))
    share = same.float().mean(dim=0)
    torch.testing.assert_close(share, torch.full((bands,), 1 / bands), rtol=0.25, atol=0)


def test_dropout_takes_each_band_as_often_as_asked() -> None:
    uniform = torch.rand(20000, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(bands_to_drop(uniform, 0.2).float().mean(0), torch.full((6,), 0.2), rtol=0.06, atol=0)
    assert not bands_to_drop(uniform, 0.0).any()


def test_dropped_band_becomes_its_mean() -> None:
    torch.manual_seed(0)
    before = image(batch=50)
    after = RandomBandDropout(p_band=0.5)(before)
    dropped = (after != before).flatten(2).any(-1)
    assert dropped.any()
    assert not dropped.all()
    mean = before.mean(dim=(-2, -1), keepdim=True).expand_as(before)
    torch.testing.assert_close(after[dropped], mean[dropped])
    filled = RandomBandDropout(p_band=0.5, fill=[1.0, 2.0, 3.0, 4.0, 5.0])(before)
    dropped = (filled != before).flatten(2).any(-1)
    expected = torch.arange(1.0, 6.0).view(1, -1, 1, 1).expand_as(before)
    assert torch.equal(filled[dropped], expected[dropped])
    assert torch.equal(filled[~dropped], before[~dropped])


def test_composes_in_augmentation_sequential_on_samples() -> None:
    """TorchGeo hands whole samples to kornia: labels and bounds must come back as they were."""
    torch.manual_seed(0)
    sample = {
        'image': image(),
        'mask': torch.randint(0, 7, (6, 1, 16, 16)).float(),
        'bounds': torch.rand(6, 9),
    }
    chain = K.AugmentationSequential(
        RandomGain(), RandomBandNoise(p=0.5), RandomBandDropout(p_band=0.3), data_keys=None, keepdim=True
    )
    batch = {key: value.clone() for key, value in sample.items() if key != 'bounds'}
    output = chain(batch)
    assert set(output) == {'image', 'mask'}
    assert torch.equal(output['mask'], sample['mask'])
    assert output['image'].shape == sample['image'].shape
    assert (output['image'] != sample['image']).flatten(1).any(1).all()


def test_masks_stay_on_the_image_when_composed_with_a_flip() -> None:
    before = image()
    mask = (before[:, :1] > 0).float()
    chain = K.AugmentationSequential(K.RandomHorizontalFlip(p=1.0), RandomGain(), data_keys=None)
    output = chain({'image': before, 'mask': mask})
    assert torch.equal((output['image'][:, :1] > 0).float(), output['mask'])
    assert torch.equal(output['mask'], mask.flip(-1))


@pytest.mark.parametrize('augmentation', [RandomGain, RandomBandNoise, RandomBandDropout])
def test_probability_gates_samples_and_seed_repeats_them(augmentation: type[torch.nn.Module]) -> None:
    before = image(batch=200)
    extra = {'p_band': 0.9} if augmentation is RandomBandDropout else {}
    module = augmentation(p=0.5, **extra)
    torch.manual_seed(3)
    first = module(before)
    changed = (first != before).flatten(1).any(1)
    assert 60 < changed.sum() < 140
    torch.manual_seed(3)
    assert torch.equal(module(before), first)
    assert not torch.equal(module(before), first)
    assert torch.equal(module(before, params=module._params), module(before, params=module._params))
    assert torch.equal(augmentation(p=0.0, **extra)(before), before)


@pytest.mark.parametrize('augmentation', [RandomGain, RandomBandNoise, RandomBandDropout])
def test_same_on_batch_and_half_precision(augmentation: type[torch.nn.Module]) -> None:
    before = image(batch=1).expand(4, -1, -1, -1)
    after = augmentation(p=1.0, same_on_batch=True)(before)
    assert torch.equal(after, after[:1].expand_as(after))
    assert augmentation(p=1.0)(before.bfloat16()).dtype == torch.bfloat16


def test_band_statistics_leave_invalid_pixels_out() -> None:
    before, valid = image(), torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.3
    valid[5] = False
    changed = torch.where(valid, before, torch.nan)
    mean, std = band_statistics(changed, valid)
    for sample in range(5):
        inside = before[sample][:, valid[sample, 0]]
        torch.testing.assert_close(mean[sample], inside.mean(1))
        torch.testing.assert_close(std[sample], inside.std(1, correction=0))
    assert torch.equal(mean[5], torch.zeros(5))
    assert torch.equal(std[5], torch.zeros(5))
    mean, std = band_statistics(before)
    torch.testing.assert_close(std, band_statistics(before, torch.ones_like(valid))[1])


def test_bad_options_are_refused() -> None:
    for build in (
        lambda: RandomGain(common=(1.2, 0.8)),
        lambda: RandomGain(per_band=(-0.1, 1.0)),
        lambda: RandomGain(p=1.5),
        lambda: RandomBandNoise(std=(0.1, float('inf'))),
        lambda: RandomBandNoise(band_std=[0.1, -0.1]),
        lambda: RandomBandDropout(p_band=-0.1),
    ):
        with pytest.raises(ConfigurationError):
            build()
    with pytest.raises(BandError, match='5 bands, got 2'):
        RandomBandNoise(band_std=[0.1, 0.2], p=1.0)(image())
    with pytest.raises(BandError, match='5 bands, got 1'):
        RandomBandDropout(fill=[0.1])(image())
