"""Segmentation networks of segmentation-models-pytorch, with any encoder and any number of bands."""

import difflib
import re
import warnings
from typing import Any, Literal, cast

import segmentation_models_pytorch as smp
import timm
import torch.nn.functional as F
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.matching import inner_encoder
from torchgeo_msssl.models.stems import Stem, reduction_of, set_stem, stem_of

Architecture = Literal['unet', 'unetplusplus', 'deeplabv3+', 'fpn', 'segformer', 'upernet', 'dpt']

_NETWORKS: dict[str, Any] = {
    'unet': smp.Unet,
    'unetplusplus': smp.UnetPlusPlus,
    'deeplabv3+': smp.DeepLabV3Plus,
    'fpn': smp.FPN,
    'segformer': smp.Segformer,
    'upernet': smp.UPerNet,
    'dpt': smp.DPT,
}
#: Architectures whose decoder resizes maps by fixed factors: it doubles each level, or resizes all to a quarter.
FIXED_STRIDES = ('unetplusplus', 'segformer')
#: Total stride of all convolutional and hierarchical encoders.
_STRIDE = 32


def smp_encoder_name(backbone: str, architecture: str = 'unet') -> str:
    """Return smp's name of an encoder.

    smp's own ResNets have the same tensors as timm's; all other encoders that timm has are taken from timm (``tu-…``),
    so that a pretrained encoder fits.

    Args:
        backbone: Name in timm or smp.
        architecture: Architecture; DPT accepts timm's encoders only.

    Returns:
        smp's name.

    Raises:
        ConfigurationError: If neither library has it.
    """
    name = backbone.removeprefix('tu-')
    if re.fullmatch(r'resnet(18|34|50|101|152)', backbone) and architecture != 'dpt':
        return backbone
    if timm.is_model(name):
        return f'tu-{name}'
    if backbone in smp.encoders.get_encoder_names():
        return backbone
    close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    advice = f'did you mean {", ".join(close)}?' if close else 'timm.list_models() lists the names.'
    raise ConfigurationError(f'backbone: neither timm nor smp has {backbone!r}; {advice}')


def create_network(architecture: Architecture, backbone: str, in_channels: int, num_classes: int) -> nn.Module:
    """Build an smp network with random weights.

    Transformers are built with ``dynamic_img_size`` if they support it.

    Args:
        architecture: One of :data:`Architecture`.
        backbone: Encoder, see :func:`smp_encoder_name`.
        in_channels: Number of bands.
        num_classes: Number of classes.

    Returns:
        The network: (batch, band, height, width) to logits (batch, class, height, width), for sizes that are multiples
        of :func:`total_stride`.

    Raises:
        ConfigurationError: If there is no such architecture or encoder, or the two are incompatible.
    """
    if architecture not in _NETWORKS:
        raise ConfigurationError(f'model: {architecture!r} is not one of {", ".join(_NETWORKS)}.')
    if in_channels < 1 or num_classes < 2:
        raise ConfigurationError(
            f'Expected in_channels of 1 or more and num_classes of 2 or more, got {in_channels} and {num_classes}.'
        )
    name = smp_encoder_name(backbone, architecture)
    options = {'encoder_name': name, 'encoder_weights': None, 'in_channels': in_channels, 'classes': num_classes}
    ways: list[dict[str, Any]] = [{'dynamic_img_size': True}, {}] if name.startswith('tu-') else [{}]
    with warnings.catch_warnings():
        # smp's DPT warns if an encoder has no class token, and handles it correctly
        warnings.filterwarnings('ignore', message='Encoder does not have prefix tokens')
        for way in ways:
            try:
                return cast(nn.Module, _NETWORKS[architecture](**options, **way))
            except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
                if way and 'dynamic_img_size' in str(error):
                    continue
                raise ConfigurationError(
                    f'model {architecture!r} does not go with backbone {backbone!r} ({error}); plain vision '
                    'transformers need dpt, Swin and ConvNeXt any but deeplabv3+ and dpt, ResNets any.'
                ) from error
    raise AssertionError('the last way has no keyword that could be rejected')


