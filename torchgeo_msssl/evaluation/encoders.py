"""Frozen encoders, and baselines without learned weights.

An encoder comes from whatever :func:`torchgeo_msssl.models.weights.load_encoder` reads: a checkpoint, a safetensors
file, the name of a TorchGeo ``WeightsEnum`` entry, or ``imagenet``.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn
from torchgeo.models import RCF, get_weight

from torchgeo_msssl.datamodules.base import SpectralDataModule
from torchgeo_msssl.errors import ConfigurationError, WeightsError
from torchgeo_msssl.evaluation.encoder_names import CONVOLUTIONS, STATISTICS, TEXTURE, Features, random_name
from torchgeo_msssl.evaluation.features import Batch, band_statistics
from torchgeo_msssl.models.encoders import StageFeatures, create_encoder
from torchgeo_msssl.models.metadata import statistics_by_name
from torchgeo_msssl.models.report import LoadReport
from torchgeo_msssl.models.stems import Stem
from torchgeo_msssl.models.weights import load_encoder, read_source
from torchgeo_msssl.transforms.normalize import Normalize, valid_pixels
from torchgeo_msssl.transforms.spectral import band_statistics as band_statistics_of_valid
from torchgeo_msssl.transforms.texture import PixelFeatures

log = logging.getLogger(__name__)

#: Number of random convolution features, that of a ResNet-18; half of them are the negatives of the other half.
_FILTERS = 512


@dataclass(frozen=True)
class Transfer:
    """An encoder in a fresh network.

    Attributes:
        network: timm network in evaluation mode, or :class:`.StageFeatures` of one.
        normalize: Standardization of its input.
        report: Report of the loaded tensors.
        model: timm name.
        statistics: Source of mean and standard deviation, ``weights`` or ``data``.
        stem: Stride of the first layers.
    """

    network: nn.Module
    normalize: Normalize
    report: LoadReport
    model: str
    statistics: str
    stem: Stem = 'standard'

    def embed(self, batch: Batch) -> Tensor:
        """Embed a batch of chips (``image``, ``valid``, ``scale``, ``offset``) to (batch, features)."""
        return self.network(_prepare(self.normalize, batch))


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder or a baseline to probe.

    Attributes:
        name: Name in tables.
        embed: Function from a batch on the device to features (batch, features).
        seed: Seed of random weights; None without any.
        baseline: Whether it has no learned weights.
        details: Source, model and statistics, as plain values.
        partner: Name of the baseline to compare an encoder with: its network with random weights and its normalization.
        normalize: Standardization of a given encoder.
    """

    name: str
    embed: Callable[[Batch], Tensor]
    seed: int | None = None
    baseline: bool = False
    details: dict[str, Any] = field(default_factory=dict)
    partner: str | None = None
    normalize: Normalize | None = None


def transfer(
    source: str | os.PathLike[str] | None,
    data: SpectralDataModule,
    model: str | None = None,
    features: Features = 'last',
) -> Transfer:
    """Load an encoder into a fresh network for the bands of some data.

    Bands are matched by name. Mean and standard deviation come with the weights if these know every band of the data,
    otherwise from the data; scale and offset are those of each scene.

    Args:
        source: Checkpoint, safetensors file, TorchGeo weights by name, ``imagenet``, or None for random weights.
        data: Data module with its statistics (:meth:`.SpectralDataModule.find_statistics`).
        model: timm name, if the source has none.
        features: What the network returns, ``last`` or ``stages``.

    Returns:
        The network with its normalization and the report of loading.

    Raises:
        WeightsError: If the source cannot be read, or does not fit.
        ConfigurationError: If neither the source nor ``model`` names the network.
    """
    metadata = read_source(source, model).metadata
    name = metadata.model if metadata is not None else model
    if name is None:
        raise ConfigurationError(f'model: {source} does not name its network; give its timm name.')
    stem: Stem = 'standard' if metadata is None else metadata.stem
    network = create_encoder(name, data.in_channels, data.chip_size, stem)
    report = load_encoder(network, source, bands=data.bands, sensor=data.sensor_name)
    known = statistics_by_name(metadata, data.bands, data.sensor_name) if metadata is not None else None
    normalize = Normalize(data.in_channels)
    mean, std = known or (data.mean, data.std)
    normalize.set_statistics(mean, std, data.scale, data.offset)
    embedding = _with_features(network.eval(), features)
    return Transfer(embedding, normalize, report, name, 'weights' if known else 'data', stem)


