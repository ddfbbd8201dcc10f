"""Pairs of views: which ones there are, in which precision, and what is refused."""

import pytest
import torch
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.losses.pairs import check_views, mean_over_pairs


def test_each_pair_once() -> None:
    views = torch.tensor([1.0, 10.0, 100.0])[:, None, None].expand(3, 2, 1)
    seen = []

    def loss(one: Tensor, other: Tensor) -> Tensor:
        seen.append((one[0].item(), other[0].item()))
        return one[0, 0] * other[0, 0]

    assert mean_over_pairs(loss, views).item() == (10 + 100 + 1000) / 3
    assert seen == [(1, 10), (1, 100), (10, 100)]


def test_autocast_does_not_round() -> None:
    def loss(one: Tensor, other: Tensor) -> Tensor:
        product = one @ other.T
        assert product.dtype == torch.float32
        return product.sum()

    with torch.autocast('cpu', torch.bfloat16):
        mean_over_pairs(loss, torch.randn(2, 3, 4))


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_precision_is_widened_only(given: torch.dtype, expected: torch.dtype) -> None:
    assert check_views(torch.ones(2, 3, 4, dtype=given)).dtype == expected


@pytest.mark.parametrize('shape', [(1, 3, 4), (2, 1, 4), (2, 4), (2, 2, 3, 4)])
def test_shapes_that_are_no_views(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match='2 views and 2 samples or more'):
        check_views(torch.ones(shape))
