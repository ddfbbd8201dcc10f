"""Frozen encoder for some data, and data for an encoder."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from torchgeo_msssl.bands import SENSORS
from torchgeo_msssl.datamodules.base import SpectralDataModule
from torchgeo_msssl.datamodules.pretraining import PretrainingDataModule
from torchgeo_msssl.datasets.chip_folders import is_chip_folder
from torchgeo_msssl.errors import BandError
from torchgeo_msssl.evaluation.embed_settings import DEFAULT_CHIP_SIZE, EmbedData
from torchgeo_msssl.evaluation.encoder_names import Features
from torchgeo_msssl.evaluation.encoders import Transfer, transfer
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.weights import read_source

#: Entries of a batch that an encoder needs.
INPUTS = ('image', 'valid', 'scale', 'offset')


def read_metadata(weights: str) -> EncoderMetadata | None:
    """Read what a source of weights says about its encoder.

    Args:
        weights: A file, the name of TorchGeo weights, ``imagenet`` or ``random``.

    Returns:
        The metadata; None for the last two, which fit any network, and for files without metadata.

    Raises:
        WeightsError: If the source cannot be read.
    """
    return None if weights in ('random', 'imagenet') else read_source(weights).metadata


def open_data(metadata: EncoderMetadata | None, options: EmbedData, batch_size: int = 64) -> PretrainingDataModule:
    """Open scenes or chips with the bands on which an encoder was trained.

    Args:
        metadata: Metadata of the encoder, or None.
        options: The data; bands, sensor and chip size are those of the encoder where they are not given.
        batch_size: Chips per batch.

    Returns:
        The data module.

    Raises:
        BandError: If the data lack a band of the encoder and no bands were given.
        MSSSLError: If there are no scenes or chips, or they cannot be opened.
    """
    paths = [options.paths] if isinstance(options.paths, str) else list(options.paths)
    folder = len(paths) == 1 and is_chip_folder(paths[0])
    # Statistics and band names of foreign weights belong to other data.
    known = metadata if metadata is not None and metadata.mean else None
    chip_size = options.chip_size
    if chip_size is None and not folder:
        chip_size = (metadata.chip_size if metadata is not None else None) or DEFAULT_CHIP_SIZE
    if known is not None and options.sensor is None and known.sensor in SENSORS:
        options = replace(options, sensor=known.sensor)

    def open_with(bands: list[str] | None) -> PretrainingDataModule:
        return PretrainingDataModule(
            paths,
            bands,
            sensor=options.sensor,
            chip_size=chip_size,
            batch_size=batch_size,
            offset=options.offset,
            channels=options.channels,
            band_names=options.band_names,
            part='all' if folder else None,
        )

    if options.bands is not None or known is None:
        return open_with(options.bands)
    available = open_with(None).bands
    if missing := [band for band in known.bands if band not in available]:
        common = ', '.join(band for band in known.bands if band in available)
        raise BandError(
            f'{paths[0]}: lacks {", ".join(missing)}, on which the encoder was trained; name the bands to use with '
            f'--data.bands ({common or ", ".join(available)}), they are matched by name.'
        )
    return open_with(list(known.bands))


def open_encoder(
    weights: str,
    data: SpectralDataModule,
    model: str = 'resnet18',
    device: torch.device | str = 'cpu',
    seed: int = 0,
    features: Features = 'last',
) -> Transfer:
    """Load an encoder for the bands of some data, in evaluation mode.

    Args:
        weights: A checkpoint, a safetensors file, the name of TorchGeo weights, ``imagenet`` or ``random``.
        data: The data; their statistics are measured if they are unknown.
        model: timm name, if the weights do not name it.
        device: Device to compute on.
        seed: Seed of random weights; the global generator is not changed.
        features: Pooled ``last`` map, or means of the maps of all ``stages``.

    Returns:
        The encoder.

    Raises:
        WeightsError: If the weights cannot be read or do not fit.
        ConfigurationError: If there is no such model, or it does not accept chips of this size.
    """
    if not data.mean:
        data.find_statistics()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = transfer(None if weights == 'random' else weights, data, model, features)
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
        Embeddings (batch, features), float32, on the CPU.
    """
    device = encoder.normalize.mean.device
    return encoder.embed({key: batch[key].to(device) for key in INPUTS}).float().cpu()
