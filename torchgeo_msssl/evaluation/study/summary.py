"""Tables and figures of a study, from the results in its folder."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.conditions import (
    AXES,
    baseline_metric,
    estimates,
    read_results,
    read_table,
    varying_axes,
)
from torchgeo_msssl.evaluation.study.curves import draw_curves
from torchgeo_msssl.evaluation.study.design import Cell, Study
from torchgeo_msssl.evaluation.study.paired import COLUMNS, paired_differences, paired_table, write_paired
from torchgeo_msssl.evaluation.study.provenance import read_provenance
from torchgeo_msssl.files import atomic_path, write_json

#: What a fraction of labels refers to, and what the cells use regardless of it.
FRACTION_NOTE = (
    'The labels counted here are those of the training ground. Whatever their number, all labels of the validation '
    'ground choose the checkpoint (best.ckpt), and mean and standard deviation come from the pixels of all scenes, '
    'without labels.'
)


def shared_note(names: Sequence[str]) -> str:
    """Describe what intervals lack if all seeds share one pretraining.

    Args:
        names: Initialisations for which they do.

    Returns:
        A sentence; empty without any.
    """
    if not names:
        return ''
    shared = ', '.join(names)
    return f'All seeds of {shared} start from one pretraining: the intervals hold no spread between pretrainings.'


def write_plan(study: Study, cells: Sequence[Cell]) -> None:
    """Write ``study.json``, so that the folder can be summarized without the configuration.

    Raises:
        OutputError: If the file cannot be written.
    """
    names = [cell.name for cell in cells]
    names += list(read_results(Path(study.output))['cell'])  # of an earlier call with more cells, too
    entries = study.initialisations if len(study.seeds) > 1 else []
    plan = {
        'name': study.name,
        'metrics': study.metrics,
        'reference': study.reference,
        'cells': list(dict.fromkeys(names)),
        'shared_pretrainings': [one.name for one in entries if one.pretraining and not one.pretraining.each_seed],
    }
    write_json(Path(study.output) / 'study.json', plan)


def write_summary(folder: str | os.PathLike[str]) -> list[Path]:
    """Write tables and figures of the cells that have ended.

    Returns:
        ``paired.csv``, ``paired.md``, ``curves.png`` if there is something to plot, and ``summary.md``.

    Raises:
        ConfigurationError: If it is not the folder of a study.
        OutputError: If a file cannot be written.
    """
    folder = Path(folder)
    if not (folder / 'study.json').is_file():
        raise ConfigurationError(f'{folder}: expected the folder of a study, with study.json; there is none.')
    plan = json.loads((folder / 'study.json').read_text(encoding='utf-8'))
    table = read_results(folder)
    metrics = [metric for metric in plan['metrics'] if metric in set(table['metric'])]
    every = [paired_differences(table, metric, plan['reference']) for metric in metrics]
    differences = pd.concat(every or [pd.DataFrame(columns=COLUMNS)], ignore_index=True)
    paths = write_paired(folder, differences)
    if metrics:
        paths.append(folder / 'curves.png')
        draw_curves(paths[-1], table, metrics)
    paths.append(folder / 'summary.md')
    parts = [_heading(folder, plan, table), *(_means(table, metric) for metric in metrics)]
    if len(differences):
        note = shared_note(plan.get('shared_pretrainings', []))
        parts.append(f'## Difference to {plan["reference"]}\n\n{paired_table(differences)}')
        parts += [f'{note}\n'] if note else []
    with atomic_path(paths[-1]) as temporary:
        temporary.write_text('\n'.join([*parts, _pretrainings(folder)]).rstrip() + '\n', encoding='utf-8')
    return paths


def _heading(folder: Path, plan: dict[str, Any], table: pd.DataFrame) -> str:
    cells = table.drop_duplicates('cell')
    lines = [f'# {plan["name"]}', '', f'{len(cells)} of {len(plan["cells"])} cells ended.']
    if len(cells):
        lines[-1] += f' A cell took {cells["seconds"].map(float).mean():.0f} s on average, without pretraining.'
    failures = folder / 'failures.csv'
    if failures.is_file() and len(read_table(failures)):
        lines[-1] += ' Some failed: see failures.csv.'
    if table[['fraction', 'shots']].ne('').any(axis=None):
        lines += ['', FRACTION_NOTE]
    return '\n'.join([*lines, ''])


def _means(table: pd.DataFrame, metric: str) -> str:
    """Means over seeds as a table, with those of the threshold."""
    found = estimates(table, metric)
    axes = varying_axes(found) or [name for name in AXES if found[name].ne('').any()][:1]
    thresholds = estimates(table, baseline_metric(metric), axes).assign(initialisation='threshold on an index')
    lines = [f'## {metric}', '', f'| initialisation | {"".join(f"{name} | " for name in axes)}mean | seeds |']
    lines.append('|---|' + '---|' * (len(axes) + 2))
    for row in [*found.to_dict('records'), *thresholds.to_dict('records')]:
        cells = [row['initialisation'], *(row[name] for name in axes), str(row['estimate'])]
        lines.append(f'| {" | ".join(cells)} | {row["estimate"].count} |')
    return '\n'.join([*lines, '', 'Mean over seeds, with the 95 % interval (Student) of the mean.', ''])


def _pretrainings(folder: Path) -> str:
    """Duration of each pretraining, and what it used of the test ground."""
    lines = []
    for path in sorted(folder.glob('pretraining/*/result.json')):
        result = json.loads(path.read_text(encoding='utf-8'))
        known = read_provenance(path.parent)
        lines.append(f'* {path.parent.name} took {result["seconds"]:.0f} s{f" and {known.sentence}" if known else ""}.')
    return '\n'.join(['## Pretraining', '', *lines, '']) if lines else ''
