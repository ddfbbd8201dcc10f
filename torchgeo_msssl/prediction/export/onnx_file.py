"""ONNX files with the metadata that the QGIS plugin Deepness reads.

Deepness (https://github.com/PUTvision/qgis-plugin-deepness, version 0.6.5) divides pixels by 255, standardizes them by
``standardization_mean`` and ``standardization_std``, passes (batch, channel, height, width) to the network and maps the
channel with the largest probability, the first of equals. It requires a fixed height and width, and runs onnxruntime
1.12 to 1.17.
"""

import importlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.prediction.stitch import Stitching

__all__ = ('check_packages', 'check_suffix', 'deepness_metadata', 'overlap_percent', 'write_onnx')

#: The newest file format, and the newest operators, that onnxruntime 1.17 reads.
_FORMAT, _OPERATORS = 9, 18
_INPUT, _OUTPUT = 'image', 'probabilities'


def check_packages() -> None:
    """Check that the packages of the extra ``onnx`` are installed, before a network is traced.

    Raises:
        ConfigurationError: If one is missing.
    """
    for name in ('onnx', 'onnxscript'):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigurationError(
                f"onnx: the package {name} is missing; install it with pip install 'torchgeo_msssl[onnx]'."
            ) from error


def write_onnx(program: ExportedProgram, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Write a program as ONNX, in one file.

    Args:
        program: From :func:`.network.trace`: image (batch, band, height, width) to probabilities.
        path: The file; it appears complete or not at all.
        metadata: Texts by key.

    Raises:
        OutputError: If the file cannot be written.
    """
    from onnx import ModelProto, save_model  # type: ignore[attr-defined,unused-ignore]

    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        made: Any = torch.onnx.export(
            program,
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            opset_version=_OPERATORS,
            dynamo=True,
            verbose=False,
        )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    model: ModelProto = made.model_proto
    model.ir_version = min(model.ir_version, _FORMAT)
    _simplify(model)
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    with atomic_path(path) as temporary:
        save_model(model, str(temporary))


def _simplify(model: Any) -> None:
    """Name the axes, and remove what names files of this computer or belongs to newer versions of the format."""
    graph = model.graph
    del graph.value_info[:]
    del model.metadata_props[:]
    del graph.metadata_props[:]
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ''
    for tensor in (graph.input[0], graph.output[0]):
        del tensor.metadata_props[:]
        for axis, name in zip(tensor.type.tensor_type.shape.dim, ('batch', '', 'height', 'width'), strict=True):
            if name and not axis.HasField('dim_value'):
                axis.dim_param = name
    for tensor in graph.initializer:
        del tensor.metadata_props[:]


def deepness_metadata(
    metadata: EncoderMetadata,
    class_names: Sequence[str],
    stitching: Stitching,
    in_channels: int,
    nodata: float | None = None,
) -> dict[str, str]:
    """Describe a network for Deepness, and for programs that look for bands and radiometry.

    Args:
        metadata: Bands, radiometry and pixel size of the training.
        class_names: Names of the classes in the order of the channels.
        stitching: How `predict` combines windows.
        in_channels: Number of bands.
        nodata: Digital number of pixels without data.

    Returns:
        JSON texts by key: those of Deepness, ``input`` and ``output``, then the fields of the metadata.
    """
    values: dict[str, Any] = {
        'model_type': 'Segmentor',
        'class_names': dict(enumerate(class_names)),
        'tile_size': stitching.window,
        'tiles_overlap': overlap_percent(stitching),
        # undoes the division by 255: the network takes digital numbers
        'standardization_mean': [0.0] * in_channels,
        'standardization_std': [1 / 255] * in_channels,
        'seg_thresh': 0.0,
        'seg_small_segment': 0,
        'input': 'digital numbers as float32 (batch, band, height, width); NaN where there are no data',
        'nodata': nodata,
        'output': 'probabilities of the classes as float32 (batch, class, height, width)',
    }
    if metadata.pixel_size is not None:
        values['resolution'] = round(100 * metadata.pixel_size, 2)  # centimetres per pixel
    return {key: json.dumps(value) for key, value in values.items()} | metadata.to_header()


def overlap_percent(stitching: Stitching) -> int:
    """Overlap with which Deepness, which crops tiles by half of it, maps like `predict`.

    Args:
        stitching: How `predict` combines windows.

    Returns:
        The smallest percentage, of which both sides keep the margin and tiles start at multiples of the total stride;
        50 where windows are blended, or no percentage fits.
    """
    window, stride = stitching.window, stitching.stride
    if stitching.blend == 'crop':
        for percent in range(math.ceil(200 * stitching.margin / window), 91):
            overlap = window * percent // 100
            if overlap >= 2 * stitching.margin and overlap % 2 == 0 and (window - overlap) % stride == 0:
                return percent
    return 50


def check_suffix(name: str, path: str | os.PathLike[str] | None, suffix: str) -> None:
    """Check the suffix of a file.

    Args:
        name: Option.
        path: The file; None passes.
        suffix: The suffix.

    Raises:
        ConfigurationError: If it is another one.
    """
    if path is not None and Path(path).suffix.lower() != suffix:
        raise ConfigurationError(f'{name}: expected the path of a file that ends with {suffix}, got {path}.')
