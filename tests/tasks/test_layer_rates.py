"""Learning rates of loaded encoders by depth."""

from typing import Any

import pytest
import torch
from torch import nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.segmentation import create_network
from torchgeo_msssl.tasks import Segmentation
from torchgeo_msssl.tasks.layer_rates import decayed_groups, encoder_depths

#: Depth of some parameters, counted by hand.
DEPTHS = {
    'resnet18': {'conv1.weight': 0, 'bn1.bias': 0, 'layer1.0.conv1.weight': 1, 'layer4.1.bn2.weight': 4},
    'resnet18d': {'model.conv1.0.weight': 0, 'model.layer2.0.conv1.weight': 2, 'model.layer4.0.conv1.weight': 4},
    'convnext_atto': {'model.stem_0.weight': 0, 'model.stages_0.blocks.0.conv_dw.weight': 1},
    'tf_efficientnet_lite0': {'model.conv_stem.weight': 0, 'model.blocks.0.0.conv_dw.weight': 1},
}


def task(**options: Any) -> Segmentation:
    return Segmentation(**({'in_channels': 4, 'model': 'fpn', 'lr': 0.1, 'scheduler': 'none'} | options))


def rates(network: Segmentation) -> dict[str, float]:
    """Learning rate of each parameter by its name."""
    names = {parameter: name for name, parameter in network.model.named_parameters()}
    groups = network.configure_optimizers().param_groups  # type: ignore[union-attr]
    found = [(names[parameter], group['lr']) for group in groups for parameter in group['params']]
    assert len(found) == len(names)  # each one once
    return dict(found)


@pytest.mark.parametrize('backbone', DEPTHS)
def test_depths_are_the_stages_of_timm(backbone: str) -> None:
    network: Any = create_network('unet', backbone, 4, 2)
    depths = {name: None for name, _ in network.encoder.named_parameters()}
    found = encoder_depths(network, backbone)
    depths |= {name: found[parameter] for name, parameter in network.encoder.named_parameters()}
    assert {name: depths[name] for name in DEPTHS[backbone]} == DEPTHS[backbone]
    assert None not in depths.values()
    assert set(depths.values()) == set(range(max(found.values()) + 1))


def test_rates_fall_towards_the_input() -> None:
    found = rates(task(weights='encoder.safetensors', layer_decay=0.5, encoder_lr_factor=0.4))
    # 0.1 × 0.4 × 0.5 to the power of 5 (stem), 4, 3, 2, 1 (last stage)
    assert found['encoder.conv1.weight'] == pytest.approx(0.00125)
    assert found['encoder.bn1.weight'] == pytest.approx(0.00125)
    assert found['encoder.layer1.1.conv2.weight'] == pytest.approx(0.0025)
    assert found['encoder.layer3.0.conv1.weight'] == pytest.approx(0.01)
    assert found['encoder.layer4.1.conv2.weight'] == pytest.approx(0.02)
    assert found['segmentation_head.0.weight'] == pytest.approx(0.1)


def test_a_random_encoder_learns_at_the_full_rate() -> None:
    options = {'layer_decay': 0.5, 'encoder_lr_factor': 0.4}
    assert set(rates(task(**options)).values()) == {0.1}
    found = rates(task(weights='imagenet', encoder_lr_factor=0.4))
    assert sorted(set(found.values())) == pytest.approx([0.04, 0.1])


def test_weight_decay_is_kept() -> None:
    conv, norm = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    groups = [{'params': [conv], 'weight_decay': 0.3}, {'params': [norm], 'weight_decay': 0.0}]
    found = decayed_groups(groups, {conv: 1, norm: 0}, 1.0, 0.5)
    assert found == [
        {'params': [norm], 'weight_decay': 0.0, 'lr': 0.25},
        {'params': [conv], 'weight_decay': 0.3, 'lr': 0.5},
    ]


def test_encoders_without_known_layers() -> None:
    with pytest.raises(ConfigurationError, match='layer_decay: timm does not know the layers of mit_b0'):
        task(model='unet', backbone='mit_b0', in_channels=3, weights='x', layer_decay=0.7).parameter_groups()
    with pytest.raises(ConfigurationError, match='layer_decay: expected a number from 0 to 1'):
        task(layer_decay=1.5)
