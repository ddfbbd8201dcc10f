"""How far a network sees, found by trying it.

NaN spreads through a network to everything that depends on it, whatever the weights are: half an image of NaN shows
how far the other half is reached, and whether anything looks at the whole image. Moved inputs show the total stride.
"""

import copy
import itertools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.prediction.stitch import Stitching

__all__ = ('choose_blend', 'receptive_margin', 'total_stride')

#: The largest total stride that is looked for, in pixels.
_LARGEST_STRIDE = 64
#: Lengths of the strips that are tried, in pixels; networks that see further are taken to see everything.
_LENGTHS = (256, 1024, 4096)
#: Relative difference of outputs that counts as rounding, in float64.
_ROUNDING = 1e-8

#: Parts that look at the whole image, by what their class names contain, for an explanation in words.
_GLOBAL_PARTS = {
    'attention': 'attention',
    'transformer': 'attention',
    'groupnorm': 'group normalisation',
    'instancenorm': 'instance normalisation',
    'layernorm': 'layer normalisation',
    'adaptive': 'pooling of the whole image',
    'squeezeexcite': 'squeeze and excitation',
    'semodule': 'squeeze and excitation',
    'pyramidpooling': 'pooling of the whole image',
}


class _NotLocalError(Exception):
    """The network is no local function of its input; the text says why."""


@dataclass(frozen=True)
class _Reach:
    """What strips of some length show: how far the network sees, in pixels."""

    margin: int
    length: int


def receptive_margin(network: nn.Module, in_channels: int) -> int:
    """Distance beyond which the border of a window has no influence on the output.

    Args:
        network: From images (batch, band, height, width) to maps of the same height and width.
        in_channels: Number of bands.

    Returns:
        Pixels; windows are taken to begin at multiples of the total stride.

    Raises:
        ConfigurationError: If the network sees the whole image, or does not run on images of several sizes.
    """
    try:
        return _look(network, in_channels)[0]
    except _NotLocalError as error:
        raise ConfigurationError(f'The network has no receptive margin ({error}); use blend: hann.') from error


def total_stride(network: nn.Module, in_channels: int) -> int:
    """Smallest move of the input with which the output moves alike and does not change otherwise.

    Args:
        network: From images (batch, band, height, width) to maps of the same height and width.
        in_channels: Number of bands.

    Returns:
        Pixels, a power of two.

    Raises:
        ConfigurationError: If there is none up to 64, or the network sees the whole image.
    """
    try:
        return _look(network, in_channels)[1]
    except _NotLocalError as error:
        raise ConfigurationError(f'The network has no total stride ({error}); use blend: hann.') from error


