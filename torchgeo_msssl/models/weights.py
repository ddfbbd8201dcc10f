"""Reading, writing and loading of encoder weights."""

import dataclasses
import difflib
import enum
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from torchgeo_msssl.bands import SENSORS, get_sensor
from torchgeo_msssl.errors import WeightsError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.models.encoders import create_encoder, input_layer
from torchgeo_msssl.models.matching import COMPUTED, Spectrum, align_keys, fit_state_dict, network_tensors
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.report import LoadReport, first_few
from torchgeo_msssl.models.stems import check_stems

#: Key under which a task's ``on_save_checkpoint`` keeps ``EncoderMetadata.to_dict()``.
CHECKPOINT_KEY = 'msssl'

#: Prefixes of the encoder's tensors, the longest first. Ours: a task's ``self.model`` is a timm encoder or an
#: smp network. TorchGeo's: BYOL, MAE, SimCLR and MoCo; its segmentation and classification tasks are like ours.
_OUR_PREFIXES = ('model.encoder.model.', 'model.encoder.', 'model.')
_PREFIXES = ('model.backbone.model.', 'backbone.vit.', 'model.encoder.model.', 'model.encoder.', 'backbone.', 'model.')

_ENUM_NAME = re.compile(r'^\w+_Weights\.\w+$')

Weights = str | os.PathLike[str] | enum.Enum | None


@dataclass(frozen=True)
class Source:
    """Encoder weights with their metadata.

    Attributes:
        state_dict: Tensors in timm's key names; empty for random initialization.
        metadata: Metadata of the encoder, or None if unknown.
        description: Name of the source for messages.
    """

    state_dict: dict[str, Tensor]
    metadata: EncoderMetadata | None
    description: str


def save_encoder(encoder: nn.Module, path: str | os.PathLike[str], metadata: EncoderMetadata) -> None:
    """Write an encoder and its metadata as safetensors.

    Args:
        encoder: A timm network.
        path: The file; it appears complete or not at all.
        metadata: Written to the file's header, one JSON text per field.

    Raises:
        WeightsError: If the metadata have another number of bands than the network.
        OutputError: If the file cannot be written.
    """
    channels = input_layer(encoder)[1].in_channels
    if metadata.bands and len(metadata.bands) != channels:
        raise WeightsError(
            f'{path}: the metadata name {len(metadata.bands)} bands ({", ".join(metadata.bands)}) and the encoder '
            f'has {channels} input channels; give one name per channel.'
        )
    _write(encoder.state_dict(), path, metadata)


def export_encoder(checkpoint_path: str | os.PathLike[str], safetensors_path: str | os.PathLike[str]) -> None:
    """Extract the encoder from a training checkpoint.

    Args:
        checkpoint_path: A Lightning checkpoint of this package or of TorchGeo.
        safetensors_path: The file to write.

    Raises:
        WeightsError: If the checkpoint has no encoder, or does not name its model.
        OutputError: If the file cannot be written.
    """
    source = _read_file(Path(checkpoint_path))
    if source.metadata is None:
        raise WeightsError(
            f'{checkpoint_path} does not name the model of its encoder; give a Lightning checkpoint of a '
            f'pretraining or segmentation task.'
        )
    _write(_timm_names(source), safetensors_path, source.metadata)


def load_encoder(
    network: nn.Module, source: Weights, bands: Sequence[str] | None = None, sensor: str | None = None
) -> LoadReport:
    """Load an encoder's weights into a network, exactly or not at all.

    The first convolution is matched by band name: bands that both have are copied, new ones get the mean of the
    kernel over the source's bands, others are dropped (see :func:`.matching.adapt_kernel`). Position tables of
    another image or window size are interpolated. Every other tensor of the encoder must be in the source with
    its shape; other tensors of the source must belong to a classifier or follow the last feature map.

    Args:
        network: A timm network, or an smp network (``resnet*`` or ``tu-*`` encoder).
        source: A checkpoint, a safetensors file, a plain state dict file, the name of a TorchGeo ``WeightsEnum``
            entry, ``'imagenet'`` (timm's default weights), or None for random initialization.
        bands: Names of the network's input channels in order.
        sensor: Sensor of these bands, if their names do not identify it.

    Returns:
        What was loaded, and how.

    Raises:
        WeightsError: If the source cannot be read, nothing matched, or a tensor that should match does not; the
            network is then unchanged.
        BandError: If there is no such sensor.
    """
    encoder, model = _find_encoder(network)
    loaded = read_source(source, model)
    model = model and model.partition('.')[0]  # the tag names other weights
    if not loaded.state_dict:
        return LoadReport(loaded.description, model, missing=dict.fromkeys(encoder.state_dict(), 'random'))

    metadata = loaded.metadata
    check_stems(encoder, metadata.stem if metadata else 'standard', loaded.description)
    state_dict, report = fit_state_dict(
        loaded.state_dict,
        encoder,
        f'{input_layer(encoder)[0]}.weight',
        _spectra(metadata, bands, sensor),
        description=loaded.description,
        models=(metadata.model if metadata else None, model),
    )
    # smp's encoders override load_state_dict with versions that drop or rename keys; this one is strict
    nn.Module.load_state_dict(encoder, state_dict, strict=True)
    return report


