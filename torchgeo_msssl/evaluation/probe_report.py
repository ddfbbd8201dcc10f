"""Files of a probe."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
import torch
from matplotlib.figure import Figure

from torchgeo_msssl.datamodules.split import save_split
from torchgeo_msssl.evaluation.features import LabelledChips
from torchgeo_msssl.evaluation.intervals import Interval
from torchgeo_msssl.evaluation.probe import ProbeReport, ProbeRow
from torchgeo_msssl.files import atomic_path, write_json
from torchgeo_msssl.tasks.confusion import CLASS_SCORES, class_scores
from torchgeo_msssl.tasks.segmentation_figures import draw_confusion, write_confusion

#: Columns of ``results.csv``, one row per score of each encoder, seed, probe and draw of labels.
COLUMNS = (
    *('experiment', 'encoder', 'probe', 'metric', 'value', 'low', 'high'),
    *('n_train', 'n_test', 'classes', 'seed', 'draw'),
)
#: Columns of ``differences.csv``: a given encoder minus another one, paired.
DIFFERENCE_COLUMNS = ('encoder', 'minus', 'probe', 'metric', 'value', 'low', 'high')

_PROBES = {'knn': 'kNN', 'linear': 'linear', 'constant': '–'}


def next_folder(experiment: str, runs: str = 'runs') -> Path:
    """Find the folder of the next run of an experiment.

    Args:
        experiment: Name of the experiment.
        runs: Folder of the experiments.

    Returns:
        ``runs/EXPERIMENT/version_N``, which does not exist yet.
    """
    folder = Path(runs, experiment)
    taken = [int(match[1]) for path in folder.glob('version_*') if (match := re.fullmatch(r'version_(\d+)', path.name))]
    return folder / f'version_{max(taken, default=-1) + 1}'


def write_report(report: ProbeReport, folder: Path) -> None:
    """Write tables and figures.

    ``results.csv`` (:data:`COLUMNS`), ``differences.csv``, ``results.json``, ``results.md``, ``classes.csv`` (scores of
    each class), ``scores.png``, ``split.png`` with ``split.geojson`` (not of plain images), and
    ``confusion_<encoder>_<probe>`` as CSV and PNG.

    Args:
        report: Results of the probe.
        folder: Folder to write into, created if missing.

    Raises:
        OutputError: If a file cannot be written.
    """
    for name, rows, columns in (
        ('results.csv', _score_rows(report), list(COLUMNS)),
        ('differences.csv', _difference_rows(report), list(DIFFERENCE_COLUMNS)),
        ('classes.csv', _class_rows(report), ['encoder', 'probe', 'seed', 'draw', 'class', *CLASS_SCORES, 'chips']),
    ):
        with atomic_path(folder / name) as temporary:
            pd.DataFrame(rows, columns=columns).to_csv(temporary, index=False)
    with atomic_path(folder / 'results.md') as temporary:
        temporary.write_text('\n'.join(markdown(report)) + '\n', encoding='utf-8')
    for row in report.rows:
        if row.seed in (None, 0) and row.draw == 0:  # one of several is enough
            name = f'confusion_{_file_name(row.encoder)}_{row.probe}'
            matrix = torch.from_numpy(row.found.confusion)
            write_confusion(folder / f'{name}.csv', matrix, report.chips.class_names)
            draw_confusion(folder / f'{name}.png', matrix, report.chips.class_names, unit='chips')
    draw_scores(report, folder / 'scores.png')
    if not report.chips.data.scenes.plain:
        parts = {'train': _ground(report.chips.train), 'test': _ground(report.chips.test)}
        save_split(folder, parts, report.chips.data.scenes)
    write_json(folder / 'results.json', _summary(report))  # last: it completes the folder


def markdown(report: ProbeReport) -> list[str]:
    """Format the results as a table."""
    names = list(next(iter(report.shared.values())))
    chips, settings = report.chips, report.settings
    lines = [
        f'{len(chips.class_names)} classes ({", ".join(chips.class_names)}). {_training(report)}, '
        f'{len(chips.test.labels)} test chips; split by {chips.split}.',
        '',
        f'{settings.level:.0%} intervals from {settings.resamples} bootstrap resamples of '
        f'{len(np.unique(report.groups))} {_unit(report)}.',
        '',
        f'| encoder | probe | {" | ".join(names)} | gain in {names[0]} over random initialisation |',
        f'|---|---|{"---|" * len(names)}---|',
    ]
    for (encoder, probe), scores in report.shared.items():
        gain = report.gains.get((encoder, probe))
        shown = [str(scores[name]) for name in names]
        seeds = len({row.seed for row in report.rows if (row.encoder, row.probe) == (encoder, probe)})
        label = f'{encoder}, mean of {seeds} seeds' if seeds > 1 else encoder
        lines.append(f'| {label} | {_PROBES[probe]} | {" | ".join(shown)} | {_signed(gain) if gain else ""} |')
    return [*lines, *_difference_table(report, names[0]), *_normalization(report)]


def _unit(report: ProbeReport) -> str:
    if report.settings.interval == 'chip':
        return 'chips'
    return 'images' if report.chips.data.scenes.plain else 'ground blocks'


def _training(report: ProbeReport) -> str:
    every, draws = len(report.chips.train.labels), report.chips.draws
    if len(draws[0]) == every:
        return f'{every} training chips'
    repeated = f', mean of {len(draws)} draws' if len(draws) > 1 else ''
    return f'{len(draws[0])} of {every} training chips{repeated}'


def _difference_table(report: ProbeReport, metric: str) -> list[str]:
    if not report.differences:
        return []
    lines = [
        '',
        f'Paired differences in {metric}:',
        '',
        '| encoder | minus | probe | difference |',
        '|---|---|---|---|',
    ]
    for (name, other, probe), found in report.differences.items():
        lines.append(f'| {name} | {other} | {_PROBES[probe]} | {_signed(found)} |')
    return lines


def _signed(found: Interval) -> str:
    return f'{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]'


def _normalization(report: ProbeReport) -> list[str]:
    """Describe the statistics for the normalization of each encoder, and the references of the gains."""
    names: dict[str, list[str]] = {}
    for encoder in report.encoders:
        names.setdefault(encoder.details['statistics'], []).append(encoder.name)
    statistics = [f'of the {whose}: {", ".join(dict.fromkeys(some))}' for whose, some in names.items()]
    partners = [f'{one.name} to {one.partner}' for one in report.encoders if one.partner is not None]
    gains = [f'Gains, with the same normalization on both sides: {"; ".join(partners)}.'] if partners else []
    return ['', ' '.join([f'Normalized with the statistics {"; ".join(statistics)}.', *gains])]


def draw_scores(report: ProbeReport, path: Path) -> None:
    """Plot the first score of every encoder with its interval, one panel per probe.

    Raises:
        OutputError: If the file cannot be written.
    """
    metric = next(iter(next(iter(report.shared.values()))))
    constant = next(scores[metric] for (_, probe), scores in report.shared.items() if probe == 'constant')
    probes = list(dict.fromkeys(probe for _, probe in report.shared if probe != 'constant'))
    names = list(dict.fromkeys(encoder for encoder, probe in report.shared if probe != 'constant'))
    given = {encoder.name for encoder in report.encoders if not encoder.baseline}
    figure = Figure(figsize=(2.5 + 3.5 * len(probes), 1.6 + 0.4 * len(names)), layout='constrained')
    panels = figure.subplots(1, len(probes), sharey=True, squeeze=False)[0]
    for axes, probe in zip(panels, probes, strict=True):
        for place, name in enumerate(names):
            found = report.shared[name, probe][metric]
            colour = 'tab:blue' if name in given else 'tab:gray'
            axes.plot([found.low, found.high], [place, place], color=colour, linewidth=3, alpha=0.5)
            draws = [r.scores[metric].value for r in report.rows if (r.encoder, r.probe) == (name, probe)]
            if len(draws) > 1:
                axes.plot(draws, [place] * len(draws), '|', color=colour, markersize=10)
            axes.plot(found.value, place, 'o', color=colour)
        axes.axvline(constant.value, color='tab:red', linestyle='--', linewidth=1)
        axes.set_title(_PROBES[probe])
        axes.set_xlabel(metric.replace('_', ' '))
        axes.grid(axis='x', alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.suptitle(f'{report.settings.level:.0%} intervals; red: best constant answer', fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _score_rows(report: ProbeReport) -> Iterator[dict[str, Any]]:
    chips = report.chips
    for row in report.rows:
        names = _names(row)
        counts = {
            'n_train': len(chips.draws[row.draw]),
            'n_test': len(chips.test.labels),
            'classes': len(chips.class_names),
        }
        for metric, found in row.scores.items():
            yield {'experiment': report.settings.experiment, 'metric': metric} | names | vars(found) | counts


def _names(row: ProbeRow) -> dict[str, Any]:
    seed = '' if row.seed is None else row.seed
    return {'encoder': row.encoder, 'probe': row.probe, 'seed': seed, 'draw': row.draw}


def _difference_rows(report: ProbeReport) -> Iterator[dict[str, Any]]:
    metric = next(iter(next(iter(report.shared.values()))))
    for key, found in report.differences.items():
        yield dict(zip(DIFFERENCE_COLUMNS, (*key, metric), strict=False)) | vars(found)


def _class_rows(report: ProbeReport) -> Iterator[dict[str, Any]]:
    for row in report.rows:
        names = _names(row)
        for name, scores in _class_scores(row, report.chips.class_names).items():
            yield names | {'class': name} | scores


def _class_scores(row: ProbeRow, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    matrix = torch.from_numpy(row.found.confusion)
    scores = {name: values.tolist() for name, values in class_scores(matrix).items()}
    return {
        name: {what: scores[what][i] for what in CLASS_SCORES} | {'chips': int(matrix[i].sum())}
        for i, name in enumerate(names)
    }


def _summary(report: ProbeReport) -> dict[str, Any]:
    chips, settings = report.chips, report.settings
    return {
        'experiment': settings.experiment,
        'classes': list(chips.class_names),
        'split': chips.split,
        'train': _counts(chips.train, chips.class_names),
        'test': _counts(chips.test, chips.class_names),
        'interval': {
            'level': settings.level,
            'resamples': settings.resamples,
            'drawn': settings.interval,
            'number': len(np.unique(report.groups)),
        },
        'encoders': [
            {'name': encoder.name, 'seed': encoder.seed, 'baseline': encoder.baseline} | encoder.details
            for encoder in report.encoders
        ],
        'results': [
            {'encoder': encoder, 'probe': probe, 'scores': {name: vars(found) for name, found in scores.items()}}
            | ({'gain over random initialisation': vars(gain)} if (gain := report.gains.get((encoder, probe))) else {})
            for (encoder, probe), scores in report.shared.items()
        ],
        'labels': {'draws': len(chips.draws), 'chips': len(chips.draws[0])},
        'differences': list(_difference_rows(report)),
        'rows': [
            {
                'encoder': row.encoder,
                'probe': row.probe,
                'seed': row.seed,
                'draw': row.draw,
                'scores': {name: vars(found) for name, found in row.scores.items()},
                'classes': _class_scores(row, chips.class_names),
                'confusion': row.found.confusion.tolist(),
            }
            for row in report.rows
        ],
    }


def _counts(chips: LabelledChips, names: tuple[str, ...]) -> dict[str, int]:
    return dict(zip(names, np.bincount(chips.labels, minlength=len(names)).tolist(), strict=True))


def _ground(chips: LabelledChips) -> Any:
    return shapely.union_all([shapely.box(x.start, y.start, x.stop, y.stop) for x, y, _ in chips.queries])


def _file_name(name: str) -> str:
    return re.sub(r'[^\w.-]+', '_', name).strip('_')