def choose_blend(
    network: nn.Module,
    in_channels: int,
    window: int | None = None,
    blend: Literal['auto', 'crop', 'hann'] = 'auto',
    overlap: int | None = None,
) -> Stitching:
    """Choose how the windows of a network become a map.

    The network is tried on the CPU in eval mode, in float64; the given one stays as it is.

    Args:
        network: From images (batch, band, height, width) to maps of the same height and width.
        in_channels: Number of bands.
        window: Side of a window, in pixels; None for four margins with ``crop`` (then as much is computed twice as
            with ``hann``), at least 512, and 512 with ``hann``.
        blend: ``auto`` takes ``crop`` where it is exact and the window is large enough, else ``hann``.
        overlap: Pixels that neighbours share with ``hann``; None for half a window.

    Returns:
        The choice, with its reason.

    Raises:
        ConfigurationError: If ``crop`` is asked for and is not exact or does not fit into the window, or an option is
            out of its range.
    """
    if blend not in ('auto', 'crop', 'hann'):
        raise ConfigurationError(f"blend: expected 'auto', 'crop' or 'hann', got {blend!r}.")
    fallback = 512 if window is None else window
    if blend == 'hann':
        return Stitching('hann', fallback, overlap=overlap, reason='as configured')
    try:
        seen_to, stride = _look(network, in_channels)
    except _NotLocalError as error:
        if blend == 'crop':
            msg = f'blend: crop is not exact for this network ({error}); use blend: hann or auto.'
            raise ConfigurationError(msg) from error
        return Stitching('hann', fallback, overlap=overlap, reason=str(error))
    margin = -(-seen_to // stride) * stride
    seen = f'the network sees {seen_to} pixels to each side, with a total stride of {stride}'
    least = 2 * margin + stride
    if window is not None and blend == 'auto' and (window < least or window % stride):
        reason = f'{seen}: crop, which is exact, needs a window of {least} or more and not {window}'
        return Stitching('hann', window, overlap=overlap, reason=reason)
    side = -(-max(512, 4 * margin) // stride) * stride if window is None else window
    return Stitching('crop', side, margin, stride, reason=f'{seen}: the map equals that of the whole scene at once')


def _look(network: nn.Module, in_channels: int) -> tuple[int, int]:
    """Margin and total stride, in pixels."""
    probe = _Probe(network, in_channels)
    reach = _reach(probe)
    return reach.margin, _stride(probe, reach)


class _Probe:
    """A network in float64 on the CPU that is shown strips: images long along one axis, thin along the other.

    float64 is also what keeps NaN where it belongs: in float32 a faster algorithm may work on tiles of the image
    (Winograd) and spread NaN beyond what depends on it.
    """

    def __init__(self, network: nn.Module, in_channels: int) -> None:
        self.twin = copy.deepcopy(network).cpu().double().eval()
        self.in_channels = in_channels
        self.thickness = _LARGEST_STRIDE // 2
        names = {type(module).__name__.lower() for module in network.modules()}
        found = {words for part, words in _GLOBAL_PARTS.items() if any(part in name for name in names)}
        self.parts = ', '.join(sorted(found))

    def strip(self, length: int) -> Tensor:
        """Zeros, (1, band, thickness, length)."""
        return torch.zeros(1, self.in_channels, self.thickness, length, dtype=torch.float64)

    def run(self, strip: Tensor, upright: bool) -> Tensor:
        """Output for a strip, (1, class, thickness, length), when it is shown lying or upright."""
        image = strip.mT.contiguous() if upright else strip
        try:
            with torch.inference_mode():
                output: Tensor = self.twin(image)
        except Exception as error:  # whatever a network of somebody else raises on a size it was not made for
            if self.thickness < _LARGEST_STRIDE and not self.parts:
                self.thickness = _LARGEST_STRIDE
                return self.run(strip.repeat(1, 1, 2, 1), upright)
            because = f' because of {self.parts}' if self.parts else ''
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise _NotLocalError(f'it does not run on images of any size{because}: {text}') from error
        if output.shape[-2:] != image.shape[-2:]:
            got, expected = (tuple(shape[-2:]) for shape in (output.shape, image.shape))
            raise ConfigurationError(f'The network gives a map of {got} pixels for an image of {expected}.')
        return output.mT if upright else output


def _reach(probe: _Probe) -> _Reach:
    """How far the network sees: the largest over both axes and both directions."""
    for length in _LENGTHS:
        margins = []
        for upright, backward in itertools.product((False, True), repeat=2):
            margin = _reach_along(probe, length, upright, backward)
            # Two margins and what the search for the stride needs must fit.
            if 2 * (margin + _LARGEST_STRIDE) >= length:
                break
            margins.append(margin)
        else:
            return _Reach(max(margins), length)
    raise _NotLocalError(f'it sees the whole image{f", by {probe.parts}" if probe.parts else ""}')


def _reach_along(probe: _Probe, length: int, upright: bool, backward: bool) -> int:
    """Pixels that NaN in one half of a strip reaches into the other."""
    strip, middle = probe.strip(length), length // 2
    strip[..., slice(middle, None) if backward else slice(None, middle)] = torch.nan
    reached = probe.run(strip, upright).isnan().flatten(0, -2).any(dim=0)
    other = reached[:middle].flip(0) if backward else reached[middle:]
    return int(other.nonzero().max()) + 1 if other.any() else 0


def _stride(probe: _Probe, reach: _Reach) -> int:
    """Smallest power of two by which the input may move; from large to small, as its multiples are fine too."""
    strip = torch.randn(
        probe.strip(reach.length).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    stride = 1
    for upright in (False, True):
        whole = probe.run(strip, upright)
        # A shorter strip: what depends on the size of the image shows too.
        if not _alike(whole, probe.run(strip[..., _LARGEST_STRIDE:], upright), _LARGEST_STRIDE, reach.margin):
            raise _NotLocalError('its output depends on the size of the image or on the place in it')
        move = _LARGEST_STRIDE
        while move > stride and _alike(whole, probe.run(strip.roll(-move // 2, -1), upright), move // 2, reach.margin):
            move //= 2
        stride = max(stride, move)
    return stride


def _alike(whole: Tensor, moved: Tensor, move: int, margin: int) -> bool:
    """Whether outputs agree, away from the ends, when the second one's input begins ``move`` pixels later."""
    # A move by less than the stride shifts what the margin was measured from.
    margin += _LARGEST_STRIDE // 2
    end = whole.shape[-1] - margin - move
    first, second = whole[..., margin + move : end + move], moved[..., margin:end]
    second = second[..., : first.shape[-1]]
    first = first[..., : second.shape[-1]]
    return bool((first - second).abs().max() <= _ROUNDING * whole.abs().max().clamp(min=1e-30))
