"""Stride of the first layers of an encoder, adapted to small images.

A ResNet of stride 32 turns a chip of 32 pixels into a feature map of 1×1. Without the two halvings of its stem the same
network has stride 8 and a map of 4×4. SimCLR does this for images of 32 pixels (https://arxiv.org/abs/2002.05709, B.9:
a first convolution of stride 1, no max pooling); the paper also shrinks the first kernel from 7×7 to 3×3. Here every
kernel keeps its shape, so that weights of the standard network load and a checkpoint fits TorchGeo's networks.

A stem is changed in place: strides, paddings and layers without parameters. Names and shapes of tensors stay.
"""

import logging
import math
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import nn

from torchgeo_msssl.errors import ConfigurationError, WeightsError

log = logging.getLogger(__name__)

#: ``standard`` as published, ``medium`` with half of its stride, ``small`` with a quarter.
Stem = Literal['standard', 'medium', 'small']
#: What tasks accept: a stem, or ``auto``.
StemOption = Literal['auto', 'standard', 'medium', 'small']

#: Smallest side of a last feature map that holds spatial information worth pooling.
LEAST_MAP = 4

_REDUCTION: dict[Stem, int] = {'standard': 1, 'medium': 2, 'small': 4}
_STATE = '_torchgeo_msssl_stem'
_POOLS = (('conv1', 'maxpool'), ('stem.conv', 'stem.pool'), ('features.conv0', 'features.pool0'))

#: A module, the name of one of its attributes, and a value.
_Setting = tuple[nn.Module, str, Any]


@dataclass
class _State:
    """Stem of an encoder, and the settings that make it standard again."""

    stem: Stem = 'standard'
    originals: list[_Setting] = field(default_factory=list)


def reduction_of(stem: Stem) -> int:
    """Factor by which a stem divides the stride of the standard network: 1, 2 or 4."""
    return _REDUCTION[stem]


def stem_of(encoder: nn.Module) -> Stem:
    """Return the stem of an encoder (a timm network, or the encoder inside an smp network)."""
    return _state(encoder).stem


def set_stem(encoder: nn.Module, stem: Stem) -> None:
    """Change the stem of an encoder in place; no tensor changes.

    ``medium`` removes the second halving (a ResNet's max pooling), ``small`` also the first one (the stride of the
    first convolution). The stem of one 4×4 convolution in ConvNeXt takes steps of 2 and 1 pixels instead of 4.

    Args:
        encoder: timm network, or smp's version of one.
        stem: The stem.

    Raises:
        ConfigurationError: If the network has no stem that can be changed.
    """
    state = _state(encoder)
    if stem == state.stem:
        return
    for module, name, value in reversed(state.originals):
        setattr(module, name, value)
    settings = _settings(encoder, stem)
    originals = [(module, name, getattr(module, name)) for module, name, _ in settings]
    for module, name, value in settings:
        setattr(module, name, value)
    # kept on the encoder, so that copies of the network know their stem too
    setattr(encoder, _STATE, _State(stem, originals))