def load_network(
    network: nn.Module,
    source: str | os.PathLike[str],
    bands: Sequence[str] | None = None,
    sensor: str | None = None,
    replace: Sequence[str] = ('segmentation_head',),
) -> LoadReport:
    """Load a whole smp network from a checkpoint, exactly or not at all, except for the parts that are replaced.

    This transfers from coarse classes to fine ones: encoder and decoder are loaded, the last layer starts from scratch.
    Bands are matched by name as in :func:`load_encoder`. Every other tensor must be on both sides with its shape.

    Args:
        network: An smp network.
        source: Lightning checkpoint of a segmentation, whose ``self.model`` is an smp network, or of a reconstruction.
        bands: Names of the network's input channels in order.
        sensor: Sensor of these bands, if their names do not identify it.
        replace: Children of the network that stay unchanged; the report lists their tensors as replaced.

    Returns:
        What was loaded, and how.

    Raises:
        WeightsError: If the file cannot be read, holds no whole network, or a tensor that should match does not; the
            network is then unchanged.
        BandError: If there is no such sensor.
    """
    children = {name for name, _ in network.named_children()}
    if unknown := [name for name in replace if name not in children]:
        raise WeightsError(
            f'replace: the network has no {", ".join(unknown)}; its parts are {", ".join(sorted(children))}.'
        )
    path = Path(source)
    tensors, metadata = _read_network(path, network)
    encoder, model = _find_encoder(network)
    check_stems(encoder, metadata.stem if metadata else 'standard', str(path))
    head = {name for name in network.state_dict() if name.partition('.')[0] in replace}
    old_head = [name for name in tensors if name.partition('.')[0] in replace]
    kept = {name: tensor for name, tensor in tensors.items() if name not in old_head}
    own = network.state_dict()
    state_dict, report = fit_state_dict(
        kept | {name: own[name] for name in head},
        network,
        f'{input_layer(network)[0]}.weight',
        _spectra(metadata, bands, sensor),
        description=str(path),
        models=(metadata.model if metadata else None, model),
    )
    left_over = [name for name in report.unexpected if not name.endswith(COMPUTED)]
    if left_over:  # allowed for the classifier of an encoder, not for a whole network
        raise WeightsError(
            f'{path} does not fit the network: {len(left_over)} tensors are unexpected ({first_few(left_over)}); '
            'use the same architecture and backbone.'
        )
    nn.Module.load_state_dict(network, state_dict, strict=True)
    return dataclasses.replace(
        report,
        matched=tuple(name for name in report.matched if name not in head),
        missing=report.missing | dict.fromkeys(sorted(head), 'replaced: starts from scratch'),
        unexpected=report.unexpected | dict.fromkeys(old_head, "replaced: the source's own last layer"),
    )


def _spectra(
    metadata: EncoderMetadata | None, bands: Sequence[str] | None, sensor: str | None
) -> tuple[Spectrum, Spectrum]:
    """Bands of the source and of the network."""
    source = Spectrum.of(None) if metadata is None else metadata.spectrum()
    return source, Spectrum.of(bands, get_sensor(sensor) if sensor else None)


def _read_network(path: Path, network: nn.Module) -> tuple[dict[str, Tensor], EncoderMetadata | None]:
    """Read a whole smp network from a checkpoint, in the network's own names."""
    if not path.is_file():
        raise WeightsError(f'weights: there is no file {str(path)!r}; a whole network needs a checkpoint.')
    tensors: dict[str, Tensor] = {}
    metadata = None
    if path.suffix != '.safetensors':
        content, every = _open_checkpoint(path)
        prefix = 'model.'
        tensors = {name.removeprefix(prefix): tensor for name, tensor in every.items() if name.startswith(prefix)}
        if any(name.startswith('decoder.') for name in every):  # of a reconstruction, whose `model` is the encoder
            tensors = network_tensors(every, network, str(path))
        metadata = _checkpoint_metadata(content)
    if not {'encoder', 'decoder'} <= {name.partition('.')[0] for name in tensors}:
        raise WeightsError(
            f'{path} holds no whole segmentation network (no encoder and decoder); give the checkpoint of a '
            'segmentation or reconstruction task, or load the encoder alone (transfer: encoder).'
        )
    if metadata is not None:
        metadata = dataclasses.replace(metadata, model=metadata.model.removeprefix('tu-'))
    return tensors, metadata


