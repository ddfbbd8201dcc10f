"""Export of a checkpoint to one or several files."""

import json
import os
from pathlib import Path

import torch

from torchgeo_msssl.errors import ConfigurationError, WeightsError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.weights import export_encoder, read_source
from torchgeo_msssl.prediction.export.model_card import ModelCard, check_card, write_card
from torchgeo_msssl.prediction.export.network import PortableNetwork, load_segmentation, trace
from torchgeo_msssl.prediction.export.onnx_file import check_packages, check_suffix, deepness_metadata, write_onnx
from torchgeo_msssl.prediction.predict import MapSettings, map_options
from torchgeo_msssl.tasks.segmentation import Segmentation
from torchgeo_msssl.validation import check_at_least

__all__ = ('export',)


def export(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    onnx: str | os.PathLike[str] | None = None,
    torch: str | os.PathLike[str] | None = None,
    tile_size: int | None = None,
    nodata: float | None = None,
) -> Path:
    """Write a checkpoint for other programs, and a model card next to the first file.

    Args:
        checkpoint: Lightning checkpoint of this package, or of TorchGeo for its encoder.
        output: safetensors file for the encoder alone.
        onnx: ONNX file for the segmentation network, from digital numbers to probabilities.
        torch: File for the same as a program of torch.export.
        tile_size: Side of the images that the network accepts, in pixels; None for any size.
        nodata: Digital number of pixels without data.

    Returns:
        The model card.

    Raises:
        ConfigurationError: If an option is out of range, or the checkpoint is of another task.
        WeightsError: If the checkpoint has no encoder, or cannot be read.
        OutputError: If a file cannot be written.
    """
    files = [Path(path) for path in (output, onnx, torch) if path is not None]
    networks = [(name, path) for name, path in (('onnx', onnx), ('torch', torch)) if path is not None]
    if not files:
        raise ConfigurationError('export: name a file to write: encoder.safetensors, --onnx FILE or --torch FILE.')
    check_suffix('onnx', onnx, '.onnx')
    check_suffix('torch', torch, '.pt2')
    if not networks and (tile_size is not None or nodata is not None):
        raise ConfigurationError('tile_size, nodata: apply to --onnx and --torch, and neither is given.')
    check_card(files[0].parent)
    if onnx is not None:
        check_packages()
    task = load_segmentation(checkpoint) if networks else None
    if output is not None:
        export_encoder(checkpoint, output)
    if task is not None:
        _write_networks(task, onnx, torch, tile_size, nodata)
    return write_card(_card(Path(checkpoint), files, task, tile_size, nodata))


def _write_networks(
    task: Segmentation,
    onnx: str | os.PathLike[str] | None,
    exported: str | os.PathLike[str] | None,
    tile_size: int | None,
    nodata: float | None,
) -> None:
    bands = task.normalize.in_channels
    if tile_size is not None:
        check_at_least(1, tile_size=tile_size)
        if tile_size % task.stride:
            raise ConfigurationError(
                f'tile_size: expected a multiple of {task.stride} (the stride of the network), got {tile_size}.'
            )
    program = trace(PortableNetwork(task, nodata).eval(), bands, tile_size)
    stitching = map_options(task, bands, MapSettings(window=tile_size)).stitching
    metadata = deepness_metadata(task.metadata(), task.class_names, stitching, bands, nodata)
    if exported is not None:
        with atomic_path(exported) as temporary:
            torch.export.save(program, temporary, extra_files={'metadata.json': json.dumps(metadata)})
    if onnx is not None:
        write_onnx(program, onnx, metadata)


def _card(
    checkpoint: Path, files: list[Path], task: Segmentation | None, tile_size: int | None, nodata: float | None
) -> ModelCard:
    if task is None:
        known: EncoderMetadata | None = read_source(checkpoint).metadata
        if known is None:
            raise WeightsError(f'{checkpoint} has no metadata; give a Lightning checkpoint.')
        return ModelCard(checkpoint, files, known)
    size = 'any height and width' if tile_size is None else f'{tile_size} × {tile_size} pixels'
    missing = 'NaN' if nodata is None else f'NaN or {nodata:g}'
    notes = [
        f'Input: digital numbers as float32 (batch, band, height, width), {size}, {missing} where there are no data; '
        'normalization is inside.',
        'Output: probabilities of the classes (batch, class, height, width); ignore them where there are no data.',
    ]
    return ModelCard(checkpoint, files, task.metadata(), task.class_names, notes)
