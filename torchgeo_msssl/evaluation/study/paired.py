"""Differences to the reference initialisation, paired by seed and region."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchgeo_msssl.evaluation.study.conditions import AXES, Condition, Row, by_seed, conditions, varying_axes
from torchgeo_msssl.evaluation.study.statistics import Estimate, mean_interval
from torchgeo_msssl.files import atomic_path

_COLUMNS = (
    'metric', 'initialisation', 'reference', *AXES, 'seeds', 'pairs', 'difference', 'low', 'high', 'wins', 'ties',
    'losses',
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """How an initialisation differs from the reference.

    Attributes:
        metric: Name of the metric.
        condition: The initialisation, with the values on the axes.
        reference: Name of the reference.
        estimate: Mean difference over seeds, each with its mean over the regions that all of them have.
        wins: Pairs in which it is higher.
        ties: Pairs in which both are equal.
        losses: Pairs in which it is lower.
    """

    metric: str
    condition: Condition
    reference: str
    estimate: Estimate
    wins: int
    ties: int
    losses: int


def paired_differences(rows: Sequence[Row], metric: str, reference: str) -> list[Difference]:
    """Compare each initialisation with the reference, pair by pair.

    Args:
        rows: Rows of ``results.csv``.
        metric: Name of the metric.
        reference: Name of the reference.

    Returns:
        Differences, one for each other initialisation and value on the axes; pairs with one cell missing are
        left out, and from the mean seeds that lack a region.
    """
    found = conditions(rows, metric)
    differences = []
    for condition, values in found.items():
        other = found.get(Condition(reference, condition.axis), {})
        pairs = {key: value - other[key] for key, value in values.items() if key in other}
        if condition.initialisation == reference or not pairs:
            continue
        signs = [(pair > 0) - (pair < 0) for pair in pairs.values()]
        counts = [signs.count(sign) for sign in (1, 0, -1)]
        differences.append(Difference(metric, condition, reference, mean_interval(by_seed(pairs)), *counts))
    return differences


def write_paired(folder: Path, differences: Iterable[Difference]) -> list[Path]:
    """Write ``paired.csv`` and ``paired.md``.

    Args:
        folder: Folder of the study.
        differences: Rows of the tables.

    Returns:
        The files.

    Raises:
        OutputError: If a file cannot be written.
    """
    known = list(differences)
    paths = [folder / 'paired.csv', folder / 'paired.md']
    with atomic_path(paths[0]) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for one in known:
            interval = [one.estimate.mean, one.estimate.low, one.estimate.high]
            writer.writerow([
                one.metric, one.condition.initialisation, one.reference, *one.condition.axis, one.estimate.count,
                one.wins + one.ties + one.losses,
                *('' if math.isnan(value) else repr(value) for value in interval), one.wins, one.ties, one.losses,
            ])  # fmt: skip
    with atomic_path(paths[1]) as temporary:
        temporary.write_text(paired_table(known), encoding='utf-8')
    return paths


def paired_table(differences: Sequence[Difference]) -> str:
    """Put differences into a Markdown table.

    Args:
        differences: Its rows.

    Returns:
        The table, with a sentence that says what it shows.
    """
    if not differences:
        return 'No pair of cells has ended yet.\n'
    axes = varying_axes(one.condition for one in differences)
    head = ['metric', 'initialisation', *axes, f'difference to {differences[0].reference}', 'wins / ties / losses']
    lines = [f'| {" | ".join(head)} |', '|' + '---|' * len(head)]
    for one in differences:
        cells = [one.metric, one.condition.initialisation, *(one.condition.value(name) for name in axes)]
        cells += [_signed(one.estimate), f'{one.wins} / {one.ties} / {one.losses}']
        lines.append(f'| {" | ".join(cells)} |')
    told = (
        'Pairs are of the same seed and region. Mean over seeds, each with its mean over regions, with the 95 % '
        'interval (Student) of the mean; wins, ties and losses are of all pairs.'
    )
    return '\n'.join([*lines, '', told, ''])


def _signed(estimate: Estimate) -> str:
    half = '' if math.isnan(estimate.half) else f' ± {estimate.half:.3f}'
    return f'{estimate.mean:+.3f}{half}'
