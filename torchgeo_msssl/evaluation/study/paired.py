"""Differences to the reference initialisation, paired by seed and region."""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from torchgeo_msssl.evaluation.study.conditions import AXES, CONDITION, seed_means, values_of, varying_axes
from torchgeo_msssl.evaluation.study.statistics import mean_interval
from torchgeo_msssl.files import atomic_path

COLUMNS = (
    *('metric', 'initialisation', 'reference', *AXES, 'seeds', 'pairs', 'difference', 'low', 'high'),
    *('wins', 'ties', 'losses'),
)


def paired_differences(table: pd.DataFrame, metric: str, reference: str) -> pd.DataFrame:
    """Compare each initialisation with the reference, pair by pair.

    Args:
        table: Rows of ``results.csv``.
        metric: Name of the metric.
        reference: Name of the reference initialisation.

    Returns:
        One row per other initialisation and value on the axes, with the columns :data:`COLUMNS`: mean difference over
        seeds (each with its mean over regions) with its interval, and the number of pairs in which the initialisation
        is higher, equal and lower. Pairs with one cell missing are left out, and so are seeds that lack a region from
        the mean.
    """
    values = values_of(table, metric)
    is_reference = values['initialisation'] == reference
    keys = [*AXES, 'seed', 'region']
    pairs = values[~is_reference].merge(values[is_reference], on=keys, suffixes=('', '_reference'))
    found = []
    if len(pairs):
        pairs['value'] -= pairs['value_reference']
        for key, group in pairs.groupby(list(CONDITION), sort=False):
            mean = mean_interval(seed_means(group))
            signs = np.sign(group['value'])
            counts = [int((signs == sign).sum()) for sign in (1, 0, -1)]
            row = [metric, key[0], reference, *key[1:], mean.count, len(group), mean.mean, mean.low, mean.high, *counts]
            found.append(row)
    return pd.DataFrame(found, columns=COLUMNS)


def write_paired(folder: Path, differences: pd.DataFrame) -> list[Path]:
    """Write ``paired.csv`` and ``paired.md``.

    Raises:
        OutputError: If a file cannot be written.
    """
    paths = [folder / 'paired.csv', folder / 'paired.md']
    with atomic_path(paths[0]) as temporary:
        differences.to_csv(temporary, index=False)
    with atomic_path(paths[1]) as temporary:
        temporary.write_text(paired_table(differences), encoding='utf-8')
    return paths


def paired_table(differences: pd.DataFrame) -> str:
    """Format differences as a Markdown table.

    Returns:
        The table, with a sentence that says what it shows.
    """
    if differences.empty:
        return 'No pair of cells has ended yet.\n'
    axes = varying_axes(differences)
    reference = differences['reference'].iloc[0]
    head = ['metric', 'initialisation', *axes, f'difference to {reference}', 'wins / ties / losses']
    lines = [f'| {" | ".join(head)} |', '|' + '---|' * len(head)]
    for row in differences.to_dict('records'):
        half = '' if math.isnan(row['high']) else f' ± {row["high"] - row["difference"]:.3f}'
        cells = [row['metric'], row['initialisation'], *(row[name] for name in axes)]
        cells += [f'{row["difference"]:+.3f}{half}', f'{row["wins"]} / {row["ties"]} / {row["losses"]}']
        lines.append(f'| {" | ".join(cells)} |')
    note = (
        'Pairs have the same seed and region. Mean over seeds, each with its mean over regions, with the 95 % interval '
        '(Student) of the mean; wins, ties and losses count all pairs.'
    )
    return '\n'.join([*lines, '', note, ''])
