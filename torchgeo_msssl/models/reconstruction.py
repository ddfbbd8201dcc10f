"""Decoder of an smp network for a timm encoder.

smp's networks rename the tensors of their encoders. A pretraining checkpoint needs timm's names, so here the encoder is
timm's own network, which returns its feature maps, and only decoder and head are smp's. Together they compute the same
as the smp network.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.matching import align_keys, inner_encoder
from torchgeo_msssl.models.segmentation import create_network, empty_levels, total_stride
from torchgeo_msssl.validation import check_choice

#: Architectures that leave the encoder unchanged; DeepLabV3+ would change its strides, DPT needs tokens.
RestorationArchitecture = Literal['unet', 'unetplusplus', 'fpn', 'segformer', 'upernet']


@dataclass(frozen=True)
class RestorationParts:
    """Parts of a restoring network besides its encoder.

    Attributes:
        decoder: smp's decoder.
        head: From the decoder's output to an image.
        channels: Features of each level of the pyramid, the input's first; 0 for a level that the encoder lacks.
        stride: Sides of images must be multiples of this.
    """

    decoder: nn.Module
    head: nn.Module
    channels: tuple[int, ...]
    stride: int


def create_restoration(
    architecture: RestorationArchitecture,
    encoder: nn.Module,
    name: str,
    in_channels: int,
    out_channels: int | None = None,
) -> RestorationParts:
    """Build decoder and head for an encoder, with random weights.

    Parameters of the encoder after its last feature map, which the decoder does not use, are frozen.

    Args:
        architecture: One of :data:`RestorationArchitecture`.
        encoder: timm network without classifier.
        name: timm name of the encoder.
        in_channels: Number of bands.
        out_channels: Number of channels of the result; None for the number of bands.

    Returns:
        The parts.

    Raises:
        ConfigurationError: If there is no such architecture, or the two are incompatible.
    """
    check_choice('architecture', architecture, RestorationArchitecture)
    if not hasattr(encoder, 'forward_intermediates'):
        raise ConfigurationError(f'model: timm returns no feature maps of {name!r}; choose another encoder.')
    # create_network needs 2 classes or more; the last layer is replaced below
    network: Any = create_network(architecture, name.partition('.')[0], in_channels, 2)
    final: nn.Conv2d = network.segmentation_head[0]
    network.segmentation_head[0] = nn.Conv2d(
        final.in_channels, out_channels or in_channels, cast(Any, final.kernel_size), padding=cast(Any, final.padding)
    )
    used = set(align_keys(encoder.state_dict(), inner_encoder(network).state_dict()).values())
    for key, parameter in encoder.named_parameters():
        parameter.requires_grad_(key in used)
    channels = tuple(int(number) for number in network.encoder.out_channels)
    return RestorationParts(network.decoder, network.segmentation_head, channels, total_stride(network))


def feature_pyramid(encoder: nn.Module, image: Tensor, channels: tuple[int, ...]) -> list[Tensor]:
    """Feature maps of an encoder as smp's decoders take them.

    Args:
        encoder: timm network.
        image: Standardized values (batch, band, height, width).
        channels: Features of each level, see :class:`RestorationParts`.

    Returns:
        Maps from fine to coarse; the first is the image itself, unless the encoder has one for that level. Levels that
        the encoder lacks have no features.
    """
    maps: list[Tensor] = cast(Any, encoder).forward_intermediates(image, intermediates_only=True)
    if len(maps) == len(channels):
        return maps
    return [image, *empty_levels(image, maps[0], len(channels) - 1 - len(maps)), *maps]


def mean_of_maps(maps: list[Tensor]) -> Tensor:
    """Pool the coarsest feature map, which is the last one, to (batch, features)."""
    return torch.mean(maps[-1], dim=(-2, -1))
