"""Classification of frozen features of encoders and of baselines."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.chips import ProbeChips, open_chips
from torchgeo_msssl.evaluation.encoder_names import CONSTANT
from torchgeo_msssl.evaluation.encoders import FrozenEncoder, baselines, choose_device, given_encoders
from torchgeo_msssl.evaluation.features import extract_all
from torchgeo_msssl.evaluation.intervals import Interval, bootstrap_interval
from torchgeo_msssl.evaluation.probe_settings import ProbeSettings
from torchgeo_msssl.evaluation.probes import ClassScores, knn_scores, linear_scores, standardized
from torchgeo_msssl.evaluation.scores import Classified, metric_name, score
from torchgeo_msssl.progress import progress_bar

log = logging.getLogger(__name__)

#: Number of blocks below which bootstrap intervals are too narrow.
_FEW_BLOCKS = 10


@dataclass(frozen=True)
class ProbeRow:
    """Result of one probe on one encoder.

    Attributes:
        encoder: Name of the encoder.
        probe: ``knn``, ``linear``, or ``constant``.
        seed: Seed of random weights, or None.
        draw: Draw of the training labels.
        baseline: Whether the encoder is a baseline.
        found: Classified test chips.
        scores: Intervals by name of the score.
    """

    encoder: str
    probe: str
    seed: int | None
    draw: int
    baseline: bool
    found: Classified
    scores: dict[str, Interval]


@dataclass(frozen=True)
class ProbeReport:
    """Results of a probe.

    Attributes:
        settings: Options of the probe.
        chips: The labelled chips.
        encoders: Encoders and baselines.
        rows: Results for each encoder, seed, probe and draw of labels.
        groups: Group of each test chip that the bootstrap resamples.
        shared: Scores by encoder and probe: mean over seeds and draws with its interval, in the order of the tables.
        gains: Difference of the first score to random initialisation with the same normalization under the same
            probe, by encoder and probe; both sides use the same resamples and draws.
        differences: The same between each given encoder and every other one, by encoder, other and probe.
    """

    settings: ProbeSettings
    chips: ProbeChips
    encoders: list[FrozenEncoder]
    rows: list[ProbeRow]
    groups: NDArray[np.int64]
    shared: dict[tuple[str, str], dict[str, Interval]]
    gains: dict[tuple[str, str], Interval]
    differences: dict[tuple[str, str, str], Interval]


def run_probe(settings: ProbeSettings) -> ProbeReport:
    """Classify chips with every encoder and baseline.

    Returns:
        The results; nothing is written.

    Raises:
        MSSSLError: If data, weights or options do not fit.
    """
    sources = settings.sources
    chips = open_chips(settings.data)
    fewest = min(map(len, chips.draws))
    if 'knn' in settings.probes and settings.k > fewest:
        raise ConfigurationError(f'k: expected at most the number of training chips, {fewest}, got {settings.k}.')
    device = choose_device(settings.device)
    given = given_encoders(sources, chips.data, settings.model, device, settings.features)
    network = (settings.model, settings.stem)
    encoders = [*given, *baselines(chips.data, given, network, settings.seeds, device, settings.features)]
    groups = _groups(settings, chips)
    features = _features(encoders, chips, device, settings.batch_size)
    rows = [_constant_row(settings, chips, groups)]
    cases = list(product(zip(encoders, features, strict=True), settings.probes, range(len(chips.draws))))
    with progress_bar('Probing', len(cases)) as advance:
        for i, ((encoder, (train, test)), probe, draw) in enumerate(cases):
            found = _classify(settings, probe, chips, draw, train, test)
            rows.append(_row(settings, encoder.name, probe, encoder.seed, draw, encoder.baseline, found, groups))
            advance(i, 1.0)
    keyed = _by_key(rows)
    shared = {key: _shared(settings, some, groups) for key, some in keyed.items()}
    gains, differences = _gains(settings, encoders, keyed, groups), _differences(settings, encoders, keyed, groups)
    return ProbeReport(settings, chips, encoders, rows, groups, shared, gains, differences)


def _groups(settings: ProbeSettings, chips: ProbeChips) -> NDArray[np.int64]:
    if settings.interval == 'chip':
        return np.arange(len(chips.test.labels))
    groups = chips.blocks[1]
    count = len(np.unique(groups))
    if count < 2:
        raise ConfigurationError(
            'interval: all test chips lie in one ground block, which gives no interval; set data.block_size below '
            f'{settings.data.block_size}, or interval to chip.'
        )
    if count < _FEW_BLOCKS:
        log.warning('The test chips lie in %d ground blocks only: the intervals are imprecise.', count)
    return groups


def _features(
    encoders: Sequence[FrozenEncoder], chips: ProbeChips, device: torch.device, batch_size: int
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Features of the training and of the test chips, for each encoder."""
    networks = {str(i): encoder.embed for i, encoder in enumerate(encoders)}
    queries = (*chips.train.queries, *chips.test.queries)
    with progress_bar('Embedding chips', len(queries)) as advance:
        found = extract_all(
            networks, chips.data.scenes, queries, device, batch_size, lambda done: advance(done - 1, 1.0)
        )
    cut = len(chips.train.queries)
    return [
        # maps of several stages differ in magnitude, and the largest would decide which neighbours are nearest
        standardized(values[:cut], values[cut:])
        if encoder.details.get('features') == 'stages'
        else (values[:cut], values[cut:])
        for encoder, values in zip(encoders, found.values(), strict=True)
    ]


