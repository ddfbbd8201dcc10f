import pytest
import torch
from torch import nn

from tests.marks import first_fast
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.encoders import StageFeatures, create_encoder, feature_width, input_layer

# Widths as the papers give them: ResNet 512 and 2048, Swin-T 768, ConvNeXt-nano 640, ViT-S 384.
MODELS = {
    'resnet18': ('conv1', 512),
    'resnet50': ('conv1', 2048),
    'swin_tiny_patch4_window7_224': ('patch_embed.proj', 768),
    'convnext_nano': ('stem.0', 640),
    'vit_small_patch16_224': ('patch_embed.proj', 384),
}


@pytest.mark.parametrize('bands', first_fast([5, 4, 12]))
@pytest.mark.parametrize('name', MODELS)
def test_pooled_features_for_any_number_of_bands(name, bands):
    prefix, width = MODELS[name]
    encoder = create_encoder(name, bands, image_size=64).eval()
    with torch.no_grad():
        features = encoder(torch.rand(2, bands, 64, 64))
    assert features.shape == (2, width)
    assert feature_width(encoder) == width
    assert torch.isfinite(features).all()
    assert not torch.equal(features[0], features[1])

    found, layer = input_layer(encoder)
    assert found == prefix
    assert isinstance(layer, nn.Conv2d)
    assert encoder.state_dict()[f'{found}.weight'].shape[1] == bands


@pytest.mark.slow
@pytest.mark.parametrize('size', [64, 96, 224])
@pytest.mark.parametrize('name', ['swin_tiny_patch4_window7_224', 'vit_small_patch16_224', 'convnext_nano'])
def test_parameters_do_not_depend_on_the_chip_size(name, size):
    """One checkpoint fits all chip sizes and the stock timm network of the native size."""
    native = {key: value.shape for key, value in create_encoder(name, 4).state_dict().items()}
    encoder = create_encoder(name, 4, image_size=size).eval()
    assert {key: value.shape for key, value in encoder.state_dict().items()} == native
    with torch.no_grad():
        assert encoder(torch.rand(1, 4, size, size)).shape == (1, feature_width(encoder))


@pytest.mark.parametrize('name', first_fast(['vit_small_patch16_224', 'swin_tiny_patch4_window7_224']))
def test_native_size_gives_what_the_stock_timm_network_gives(name):
    import timm

    encoder = create_encoder(name, 3, image_size=224).eval()
    stock = timm.create_model(name, num_classes=0, in_chans=3).eval()
    stock.load_state_dict(encoder.state_dict(), strict=True)
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(encoder(image), stock(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ('name', 'size', 'prefix', 'width'),
    [
        ('resnet50d', 64, 'conv1.0', 2048),  # deep stem
        ('mobilenetv3_small_100', 64, 'conv_stem', 1024),  # a layer between pooling and classifier
        ('maxvit_nano_rw_256', 96, 'stem.conv1', 512),  # built for the size
        ('mixer_s16_224', 96, 'stem.proj', 512),
    ],
)
def test_other_architectures(name, size, prefix, width):
    encoder = create_encoder(name, 5, image_size=size).eval()
    assert input_layer(encoder)[0] == prefix
    assert feature_width(encoder) == width
    with torch.no_grad():
        assert encoder(torch.rand(1, 5, size, size)).shape == (1, width)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('resnt18', 4), "no model 'resnt18'; did you mean resnet18"),
        (('tu-convnext_nano', 4), 'did you mean convnext_nano'),
        (('qqqqqqqqqqqq', 4), 'timm.list_models'),
        (('resnet18.nobody', 4), r'Invalid pretrained tag \(nobody\)'),
        (('resnet18', 0), 'in_channels: expected 1 or more, got 0'),
        (('vit_small_patch14_dinov2', 4, 64), 'patches of 14 px and cannot take images of 64 px; choose 56 or 70 px'),
        (('vit_small_patch16_224', 4, 8), 'choose 16 px'),
        (('tresnet_m', 5), 'has 80 input channels'),
    ],
)
def test_errors_are_one_clear_sentence(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        create_encoder(*arguments)


def test_networks_without_convolution_or_width():
    with pytest.raises(ConfigurationError, match='no convolution'):
        input_layer(nn.Linear(2, 2))
    with pytest.raises(ConfigurationError, match='num_features'):
        feature_width(nn.Linear(2, 2))


def test_stage_features_are_means_of_every_map():
    encoder = create_encoder('resnet18', 2).eval()
    image, maps = torch.randn(2, 2, 64, 64), []
    for module in (encoder.act1, encoder.layer1, encoder.layer2, encoder.layer3, encoder.layer4):
        module.register_forward_hook(lambda _module, _inputs, output: maps.append(output.mean((2, 3))))
    with torch.no_grad():
        features = StageFeatures(encoder)(image)
        last = encoder(image)
    assert features.shape == (2, 64 + 64 + 128 + 256 + 512)
    torch.testing.assert_close(features, torch.cat(maps[:5], dim=1))
    torch.testing.assert_close(features[:, -512:], last)


def test_stages_of_a_transformer_are_four_of_its_blocks():
    encoder = create_encoder('vit_tiny_patch16_224', 2).eval()
    staged = StageFeatures(encoder)
    assert staged.indices == [2, 5, 8, 11]
    with torch.no_grad():
        assert staged(torch.randn(1, 2, 32, 48)).shape == (1, 4 * 192)
    with pytest.raises(ConfigurationError, match='Linear returns no maps of its stages; set features to last'):
        StageFeatures(nn.Linear(2, 2))
