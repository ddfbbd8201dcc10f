"""Matching of tensors and bands between weights and networks."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor, nn

from torchgeo_msssl.bands import SENSORS, Sensor, canonical_band_name, infer_sensor
from torchgeo_msssl.errors import WeightsError
from torchgeo_msssl.models.report import LoadReport, first_few

#: Bands of one name whose wavelengths differ by more than this fraction are different bands (B05 is red edge on
#: Sentinel-2 and near infrared on Landsat); the same color on two cameras differs by less.
_WAVELENGTH_TOLERANCE = 0.1

#: Classifiers of timm's networks; ConvNeXt's ``head.norm`` is not one.
_CLASSIFIER = re.compile(r'(fc|head|head_dist|classifier)(\.fc|\.\d+)?\.(weight|bias)')
COMPUTED = ('relative_position_index', 'relative_coords_table', 'attn_mask')
_COLORS = frozenset(band.common for sensor in SENSORS.values() for band in sensor.bands if band.common)
_COLORS |= {'red', 'green', 'blue', 'rededge', 'nir', 'lwir'}


@dataclass(frozen=True)
class Spectrum:
    """Bands in the order of a network's input channels.

    Attributes:
        names: Canonical names; empty if unknown.
        wavelengths: Nanometres, None if unknown.
        colors: Color names (``red``, ``nir``, …), None if a band has none.
    """

    names: tuple[str, ...]
    wavelengths: tuple[float | None, ...]
    colors: tuple[str | None, ...]

    @classmethod
    def of(
        cls, names: Sequence[str] | None, sensor: Sensor | None = None, wavelengths: Sequence[float | None] = ()
    ) -> 'Spectrum':
        """Look up names, wavelengths and colors of bands.

        Args:
            names: Band names in any spelling, or None.
            sensor: Sensor of the bands; None to infer it from the names.
            wavelengths: Nanometres, which override those of the sensor.

        Returns:
            The spectrum.

        Raises:
            WeightsError: If a band is repeated.
        """
        canonical = tuple(canonical_band_name(name) for name in names or ())
        if len(set(canonical)) != len(canonical):
            raise WeightsError(f'bands: expected distinct names, got {", ".join(names or ())}; name each band once.')
        known = sensor or infer_sensor(canonical)
        bands = [known.find(name) if known else None for name in canonical]
        given = wavelengths or (None,) * len(canonical)
        return cls(
            canonical,
            tuple(value or (band.wavelength if band else None) for value, band in zip(given, bands, strict=True)),
            tuple(
                name if name in _COLORS else (band.common if band else None)
                for name, band in zip(canonical, bands, strict=True)
            ),
        )


def match_bands(source: Spectrum, target: Spectrum) -> list[int | None]:
    """Find each band of a network (target) among the bands of the weights (source).

    Equal names take precedence over equal colors; both require compatible wavelengths.

    Returns:
        For each target band the index of the source band, or None. No source band is used twice.
    """
    found: list[int | None] = [None] * len(target.names)
    for source_labels, target_labels in ((source.names, target.names), (source.colors, target.colors)):
        for index, name in enumerate(target_labels):
            if found[index] is not None or name is None:
                continue
            for candidate, other in enumerate(source_labels):
                same = name == other and candidate not in found
                if same and _agree(source.wavelengths[candidate], target.wavelengths[index]):
                    found[index] = candidate
                    break
    return found


def _agree(one: float | None, other: float | None) -> bool:
    return one is None or other is None or abs(one - other) <= _WAVELENGTH_TOLERANCE * max(one, other)


def adapt_kernel(kernel: Tensor, choice: Sequence[int | None]) -> tuple[Tensor, float]:
    """Rearrange the first convolution's kernel for other bands.

    A band that both have keeps its slice. A new band gets the mean over the source's bands: neighboring bands are
    highly correlated, so the mean is a better guess of the filter than noise, with the filter's spatial shape. If the
    set of bands changed, the whole kernel is multiplied by one factor that preserves the sum of its squares. The input
    is standardized, so the mean square of the output is preserved for uncorrelated bands; one factor for all filters
    preserves their ratios, and does not amplify a filter of dropped bands only.

    Args:
        kernel: ``(out, source band, height, width)``.
        choice: For each target band the index of a source band, or None for a new one.

    Returns:
        The kernel ``(out, target band, height, width)``, and the factor (exactly 1 for a permutation).
    """
    mean = kernel.mean(dim=1)
    adapted = torch.stack([mean if index is None else kernel[:, index] for index in choice], dim=1)
    if sorted(-1 if index is None else index for index in choice) == list(range(kernel.shape[1])):
        return adapted, 1.0
    before, after = kernel.double().square().sum().item(), adapted.double().square().sum().item()
    factor = math.sqrt(before / after) if after > 0 else 1.0
    return adapted * factor, factor


def _fit_bands(
    kernel: Tensor, channels: int, source: Spectrum, target: Spectrum, description: str
) -> tuple[Tensor, dict[str, Any]]:
    """Adapt the kernel, and return the fields of the report."""
    for names, count, where in ((source.names, kernel.shape[1], description), (target.names, channels, 'the network')):
        if names and len(names) != count:
            raise WeightsError(
                f'{where}: {len(names)} bands are named ({", ".join(names)}) but the first convolution has '
                f'{count} input channels; give one name per channel.'
            )
    if not source.names or not target.names:
        if kernel.shape[1] != channels:
            unknown = description if not source.names else 'the network'
            raise WeightsError(
                f'{description} has {kernel.shape[1]} bands and the network {channels}, and the band names of '
                f'{unknown} are unknown; give bands= for the network and use weights with band names.'
            )
        names = target.names or source.names or tuple(str(index) for index in range(channels))
        return kernel, {'bands': dict.fromkeys(names, 'copied by position, since names are not known on both sides')}

    choice = match_bands(source, target)
    if all(index is None for index in choice):
        raise WeightsError(
            f'{description} was trained on {", ".join(source.names)} and the network has {", ".join(target.names)}: '
            f'no band in common; choose other weights or other bands.'
        )
    kernel, factor = adapt_kernel(kernel, choice)
    how = {
        name: 'new, mean over the bands of the source'
        if index is None
        else ('copied' if source.names[index] == name else f'copied from {source.names[index]}')
        for name, index in zip(target.names, choice, strict=True)
    }
    dropped = tuple(name for index, name in enumerate(source.names) if index not in choice)
    return kernel, {'bands': how, 'dropped_bands': dropped, 'kernel_scale': factor}


def align_keys(source: Iterable[str], target: Iterable[str]) -> dict[str, str]:
    """Pair the names of a network with those of a state dict.

    timm's feature extractors (and thus smp's ``tu-`` encoders) write ``stages_0.`` for ``stages.0.``, so names that
    differ in dots and underscores only are equal.

    Args:
        source: Names in the state dict.
        target: Names in the network.

    Returns:
        For each target name that has a partner, the source name.
    """
    source = list(source)
    exact = set(source)
    flat: dict[str, str | None] = {}
    for name in source:
        key = name.replace('.', '_')
        flat[key] = None if key in flat else name
    pairs = {}
    for name in target:
        partner = name if name in exact else flat.get(name.replace('.', '_'))
        if partner is not None:
            pairs[name] = partner
    return pairs


def _resize(key: str, tensor: Tensor, expected: Tensor, encoder: nn.Module) -> Tensor | None:
    """Interpolate a positional tensor to another image or window size; None for any other tensor."""
    try:
        if key.endswith('pos_embed') and tensor.ndim == 3 and tensor.shape[-1] == expected.shape[-1]:
            grid = list(encoder.patch_embed.grid_size)  # type: ignore[union-attr, arg-type]
            prefix = expected.shape[1] - math.prod(grid)
            if math.isqrt(tensor.shape[1] - prefix) ** 2 != tensor.shape[1] - prefix:
                return None
            return resample_abs_pos_embed(tensor, grid, num_prefix_tokens=prefix)
        if key.endswith('relative_position_bias_table'):
            window = encoder.get_submodule(key.rpartition('.')[0]).window_size
            resized = resize_rel_pos_bias_table(tensor, window, tuple(expected.shape))  # type: ignore[arg-type]
            return resized if resized.shape == expected.shape else None
    except (AttributeError, AssertionError, RuntimeError, TypeError, ValueError):
        return None  # a layout that timm's helpers do not support: the caller reports a wrong shape
    return None


def fit_state_dict(
    source: Mapping[str, Tensor],
    encoder: nn.Module,
    input_key: str,
    spectra: tuple[Spectrum, Spectrum],
    *,
    description: str,
    models: tuple[str | None, str | None],
) -> tuple[dict[str, Tensor], LoadReport]:
    """Compute the state dict to load into a network; the network is not changed.

    Args:
        source: Tensors of an encoder in timm's (or a feature extractor's) names.
        encoder: The network.
        input_key: Name of the first convolution's kernel in the network.
        spectra: Bands of the source and of the network.
        description: Origin of the tensors, for messages.
        models: Model names of source and network, None if unknown.

    Returns:
        A complete state dict for the network, and the report.

    Raises:
        WeightsError: If nothing matches, or a tensor is missing, unexpected or of another shape without a reason.
    """
    target = encoder.state_dict()
    unused = _classifier_keys(encoder)
    pairs = {name: partner for name, partner in align_keys(source, target).items() if name not in unused}
    if not pairs:
        raise WeightsError(
            f'{description}: none of its {len(source)} tensors ({first_few(list(source))}) is one of the '
            f'{len(target)} of the network ({first_few(list(target))}); {_advice(*models)}.'
        )

    fitted = dict(target)
    reshaped: dict[str, str] = {}
    wrong: list[str] = []
    bands: dict[str, Any] = {}
    for name, partner in pairs.items():
        tensor = source[partner]
        if name == input_key and tensor.ndim == 4:
            if tensor.shape[0] == target[name].shape[0] and tensor.shape[2:] == target[name].shape[2:]:
                tensor, bands = _fit_bands(tensor, target[name].shape[1], *spectra, description)
        elif tensor.shape != target[name].shape:
            resized = _resize(name, tensor, target[name], encoder)
            if resized is not None:
                reshaped[name] = f'{tuple(tensor.shape)} → {tuple(resized.shape)}'
                tensor = resized
        if tensor.shape != target[name].shape:
            wrong.append(f'{name}: expected {tuple(target[name].shape)}, got {tuple(tensor.shape)}')
        fitted[name] = tensor

    taken = set(pairs.values())
    missing = {name: _why_missing(name, unused) for name in target if name not in pairs}
    unexpected = {name: _why_unexpected(name, encoder) for name in source if name not in taken}
    faults = [
        f'{len(names)} {what} ({first_few(names)})'
        for what, names in (
            ('tensors are missing', [name for name, why in missing.items() if not why]),
            ('are unexpected', [name for name, why in unexpected.items() if not why]),
            ('have another shape', wrong),
        )
        if names
    ]
    if faults:
        raise WeightsError(f'{description} does not fit the network: {"; ".join(faults)}; {_advice(*models)}.')
    report = LoadReport(description, models[1], tuple(pairs), missing, unexpected, reshaped, **bands)
    return fitted, report


def _classifier_keys(encoder: nn.Module) -> set[str]:
    """Names of the tensors of a timm network's classifier, which is never transferred."""
    try:
        heads: Any = encoder.get_classifier()  # type: ignore[operator]
    except AttributeError:  # not a timm network, or smp removed its classifier
        return set()
    heads = set(heads) if isinstance(heads, (tuple, list)) else {heads}
    return {
        f'{name}.{key}' for name, module in encoder.named_modules() if module in heads for key in module.state_dict()
    }