def given_encoders(
    sources: dict[str, str],
    data: SpectralDataModule,
    model: str,
    device: torch.device | str,
    features: Features = 'last',
) -> list[FrozenEncoder]:
    """Load encoders for a data module.

    Args:
        sources: Sources by name.
        data: Data module with its statistics.
        model: timm name for sources that have none.
        device: Device to compute on.
        features: What the networks return, ``last`` or ``stages``.

    Returns:
        The encoders.

    Raises:
        WeightsError: If one cannot be read, does not fit, or would have to be downloaded.
    """
    found: list[FrozenEncoder] = []
    plain = _normalize_of(data)
    for name, source in sources.items():
        check_local(source, model)
        loaded = transfer(source, data, model, features)
        log.info('%s: normalized with the statistics of the %s.\n%s', name, loaded.statistics, loaded.report)
        details = {
            'source': source,
            'model': loaded.model,
            'stem': loaded.stem,
            'features': features,
            'statistics': loaded.statistics,
            'report': loaded.report.to_dict(),
        }
        partner = random_name(loaded.model, loaded.stem)
        if not _same(loaded.normalize, plain):
            equal = (one for one in found if one.normalize is not None and _same(one.normalize, loaded.normalize))
            partner += f' normalised as {next((one.name for one in equal), name)}'
        loaded.network.to(device)
        found.append(FrozenEncoder(name, loaded.embed, None, False, details, partner, loaded.normalize))
    for one in found:
        assert one.normalize is not None
        one.normalize.to(device)
    return found


def baselines(
    data: SpectralDataModule,
    given: Sequence[FrozenEncoder],
    network: str | tuple[str, Stem],
    seeds: int,
    device: torch.device | str,
    features: Features = 'last',
) -> list[FrozenEncoder]:
    """Create the baselines that encoders are compared with.

    * ``band statistics``: mean and standard deviation of each band of a chip.
    * ``texture statistics``: mean and standard deviation over the valid pixels of a chip of their spectral and texture
      features (:class:`.PixelFeatures`).
    * ``random convolutions``: means over the chip of rectified 3×3 Gaussian filters (Rolf et al. 2021, MOSAIKS,
      https://doi.org/10.1038/s41467-021-24638-z; TorchGeo's ``RCF``).
    * ``random initialisation``: each network with random weights; a further one for each normalization of a given
      encoder that differs from that of the data, because normalization alone changes the features.

    Args:
        data: Data module with its statistics.
        given: Encoders to compare with them.
        network: timm name of the network if no encoder is given, or name and stem.
        seeds: Number of draws of random weights.
        device: Device to compute on.
        features: What networks return, ``last`` or ``stages``.

    Returns:
        The baselines, one for each seed.
    """
    normalize = _normalize_of(data).to(device)
    own = {'statistics': 'data'}
    found = [FrozenEncoder(STATISTICS, _after(normalize, band_statistics), None, True, own)]
    pixels = PixelFeatures('texture', data.in_channels, data.wavelengths).to(device)
    pixels.set_statistics(normalize.mean, normalize.std)
    texture = _texture_statistics(normalize, pixels)
    found.append(FrozenEncoder(TEXTURE, texture, None, True, {'features': 2 * pixels.count} | own))
    for seed in range(seeds):
        filters = random_convolutions(data.in_channels, seed).to(device)
        found.append(FrozenEncoder(CONVOLUTIONS, _after(normalize, filters), seed, True, {'filters': _FILTERS} | own))
    default: tuple[str, Stem] = (network, 'standard') if isinstance(network, str) else network
    networks = [_network_of(one) for one in given] or [default]
    randoms = {random_name(*network): (network, normalize, own) for network in networks}
    for one in given:
        assert one.partner is not None
        assert one.normalize is not None
        theirs = {'statistics': one.details['statistics']}
        randoms.setdefault(one.partner, (_network_of(one), one.normalize, theirs))
    for name, ((network_name, stem), normal, statistics) in randoms.items():
        for seed in range(seeds):
            embedding = _with_features(random_encoder(network_name, data, seed, stem), features).to(device)
            details = {'model': network_name, 'stem': stem, 'features': features} | statistics
            found.append(FrozenEncoder(name, _after(normal, embedding), seed, True, details))
    return found


