"""Image encoders by timm name, for any number of bands."""

import difflib
from typing import Any

import timm
from torch import nn

from torchgeo_msssl.errors import ConfigurationError


def create_encoder(
    name: str,
    in_channels: int,
    image_size: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float | None = None,
) -> nn.Module:
    """Build a timm network without its classifier, with random weights.

    The network maps ``(batch, band, height, width)`` to pooled features ``(batch, features)``. Transformers that
    can adapt to the image's size on the fly (``dynamic_img_size``: ViT, DeiT, EVA, DINOv3, Swin) keep the
    parameter shapes of their native size, so that one checkpoint fits every chip size and stock timm networks;
    other architectures with a fixed size are built for ``image_size``.

    Args:
        name: Any timm model name, with or without a pretrained tag.
        in_channels: Number of bands.
        image_size: Height and width of the images in pixels; needed by architectures with a fixed size only,
            checked for all that have patches. None leaves the native size.
        drop_rate: Dropout probability before the (absent) classifier.
        drop_path_rate: Stochastic depth; None is the architecture's own default.

    Returns:
        The network.

    Raises:
        ConfigurationError: If timm has no such model, or the model cannot take these bands or this image size.
    """
    _check_name(name)
    if in_channels < 1:
        raise ConfigurationError(f'in_channels must be at least 1, got {in_channels}.')
    options: dict[str, Any] = {'in_chans': in_channels, 'num_classes': 0, 'drop_rate': drop_rate}
    if drop_path_rate is not None:
        options['drop_path_rate'] = drop_path_rate

    encoder = _build(name, image_size, options)
    check_image_size(encoder, name, image_size)
    _check_input(encoder, name, in_channels)
    return encoder


def feature_width(encoder: nn.Module) -> int:
    """Number of features that an encoder gives for each image.

    Args:
        encoder: A timm network without classifier.

    Returns:
        The second dimension of its output.

    Raises:
        ConfigurationError: If the network does not say.
    """
    # Where there is a layer between pooling and classifier (MobileNetV3), it comes out, not the last feature map.
    width = getattr(encoder, 'head_hidden_size', None) or getattr(encoder, 'num_features', None)
    if not isinstance(width, int):
        raise ConfigurationError(f'{type(encoder).__name__} has no num_features; give a timm network.')
    return width


def input_layer(encoder: nn.Module) -> tuple[str, nn.Conv2d]:
    """Find the convolution that sees the bands.

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

    A constructor that does not know the keyword refuses it before it does any work, so trying costs nothing.
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
            raise _refused(name, image_size, options, error) from error
        except (RuntimeError, ValueError, AssertionError) as error:
            raise _refused(name, image_size, options, error) from error
        else:
            return encoder
    raise AssertionError('the last way has no keyword that could be refused')


def _refused(name: str, image_size: int | None, options: dict[str, Any], error: Exception) -> ConfigurationError:
    size = '' if image_size is None else f' for images of {image_size} px'
    given = ', '.join(f'{key}={value}' for key, value in options.items())
    return ConfigurationError(f'timm cannot build {name!r}{size} with {given}: {error}; change what it names.')


def check_image_size(encoder: nn.Module, name: str, image_size: int | None) -> None:
    """See that an encoder that cuts images into patches can take a size.

    Args:
        encoder: timm network.
        name: Its name, for the message.
        image_size: Height and width in pixels, or None where it is not known.

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
    """Refuse the few architectures whose input cannot be matched to bands by name later."""
    layer, convolution = input_layer(encoder)
    declared = getattr(encoder, 'pretrained_cfg', {}).get('first_conv')
    if convolution.in_channels != in_channels or isinstance(declared, (tuple, list)):
        raise ConfigurationError(
            f'{name!r} does not read its {in_channels} bands in one first convolution ({layer!r} has '
            f'{convolution.in_channels} input channels), so bands cannot be told apart; choose another model.'
        )