def total_stride(network: nn.Module) -> int:
    """Return the number that sides of images must be a multiple of, so that no feature map is rounded.

    Args:
        network: An smp network.

    Returns:
        32 (16 with a medium stem, 8 with a small one), or the patch size of a transformer that does not divide 32.
    """
    reduction = reduction_of(stem_of(inner_encoder(network)))
    stride = int(cast(Any, network).encoder.output_stride) * reduction
    return (_STRIDE if _STRIDE % stride == 0 else stride) // reduction


def set_network_stem(network: nn.Module, stem: Stem) -> None:
    """Change the stem of an smp network's encoder in place, and what depends on its stride; no tensor changes.

    The decoders of ``unet``, ``fpn``, ``upernet`` and ``deeplabv3+`` follow the sizes of the feature
    maps. With a small stem the first maps have full size, so that a U-Net gets a skip connection at full resolution.

    Args:
        network: From :func:`create_network`.
        stem: The stem, see :func:`.stems.set_stem`.

    Raises:
        ConfigurationError: If architecture or encoder do not allow it.
    """
    encoder = cast(Any, network).encoder
    inner = inner_encoder(network)
    before = stem_of(inner)
    if stem == before:
        return
    if isinstance(network, tuple(_NETWORKS[name] for name in FIXED_STRIDES)):
        check_stem_of('unetplusplus' if isinstance(network, smp.UnetPlusPlus) else 'segformer', stem)
    set_stem(inner, stem)
    encoder._output_stride = encoder._output_stride * reduction_of(before) // reduction_of(stem)
    rescale_head(cast(Any, network).segmentation_head, before, stem)
    if getattr(encoder, '_is_transformer_style', False) and _fit_empty_level not in encoder._forward_hooks.values():
        encoder.register_forward_hook(_fit_empty_level)


def check_stem_of(architecture: str, stem: Stem) -> None:
    """Check that an architecture's decoder can follow a stem.

    Raises:
        ConfigurationError: If it cannot.
    """
    if stem != 'standard' and architecture in FIXED_STRIDES:
        raise ConfigurationError(
            f'stem: the decoder of {architecture} assumes the standard strides and cannot follow {stem!r}; set stem to '
            'standard, or choose unet, fpn, upernet or deeplabv3+.'
        )


def rescale_head(head: nn.Sequential, before: Stem, after: Stem) -> None:
    """Adapt the final upsampling of an smp head, if it has any, to another stem of the encoder.

    Args:
        head: Segmentation head; its second layer is the upsampling.
        before: Stem to which it is adapted.
        after: Stem to which it is to be adapted.
    """
    if isinstance(upsampling := head[1], nn.Upsample):
        factor = cast(float, upsampling.scale_factor)
        upsampling.scale_factor = factor * reduction_of(before) / reduction_of(after)


def _fit_empty_level(encoder: nn.Module, inputs: Any, maps: list[Tensor]) -> list[Tensor]:
    """Resize the empty level that smp inserts before the first map, so that no decoder shrinks that map."""
    image, empty, first, *others = maps
    return [image, *empty_levels(image, first, 1), first, *others] if empty.shape[1] == 0 else maps


def empty_levels(image: Tensor, first: Tensor, count: int) -> list[Tensor]:
    """Levels without features between an image and the first map of an encoder that starts at a quarter of its size.

    Args:
        image: Image (batch, band, height, width).
        first: First map (batch, features, height, width).
        count: Number of levels.

    Returns:
        Tensors without channels, of half the image's size, or of the first map's if that is larger.
    """
    height, width = (max(side // 2, other) for side, other in zip(image.shape[-2:], first.shape[-2:], strict=True))
    return [image.new_empty(len(image), 0, height, width)] * count


def pad_to_multiple(image: Tensor, stride: int) -> Tensor:
    """Pad with zeros at the bottom and on the right until both sides are multiples of a number.

    Args:
        image: Standardized values (batch, band, height, width): 0 is the mean of a band, the value of invalid pixels.
        stride: The number.

    Returns:
        Image (batch, band, padded height, padded width).
    """
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % stride, 0, -height % stride))
