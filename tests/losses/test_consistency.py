"""Pseudo-labels computed by hand, and losses against transcriptions of the authors' code."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchgeo_msssl.losses.consistency import (
    class_thresholds,
    pseudo_label_loss,
    pseudo_labels,
    sigmoid_rampup,
    softmax_mse_loss,
)

# 2 × 4 pixels, classes 0 0 0 0 / 1 1 1 0; the confidence of the last one must not count
CONFIDENCE = torch.tensor([[[0.99, 0.97, 0.6, 0.8], [0.9, 0.7, 0.6, 0.999]]])
LABELS = torch.tensor([[[0, 0, 0, 0], [1, 1, 1, 0]]])
VALID = torch.tensor([[[True, True, True, True], [True, True, True, False]]])
PROBABILITY = torch.where(torch.stack([LABELS == 0, LABELS == 1], 1), CONFIDENCE[:, None], 1 - CONFIDENCE[:, None])


def rampup_of_the_authors(current: float, length: float) -> float:
    """``ramps.sigmoid_rampup`` of Mean Teacher."""
    phase = 1.0 - min(max(current, 0.0), length) / length
    return math.exp(-5.0 * phase * phase)


def test_rampup() -> None:
    assert [sigmoid_rampup(step, 8) for step in (0, 3, 8, 9)] == [rampup_of_the_authors(s, 8) for s in (0, 3, 8, 9)]
    assert sigmoid_rampup(0, 0) == 1


@pytest.mark.parametrize(
    ('fraction', 'thresholds', 'used'),
    [
        (0.0, [0.95, 0.95], [[1, 1, 0, 0], [0, 0, 0, 0]]),  # class 1 is lost
        (0.01, [0.95, 0.9], [[1, 1, 0, 0], [1, 0, 0, 0]]),  # one pixel of each class at least
        (0.6, [0.8, 0.7], [[1, 1, 0, 1], [1, 1, 0, 0]]),  # ⌈0.6 · 4⌉ = 3 and ⌈0.6 · 3⌉ = 2
        (1.0, [0.6, 0.6], [[1, 1, 1, 1], [1, 1, 1, 0]]),
    ],
)
def test_thresholds_are_those_computed_by_hand(fraction: float, thresholds: list[float], used: list[list[int]]) -> None:
    found = class_thresholds(CONFIDENCE, LABELS, VALID, 2, 0.95, fraction)
    torch.testing.assert_close(found, torch.tensor(thresholds))
    labels, which = pseudo_labels(PROBABILITY, VALID[:, None], 0.95, fraction)
    assert torch.equal(labels, LABELS)
    assert torch.equal(which, torch.tensor([used]).bool())


def draw(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 3, 5, 6, generator=generator)
    probability = (3 * torch.randn(2, 3, 5, 6, generator=generator)).softmax(1)
    return logits, probability, torch.rand(2, 1, 5, 6, generator=generator) < 0.7


def fixmatch_of_the_authors(pred: Tensor, probability: Tensor, ignore_mask: Tensor, conf_thresh: float) -> Tensor:
    """The unsupervised loss of ``fixmatch.py`` of UniMatch V2."""
    conf, mask = probability.max(dim=1)[0], probability.argmax(dim=1)
    loss_u_s = F.cross_entropy(pred, mask, reduction='none')
    loss_u_s = loss_u_s * ((conf >= conf_thresh) & (ignore_mask != 255))
    return loss_u_s.sum() / (ignore_mask != 255).sum().item()


def test_losses_are_those_of_the_authors() -> None:
    logits, probability, valid = draw(0)
    labels, used = pseudo_labels(probability, valid, 0.8)
    assert 0 < used.sum() < valid.sum()
    expected = fixmatch_of_the_authors(logits, probability, torch.where(valid[:, 0], 0, 255), 0.8)
    torch.testing.assert_close(pseudo_label_loss(logits, labels, used, valid), expected)
    # softmax_mse_loss of Mean Teacher sums over samples, here pixels, and leaves the mean to its caller
    pixels = valid.squeeze(1)
    student = logits.softmax(1).movedim(1, -1)[pixels]
    total = F.mse_loss(student, probability.movedim(1, -1)[pixels], reduction='sum') / 3
    torch.testing.assert_close(softmax_mse_loss(logits, probability, valid), total / len(student))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([math.nan, math.inf, 1e30]))
def test_invalid_pixels_contribute_nothing(seed: int, junk: float) -> None:
    logits, probability, valid = draw(seed)

    def losses(logits: Tensor, probability: Tensor) -> tuple[list[Tensor], Tensor]:
        logits = logits.clone().requires_grad_()
        labels, used = pseudo_labels(probability, valid, 0.9, 0.3)
        found = [pseudo_label_loss(logits, labels, used, valid), softmax_mse_loss(logits, probability, valid)]
        return found, torch.autograd.grad(torch.stack(found).sum(), logits)[0]

    clean, gradient = losses(logits, probability)
    dirty, other = losses(torch.where(valid, logits, junk), torch.where(valid, probability, 0.999))
    assert [loss.item() for loss in clean] == [loss.item() for loss in dirty]
    assert torch.equal(gradient, other)
    assert not gradient[~valid.expand_as(gradient)].any()


def test_a_batch_without_valid_pixels_has_no_loss() -> None:
    logits, probability, _ = draw(0)
    nothing = torch.zeros(2, 1, 5, 6, dtype=torch.bool)
    labels, used = pseudo_labels(probability, nothing, 0.5, 0.5)
    assert not used.any()
    assert pseudo_label_loss(logits, labels, used, nothing) == softmax_mse_loss(logits, probability, nothing) == 0
