"""Encoder, decoder and head together compute what the smp network computes."""

import itertools

import pytest
import torch
from torch import nn

from torchgeo_msssl.errors import ConfigurationError, WeightsError
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.matching import network_tensors
from torchgeo_msssl.models.reconstruction import RestorationParts, create_restoration, feature_pyramid
from torchgeo_msssl.models.segmentation import create_network


def build(architecture: str, name: str, bands: int = 4) -> tuple[nn.Module, RestorationParts, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    encoder = create_encoder(name, bands)
    parts = create_restoration(architecture, encoder, name, bands)
    tensors = {f'model.{key}': value for key, value in encoder.state_dict().items()}
    tensors |= {f'decoder.{key}': value for key, value in parts.decoder.state_dict().items()}
    return encoder.eval(), parts, tensors


ARCHITECTURES = ('unet', 'unetplusplus', 'fpn', 'segformer', 'upernet')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('architecture', 'name'),
    [
        *itertools.product(ARCHITECTURES, ('resnet18', 'convnext_atto')),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in itertools.product(ARCHITECTURES, ('resnet50', 'mobilenetv3_small_100'))
        ),
        pytest.param('unet', 'vgg11_bn', marks=pytest.mark.slow),  # half a gigabyte, most of it not in the pyramid
    ],
)
def test_the_parts_are_the_smp_network(architecture: str, name: str) -> None:
    encoder, parts, tensors = build(architecture, name)
    network = create_network(architecture, name, 4, 4)
    head = {f'segmentation_head.{key}': value for key, value in parts.head.state_dict().items()}
    nn.Module.load_state_dict(network, network_tensors(tensors, network, 'it') | head)
    network.eval()
    parts.decoder.eval()
    image = torch.randn(2, 4, 64, 96)
    with torch.no_grad():
        found = parts.head(parts.decoder(feature_pyramid(encoder, image, parts.channels)))
        torch.testing.assert_close(found, network(image))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['resnet18', 'convnext_atto', 'mobilenetv3_small_100', 'vgg11_bn'])
def test_what_learns_gets_gradients(name: str) -> None:
    encoder, parts, _ = build('unet', name)
    parts.head(parts.decoder(feature_pyramid(encoder, torch.randn(2, 4, 64, 64), parts.channels))).sum().backward()
    modules = (encoder, parts.decoder, parts.head)
    learning = [p for module in modules for p in module.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)
    assert len(learning) > 20
    # what lies behind the last feature map stays as it is
    frozen = [key for key, p in encoder.named_parameters() if not p.requires_grad]
    assert len(frozen) == {'resnet18': 0, 'convnext_atto': 2, 'mobilenetv3_small_100': 2, 'vgg11_bn': 4}[name]


@pytest.mark.parametrize('bands', [1, 2, 13])
def test_any_number_of_bands(bands: int) -> None:
    encoder, parts, _ = build('unet', 'resnet18', bands)
    image = torch.randn(2, bands, 32, 32)
    assert parts.head(parts.decoder(feature_pyramid(encoder, image, parts.channels))).shape == image.shape


def test_an_encoder_of_another_kind_does_not_pass() -> None:
    _, _, tensors = build('unet', 'resnet18')
    with pytest.raises(WeightsError, match=r'it has another encoder than the network.*use the same backbone'):
        network_tensors(tensors, create_network('unet', 'resnet50', 4, 2), 'it')


@pytest.mark.parametrize(
    ('architecture', 'name'), [('deeplabv3+', 'resnet18'), ('dpt', 'vit_tiny_patch16_224'), ('vnet', 'resnet18')]
)
def test_architectures_that_change_the_encoder_are_refused(architecture: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match='architecture'):
        create_restoration(architecture, create_encoder(name, 4), name, 4)


def test_a_plain_vision_transformer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match='does not go with'):
        create_restoration('unet', create_encoder('vit_tiny_patch16_224', 4), 'vit_tiny_patch16_224', 4)