def read_source(source: Weights, model: str | None = None) -> Source:
    """Read encoder weights from any source.

    Args:
        source: As in :func:`load_encoder`.
        model: timm name, needed for ``'imagenet'`` only.

    Returns:
        The weights; without tensors for None.

    Raises:
        WeightsError: If the source does not exist, cannot be read, or holds no tensors.
    """
    if source is None:
        return Source({}, None, 'random initialisation')
    if source == 'imagenet':
        return _read_timm(model)
    name = str(source)
    if isinstance(source, enum.Enum) or (_ENUM_NAME.match(name) and not Path(name).exists()):
        return _read_enum(name)
    return _read_file(Path(name))


def _find_encoder(network: nn.Module) -> tuple[nn.Module, str | None]:
    """Find the timm network (or smp ResNet) inside a network, and its model name."""
    encoder = getattr(network, 'encoder', None)
    if not (isinstance(encoder, nn.Module) and hasattr(network, 'decoder')):
        config = getattr(network, 'pretrained_cfg', None) or {}
        tag = f'.{config["tag"]}' if config.get('tag') else ''
        return network, f'{config["architecture"]}{tag}' if config.get('architecture') else None
    # smp names its networks like 'u-resnet18'; encoders that wrap a timm network keep it as `model`
    name = getattr(encoder, 'name', None) or getattr(network, 'name', '').partition('-')[2] or None
    inner = getattr(encoder, 'model', None)
    return (inner if isinstance(inner, nn.Module) else encoder), name


def _timm_names(source: Source) -> dict[str, Tensor]:
    """Undo the renaming of timm's feature extractors (``stages_0.`` for ``stages.0.``)."""
    if source.metadata is None or not timm.is_model(source.metadata.model):
        return source.state_dict
    reference = create_encoder(source.metadata.model, max(1, len(source.metadata.bands))).state_dict()
    names = {partner: name for name, partner in align_keys(source.state_dict, reference).items()}
    return {names.get(name, name): tensor for name, tensor in source.state_dict.items()}


def _write(state_dict: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: EncoderMetadata) -> None:
    # safetensors rejects views and shared storage; an encoder is small enough to be copied
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state_dict.items()}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, {'format': 'pt', **metadata.to_header()})


def _read_timm(model: str | None) -> Source:
    """Read timm's default weights for a model, with red, green, blue as bands."""
    if model is None or not timm.is_model(model):
        raise WeightsError(
            f"weights: 'imagenet' needs a timm model, and timm has none named {model!r}; choose another."
        )
    try:
        network = timm.create_model(model, pretrained=True)
    except Exception as error:  # the hub's client raises exceptions of many packages
        raise WeightsError(
            f'weights: the ImageNet weights of {model!r} cannot be downloaded ({_one_line(error)}); check the network '
            f'connection, or give a file.'
        ) from error
    config: Any = network.pretrained_cfg
    rgb = SENSORS['rgb']
    wavelengths = tuple(band.wavelength for band in rgb.bands)
    mean, std, size = config['mean'], config['std'], config['input_size'][-1]
    metadata = EncoderMetadata(
        'imagenet', model, rgb.names, wavelengths, (1 / 255,) * 3, (0.0,) * 3, mean, std, rgb.name, size
    )
    return Source(network.state_dict(), metadata, f'imagenet ({model})')


def _read_enum(name: str) -> Source:
    """Read an entry of TorchGeo's weights by name."""
    # imported here: torchgeo.models takes many seconds, and no other source needs it
    import torchgeo.models

    try:
        entry = torchgeo.models.get_weight(name)
    except ValueError as error:
        known = [str(one) for key in torchgeo.models.list_models() for one in _entries(key)]
        close = difflib.get_close_matches(name, known, n=3)
        advice = f'did you mean {", ".join(close)}?' if close else 'see the table of weights in its documentation.'
        raise WeightsError(f'weights: TorchGeo has no {name!r}; {advice}') from error
    try:
        state_dict = entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # network, disk and unpickling errors alike
        raise WeightsError(
            f'weights: {name!r} cannot be downloaded from {entry.url} ({_one_line(error)}); check the network '
            f'connection, or give a file.'
        ) from error

    sensor = 'sentinel2_l1c' if 'SENTINEL2' in name else None
    bands = tuple(entry.meta.get('bands', ()))
    if sensor is None:
        # B1 of Landsat is not B1 of Sentinel-2: band names of unknown sensors must not match by accident
        bands = tuple(f'{name.partition(".")[2]}:{band}' for band in bands)
    method = entry.meta.get('ssl_method', 'torchgeo')
    model = str(entry.meta.get('model', name.partition('_Weights')[0].lower()))
    return _source(state_dict, EncoderMetadata(str(method), model, bands, sensor=sensor), name)


