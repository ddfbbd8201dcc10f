"""A frozen encoder opened for scenes, and scenes opened for an encoder."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from torchgeo_msssl.bands import SENSORS, get_sensor
from torchgeo_msssl.datamodules.base import SpectralDataModule
from torchgeo_msssl.datamodules.pretraining import PretrainingDataModule
from torchgeo_msssl.datamodules.reader import reads_chips
from torchgeo_msssl.datasets.chips import chip_rasters
from torchgeo_msssl.errors import BandError
from torchgeo_msssl.evaluation.encoders import Transfer, transfer
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.weights import read_source

#: What of a batch an encoder needs.
INPUTS = ('image', 'valid', 'scale', 'offset')


def read_metadata(weights: str) -> EncoderMetadata | None:
    """What a source of weights says about its encoder.

    Args:
        weights: A file, a TorchGeo weight's name, ``imagenet`` or ``random``.

    Returns:
        The metadata; None for the last two, which fit any model, and for files that say nothing.

    Raises:
        WeightsError: If the source cannot be read.
    """
    return None if weights in ('random', 'imagenet') else read_source(weights).metadata


def open_scenes_of(
    metadata: EncoderMetadata | None,
    paths: str | Sequence[str],
    chip_size: int,
    bands: Sequence[str] | None = None,
    sensor: str | None = None,
    batch_size: int = 64,
) -> PretrainingDataModule:
    """Open scenes with the bands that an encoder was trained on.

    Args:
        metadata: What is known about the encoder.
        paths: Scenes: files, folders or patterns; or a folder of chips in GeoTIFFs.
        chip_size: Side of a chip in pixels.
        bands: Bands instead of the encoder's; they are then matched by name.
        sensor: Sensor of the scenes, where the files do not tell; None for the encoder's.
        batch_size: Chips at once.

    Returns:
        The data, with :attr:`scenes`.

    Raises:
        BandError: If a scene lacks a band of the encoder and no bands were named.
        MSSSLError: If there is no scene, or one cannot be opened.
    """
    paths = [paths] if isinstance(paths, str) else list(paths)
    if reads_chips(paths, 'auto'):
        paths = chip_rasters(paths[0])
    known = metadata is not None and bool(metadata.mean)  # ours: others' statistics and band names are of elsewhere
    if metadata is not None and known and sensor is None and metadata.sensor in SENSORS:
        sensor = metadata.sensor
    if metadata is not None and known and bands is None:
        for scene in find_scenes(paths, get_sensor(sensor) if sensor else None):
            if missing := [band for band in metadata.bands if band not in scene.bands]:
                common = ', '.join(band for band in metadata.bands if band in scene.bands)
                msg = (
                    f'{scene.path}: lacks {", ".join(missing)}, which the encoder was trained on; say with --bands '
                    f'which to use instead ({common or ", ".join(scene.bands)}), they are matched by name.'
                )
                raise BandError(msg)
        bands = metadata.bands
    return PretrainingDataModule(
        paths,
        list(bands) if bands else None,
        sensor=sensor,
        chip_size=chip_size,
        batch_size=batch_size,
        reader='scenes',
    )


def open_encoder(
    weights: str, data: SpectralDataModule, model: str = 'resnet18', device: torch.device | str = 'cpu', seed: int = 0
) -> Transfer:
    """Load an encoder for the bands of scenes, in evaluation mode.

    Args:
        weights: A checkpoint, a safetensors file, a TorchGeo weight's name, ``imagenet`` or ``random``.
        data: The scenes; their statistics are found where they are not known yet.
        model: timm name, where the weights do not say it.
        device: Where to compute.
        seed: Of random weights; the global generator stays as it is.

    Returns:
        The encoder.

    Raises:
        WeightsError: If the weights cannot be read or do not fit.
        ConfigurationError: If there is no such model, or it cannot take chips of this size.
    """
    if not data.mean:
        data.find_statistics()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = transfer(None if weights == 'random' else weights, data, model)
    encoder.network.to(device)
    encoder.normalize.to(device)
    return encoder


@torch.no_grad()
def embed_batch(encoder: Transfer, batch: Mapping[str, Tensor]) -> Tensor:
    """Embed chips on the encoder's device.

    Args:
        encoder: Encoder.
        batch: ``image`` (batch, band, height, width) in digital numbers, ``valid``, ``scale``, ``offset``.

    Returns:
        Shape (batch, features), float32, on the CPU.
    """
    device = encoder.normalize.mean.device
    return encoder.embed({key: batch[key].to(device) for key in INPUTS}).float().cpu()
