"""Losses over the pixels that count, and PSNR and SSIM against torchmetrics."""

import math

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from tests.losses.two_ranks import mean_over_ranks, run_two_ranks
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses import MaskedLoss, masked_loss
from torchgeo_msssl.losses.reconstruction import error_sums, psnr_and_ssim


def draw(batch: int = 4, bands: int = 3, side: int = 24, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(2, batch, bands, side, side, generator=generator, dtype=torch.float64)
    mask = torch.rand(batch, 1, side, side, generator=generator) < 0.4
    return images[0], images[1], mask


@pytest.mark.parametrize('kind', ['l1', 'mse'])
def test_loss_is_the_mean_over_the_chosen_values(kind: str) -> None:
    prediction, target, mask = draw()
    chosen = mask.expand_as(target)
    difference = prediction[chosen] - target[chosen]
    expected = difference.abs().mean() if kind == 'l1' else (difference**2).mean()
    assert masked_loss(prediction, target, mask, kind).item() == pytest.approx(expected.item(), abs=1e-12)
    assert MaskedLoss(kind)(prediction, target, mask).item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize('kind', ['l1', 'mse'])
def test_what_does_not_count_has_no_effect(kind: str) -> None:
    prediction, target, mask = draw()
    clean = masked_loss(prediction, target, mask, kind)
    chosen = mask.expand_as(target)
    bad = torch.where(chosen, prediction, math.nan).requires_grad_()
    loss = masked_loss(bad, torch.where(chosen, target, math.inf), mask, kind)
    loss.backward()
    assert loss.item() == pytest.approx(clean.item(), abs=1e-14)
    assert torch.isfinite(bad.grad).all()
    assert (bad.grad[~chosen] == 0).all()
    assert (bad.grad[chosen] != 0).all()


def test_nothing_that_counts_is_no_loss() -> None:
    prediction, target, mask = draw()
    prediction.requires_grad_()
    loss = masked_loss(prediction, target, torch.zeros_like(mask))
    loss.backward()
    assert loss.item() == 0
    assert (prediction.grad == 0).all()


def test_half_precision_is_added_up_in_float32() -> None:
    prediction = torch.full((1, 1, 400, 400), 1.0, dtype=torch.float16)
    loss = masked_loss(prediction, torch.zeros_like(prediction), torch.ones(1, 1, 400, 400, dtype=torch.bool))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1)


def on_rank(rank: int) -> tuple[Tensor, Tensor, Tensor]:
    prediction, target, mask = draw(seed=7)
    mask[2:] = mask[2:] & (torch.arange(24) < 5)  # the second rank has far fewer values that count
    part = slice(2 * rank, 2 * rank + 2)
    weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    loss = MaskedLoss('mse')(weight * prediction[part], target[part], mask[part])
    loss.backward()
    alone = MaskedLoss('mse').eval()(prediction[part], target[part], mask[part])
    return mean_over_ranks(loss), mean_over_ranks(weight.grad), alone


@pytest.mark.slow
def test_two_ranks_are_one_process_on_the_whole_batch() -> None:
    results = run_two_ranks(on_rank)
    prediction, target, mask = draw(seed=7)
    mask[2:] = mask[2:] & (torch.arange(24) < 5)
    weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    loss = masked_loss(weight * prediction, target, mask, 'mse')
    loss.backward()
    for mean_loss, gradient, _ in results:
        assert mean_loss.item() == pytest.approx(loss.item(), abs=1e-12)
        assert gradient.item() == pytest.approx(weight.grad.item(), abs=1e-12)
    for rank, (_, _, alone) in enumerate(results):  # evaluation talks to nobody
        part = slice(2 * rank, 2 * rank + 2)
        expected = masked_loss(prediction[part], target[part], mask[part], 'mse')
        assert alone.item() == pytest.approx(expected.item(), abs=1e-12)


def test_psnr_and_ssim_are_those_of_torchmetrics() -> None:
    prediction, target, _ = draw(side=40)
    mask = torch.zeros(4, 1, 40, 40, dtype=torch.bool)
    mask[:, :, 5:-5, 5:-5] = True  # torchmetrics treats the border in another way
    filled = torch.where(mask, prediction, target)
    data_range = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    psnr, ssim = psnr_and_ssim(error_sums(prediction, target, mask, data_range))
    for band, size in enumerate(data_range.tolist()):
        one, other = filled[:, band : band + 1], target[:, band : band + 1]
        inside = one[..., 5:-5, 5:-5], other[..., 5:-5, 5:-5]
        assert psnr[band].item() == pytest.approx(peak_signal_noise_ratio(*inside, data_range=size).item(), abs=1e-6)
        _, full = structural_similarity_index_measure(one, other, data_range=size, return_full_image=True)
        assert ssim[band].item() == pytest.approx(full[..., 5:-5, 5:-5].mean().item(), abs=1e-6)


def test_scores_do_not_depend_on_the_unit() -> None:
    prediction, target, mask = draw()
    sums = error_sums(prediction, target, mask, torch.ones(3))
    again = error_sums(prediction * 100, target * 100, mask, torch.full((3,), 100.0))
    torch.testing.assert_close(sums, again)


def test_scores_add_up_over_batches_and_see_hidden_pixels_only() -> None:
    prediction, target, mask = draw()
    whole = error_sums(prediction, target, mask, torch.ones(3))
    parts = sum(error_sums(prediction[i : i + 1], target[i : i + 1], mask[i : i + 1], torch.ones(3)) for i in range(4))
    torch.testing.assert_close(whole, parts)
    outside = torch.where(mask, prediction, 1e6)
    torch.testing.assert_close(error_sums(outside, target, mask, torch.ones(3)), whole)


def test_a_perfect_restoration_and_none() -> None:
    _, target, mask = draw()
    psnr, ssim = psnr_and_ssim(error_sums(target, target, mask, torch.ones(3)))
    assert psnr.tolist() == [math.inf] * 3
    assert ssim.tolist() == pytest.approx([1.0] * 3)
    psnr, ssim = psnr_and_ssim(error_sums(target, target, torch.zeros_like(mask), torch.ones(3)))
    assert psnr.isnan().all()
    assert ssim.isnan().all()


def test_errors_name_what_is_wrong() -> None:
    prediction, target, mask = draw()
    with pytest.raises(ConfigurationError, match='one shape'):
        masked_loss(prediction[:2], target, mask)
    with pytest.raises(ConfigurationError, match='loss'):
        MaskedLoss('huber')