def random_convolutions(in_channels: int, seed: int) -> nn.Module:
    """Create random convolutional features (MOSAIKS; TorchGeo's ``RCF``).

    Args:
        in_channels: Number of bands.
        seed: Seed of the filters, from 0.

    Returns:
        Network from standardized images (batch, band, height, width) to features (batch, 512).
    """
    # RCF treats seed 0 as no seed
    return cast(nn.Module, RCF(in_channels, _FILTERS, kernel_size=3, seed=seed + 1))


def _with_features(network: nn.Module, features: Features) -> nn.Module:
    return network if features == 'last' else StageFeatures(network)


def _network_of(given: FrozenEncoder) -> tuple[str, Stem]:
    """Name and stem of the network of an encoder."""
    return given.details['model'].partition('.')[0], given.details['stem']


def _normalize_of(data: SpectralDataModule) -> Normalize:
    normalize = Normalize(data.in_channels)
    normalize.set_statistics(data.mean, data.std, data.scale, data.offset)
    return normalize


def _same(one: Normalize, other: Normalize) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def _after(normalize: Normalize, network: Callable[[Tensor], Tensor]) -> Callable[[Batch], Tensor]:
    return lambda batch: network(_prepare(normalize, batch))


def _texture_statistics(normalize: Normalize, features: PixelFeatures) -> Callable[[Batch], Tensor]:
    def embed(batch: Batch) -> Tensor:
        image = _prepare(normalize, batch)
        valid = valid_pixels(batch['image'], batch.get('valid')).expand(len(image), -1, -1, -1)
        return torch.cat(band_statistics_of_valid(features(image, valid), valid), dim=1)

    return embed


def random_encoder(model: str, data: SpectralDataModule, seed: int, stem: Stem = 'standard') -> nn.Module:
    """Build a network with random weights without advancing the global generator.

    Args:
        model: timm name.
        data: Data module, for the number of bands and the chip size.
        seed: Seed of the weights.
        stem: Stride of the first layers.

    Returns:
        The network in evaluation mode.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create_encoder(model, data.in_channels, data.chip_size, stem).eval()


def choose_device(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, …

    Returns:
        The device; for ``auto`` CUDA if available, otherwise the CPU.

    Raises:
        ConfigurationError: If the device cannot be used.
    """
    chosen = ('cuda' if torch.cuda.is_available() else 'cpu') if name == 'auto' else name
    try:
        device = torch.device(chosen)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        msg = f'device: {name} cannot be used here ({str(error).splitlines()[0]}); use auto or cpu.'
        raise ConfigurationError(msg) from error
    return device


def check_local(source: str, model: str, option: str = 'encoders') -> None:
    """Check that published weights are on this machine, because an evaluation downloads nothing.

    Args:
        source: Source as in :func:`transfer`; files are not checked.
        model: timm name for ``imagenet``.
        option: Option that named the source, for the message.

    Raises:
        WeightsError: If they are not.
    """
    if Path(source).exists():
        return
    if source == 'imagenet':
        if timm.is_model(model) and not _timm_file(model):
            raise WeightsError(
                f'{option}: the ImageNet weights of {model} are not on this machine; download them once with '
                f"`timm.create_model('{model}', pretrained=True)`, or leave imagenet out."
            )
        return
    try:
        url = get_weight(source).url
    except ValueError:  # read_source has the message for it
        return
    file = _hub_file(url)
    if not file.is_file():
        raise WeightsError(
            f'{option}: the weights {source} are not on this machine (no {file}); download them once from {url}, or '
            'leave them out.'
        )


def _timm_file(model: str) -> bool:
    """Whether the pretrained weights of a timm model are in the local cache of their hub."""
    config = timm.get_pretrained_cfg(model)
    if config is None:
        return False
    if config.file:
        return Path(config.file).is_file()
    if config.hf_hub_id:
        names = ('model.safetensors', 'pytorch_model.bin')
        if any(isinstance(try_to_load_from_cache(config.hf_hub_id, name), str) for name in names):
            return True
    return bool(config.url) and _hub_file(str(config.url)).is_file()


def _hub_file(url: str) -> Path:
    """Path at which torch.hub stores a download."""
    return Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)


def _prepare(normalize: Normalize, batch: Batch) -> Tensor:
    return normalize(*(batch.get(key) for key in ('image', 'valid', 'scale', 'offset')))
