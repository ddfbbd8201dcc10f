"""Targets of perturbed chips, followed by their coordinates."""

from typing import Any

import pytest
import torch
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.transforms.normalize import Normalize
from torchgeo_msssl.transforms.perturbations import Perturbation, cut_and_mix, perturb, perturb_reflectance

STILL: dict[str, Any] = {'common_gain': (1, 1), 'band_gain': (1, 1), 'blur': 0, 'noise': 0}


def coordinates(batch: int = 6, side: int = 8) -> Tensor:
    """Images in which each pixel holds chip, row and column (batch, 3, side, side)."""
    chip, row, col = torch.meshgrid(torch.arange(batch), torch.arange(side), torch.arange(side), indexing='ij')
    return torch.stack([chip, row, col], dim=1).float()


@pytest.mark.parametrize('cutmix', [0.0, 1.0])
def test_targets_and_masks_are_those_of_the_pixels(cutmix: float) -> None:
    torch.manual_seed(0)
    places = coordinates()
    valid = torch.rand(6, 1, 8, 8) < 0.9
    image, target, moved = perturb(places, places, valid, Normalize(3), Perturbation(**STILL, cutmix=cutmix))
    assert torch.equal(image, torch.where(moved, target, 0.0))
    chip, row, col = target.long().unbind(1)
    assert torch.equal(moved.squeeze(1), valid.squeeze(1)[chip, row, col])
    assert not torch.equal(target, places)
    own = torch.arange(6)[:, None, None].expand_as(chip)
    if cutmix:
        mixed = chip != own
        assert torch.equal(chip[mixed], ((own + 1) % 6)[mixed])
        assert (mixed.flatten(1).any(1)).all()
        assert not (mixed.flatten(1).all(1)).any()
    else:
        assert torch.equal(chip, own)
        for k in range(6):  # each pixel once
            assert len(set(zip(row[k].flatten().tolist(), col[k].flatten().tolist(), strict=True))) == 64


def test_a_rectangle_comes_from_the_next_chip() -> None:
    inside = torch.zeros(3, 1, 2, 2, dtype=torch.bool)
    inside[:, :, 0, 1] = True
    (mixed,) = cut_and_mix((torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 1, 2, 2),), inside)
    assert mixed[:, 0].tolist() == [[[0, 1], [0, 0]], [[1, 2], [1, 1]], [[2, 0], [2, 2]]]


def test_invalid_values_reach_nothing() -> None:
    image = torch.rand(4, 3, 16, 16)
    valid = torch.rand(4, 1, 16, 16) < 0.8
    results = []
    for junk in (0.0, 1e4):
        torch.manual_seed(1)
        results.append(
            perturb(torch.where(valid, image, junk), image[:, :2], valid, Normalize(3), Perturbation(blur=1, noise=1))
        )
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    assert not results[0][0][~results[0][2].expand_as(image)].any()


def test_gains_and_noise_have_their_strength() -> None:
    image, valid = torch.ones(64, 4, 8, 8), torch.ones(64, 1, 8, 8, dtype=torch.bool)
    torch.manual_seed(0)
    gain = perturb_reflectance(image, valid, Perturbation(common_gain=(0.5, 2), band_gain=(0.9, 1.1), noise=0))
    torch.testing.assert_close(gain, gain[:, :, :1, :1].expand_as(gain))
    per_chip = gain[:, :, 0, 0]
    assert ((per_chip >= 0.45) & (per_chip <= 2.2)).all()
    assert (per_chip.amax(1) / per_chip.amin(1)).max() <= 1.1 / 0.9 + 1e-5
    assert per_chip.std() > 0.2
    spread = 5 * torch.randn(64, 4, 8, 8)
    still = STILL | {'noise': 1, 'noise_std': (0.2, 0.2)}
    noise = perturb_reflectance(spread, valid, Perturbation(**still)) - spread
    assert noise.std().item() == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize('options', [{'cutmix': 2}, {'blur': -1}, {'common_gain': (2, 1)}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Perturbation(**options)
