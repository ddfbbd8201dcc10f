"""Strides of stems: sizes of maps, unchanged tensors, and networks that equal hand-made ones."""

import copy
import logging
from pathlib import Path
from typing import get_args

import pytest
import timm
import torch
from torch import nn

from torchgeo_msssl.errors import ConfigurationError, WeightsError
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.segmentation import create_network, set_network_stem, total_stride
from torchgeo_msssl.models.stems import Stem, choose_stem, set_stem, small_map_warning, standard_stride, stem_of
from torchgeo_msssl.models.weights import load_encoder, read_source, save_encoder

SIDES: dict[Stem, int] = {'standard': 1, 'medium': 2, 'small': 4}
MODELS = [
    'resnet18',
    'resnetblur18',  # the pooling is a sequence
    'test_resnet',  # several convolutions before the pooling
    'test_convnext',  # one convolution of stride 4
    'convnext_atto_ols',  # two of stride 2
    'tf_efficientnet_lite0',  # padding that depends on the size
    'mobilenetv3_small_050',
]


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize('name', MODELS)
def test_last_maps_and_tensors(name: str) -> None:
    encoder = create_encoder(name, 2).eval()
    assert standard_stride(encoder) == 32
    native = shapes(encoder)
    image = torch.randn(1, 2, 32, 32)
    with torch.no_grad():
        before = encoder(image)
        for stem in reversed(get_args(Stem)):
            set_stem(encoder, stem)
            copied = copy.deepcopy(encoder)
            assert stem_of(copied) == stem
            assert copied.forward_features(image).shape[-2:] == (SIDES[stem], SIDES[stem])
            assert shapes(copied) == native
        torch.testing.assert_close(encoder(image), before, rtol=0, atol=0)  # standard again


def test_a_small_resnet_is_that_of_simclr() -> None:
    """The network of SimCLR's appendix B.9 (stride 1, no max pooling), with the kernel of 7×7."""
    encoder = create_encoder('resnet18', 3, stem='small').eval()
    other = timm.create_model('resnet18', num_classes=0)
    other.load_state_dict(encoder.state_dict())
    other.conv1.stride, other.maxpool = (1, 1), nn.Identity()
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(encoder(image), other.eval()(image))


def test_choice_takes_the_largest_sufficient_stride() -> None:
    encoder = create_encoder('resnet18', 3)
    chosen = {size: choose_stem(encoder, size) for size in (16, 32, 48, 64, 96, 100, 128, 224)}
    assert chosen == {
        16: 'small',
        32: 'small',
        48: 'small',
        64: 'medium',
        96: 'medium',
        100: 'standard',  # ceil(100 / 32) = 4
        128: 'standard',
        224: 'standard',
    }
    for fixed in ('test_vit', 'ghostnet_050', 'regnetx_002'):
        encoder = timm.create_model(fixed)
        assert choose_stem(encoder, 32) == 'standard'
        set_stem(encoder, 'standard')
        with pytest.raises(ConfigurationError, match="no stem whose stride can be reduced, so 'small' is impossible"):
            set_stem(encoder, 'small')


def test_warning_names_the_remedies() -> None:
    encoder = create_encoder('resnet18', 3)
    text = small_map_warning(encoder, 'resnet18', 32)
    assert text is not None
    assert 'images of 32 px is 1×1 (stride 32, stem standard)' in text
    assert 'set stem to auto, enlarge chip_size, or set augmentation.size to 128' in text
    assert small_map_warning(encoder, 'resnet18', 97) is None
    set_stem(encoder, 'small')
    assert small_map_warning(encoder, 'resnet18', 32) is None
    tiny = small_map_warning(encoder, 'resnet18', 16)
    assert tiny is not None
    assert 'stem to auto' not in tiny  # it is the smallest already
    assert 'augmentation.size to 32' in tiny


def test_round_trip_keeps_the_stem(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = create_encoder('test_resnet', 2, stem='small').eval()
    path = tmp_path / 'encoder.safetensors'
    save_encoder(encoder, path, EncoderMetadata('simclr', 'test_resnet', ('B04', 'B08'), stem='small'))
    metadata = read_source(str(path)).metadata
    assert metadata is not None
    assert metadata.stem == 'small'

    rebuilt = create_encoder('test_resnet', 2, stem=metadata.stem).eval()
    load_encoder(rebuilt, path, ['B04', 'B08'])
    image = torch.randn(1, 2, 32, 32)
    with torch.no_grad():
        assert torch.equal(rebuilt(image), encoder(image))

    other = create_encoder('test_resnet', 2)
    with pytest.raises(
        WeightsError, match=r"trained with stem 'small' and the network has 'standard'.*set stem to small"
    ):
        load_encoder(other, path, ['B04', 'B08'])
    save_encoder(other, path, EncoderMetadata('simclr', 'test_resnet', ('B04', 'B08')))
    with caplog.at_level(logging.WARNING):
        load_encoder(rebuilt, path, ['B04', 'B08'])  # published weights have the standard stem only
    assert 'trained with the standard stem' in caplog.text


def test_metadata_of_earlier_and_of_later_versions() -> None:
    assert EncoderMetadata.from_dict({'method': 'byol', 'model': 'resnet18'}).stem == 'standard'
    with pytest.raises(WeightsError, match="knows no stem 'tiny'"):
        EncoderMetadata('byol', 'resnet18', stem='tiny')  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('architecture', 'backbone'),
    [
        ('unet', 'test_resnet'),
        ('unet', 'test_convnext'),
        ('fpn', 'test_resnet'),
        ('upernet', 'test_resnet'),
        ('deeplabv3+', 'test_resnet'),
        ('unet', 'test_efficientnet'),
    ],
)
def test_segmentation_networks_follow_the_stem(architecture: str, backbone: str) -> None:
    """Decoders return maps of the image's size, and shrink no map of the encoder."""
    network = create_network(architecture, backbone, 2, 3).eval()  # type: ignore[arg-type]
    native, image = shapes(network), torch.randn(1, 2, 32, 32)
    with torch.no_grad():
        before = network(image)
        for stem, stride in (('small', 8), ('medium', 16), ('standard', 32)):
            set_network_stem(network, stem)  # type: ignore[arg-type]
            assert total_stride(network) == stride
            smaller = image[..., :stride, :stride]
            assert network(smaller).shape == (1, 3, stride, stride)
            sides = [level.shape[-1] for level in network.encoder(image)]
            assert sides == sorted(sides, reverse=True)
            assert shapes(network) == native
        torch.testing.assert_close(network(image), before, rtol=0, atol=0)


def test_u_net_gets_a_skip_at_full_resolution() -> None:
    network = create_network('unet', 'test_resnet', 2, 3).eval()
    assert [level.shape[-1] for level in network.encoder(torch.zeros(1, 2, 32, 32))] == [32, 16, 8, 4, 2, 1]
    set_network_stem(network, 'small')
    assert [level.shape[-1] for level in network.encoder(torch.zeros(1, 2, 32, 32))] == [32, 32, 32, 16, 8, 4]
    for fixed in ('unetplusplus', 'segformer'):
        with pytest.raises(ConfigurationError, match=f"{fixed} assumes the standard strides and cannot follow 'small'"):
            set_network_stem(create_network(fixed, 'test_resnet', 2, 3), 'small')  # type: ignore[arg-type]