def _why_missing(name: str, unused: set[str]) -> str:
    if name in unused:
        return 'classifier of the network, unchanged'
    return 'counter, not used by the network' if name.endswith('num_batches_tracked') else ''


def _why_unexpected(name: str, encoder: nn.Module) -> str:
    """Return why the network does not need a tensor of the source; empty if it should."""
    if name.rpartition('.')[2] in COMPUTED:
        return 'computed by the network itself'
    children = {child for child, _ in encoder.named_children()}
    first, second = [*name.split('.'), ''][:2]
    # timm's feature extractors (and smp's ResNet) end with the last feature map and have no classifier
    if not hasattr(encoder, 'get_classifier') and first not in children and f'{first}_{second}' not in children:
        return 'after the last feature map, where a segmentation network ends'
    return 'classifier of the source' if _CLASSIFIER.fullmatch(name) else ''


def _advice(made_with: str | None, network: str | None) -> str:
    if made_with and network and made_with.partition('.')[0] != network.partition('.')[0]:
        return f'the source was made with {made_with!r} and the network is {network!r}: use the same model'
    of = f' (it was made with {made_with!r})' if made_with else ''
    return f'check that this is an encoder of the same model{of}'


def network_tensors(tensors: Mapping[str, Tensor], network: nn.Module, description: str) -> dict[str, Tensor]:
    """Rename the tensors of a restoration checkpoint to those of an smp network with the same encoder and decoder.

    Args:
        tensors: ``model.…`` in timm's names and ``decoder.…``, as the checkpoint has them.
        network: An smp network.
        description: Origin of the tensors, for the message.

    Returns:
        Tensors ``encoder.…`` and ``decoder.…``, without those of the encoder after its last feature map.

    Raises:
        WeightsError: If a tensor of the network's encoder is missing.
    """
    encoder = inner_encoder(network)
    path = 'encoder.' if encoder is network.encoder else 'encoder.model.'
    source = {name.removeprefix('model.'): tensor for name, tensor in tensors.items() if name.startswith('model.')}
    pairs = align_keys(source, encoder.state_dict())
    if missing := [name for name in encoder.state_dict() if name not in pairs]:
        raise WeightsError(
            f'{description} has another encoder than the network: {len(missing)} tensors are missing '
            f'({first_few(missing)}); use the same backbone.'
        )
    decoder = {name: tensor for name, tensor in tensors.items() if name.startswith('decoder.')}
    return {f'{path}{name}': source[partner] for name, partner in pairs.items()} | decoder


def inner_encoder(network: Any) -> nn.Module:
    """Find the encoder of an smp network: timm's, if smp wraps it."""
    inner = getattr(network.encoder, 'model', None)
    return cast(nn.Module, inner if isinstance(inner, nn.Module) else network.encoder)
