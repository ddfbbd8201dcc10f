"""Receptive field and total stride of a network, measured by running it.

NaN propagates to every output that depends on it, whatever the weights are. An image with one half set to NaN shows how
far that half reaches into the other one, and whether the output depends on the whole image. Shifted inputs show the
total stride.
"""

import copy
import itertools
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.prediction.stitch import Stitching

__all__ = ('NotLocalError', 'ReceptiveField', 'choose_blend', 'measure_receptive_field')

#: Largest total stride that is tested, in pixels.
_LARGEST_STRIDE = 64
#: Lengths of the test strips, in pixels; networks with a larger receptive field count as global.
_LENGTHS = (256, 512, 768, 1024, 1536, 2048, 3072, 4096)
#: Relative difference of outputs that is attributed to rounding, in float64.
_ROUNDING = 1e-8

#: Layers that use the whole image, by parts of their class names, with the term for messages.
_GLOBAL_LAYERS = {
    'attention': 'attention',
    'transformer': 'attention',
    'groupnorm': 'group normalization',
    'instancenorm': 'instance normalization',
    'layernorm': 'layer normalization',
    'adaptive': 'global pooling',
    'squeezeexcite': 'squeeze and excitation',
    'semodule': 'squeeze and excitation',
    'pyramidpooling': 'global pooling',
}


class NotLocalError(Exception):
    """The network is not a local, shift-equivariant function of its input; the message says why."""


@runtime_checkable
class StatesRadius(Protocol):
    """Network that is exact and of stride 1 by construction, and knows how far it sees."""

    @property
    def receptive_radius(self) -> int:
        """Largest distance from which the input influences an output pixel, in pixels."""


@dataclass(frozen=True)
class ReceptiveField:
    """What surrounds a pixel and still changes its output.

    Attributes:
        margin: Largest distance from which the input influences an output pixel, in pixels.
        stride: Total stride, in pixels: the smallest shift of the input that shifts the output without changing it.
    """

    margin: int
    stride: int


def measure_receptive_field(network: nn.Module, in_channels: int) -> ReceptiveField:
    """Measure how far a network sees, unless it states it.

    The network runs on the CPU in eval mode and float64; the given module is not modified.

    Args:
        network: From images (batch, band, height, width) to maps of the same height and width.
        in_channels: Number of bands.

    Returns:
        The largest margin over both axes and directions, and the total stride, a power of two.

    Raises:
        NotLocalError: If the output depends on the whole image, its size or the position in it, or the network does
            not run on images of several sizes.
        ConfigurationError: If the output's height and width differ from the image's.
    """
    if isinstance(network, StatesRadius):
        return ReceptiveField(network.receptive_radius, 1)
    probe = _Probe(network, in_channels)
    margin, length = _measure_margin(probe)
    return ReceptiveField(margin, _measure_stride(probe, margin, length))


