"""Heads: SimSiam's layers, and widths that fit together."""

import pytest
import torch
from torch import nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.heads import prediction_head, projection_features, projection_head


def layers(head: nn.Module) -> list[str]:
    return [type(module).__name__ for module in head.modules() if not list(module.children())]


def test_simsiam_projection() -> None:
    """Section 3 of https://arxiv.org/abs/2011.10566: batch norm after each layer, no ReLU after the last."""
    head = projection_head('mlp', 512)
    assert layers(head) == ['Linear', 'BatchNorm1d', 'ReLU', 'Linear', 'BatchNorm1d', 'ReLU', 'Linear', 'BatchNorm1d']
    shapes = [tuple(module.weight.shape) for module in head.modules() if isinstance(module, nn.Linear)]
    assert shapes == [(2048, 512), (2048, 2048), (2048, 2048)]
    # 512·2048 + 2·2048² weights and the two affine batch norms; no biases, the last batch norm has no parameters
    assert sum(parameter.numel() for parameter in head.parameters()) == 512 * 2048 + 2 * 2048**2 + 2 * 2 * 2048


def test_simsiam_prediction() -> None:
    head = prediction_head()
    assert layers(head) == ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    assert [tuple(m.weight.shape) for m in head.modules() if isinstance(m, nn.Linear)] == [(512, 2048), (2048, 512)]


@pytest.mark.parametrize('kind', ['mlp', 'linear', 'none'])
def test_widths_fit_together(kind: str) -> None:
    projection = projection_head(kind, 24, hidden=16, out=12)
    features = projection_features(kind, 24, out=12)
    z = projection(torch.randn(5, 24))
    assert z.shape == (5, features)
    assert features == (24 if kind == 'none' else 12)
    assert prediction_head(features, hidden=4)(z).shape == z.shape


def test_kinds_differ_as_named() -> None:
    x = torch.randn(5, 24)
    assert projection_head('none', 24)(x) is x
    assert layers(projection_head('linear', 24, out=12)) == ['Linear']
    z = projection_head('mlp', 24, hidden=16, out=12)(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(12), atol=1e-6, rtol=0)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match='conv'):
        projection_head('conv', 24)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match='hidden'):
        projection_head('mlp', 24, hidden=0)
    with pytest.raises(ConfigurationError, match='features'):
        prediction_head(0)