def choose_stem(encoder: nn.Module, size: int) -> Stem:
    """Choose the stem of the largest stride with which the last feature map is at least 4×4.

    Args:
        encoder: timm network, or smp's version of one.
        size: Side of the images in pixels.

    Returns:
        The stem; ``small`` if none is sufficient, ``standard`` for networks whose stem cannot be changed.
    """
    stride = standard_stride(encoder)
    if stride is None or not has_stem(encoder):
        return 'standard'
    sufficient = (stem for stem in get_args(Stem) if _map_size(size, stride // reduction_of(stem)) >= LEAST_MAP)
    return next(sufficient, 'small')


def has_stem(encoder: nn.Module) -> bool:
    """Whether the stem of an encoder can be changed."""
    return stem_of(encoder) != 'standard' or bool(_halvings(encoder))


def standard_stride(encoder: nn.Module) -> int | None:
    """Total stride of an encoder with its standard stem in pixels; None if unknown."""
    info: Any = getattr(encoder, 'feature_info', None)
    if not info:
        return 32 if hasattr(encoder, 'output_stride') else None  # smp's own encoders
    reductions = info.reduction() if hasattr(info, 'reduction') else [entry['reduction'] for entry in info]
    return int(reductions[-1])


def check_stems(encoder: nn.Module, of_weights: Stem, description: str) -> None:
    """Check that weights were trained with the stem of the encoder that they are loaded into.

    Their tensors fit any stem, but the features are others. Published weights exist with the standard stem only, so
    these may also start an encoder with a smaller one, with a warning.

    Args:
        encoder: timm network, or smp's version of one.
        of_weights: Stem with which the weights were trained.
        description: Origin of the weights, for messages.

    Raises:
        WeightsError: If the weights were trained with a smaller stem than the standard one, and the encoder has
            another.
    """
    own = stem_of(encoder)
    if of_weights == own:
        return
    if of_weights != 'standard':
        raise WeightsError(
            f'{description} was trained with stem {of_weights!r} and the network has {own!r}: the tensors fit, and the '
            f'features would not; set stem to {of_weights} or leave it out (create_encoder(…, stem={of_weights!r})).'
        )
    log.warning(
        '%s was trained with the standard stem and the network has %r: its features are a start for training, and not '
        'to be used frozen.',
        description,
        own,
    )


def small_map_warning(encoder: nn.Module, name: str, size: int) -> str | None:
    """Describe a last feature map that is too small for its features to depend on where things are.

    Args:
        encoder: timm network.
        name: Its timm name.
        size: Side of the images in pixels.

    Returns:
        A sentence with remedies if the map is smaller than 4×4, otherwise None.
    """
    standard = standard_stride(encoder)
    if standard is None:
        return None
    stride = standard // reduction_of(stem_of(encoder))
    side = _map_size(size, stride)
    if side >= LEAST_MAP:
        return None
    change = 'set stem to auto, ' if choose_stem(encoder, size) != stem_of(encoder) else ''
    return (
        f'The last feature map of {name} for images of {size} px is {side}×{side} (stride {stride}, stem '
        f'{stem_of(encoder)}), and {LEAST_MAP}×{LEAST_MAP} or more is advisable: {change}enlarge chip_size, or set '
        f'augmentation.size to {LEAST_MAP * stride} where the method has it.'
    )


def _map_size(size: int, stride: int) -> int:
    return math.ceil(size / stride)


def _state(encoder: nn.Module) -> _State:
    state = getattr(encoder, _STATE, None)
    return state if isinstance(state, _State) else _State()


def _settings(encoder: nn.Module, stem: Stem) -> list[_Setting]:
    """Settings that turn a standard network into one with a stem."""
    if stem == 'standard':
        return []
    halvings = _halvings(encoder)
    if not halvings:
        raise ConfigurationError(
            f'stem: {type(encoder).__name__} has no stem whose stride can be reduced, so {stem!r} is impossible; set '
            'stem to standard or auto, or choose a ResNet, ConvNeXt, EfficientNet or MobileNet.'
        )
    return halvings[stem]


def _halvings(encoder: nn.Module) -> dict[Stem, list[_Setting]]:
    """Find the settings for each stem in a standard network; none if it has no such stem."""
    # timm's feature extractors in smp networks write ``stem_0`` for ``stem.0``
    modules = {name.replace('.', '_'): (name, module) for name, module in encoder.named_modules()}
    for convolution, pool in _POOLS:
        if found := _pooled(encoder, modules, convolution.replace('.', '_'), pool.replace('.', '_')):
            return found
    return _patches(modules) or _blocks(modules) or {}


_Modules = dict[str, tuple[str, nn.Module]]


def _pooled(encoder: nn.Module, modules: _Modules, convolution: str, pool: str) -> dict[Stem, list[_Setting]]:
    """A strided convolution, or the first of a deep stem, and a pooling: ResNet, ResNetV2, DenseNet."""
    first = next((modules[name][1] for name in (convolution, f'{convolution}_0') if _halves(modules, name)), None)
    pooling = modules.get(pool)
    if first is None or pooling is None or any(True for _ in pooling[1].parameters()):
        return {}
    parent, _, child = pooling[0].rpartition('.')
    no_pool: _Setting = (encoder.get_submodule(parent), child, nn.Identity())
    return {'medium': [no_pool], 'small': [no_pool, (first, 'stride', (1, 1))]}


def _patches(modules: _Modules) -> dict[Stem, list[_Setting]]:
    """One convolution of kernel and stride 4, or two of stride 2: ConvNeXt."""
    first = modules.get('stem_0', ('', None))[1]
    if isinstance(first, nn.Conv2d) and first.stride == (4, 4) and first.kernel_size == (4, 4):
        warnings.filterwarnings('ignore', message="Using padding='same' with even kernel")
        half: list[_Setting] = [(first, 'stride', (2, 2)), (first, 'padding', (1, 1))]
        return {'medium': half, 'small': [(first, 'stride', (1, 1)), (first, 'padding', 'same')]}
    pair = [modules[name][1] for name in ('stem_0', 'stem_1', 'stem_2') if _halves(modules, name)]
    if len(pair) != 2:
        return {}
    settings: list[_Setting] = [(convolution, 'stride', (1, 1)) for convolution in reversed(pair)]
    return {'medium': settings[:1], 'small': settings}


def _blocks(modules: _Modules) -> dict[Stem, list[_Setting]]:
    """A strided convolution, and a strided one in the first block that has any: EfficientNet, MobileNet."""
    strided = [name for name in modules if name.startswith('blocks_') and _halves(modules, name)]
    if not _halves(modules, 'conv_stem') or not strided:
        return {}
    path = modules[strided[0]][0]
    block = '.'.join(path.split('.')[:3])
    if sum(modules[name][0].startswith(f'{block}.') for name in strided) != 1:  # a strided shortcut as well
        return {}
    second: _Setting = (modules[strided[0]][1], 'stride', (1, 1))
    return {'medium': [second], 'small': [second, (modules['conv_stem'][1], 'stride', (1, 1))]}


def _halves(modules: _Modules, name: str) -> bool:
    module = modules.get(name, ('', None))[1]
    return isinstance(module, nn.Conv2d) and module.stride == (2, 2)