def choose_blend(
    network: nn.Module,
    in_channels: int,
    window: int | None = None,
    blend: Literal['auto', 'crop', 'hann'] = 'auto',
    overlap: int | None = None,
) -> Stitching:
    """Choose how the windows of a network are combined into a map.

    Args:
        network: From images (batch, band, height, width) to maps of the same height and width.
        in_channels: Number of bands.
        window: Side of a window, in pixels. With None, 512 for ``hann``, and four margins but at least 512 for
            ``crop``, which then computes as many pixels twice as ``hann`` does.
        blend: ``auto`` takes ``crop`` where it is exact and the window is large enough, else ``hann``.
        overlap: Pixels that neighbouring windows share with ``hann``; None for half a window.

    Returns:
        The choice with its reason.

    Raises:
        ConfigurationError: If ``crop`` is requested but is not exact or does not fit into the window, or an option is
            out of range.
    """
    if blend not in ('auto', 'crop', 'hann'):
        raise ConfigurationError(f"blend: expected 'auto', 'crop' or 'hann', got {blend!r}.")
    fallback = 512 if window is None else window
    if blend == 'hann':
        return Stitching('hann', fallback, overlap=overlap, reason='as configured')
    try:
        field = measure_receptive_field(network, in_channels)
    except NotLocalError as error:
        if blend == 'crop':
            msg = f'blend: crop is not exact for this network ({error}); use blend: hann or auto.'
            raise ConfigurationError(msg) from error
        return Stitching('hann', fallback, overlap=overlap, reason=str(error))
    stride = field.stride
    margin = -(-field.margin // stride) * stride
    measured = f'the network sees {field.margin} pixels to each side, with a total stride of {stride}'
    least = 2 * margin + stride
    if window is not None and blend == 'auto' and (window < least or window % stride):
        reason = f'{measured}; crop, which is exact, requires a window of {least} or more, got {window}'
        return Stitching('hann', window, overlap=overlap, reason=reason)
    side = -(-max(512, 4 * margin) // stride) * stride if window is None else window
    return Stitching(
        'crop', side, margin, stride, reason=f'{measured}; the map equals one pass over the mirrored scene'
    )


class _Probe:
    """A copy of a network in float64 on the CPU, run on strips: images long along one axis, thin along the other.

    In float32, faster algorithms that work on tiles of the image (Winograd) may spread NaN beyond the receptive field.
    """

    def __init__(self, network: nn.Module, in_channels: int) -> None:
        self.network = copy.deepcopy(network).cpu().double().eval()
        self.in_channels = in_channels
        self.thickness = _LARGEST_STRIDE // 2
        names = {type(module).__name__.lower() for module in network.modules()}
        terms = {term for part, term in _GLOBAL_LAYERS.items() if any(part in name for name in names)}
        self.global_layers = ', '.join(sorted(terms))

    def strip(self, length: int) -> Tensor:
        """Return zeros (1, band, thickness, length)."""
        return torch.zeros(1, self.in_channels, self.thickness, length, dtype=torch.float64)

    def run(self, strip: Tensor, vertical: bool) -> Tensor:
        """Return the output (1, class, thickness, length) for a strip shown horizontally or vertically."""
        image = strip.mT.contiguous() if vertical else strip
        try:
            with torch.inference_mode():
                output: Tensor = self.network(image)
        except Exception as error:  # whatever a foreign network raises on sizes it does not support
            if self.thickness < _LARGEST_STRIDE and not self.global_layers:
                self.thickness = _LARGEST_STRIDE
                return self.run(strip.repeat(1, 1, 2, 1), vertical)
            because = f' because of {self.global_layers}' if self.global_layers else ''
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise NotLocalError(f'it does not run on images of any size{because}: {text}') from error
        if output.shape[-2:] != image.shape[-2:]:
            got, expected = (tuple(shape[-2:]) for shape in (output.shape, image.shape))
            raise ConfigurationError(f'The network must return maps of {expected} pixels for such images, got {got}.')
        return output.mT if vertical else output


def _measure_margin(probe: _Probe) -> tuple[int, int]:
    """Return the largest margin over both axes and directions, and the length of the strip that showed it."""
    for length in _LENGTHS:
        margins = []
        for vertical, backward in itertools.product((False, True), repeat=2):
            margin = _margin_along(probe, length, vertical, backward)
            # Two margins and what measuring the stride needs must fit.
            if 2 * (margin + _LARGEST_STRIDE) >= length:
                break
            margins.append(margin)
        else:
            return max(margins), length
    by = f', through {probe.global_layers}' if probe.global_layers else ''
    raise NotLocalError(f'it sees the whole image{by}')


def _margin_along(probe: _Probe, length: int, vertical: bool, backward: bool) -> int:
    """Return how many pixels NaN in one half of a strip reaches into the other."""
    strip, middle = probe.strip(length), length // 2
    strip[..., slice(middle, None) if backward else slice(None, middle)] = torch.nan
    reached = probe.run(strip, vertical).isnan().flatten(0, -2).any(dim=0)
    other = reached[:middle].flip(0) if backward else reached[middle:]
    return int(other.nonzero().max()) + 1 if other.any() else 0


def _measure_stride(probe: _Probe, margin: int, length: int) -> int:
    """Return the smallest power of two by which the input may be shifted; larger ones are tested first."""
    generator = torch.Generator().manual_seed(0)
    strip = torch.randn(probe.strip(length).shape, dtype=torch.float64, generator=generator)
    stride = 1
    for vertical in (False, True):
        whole = probe.run(strip, vertical)
        # A shorter strip also reveals a dependence on the image's size.
        if not _equal_when_shifted(whole, probe.run(strip[..., _LARGEST_STRIDE:], vertical), _LARGEST_STRIDE, margin):
            raise NotLocalError('its output depends on the size of the image or on the position in it')
        shift = _LARGEST_STRIDE
        while shift > stride:
            half = shift // 2
            if not _equal_when_shifted(whole, probe.run(strip.roll(-half, -1), vertical), half, margin):
                break
            shift = half
        stride = max(stride, shift)
    return stride


def _equal_when_shifted(whole: Tensor, shifted: Tensor, shift: int, margin: int) -> bool:
    """Return whether outputs agree, away from the ends, when the second input starts ``shift`` pixels later."""
    # A shift by less than the stride moves what the margin was measured from.
    margin += _LARGEST_STRIDE // 2
    end = whole.shape[-1] - margin - shift
    first, second = whole[..., margin + shift : end + shift], shifted[..., margin:end]
    second = second[..., : first.shape[-1]]
    first = first[..., : second.shape[-1]]
    return bool((first - second).abs().max() <= _ROUNDING * whole.abs().max().clamp(min=1e-30))