def _classify(
    settings: ProbeSettings,
    probe: str,
    chips: ProbeChips,
    draw: int,
    train: NDArray[np.float32],
    test: NDArray[np.float32],
) -> Classified:
    used = chips.draws[draw]
    train, labels = train[used], chips.train.labels[used]
    if probe == 'knn':
        found = knn_scores(train, labels, test, settings.k, settings.temperature, settings.distance)
    else:
        found = linear_scores(train, labels, test, settings.strengths, chips.blocks[0][used])
    return _with_all_classes(found, chips)


def _with_all_classes(found: ClassScores, chips: ProbeChips) -> Classified:
    """Add columns for classes that only one part has."""
    count = len(chips.class_names)
    scores = np.zeros((len(found.values), count))
    scores[:, found.classes] = found.values
    return Classified(chips.test.labels, scores)


def _constant_row(settings: ProbeSettings, chips: ProbeChips, groups: NDArray[np.int64]) -> ProbeRow:
    """The best constant answer, which every probe should surpass."""
    count = len(chips.class_names)
    best = np.bincount(chips.test.labels, minlength=count).argmax()
    found = Classified(chips.test.labels, np.tile(np.eye(count)[best], (len(chips.test.labels), 1)))
    return _row(settings, CONSTANT, 'constant', None, 0, True, found, groups)


def _row(
    settings: ProbeSettings,
    encoder: str,
    probe: str,
    seed: int | None,
    draw: int,
    baseline: bool,
    found: Classified,
    groups: NDArray[np.int64],
) -> ProbeRow:
    return ProbeRow(encoder, probe, seed, draw, baseline, found, _intervals(settings, [(draw, found)], groups))


def _score_options(settings: ProbeSettings) -> dict[str, tuple[str, int]]:
    """Metric and top_k by the name of the score."""
    options: dict[str, tuple[str, int]] = {
        metric_name(metric, settings.average): (metric, 1) for metric in settings.metrics
    }
    if settings.top_k > 1 and 'accuracy' in settings.metrics:
        options[metric_name('accuracy', top_k=settings.top_k)] = ('accuracy', settings.top_k)
    return options


def _mean_score(
    settings: ProbeSettings,
    some: Sequence[tuple[int, Classified]],
    metric: str,
    top_k: int,
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Mean over random weights for each draw of labels, shape (draw, resample)."""
    by_draw: dict[int, list[NDArray[np.float64]]] = {}
    for draw, found in some:
        by_draw.setdefault(draw, []).append(score(found, metric, weights, settings.average, top_k))
    return np.stack([np.mean(values, axis=0) for values in by_draw.values()])


def _intervals(
    settings: ProbeSettings, some: Sequence[tuple[int, Classified]], groups: NDArray[np.int64]
) -> dict[str, Interval]:
    """Scores, as a mean over random weights and draws of labels."""
    return {
        name: bootstrap_interval(
            lambda weights, metric=metric, top_k=top_k: _mean_score(  # type: ignore[misc]
                settings, some, metric, top_k, weights
            ),
            groups,
            settings.resamples,
            settings.level,
        )
        for name, (metric, top_k) in _score_options(settings).items()
    }


def _by_key(rows: Sequence[ProbeRow]) -> dict[tuple[str, str], list[ProbeRow]]:
    found: dict[tuple[str, str], list[ProbeRow]] = {}
    for row in rows:
        found.setdefault((row.encoder, row.probe), []).append(row)
    return found


def _shared(settings: ProbeSettings, rows: list[ProbeRow], groups: NDArray[np.int64]) -> dict[str, Interval]:
    return rows[0].scores if len(rows) == 1 else _intervals(settings, _drawn(rows), groups)


def _drawn(rows: Sequence[ProbeRow]) -> list[tuple[int, Classified]]:
    return [(row.draw, row.found) for row in rows]


def _gains(
    settings: ProbeSettings,
    encoders: Sequence[FrozenEncoder],
    keyed: Mapping[tuple[str, str], list[ProbeRow]],
    groups: NDArray[np.int64],
) -> dict[tuple[str, str], Interval]:
    partners = {one.name: one.partner for one in encoders if one.partner is not None}
    return {
        (name, probe): _difference(settings, own, keyed[partners[name], probe], groups)
        for (name, probe), own in keyed.items()
        if name in partners
    }


def _differences(
    settings: ProbeSettings,
    encoders: Sequence[FrozenEncoder],
    keyed: Mapping[tuple[str, str], list[ProbeRow]],
    groups: NDArray[np.int64],
) -> dict[tuple[str, str, str], Interval]:
    names = list(dict.fromkeys(one.name for one in encoders))
    given = [one.name for one in encoders if not one.baseline]
    return {
        (name, other, probe): _difference(settings, keyed[name, probe], keyed[other, probe], groups)
        for probe in settings.probes
        for name in given
        for other in names
        if other != name
    }


def _difference(
    settings: ProbeSettings, own: list[ProbeRow], other: list[ProbeRow], groups: NDArray[np.int64]
) -> Interval:
    """Difference of the first score; both sides have the same resamples of chips and the same draws of labels."""

    def difference(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        first, second = (_mean_score(settings, _drawn(side), settings.metrics[0], 1, weights) for side in (own, other))
        return first - second

    return bootstrap_interval(difference, groups, settings.resamples, settings.level)
