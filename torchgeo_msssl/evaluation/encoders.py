"""Frozen encoders, and the baselines that learnt nothing.

An encoder comes from whatever :func:`torchgeo_msssl.models.weights.load_encoder` reads: a checkpoint, a safetensors
file, the name of a TorchGeo ``WeightsEnum`` entry, or ``imagenet``.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from timm.models import _hub
from torch import Tensor, nn
from torchgeo.models import RCF, get_weight

from torchgeo_msssl.datamodules.base import ScenesDataModule
from torchgeo_msssl.errors import ConfigurationError, WeightsError
from torchgeo_msssl.evaluation.features import Batch, band_statistics
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.metadata import statistics_by_name
from torchgeo_msssl.models.report import LoadReport
from torchgeo_msssl.models.weights import load_encoder, read_source
from torchgeo_msssl.transforms.normalize import Normalize

log = logging.getLogger(__name__)

RANDOM, STATISTICS, CONVOLUTIONS = 'random initialisation', 'band statistics', 'random convolutions'
CONSTANT = 'constant answer'

#: Filters of the random convolutions, as many as a ResNet-18 has features; half of them are the other half's negatives.
_FILTERS = 512


@dataclass(frozen=True)
class Transfer:
    """An encoder in a fresh network.

    Attributes:
        network: timm network in evaluation mode.
        normalize: Digital numbers to its input.
        report: What was loaded, and how.
        model: timm name.
        statistics: Where mean and standard deviation come from: ``weights`` or ``data``.
    """

    network: nn.Module
    normalize: Normalize
    report: LoadReport
    model: str
    statistics: str

    def embed(self, batch: Batch) -> Tensor:
        """Embed a batch of chips (``image``, ``valid``, ``scale``, ``offset``) to (batch, features)."""
        return self.network(_prepare(self.normalize, batch))


@dataclass(frozen=True)
class FrozenEncoder:
    """What is probed.

    Attributes:
        name: For tables.
        embed: From a batch on the device to (batch, features).
        seed: Of random weights; None where nothing is random.
        baseline: Whether it learnt nothing.
        details: What else there is to know, as plain values.
        partner: Baseline that an encoder is compared with: its network before any training, with its normalisation.
        normalize: Of an encoder that was given.
    """

    name: str
    embed: Callable[[Batch], Tensor]
    seed: int | None = None
    baseline: bool = False
    details: dict[str, Any] = field(default_factory=dict)
    partner: str | None = None
    normalize: Normalize | None = None


def transfer(source: str | os.PathLike[str] | None, data: ScenesDataModule, model: str | None = None) -> Transfer:
    """Load an encoder into a fresh network for the bands of some data.

    Bands are matched by name. Mean and standard deviation are those that came with the weights where these know every
    band of the data, else those of the data; scale and offset are those of each scene.

    Args:
        source: Checkpoint, safetensors file, TorchGeo weights by name, ``imagenet``, or None for random weights.
        data: Data module that has its statistics (:meth:`.ScenesDataModule.find_statistics`).
        model: timm name, where the source does not tell it.

    Returns:
        The network and what goes with it.

    Raises:
        WeightsError: If the source cannot be read, or does not fit.
        ConfigurationError: If it does not tell its model and none is given.
    """
    metadata = read_source(source, model).metadata
    name = metadata.model if metadata is not None else model
    if name is None:
        raise ConfigurationError(f'model: {source} does not tell what network it is; give its timm name.')
    network = create_encoder(name, data.in_channels, data.chip_size)
    report = load_encoder(network, source, bands=data.bands, sensor=data.sensor_name)
    known = statistics_by_name(metadata, data.bands, data.sensor_name) if metadata is not None else None
    normalize = Normalize(data.in_channels)
    mean, std = known or (data.mean, data.std)
    normalize.set_statistics(mean, std, data.scale, data.offset)
    return Transfer(network.eval(), normalize, report, name, 'weights' if known else 'data')


def given_encoders(
    sources: dict[str, str], data: ScenesDataModule, model: str, device: torch.device | str
) -> list[FrozenEncoder]:
    """Load the encoders that somebody wants to know about.

    Args:
        sources: By name.
        data: Data module with its statistics.
        model: timm name for those that do not tell it.
        device: Where they will compute.

    Returns:
        The encoders.

    Raises:
        WeightsError: If one cannot be read, does not fit, or would have to be fetched from the network.
    """
    found: list[FrozenEncoder] = []
    plain = _normalize_of(data)
    for name, source in sources.items():
        check_at_hand(source, model)
        loaded = transfer(source, data, model)
        log.info('%s: normalised with the statistics of the %s.\n%s', name, loaded.statistics, loaded.report)
        details = {
            'source': source, 'model': loaded.model, 'statistics': loaded.statistics, 'report': loaded.report.to_dict(),
        }  # fmt: skip
        partner = random_name(loaded.model)
        if not _same(loaded.normalize, plain):
            alike = (one for one in found if one.normalize is not None and _same(one.normalize, loaded.normalize))
            partner += f' normalised as {next((one.name for one in alike), name)}'
        loaded.network.to(device)
        found.append(FrozenEncoder(name, loaded.embed, None, False, details, partner, loaded.normalize))
    for one in found:
        assert one.normalize is not None
        one.normalize.to(device)
    return found


def baselines(
    data: ScenesDataModule,
    given: Sequence[FrozenEncoder],
    model: str,
    seeds: int,
    device: torch.device | str,
) -> list[FrozenEncoder]:
    """Make what every table has to have: what is reached without any learning.

    * ``band statistics``: mean and standard deviation of each band of a chip.
    * ``random convolutions``: means over the chip of rectified 3×3 Gaussian filters (Rolf et al. 2021, MOSAIKS,
      https://doi.org/10.1038/s41467-021-24638-z; TorchGeo's ``RCF``).
    * ``random initialisation``: each network before any training; once more for each normalisation of a given encoder
      that is not that of the data, since normalisation alone changes what a network makes of chips.

    Args:
        data: Data module with its statistics.
        given: Encoders that are compared with them.
        model: Network (timm name) where none is given.
        seeds: How often random weights are drawn.
        device: Where they will compute.

    Returns:
        The baselines, one for each seed.
    """
    normalize = _normalize_of(data).to(device)
    own = {'statistics': 'data'}
    found = [FrozenEncoder(STATISTICS, _after(normalize, band_statistics), None, True, own)]
    for seed in range(seeds):
        # RCF takes seed 0 for none
        filters = RCF(data.in_channels, _FILTERS, kernel_size=3, seed=seed + 1).to(device)
        found.append(FrozenEncoder(CONVOLUTIONS, _after(normalize, filters), seed, True, {'filters': _FILTERS} | own))
    models = list(dict.fromkeys(one.details['model'].partition('.')[0] for one in given)) or [model]
    randoms = {random_name(name): (name, normalize, own) for name in models}
    for one in given:
        assert one.partner is not None
        assert one.normalize is not None
        theirs = {'statistics': one.details['statistics']}
        randoms.setdefault(one.partner, (one.details['model'].partition('.')[0], one.normalize, theirs))
    for name, (network_name, normal, statistics) in randoms.items():
        for seed in range(seeds):
            network = random_encoder(network_name, data, seed).to(device)
            details = {'model': network_name} | statistics
            found.append(FrozenEncoder(name, _after(normal, network), seed, True, details))
    return found


def random_name(model: str) -> str:
    """Name of a network before any training, normalised with the statistics of the data.

    Args:
        model: timm name, with or without the tag of weights.

    Returns:
        For tables.
    """
    return f'{RANDOM} ({model.partition(".")[0]})'


def _normalize_of(data: ScenesDataModule) -> Normalize:
    normalize = Normalize(data.in_channels)
    normalize.set_statistics(data.mean, data.std, data.scale, data.offset)
    return normalize


def _same(one: Normalize, other: Normalize) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))


def _after(normalize: Normalize, network: Callable[[Tensor], Tensor]) -> Callable[[Batch], Tensor]:
    return lambda batch: network(_prepare(normalize, batch))


def random_encoder(model: str, data: ScenesDataModule, seed: int) -> nn.Module:
    """Build a network that has learnt nothing; the global generator stays as it is.

    Args:
        model: timm name.
        data: Gives bands and chip size.
        seed: Of the weights.

    Returns:
        The network in evaluation mode.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create_encoder(model, data.in_channels, data.chip_size).eval()


def choose_device(name: str) -> torch.device:
    """Find the device that somebody names.

    Args:
        name: ``auto``, ``cpu``, ``cuda``, …

    Returns:
        One that computes.

    Raises:
        ConfigurationError: If it does not.
    """
    chosen = ('cuda' if torch.cuda.is_available() else 'cpu') if name == 'auto' else name
    try:
        device = torch.device(chosen)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        msg = f'device: {name} cannot be used here ({str(error).splitlines()[0]}); take auto or cpu.'
        raise ConfigurationError(msg) from error
    return device


def encoder_name(source: str) -> str:
    """Name an encoder after its source.

    Args:
        source: As :func:`transfer` takes it.

    Returns:
        ``experiment/version_N`` for a file in a run folder, with the checkpoint's name where that is not ``last``; else
        the source.
    """
    parts = Path(source).parts
    version = next((i for i, part in enumerate(parts) if part.startswith('version_')), 0)
    if not version:
        return Path(source).stem if Path(source).suffix in ('.ckpt', '.safetensors', '.pth', '.pt') else source
    stem = Path(source).stem
    return '/'.join([*parts[version - 1 : version + 1], *([] if stem in ('last', 'encoder') else [stem])])


def check_at_hand(source: str, model: str, option: str = 'encoders') -> None:
    """See that weights that others publish are on this machine; a probe fetches nothing.

    Args:
        source: As :func:`transfer` takes it; files are left to it.
        model: timm name for ``imagenet``.
        option: Where the source was given, for the message.

    Raises:
        WeightsError: If they are not.
    """
    if Path(source).exists():
        return
    if source == 'imagenet':
        if timm.is_model(model) and not _timm_file(model):
            raise WeightsError(
                f'{option}: the ImageNet weights of {model} are not on this machine; fetch them once with '
                f"`timm.create_model('{model}', pretrained=True)`, or leave imagenet out."
            )
        return
    try:
        url = get_weight(source).url
    except ValueError:  # read_source has the message for it
        return
    file = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    if not file.is_file():
        raise WeightsError(
            f'{option}: the weights {source} are not on this machine (no {file}); fetch them once from {url}, or leave '
            'them out.'
        )


def _timm_file(model: str) -> bool:
    """Whether timm's weights of a model are in the cache of the hub they come from."""
    config = timm.get_pretrained_cfg(model)
    if config is None:
        return False
    if config.file:
        return Path(config.file).is_file()
    if config.hf_hub_id:
        for name in ('model.safetensors', 'pytorch_model.bin'):
            try:
                _hub.hf_hub_download(  # type: ignore[attr-defined]
                    config.hf_hub_id, filename=name, local_files_only=True
                )
            except Exception:  # the client has a dozen exceptions for what is not there
                continue
            return True
    return bool(config.url) and Path(_hub.get_cache_dir(), Path(urlparse(str(config.url)).path).name).is_file()


def _prepare(normalize: Normalize, batch: Batch) -> Tensor:
    return normalize(*(batch.get(key) for key in ('image', 'valid', 'scale', 'offset')))
