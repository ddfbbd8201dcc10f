"""Image encoders by timm name, for any number of bands."""

import difflib
from typing import Any

import timm
import torch
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.stems import Stem, set_stem
from torchgeo_msssl.validation import check_at_least

#: Largest number of maps that are stages of different stride.
_STAGES = 6


def create_encoder(name: str, in_channels: int, image_size: int | None = None, stem: Stem = 'standard') -> nn.Module:
    """Build a timm network without its classifier, with random weights.

    The network maps ``(batch, band, height, width)`` to pooled features ``(batch, features)``. Transformers with
    ``dynamic_img_size`` (ViT, DeiT, EVA, DINOv3, Swin) keep the parameter shapes of their native size, so that one
    checkpoint fits every chip size and stock timm networks; other architectures with a fixed size are built for
    ``image_size``.

    Args:
        name: Any timm model name, with or without a pretrained tag.
        in_channels: Number of bands.
        image_size: Height and width of the images in pixels, checked for all architectures with patches; None for the
            native size.
        stem: Stride of the first layers, see :func:`.stems.set_stem`.

    Returns:
        The network.

    Raises:
        ConfigurationError: If timm has no such model, or the model cannot take these bands, this image size or this
            stem.
    """
    _check_name(name)
    check_at_least(1, in_channels=in_channels)
    encoder = _build(name, image_size, {'in_chans': in_channels, 'num_classes': 0})
    check_image_size(encoder, name, image_size)
    _check_input(encoder, name, in_channels)
    set_stem(encoder, stem)
    return encoder


def feature_width(encoder: nn.Module) -> int:
    """Number of pooled features of a timm network without classifier.

    Raises:
        ConfigurationError: If the network has no such attribute.
    """
    # a layer between pooling and classifier (MobileNetV3) defines the output, not the last feature map
    width = getattr(encoder, 'head_hidden_size', None) or getattr(encoder, 'num_features', None)
    if not isinstance(width, int):
        raise ConfigurationError(f'{type(encoder).__name__} has no num_features; give a timm network.')
    return width


def feature_map(encoder: nn.Module, images: Tensor) -> Tensor:
    """Compute the last feature map of a convolutional timm network, before pooling.

    ``encoder.forward_head`` pools it to the features that ``encoder(images)`` returns.

    Args:
        encoder: timm network.
        images: Standardized images (batch, band, height, width).

    Returns:
        Feature map (batch, channel, rows, columns).

    Raises:
        ConfigurationError: If the network returns tokens, or channels last, as transformers do.
    """
    maps: Tensor = encoder.forward_features(images)  # type: ignore[operator]
    channels = getattr(encoder, 'num_features', None)
    if maps.ndim != 4 or maps.shape[1] != channels:
        raise ConfigurationError(
            f'model: expected a convolutional network, whose feature map is (batch, {channels}, rows, columns), got '
            f'{tuple(maps.shape)} from {type(encoder).__name__}; choose, for example, resnet18 or convnext_nano.'
        )
    return maps