def _entries(model: str) -> tuple[Any, ...]:
    import torchgeo.models  # many seconds, see above

    try:
        entries: Any = torchgeo.models.get_model_weights(model)
    except KeyError:  # a model without weights
        return ()
    return tuple(entries)


def _read_file(path: Path) -> Source:
    if not path.is_file():
        raise WeightsError(
            f'weights: {str(path)!r} is neither a file, nor a TorchGeo WeightsEnum name (like '
            f"'ResNet18_Weights.SENTINEL2_ALL_MOCO'), nor 'imagenet'; check the path."
        )
    return _read_safetensors(path) if path.suffix == '.safetensors' else _read_checkpoint(path)


def _read_safetensors(path: Path) -> Source:
    try:
        with safetensors.safe_open(path, 'pt') as file:
            header = file.metadata()
            state_dict = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(
            f'{path} cannot be read as safetensors ({_one_line(error)}); it is truncated or another kind of file.'
        ) from error
    return _source(state_dict, EncoderMetadata.from_header(header), str(path))


def _read_checkpoint(path: Path) -> Source:
    """Read the encoder of a Lightning checkpoint, or a plain state dict."""
    content, tensors = _open_checkpoint(path)
    state_dict = _cut(tensors, _OUR_PREFIXES if CHECKPOINT_KEY in content else _PREFIXES)
    return _source(state_dict, _checkpoint_metadata(content), str(path))


def _open_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a file and find its state dict; only tensors and plain types are unpickled."""
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f'{path} is not a PyTorch checkpoint, or holds objects other than tensors and plain types, which could run '
            f'code and are rejected ({_rejected_object(error)}); give a checkpoint, or safetensors.'
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise WeightsError(
            f'{path} cannot be read as a PyTorch checkpoint ({_one_line(error)}); it is truncated or another '
            f'kind of file.'
        ) from error
    tensors = content.get('state_dict', content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict):
        raise WeightsError(f'{path} holds no state dict; give a checkpoint or an exported encoder.')
    tensors = {
        key.removeprefix('module.').replace('_orig_mod.', ''): value
        for key, value in tensors.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    return content, tensors


def _checkpoint_metadata(content: Mapping[str, Any]) -> EncoderMetadata | None:
    if CHECKPOINT_KEY in content:
        return EncoderMetadata.from_dict(content[CHECKPOINT_KEY])
    return _from_hyper_parameters(content.get('hyper_parameters') or {})


def _cut(tensors: Mapping[str, Tensor], prefixes: Sequence[str]) -> dict[str, Tensor]:
    """Keep the tensors of the encoder, by the first prefix that any name has; all if none has one."""
    for prefix in prefixes:
        kept = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if kept:
            return kept
    return dict(tensors)


def _from_hyper_parameters(values: Mapping[str, Any]) -> EncoderMetadata | None:
    """Create metadata from the hyperparameters of a TorchGeo task, which name the model and rarely the bands."""
    model = values.get('backbone', values.get('model'))
    if not isinstance(model, str):
        return None
    bands = values.get('bands')
    known = isinstance(bands, (list, tuple)) and all(isinstance(band, str) for band in bands)
    return EncoderMetadata('torchgeo', model.removeprefix('tu-'), tuple(bands) if known and bands else ())


def _source(state_dict: Mapping[str, Tensor], metadata: EncoderMetadata | None, description: str) -> Source:
    if not state_dict:
        raise WeightsError(f'{description} holds no tensors; give a checkpoint or an exported encoder.')
    if metadata is not None:
        metadata = dataclasses.replace(metadata, model=metadata.model.removeprefix('tu-'))
    return Source(dict(state_dict), metadata, description)


def _rejected_object(error: Exception) -> str:
    """Class or function that the weights-only unpickler rejected, if it names one."""
    rejected = re.search(r'(?:GLOBAL|global:?)\s+(?:GLOBAL\s+)?([\w.]+)', str(error))
    return rejected.group(1) if rejected else _one_line(error)


def _one_line(error: Exception) -> str:
    """First sentence of another library's message, which may be long."""
    return re.split(r'\. |\n', str(error).strip())[0][:200] or type(error).__name__
