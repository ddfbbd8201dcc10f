"""Scores of matches against loops, and what reaches them."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.reconstruction import create_restoration, feature_pyramid
from torchgeo_msssl.models.subimage_matching import (
    SubimageMatching,
    known_positions,
    overlap_probability,
    placement_scores,
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_scores_are_those_of_a_loop() -> None:
    query, key, temperature = draw(2, 5, 4, 3), draw(2, 5, 2, 3, seed=1), 0.3
    known = torch.tensor([[[1, 1, 0], [0, 1, 0]], [[1, 1, 1], [1, 1, 1]]], dtype=torch.bool)
    scores = placement_scores(query, key, known)
    found = overlap_probability(scores, known, temperature)
    assert scores.shape == (2, 5, 5)
    assert found.shape == (2, 1, 4, 3)
    for sample in range(2):
        positions = known[sample].nonzero().tolist()
        weights, inside = 0.0, torch.zeros(4, 3, dtype=torch.float64)
        for top, left in product(range(-1, 4), range(-2, 3)):
            cosines, covered = [], []
            for row, column in positions:
                place = (top + row, left + column)
                if 0 <= place[0] < 4 and 0 <= place[1] < 3:
                    pair = query[sample, :, place[0], place[1]], key[sample, :, row, column]
                    cosines.append(float(pair[0] @ pair[1] / (pair[0].norm() * pair[1].norm())))
                    covered.append(place)
            score = sum(cosines) / len(positions)
            assert scores[sample, top + 1, left + 2].item() == pytest.approx(score, abs=1e-12)
            weight = math.exp(score / temperature)
            weights += weight
            for row, column in covered:
                inside[row, column] += weight
        torch.testing.assert_close(found[sample, 0], inside / weights)


def test_the_place_of_the_same_features_is_found() -> None:
    """With one feature per position the probability is 1 inside the rectangle and 0 outside."""
    image = torch.eye(48, dtype=torch.float64).reshape(1, 48, 6, 8)
    canvas, known = torch.zeros(1, 48, 5, 5, dtype=torch.float64), torch.zeros(1, 5, 5, dtype=torch.bool)
    canvas[..., 2:, :] = image[..., 1:4, 2:7]  # in another corner of its canvas
    known[:, 2:] = True
    found = overlap_probability(placement_scores(image, canvas, known), known, 0.01)[0, 0]
    expected = torch.zeros(6, 8, dtype=torch.float64)
    expected[1:4, 2:7] = 1
    torch.testing.assert_close(found, expected)


def test_positions_that_do_not_count_have_no_effect() -> None:
    query, key = draw(1, 4, 3, 3), draw(1, 4, 2, 2)
    known = torch.tensor([[[True, True], [False, True]]])
    scores = placement_scores(query, key, known)
    key[..., 1, 0] = 100
    torch.testing.assert_close(placement_scores(query, key, known), scores)


def test_positions_with_enough_valid_pixels_are_known() -> None:
    valid = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    valid[0, :, :4, :6] = True  # the second position is half filled
    valid[1, :, :1, :2] = True  # less than half of any
    valid[2, :, 4:, 4:] = True
    expected = [[[1, 1], [0, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 1]], [[1, 1], [1, 1]]]  # nothing: all, and no NaN
    assert known_positions(valid, 2, 2).int().tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize('architecture', ['unet', 'unetplusplus', 'fpn', 'segformer', 'upernet'])
@pytest.mark.parametrize('name', ['test_resnet', 'convnext_atto'])
def test_everything_that_learns_gets_gradients(architecture: str, name: str) -> None:
    """DDP waits forever for a parameter without one."""
    torch.manual_seed(0)
    encoder = create_encoder(name, 3)
    parts = create_restoration(architecture, encoder, name, 3, out_channels=2)
    matching = SubimageMatching(parts.channels, 8)
    maps, part = (feature_pyramid(encoder, torch.randn(2, 3, side, side), parts.channels) for side in (64, 32))
    found = matching(maps, part, torch.ones(2, 1, 32, 32, dtype=torch.bool))
    assert [one.shape for one in found] == [one.shape for one in maps]
    logits = parts.head(parts.decoder(found))
    assert logits.shape == (2, 2, 64, 64)
    logits.square().sum().backward()
    for module in (encoder, parts.decoder, parts.head, matching):
        assert all(p.grad is not None for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize(('options', 'named'), [((0, 0.1), 'matching_dim'), ((8, 0.0), 'temperature')])
def test_options_out_of_range_are_named(options: tuple[int, float], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        SubimageMatching((3, 8, 8), *options)