class StageFeatures(nn.Module):
    """Means of the feature maps of all stages of an encoder, instead of the last one alone.

    Earlier maps are finer and less abstract: of random weights, and of chips that are small for the encoder, they hold
    more. Of transformers, whose blocks are all alike, four evenly spaced blocks are taken.

    Attributes:
        encoder: The encoder.
        indices: Maps that are taken.
    """

    def __init__(self, encoder: nn.Module) -> None:
        """Wrap an encoder.

        Args:
            encoder: timm network without classifier.

        Raises:
            ConfigurationError: If the network returns no feature maps.
        """
        super().__init__()
        info = getattr(encoder, 'feature_info', None)
        if not hasattr(encoder, 'forward_intermediates') or not info:
            raise ConfigurationError(
                f'features: {type(encoder).__name__} returns no maps of its stages; set features to last.'
            )
        self.encoder = encoder
        count = len(info)
        self.indices = list(range(count)) if count <= _STAGES else [count * (n + 1) // 4 - 1 for n in range(4)]

    def forward(self, image: Tensor) -> Tensor:
        """Concatenate the means of the maps.

        Args:
            image: Standardized values (batch, band, height, width).

        Returns:
            Features (batch, features), those of the finest map first.
        """
        encoder: Any = self.encoder
        maps: list[Tensor] = encoder.forward_intermediates(image, indices=self.indices, intermediates_only=True)
        return torch.cat([level.mean(dim=(-2, -1)) for level in maps], dim=1)


def input_layer(encoder: nn.Module) -> tuple[str, nn.Conv2d]:
    """Find the convolution whose input are the bands.

    timm and smp register modules in the order of use, so it is the first one: ``conv1`` in a ResNet, ``conv1.0``
    with a deep stem, ``stem.0`` in ConvNeXt, ``patch_embed.proj`` in ViT and Swin.

    Args:
        encoder: A timm network, a part of one, or an smp encoder.

    Returns:
        Its name (``name + '.weight'`` is the key in the state dict) and the convolution.

    Raises:
        ConfigurationError: If the network has no convolution.
    """
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise ConfigurationError(
        f'{type(encoder).__name__} has no convolution at its input, so bands cannot be matched; choose another model.'
    )


def _check_name(name: str) -> None:
    if timm.is_model(name):
        return
    architecture = name.partition('.')[0]
    close = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
    advice = f'did you mean {", ".join(close)}?' if close else 'timm.list_models() lists the names.'
    raise ConfigurationError(f'timm has no model {name!r}; {advice}')


def _build(name: str, image_size: int | None, options: dict[str, Any]) -> nn.Module:
    """Build with the first way of handling image sizes that the architecture's constructor accepts.

    A constructor rejects an unknown keyword before any other work, so trying is cheap.
    """
    ways: list[dict[str, Any]] = [{'dynamic_img_size': True}, {}]
    if image_size is not None:
        ways.insert(1, {'img_size': image_size})
    for way in ways:
        try:
            encoder: nn.Module = timm.create_model(name, **options, **way)
        except TypeError as error:
            if way and next(iter(way)) in str(error):
                continue
            raise _rejected(name, image_size, options, error) from error
        except (RuntimeError, ValueError, AssertionError) as error:
            raise _rejected(name, image_size, options, error) from error
        else:
            return encoder
    raise AssertionError('the last way has no keyword that could be rejected')


def _rejected(name: str, image_size: int | None, options: dict[str, Any], error: Exception) -> ConfigurationError:
    size = '' if image_size is None else f' for images of {image_size} px'
    given = ', '.join(f'{key}={value}' for key, value in options.items())
    return ConfigurationError(f'timm cannot build {name!r}{size} with {given}: {error}; change the named option.')


def check_image_size(encoder: nn.Module, name: str, image_size: int | None) -> None:
    """Check that an encoder with patches can take images of a size.

    Args:
        encoder: timm network.
        name: Its name, for the message.
        image_size: Height and width in pixels, or None if unknown.

    Raises:
        ConfigurationError: If the size is no multiple of the patch.
    """
    patch = getattr(getattr(encoder, 'patch_embed', None), 'patch_size', None)
    if image_size is None or not isinstance(patch, tuple):
        return
    side = max(patch)
    if image_size < side or image_size % side:
        below, above = image_size // side * side, (image_size // side + 1) * side
        choices = f'{below} or {above}' if below else f'{above}'
        raise ConfigurationError(
            f'{name!r} cuts images into patches of {side} px and cannot take images of {image_size} px; '
            f'choose {choices} px (chip_size, or augmentation.size).'
        )


def _check_input(encoder: nn.Module, name: str, in_channels: int) -> None:
    """Reject the few architectures whose input cannot be matched to bands by name."""
    layer, convolution = input_layer(encoder)
    declared = getattr(encoder, 'pretrained_cfg', {}).get('first_conv')
    if convolution.in_channels != in_channels or isinstance(declared, (tuple, list)):
        raise ConfigurationError(
            f'{name!r} does not read its {in_channels} bands in one first convolution ({layer!r} has '
            f'{convolution.in_channels} input channels), so bands cannot be matched; choose another model.'
        )
