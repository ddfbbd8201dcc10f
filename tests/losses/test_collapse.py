"""Signals of collapse at points where their values are known."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from torchgeo_msssl.losses import alpha_req, embedding_std, lidar, mean_cosine, rank_me


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


def with_spectrum(eigenvalues: torch.Tensor, samples: int = 600) -> torch.Tensor:
    """Embeddings whose covariance has exactly these eigenvalues, up to one factor, around a mean that is not 0."""
    raw = normal(samples, len(eigenvalues)).double()
    left = torch.linalg.qr(raw - raw.mean(dim=0))[0]
    turn = torch.linalg.qr(normal(len(eigenvalues), len(eigenvalues)).double())[0]
    return left * eigenvalues.sqrt() @ turn + 3


@pytest.mark.parametrize('alpha', [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize('features', [3, 20, 150])
def test_alpha_req_of_a_power_law_is_its_exponent(alpha: float, features: int) -> None:
    z = with_spectrum(torch.arange(1, features + 1, dtype=torch.float64) ** -alpha)
    assert alpha_req(z).item() == pytest.approx(alpha, abs=1e-6)
    assert alpha_req(100 * z).item() == pytest.approx(alpha, abs=1e-6)


def test_alpha_req_equals_the_authors_fit() -> None:
    """Their program: ranks 4 to 100, weighted least squares by the normal equations."""
    z = normal(400, 130) @ torch.diag(torch.linspace(3, 0.1, 130))
    spectrum = np.linalg.eigvalsh(np.cov(z.double().numpy().T))[::-1]
    rank = np.arange(4, 101)
    y, weight = np.log(spectrum[3:100])[:, None], (1 / rank)[:, None]
    x = np.stack([-np.log(rank), np.ones(len(rank))], axis=1)
    expected = np.linalg.solve(x.T @ (x * weight), (weight * x).T @ y)[0, 0]
    assert alpha_req(z.double()).item() == pytest.approx(expected, rel=1e-9)
    assert alpha_req(z).item() == pytest.approx(expected, rel=1e-3)


def test_alpha_req_leaves_out_what_is_zero() -> None:
    """Ten dimensions with data in a space of forty: the other thirty have no logarithm."""
    z = with_spectrum(1 / torch.arange(1, 11, dtype=torch.float64))
    wide = torch.cat([z, z.new_zeros(len(z), 30)], dim=1) @ torch.linalg.qr(normal(40, 40).double())[0]
    assert alpha_req(wide).item() == pytest.approx(1, abs=1e-6)
    assert alpha_req(torch.ones(20, 8)).isnan()
    assert alpha_req(normal(1, 8)).isnan()
    assert alpha_req(torch.full((20, 8), math.nan)).isnan()


def transcribed_lidar(e: NDArray[np.float64], delta: float, epsilon: float = 1e-12) -> float:
    """Equations 1 to 4 of the paper, sample by sample."""
    mu_x = e.mean(axis=1)
    mu = mu_x.mean(axis=0)
    between = np.mean([np.outer(m - mu, m - mu) for m in mu_x], axis=0)
    within = np.mean([np.outer(v - m, v - m) for chip, m in zip(e, mu_x, strict=True) for v in chip], axis=0)
    values, vectors = np.linalg.eigh(within + delta * np.eye(e.shape[-1]))
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ between @ root).clip(min=0)
    p = eigenvalues / np.abs(eigenvalues).sum() + epsilon
    return float(np.exp(-(p * np.log(p)).sum()))


@pytest.mark.parametrize(('chips', 'views', 'features'), [(40, 5, 6), (8, 3, 12), (30, 2, 30)])
def test_lidar_equals_the_papers_formula(chips: int, views: int, features: int) -> None:
    generator = torch.Generator().manual_seed(1)
    place = torch.randn(chips, 1, features, generator=generator) * torch.linspace(2, 0.1, features)
    e = place + 0.3 * torch.randn(chips, views, features, generator=generator)
    assert lidar(e, 1e-3).item() == pytest.approx(transcribed_lidar(e.double().numpy(), 1e-3), rel=1e-6)


def test_lidar_known_values() -> None:
    """Four chips on the corners of a simplex, views without spread: three equal eigenvalues; two chips: one."""
    corners = torch.eye(4)[:, None].expand(4, 6, 4)
    assert lidar(corners).item() == pytest.approx(3, abs=1e-9)
    assert lidar(corners[:2]).item() == pytest.approx(1, abs=1e-9)
    assert lidar(torch.ones(5, 3, 4)).isnan()
    assert lidar(torch.full((5, 3, 4), math.inf)).isnan()


def test_lidar_does_not_count_what_views_disagree_on() -> None:
    """A dimension of large noise has a high rank of its own and tells no chips apart."""
    place = normal(200, 2)[:, None].expand(200, 10, 2)
    noise = 100 * normal(2000, 8).reshape(200, 10, 8)
    assert rank_me(torch.cat([place, noise], dim=-1)[:, 0]).item() > 6
    assert lidar(torch.cat([place, noise], dim=-1)).item() < 2.1
