"""Signals of collapse at points where their values are known."""

import math

import pytest
import torch

from torchgeo_msssl.losses import embedding_std, mean_cosine, rank_me


def normal(samples: int, features: int) -> torch.Tensor:
    return torch.randn(samples, features, generator=torch.Generator().manual_seed(0))


def test_embedding_std() -> None:
    assert embedding_std(5 * normal(4000, 64)).item() == pytest.approx(1 / math.sqrt(64), rel=0.02)
    assert embedding_std(torch.ones(10, 8) * torch.arange(1.0, 11.0)[:, None]).item() == pytest.approx(0, abs=1e-6)
    # two opposite points in one dimension: unbiased std of (1, −1) is √2
    assert embedding_std(torch.tensor([[3.0], [-7.0]])).item() == pytest.approx(math.sqrt(2))


def test_mean_cosine_equals_brute_force() -> None:
    z = normal(50, 7) + 0.3
    cosines = torch.cosine_similarity(z[:, None].double(), z[None].double(), dim=-1)
    expected = cosines[~torch.eye(50, dtype=torch.bool)].mean()
    assert mean_cosine(z).item() == pytest.approx(expected.item(), abs=1e-6)
    assert mean_cosine(z.double()).item() == pytest.approx(expected.item(), abs=1e-12)


def test_mean_cosine_at_its_ends() -> None:
    assert mean_cosine(torch.ones(20, 5)).item() == pytest.approx(1, abs=1e-6)
    assert mean_cosine(torch.eye(20)).item() == pytest.approx(0, abs=1e-6)
    assert mean_cosine(torch.tensor([[1.0, 2.0], [-2.0, -4.0]])).item() == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize('scale', [1e-3, 1.0, 50.0])
def test_rank_me_known_values(scale: float) -> None:
    orthonormal = torch.linalg.qr(normal(512, 64).double())[0]
    halves = torch.diag(0.5 ** torch.arange(40, dtype=torch.float64))
    line = torch.outer(normal(30, 1)[:, 0].double(), normal(8, 1)[:, 0].double())
    assert rank_me(scale * torch.eye(8)).item() == pytest.approx(8, abs=1e-5)
    assert rank_me(scale * line).item() == pytest.approx(1, abs=1e-9)
    assert rank_me(scale * line.float()).item() == pytest.approx(1, abs=1e-3)
    assert rank_me(scale * orthonormal).item() == pytest.approx(64, abs=1e-6)
    assert rank_me(scale * halves).item() == pytest.approx(4, abs=1e-6)


def test_rank_me_of_an_isotropic_batch() -> None:
    """With many more samples than features all singular values are about the same."""
    rank = rank_me(normal(20000, 16)).item()
    assert 15.98 < rank < 16


@pytest.mark.parametrize('signal', [embedding_std, mean_cosine, rank_me])
def test_no_signal_hides_a_nan(signal: object) -> None:
    z = normal(20, 4)
    assert torch.isfinite(signal(z))
    for bad in (math.nan, math.inf):
        z[3, 1] = bad
        assert signal(z).isnan()


@pytest.mark.filterwarnings('ignore:std.*degrees of freedom')
@pytest.mark.parametrize('signal', [embedding_std, mean_cosine])
def test_one_sample_has_no_spread(signal: object) -> None:
    assert signal(normal(1, 4)).isnan()


def test_all_zero_embeddings_have_no_rank() -> None:
    assert rank_me(torch.zeros(5, 3)).isnan()


@pytest.mark.parametrize('signal', [embedding_std, mean_cosine, rank_me])
def test_half_precision_is_computed_in_float32(signal: object) -> None:
    z = normal(200, 16).bfloat16().requires_grad_()
    value = signal(z)
    assert value.dtype == torch.float32
    assert not value.requires_grad
    assert value.item() == pytest.approx(signal(z.detach().double()).item(), rel=1e-3, abs=1e-5)
