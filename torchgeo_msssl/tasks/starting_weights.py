"""Starting weights of a segmentation, and the statistics that come with them."""

import logging
from pathlib import Path
from typing import Literal

from torch import nn

from torchgeo_msssl.contract import SpectralData
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.models.metadata import statistics_by_name
from torchgeo_msssl.models.report import LoadReport
from torchgeo_msssl.models.stems import Stem
from torchgeo_msssl.models.weights import load_encoder, load_network, read_source

log = logging.getLogger(__name__)

Transfer = Literal['encoder', 'network']
Statistics = Literal['auto', 'weights', 'data']

#: Bands whose mean differs by more of the weights' standard deviations are worth a warning.
_MAX_DISTANCE = 3.0


def load_starting_weights(
    network: nn.Module, weights: str | None, transfer: Transfer, data: SpectralData | None
) -> LoadReport:
    """Load the weights that a segmentation network starts from.

    Args:
        network: An smp network.
        weights: A checkpoint, a safetensors file, the name of a TorchGeo weight, ``imagenet``, or None.
        transfer: ``encoder`` or ``network``.
        data: Data module that names the bands, or None.

    Returns:
        What was loaded, and how.

    Raises:
        WeightsError: If the weights do not fit.
    """
    bands, sensor = (None, None) if data is None else (data.bands, data.sensor_name)
    if weights is not None and transfer == 'network':
        return load_network(network, weights, bands, sensor)
    return load_encoder(network, weights, bands, sensor)


def stem_of_weights(weights: str | None) -> Stem | None:
    """Look up the stem with which starting weights were trained.

    Args:
        weights: As in :func:`load_starting_weights`.

    Returns:
        The stem, ``standard`` for published weights; None without weights.
    """
    if weights is None:
        return None
    metadata = read_source(weights).metadata if Path(weights).is_file() else None
    return 'standard' if metadata is None else metadata.stem


def choose_statistics(
    weights: str | None, statistics: Statistics, data: SpectralData
) -> tuple[list[float], list[float]] | None:
    """Look up mean and standard deviation of reflectance in the starting weights.

    Logs a warning if the data are far from these statistics.

    Args:
        weights: As in :func:`load_starting_weights`.
        statistics: ``weights``, ``data``, or ``auto`` for those of the weights if these have every band.
        data: Data module.

    Returns:
        Mean and standard deviation of each band; None to take those of the data.

    Raises:
        ConfigurationError: If ``statistics`` is ``weights`` and these have none for the bands of the data.
    """
    known = None
    if weights is not None and statistics != 'data' and Path(weights).is_file():
        metadata = read_source(weights).metadata
        known = statistics_by_name(metadata, data.bands, data.sensor_name) if metadata else None
    if known is None:
        if weights is not None and statistics == 'weights':
            raise ConfigurationError(
                f'statistics: {weights} has none for {", ".join(data.bands)}; set statistics to auto or data.'
            )
        return None
    distances = [abs(own - other) / spread for own, other, spread in zip(data.mean, *known, strict=True)]
    farthest = max(range(len(distances)), key=distances.__getitem__)
    if distances[farthest] > _MAX_DISTANCE:
        log.warning(
            'In band %s the mean of the data, %.4g, is %.1f standard deviations from that of the weights, %.4g: check '
            'scale and offset, or set statistics to data.',
            data.bands[farthest],
            data.mean[farthest],
            distances[farthest],
            known[0][farthest],
        )
    return known
