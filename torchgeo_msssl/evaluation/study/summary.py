"""Tables and figures of a study, from what its folder holds so far."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.conditions import (
    AXES,
    Row,
    baseline_metric,
    by_seed,
    conditions,
    varying_axes,
)
from torchgeo_msssl.evaluation.study.curves import draw_curves
from torchgeo_msssl.evaluation.study.design import Cell, Study
from torchgeo_msssl.evaluation.study.paired import paired_differences, paired_table, write_paired
from torchgeo_msssl.evaluation.study.provenance import read_provenance
from torchgeo_msssl.evaluation.study.results import read_results
from torchgeo_msssl.evaluation.study.statistics import mean_interval
from torchgeo_msssl.files import atomic_path, write_json

#: What a share of labels is of, and what else the cells take from the data whatever the share.
FRACTION_NOTE = (
    'The labels counted here are those of the training ground. Whatever their number, all labels of the validation '
    'ground choose the checkpoint (best.ckpt), and mean and standard deviation come from the pixels of all scenes, '
    'without labels.'
)


def shared_note(names: Sequence[str]) -> str:
    """Say what intervals lack where one pretraining is shared by all seeds.

    Args:
        names: Initialisations of which that is so.

    Returns:
        A sentence; empty where there is none.
    """
    if not names:
        return ''
    shared = ', '.join(names)
    return f'All seeds of {shared} start from one pretraining: the intervals hold no spread between pretrainings.'


def write_plan(study: Study, cells: Sequence[Cell]) -> None:
    """Note in ``study.json`` what the study is, so that its folder can be summarised without its configuration.

    Args:
        study: The study.
        cells: Its cells.

    Raises:
        OutputError: If the file cannot be written.
    """
    names = [cell.name for cell in cells]
    ended = [row['cell'] for row in read_results(Path(study.output))]  # those of an earlier call with more cells, too
    plan = {
        'name': study.name, 'metrics': study.metrics, 'reference': study.reference,
        'cells': [*names, *(name for name in dict.fromkeys(ended) if name not in names)],
        'shared_pretrainings': [
            entry.name for entry in study.initialisations
            if len(study.seeds) > 1 and entry.pretraining and not entry.pretraining.each_seed
        ],
    }  # fmt: skip
    write_json(Path(study.output) / 'study.json', plan)


def write_summary(folder: str | os.PathLike[str]) -> list[Path]:
    """Write tables and figures of the cells that have ended.

    Args:
        folder: Folder of a study, finished or not.

    Returns:
        ``summary.md``, ``paired.csv``, ``paired.md``, and ``curves.png`` where there is something to draw.

    Raises:
        ConfigurationError: If it is no folder of a study.
        OutputError: If a file cannot be written.
    """
    folder = Path(folder)
    if not (folder / 'study.json').is_file():
        raise ConfigurationError(f'{folder}: expected the folder of a study, with study.json; there is none.')
    plan = json.loads((folder / 'study.json').read_text(encoding='utf-8'))
    rows = read_results(folder)
    known = {row['metric'] for row in rows}
    metrics = [metric for metric in plan['metrics'] if metric in known]
    differences = [one for metric in metrics for one in paired_differences(rows, metric, plan['reference'])]
    paths = write_paired(folder, differences)
    if metrics:
        paths.append(folder / 'curves.png')
        draw_curves(paths[-1], rows, metrics)
    paths.append(folder / 'summary.md')
    parts = [_heading(folder, plan, rows), *(_means(rows, metric) for metric in metrics)]
    if differences:
        note = shared_note(plan.get('shared_pretrainings', []))
        parts.append(f'## Difference to {plan["reference"]}\n\n{paired_table(differences)}')
        parts += [f'{note}\n'] if note else []
    with atomic_path(paths[-1]) as temporary:
        temporary.write_text('\n'.join([*parts, _pretrainings(folder)]).rstrip() + '\n', encoding='utf-8')
    return paths


def _heading(folder: Path, plan: dict[str, Any], rows: Sequence[Row]) -> str:
    ended = len({row['cell'] for row in rows})
    seconds = {row['cell']: float(row['seconds']) for row in rows}
    lines = [f'# {plan["name"]}', '', f'{ended} of {len(plan["cells"])} cells ended.']
    if seconds:
        lines[-1] += f' A cell took {sum(seconds.values()) / len(seconds):.0f} s on average, without pretraining.'
    failures = folder / 'failures.csv'
    if failures.is_file() and len(failures.read_text(encoding='utf-8').splitlines()) > 1:
        lines[-1] += ' Some failed: see failures.csv.'
    if any(row['fraction'] or row['shots'] for row in rows):
        lines += ['', FRACTION_NOTE]
    return '\n'.join([*lines, ''])


def _means(rows: Sequence[Row], metric: str) -> str:
    """Means over seeds as a table, with the threshold's."""
    found = conditions(rows, metric)
    axes = varying_axes(found) or [name for name in AXES if any(one.value(name) for one in found)][:1]
    lines = [f'## {metric}', '', f'| initialisation | {"".join(f"{name} | " for name in axes)}mean | seeds |']
    lines.append('|---|' + '---|' * (len(axes) + 2))
    for condition, values in found.items():
        estimate = mean_interval(by_seed(values))
        cells = [condition.initialisation, *(condition.value(name) for name in axes), str(estimate)]
        lines.append(f'| {" | ".join(cells)} | {estimate.count} |')
    thresholds: dict[tuple[str, ...], dict[tuple[str, str], float]] = {}
    for condition, values in conditions(rows, baseline_metric(metric)).items():
        thresholds.setdefault(tuple(condition.value(name) for name in axes), {}).update(values)
    for where, values in thresholds.items():
        estimate = mean_interval(by_seed(values))
        lines.append(f'| {" | ".join(["threshold on an index", *where, str(estimate)])} | {estimate.count} |')
    return '\n'.join([*lines, '', 'Mean over seeds, with the 95 % interval (Student) of the mean.', ''])


def _pretrainings(folder: Path) -> str:
    """What each pretraining took, and what it knew of the ground that is tested on."""
    lines = []
    for path in sorted(folder.glob('pretraining/*/result.json')):
        result = json.loads(path.read_text(encoding='utf-8'))
        known = read_provenance(path.parent)
        lines.append(f'* {path.parent.name} took {result["seconds"]:.0f} s{f" and {known.sentence}" if known else ""}.')
    return '\n'.join(['## Pretraining', '', *lines, '']) if lines else ''
