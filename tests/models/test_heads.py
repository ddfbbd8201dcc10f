"""Heads: SimSiam's layers, and widths that fit together."""

from typing import get_args

import pytest
import torch
from lightly.models.modules.heads import DINOProjectionHead
from torch import nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.heads import (
    DINOHead,
    MLPName,
    mlp_head,
    prediction_head,
    projection_features,
    projection_head,
)


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


def test_expander_of_barlow_twins_and_vicreg() -> None:
    """``Projector('8192-8192-8192')`` of https://github.com/facebookresearch/vicreg, here with the default widths."""
    head = mlp_head('expander', 512, 2048, 2048)
    assert layers(head) == ['Linear', 'BatchNorm1d', 'ReLU', 'Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    shapes = [tuple(m.weight.shape) for m in head.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(2048, 512), (2048, 2048), (2048, 2048)]
    assert list(head.modules())[-1].bias is None
    assert mlp_head('expander', 24, 16, 12)(torch.randn(5, 24)).shape == (5, 12)
    with pytest.raises(ConfigurationError, match='out'):
        mlp_head('expander', 24, 16, 0)


@pytest.mark.filterwarnings('ignore:.*weight_norm.*is deprecated:FutureWarning')
def test_dino_head_is_lightlys() -> None:
    """lightly's has weight normalisation proper; its gain is 1."""
    head = DINOHead('mlp', 24, hidden=16, bottleneck=8, out=12)
    theirs = DINOProjectionHead(24, 16, 8, 12)
    assert layers(head) == layers(theirs) == ['Linear', 'GELU', 'Linear', 'GELU', 'Linear', 'Linear']
    with torch.no_grad():
        for layer in head.layers.modules():
            if isinstance(layer, nn.Linear):
                assert 0.01 < layer.weight.std() < 0.03
                layer.weight.mul_(30)
    theirs.layers.load_state_dict(head.layers.state_dict())
    theirs.last_layer.weight_v.data.copy_(head.last_layer.weight.data)
    x = torch.randn(5, 24)
    outputs, weights = [head(x), theirs(x)], [head.last_layer.weight, theirs.last_layer.weight_v]
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-6)
    gradients = [torch.autograd.grad(y.square().sum(), w)[0] for y, w in zip(outputs, weights, strict=True)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    assert gradients[0].abs().max() > 1e-3
    assert set(head.state_dict()) == {
        'last_layer.weight',
        *(f'layers.{i}.{name}' for i in (0, 2, 4) for name in ('weight', 'bias')),
    }


@pytest.mark.parametrize('kind', ['mlp', 'linear', 'none'])
def test_dino_head_gives_cosines(kind: str) -> None:
    head = DINOHead(kind, 24, hidden=16, bottleneck=8, out=12)
    with torch.no_grad():
        head.last_layer.weight[0] = 7 * torch.nn.functional.normalize(head.layers(torch.ones(1, 24)))[0]
    cosines = head(torch.ones(5, 24))
    assert cosines.shape == (5, 12)
    assert cosines.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(cosines[:, 0], torch.ones(5))


def test_dino_head_refuses() -> None:
    with pytest.raises(ConfigurationError, match='conv'):
        DINOHead('conv', 24)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match='bottleneck'):
        DINOHead('none', 24, bottleneck=0)


NORMED, PLAIN = ['Linear', 'BatchNorm1d', 'ReLU'], ['Linear', 'ReLU']


@pytest.mark.parametrize(
    ('head', 'expected', 'widths'),
    [
        # W₂ σ(W₁ h) of https://arxiv.org/abs/2002.05709, with the batch norm of the authors' code
        (mlp_head('simclr', 512, 256, 128), [*NORMED, 'Linear', 'BatchNorm1d'], [(256, 512), (128, 256)]),
        # "a 2-layer MLP head (hidden layer 2048-d, with ReLU)", https://arxiv.org/abs/2003.04297
        (mlp_head('moco_v2', 512, 2048, 128), [*PLAIN, 'Linear'], [(2048, 512), (128, 2048)]),
        # "a 3-layer MLP … all layers in both MLPs have BN", https://arxiv.org/abs/2104.02057
        (
            mlp_head('moco_v3', 384, 4096, 256),
            [*NORMED, *NORMED, 'Linear', 'BatchNorm1d'],
            [(4096, 384), (4096, 4096), (256, 4096)],
        ),
        (
            mlp_head('moco_v3_prediction', 256, 4096, 256),
            [*NORMED, 'Linear', 'BatchNorm1d'],
            [(4096, 256), (256, 4096)],
        ),
        # "a linear layer with output size 4096 followed by batch normalization, rectified linear units, and a final
        # linear layer with output dimension 256", https://arxiv.org/abs/2006.07733
        (mlp_head('byol', 2048, 4096, 256), [*NORMED, 'Linear'], [(4096, 2048), (256, 4096)]),
    ],
    ids=['simclr', 'moco-v2', 'moco-v3', 'moco-v3-prediction', 'byol'],
)
def test_heads_of_the_papers(head: nn.Module, expected: list[str], widths: list[tuple[int, int]]) -> None:
    assert layers(head) == expected
    assert [tuple(module.weight.shape) for module in head.modules() if isinstance(module, nn.Linear)] == widths


@pytest.mark.parametrize('head', get_args(MLPName))
def test_widths_of_heads_are_checked(head: MLPName) -> None:
    for widths, name in (((0, 4, 4), 'in_features'), ((4, 0, 4), 'hidden'), ((4, 4, 0), 'out')):
        with pytest.raises(ConfigurationError, match=name):
            mlp_head(head, *widths)
