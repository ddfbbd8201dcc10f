"""Results of runs, probes and studies side by side."""

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.conditions import (
    AXES,
    Condition,
    Values,
    baseline_metric,
    by_seed,
    conditions,
    varying_axes,
)
from torchgeo_msssl.evaluation.study.metrics import read_metrics
from torchgeo_msssl.evaluation.study.statistics import Estimate, mean_interval
from torchgeo_msssl.files import atomic_path

matplotlib.use('agg')  # pictures go to files; a display need not exist

#: What a comparison writes.
COMPARISON = ('compare.md', 'compare.csv', 'compare.png')

_RUN_FILES = ('metrics_test.json', 'metrics.csv', 'knn.json')
_PROBE_COLUMNS = ('encoder', 'probe', 'metric', 'value', 'low', 'high', 'seed')
_STUDY_COLUMNS = (
    'cell', 'initialisation', 'fraction', 'shots', 'scenes', 'seed', 'region', 'metric', 'value', 'run',
)  # fmt: skip

#: What the run folder has to compare its own network with, under names of their own.
_OTHERS = {'baseline_': 'threshold on an index', 'everything_': 'everything is the class'}
_PANELS_IN_A_ROW = 2


@dataclass(frozen=True)
class Score:
    """A number with its interval.

    Attributes:
        result: Run, probe or study, by a short name.
        kind: ``run``, ``probe`` or ``study``.
        name: What was measured there: an encoder with its probe, an initialisation with its labels, or a baseline.
        metric: Name of the metric.
        value: The value, or the mean over seeds.
        low: Lower end of the 95 % interval, for several seeds of a probe the smallest value; NaN where there is none.
        high: Upper end, likewise.
        count: Seeds.
    """

    result: str
    kind: str
    name: str
    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    count: int = 1

    @property
    def label(self) -> str:
        """Result and name."""
        return f'{self.result}: {self.name}' if self.name else self.result

    def __str__(self) -> str:
        """``0.830 [0.809, 0.851]``, without brackets where there is no interval."""
        return f'{self.value:.3f}' + ('' if math.isnan(self.low) else f' [{self.low:.3f}, {self.high:.3f}]')


def compare(
    results: Sequence[str | os.PathLike[str]],
    metrics: Sequence[str] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> list[Score]:
    """Put the results of runs, probes and studies side by side.

    Args:
        results: Run folders, folders of probes, folders of studies.
        metrics: Metrics to show; None for all.
        output: Folder for ``compare.md``, ``compare.csv`` and ``compare.png``; None writes nothing.

    Returns:
        Scores of these metrics.

    Raises:
        ConfigurationError: If a folder has no results, or nobody measured a metric.
        OutputError: If a file cannot be written.
    """
    scores = read_scores([Path(result) for result in results])
    chosen = choose_metrics(scores, metrics)
    shown = [score for metric in chosen for score in scores if score.metric == metric]
    if output is not None:
        write_comparison(shown, Path(output))
    return shown


def read_scores(folders: Sequence[Path]) -> list[Score]:
    """Read the results in some folders.

    Args:
        folders: Run folders, folders of probes, folders of studies.

    Returns:
        Scores, in the order of the folders and of their files.

    Raises:
        ConfigurationError: If a folder is none of these, or has no results yet.
    """
    found = []
    for folder, name in zip(folders, _short_names(folders), strict=True):
        scores = [replace(score, result=name) for score in _read_folder(folder)]
        if not scores:
            raise ConfigurationError(f'{folder}: has no results yet; let it end, or leave it out.')
        found += scores
    return found


def choose_metrics(scores: Sequence[Score], metrics: Sequence[str] | None) -> list[str]:
    """Decide which metrics to show.

    Args:
        scores: All scores.
        metrics: Names that the user gave; None for all.

    Returns:
        Names in the order given, or in that of the scores.

    Raises:
        ConfigurationError: If nobody measured one of them.
    """
    known = list(dict.fromkeys(score.metric for score in scores))
    if strangers := [name for name in metrics or () if name not in known]:
        raise ConfigurationError(f'metric: nobody measured {", ".join(strangers)}; there are {", ".join(known)}.')
    return list(metrics or known)


def comparison_table(scores: Sequence[Score]) -> str:
    """Put scores into Markdown, a table a metric.

    Args:
        scores: Scores.

    Returns:
        The text; in each table the best value is not marked, since it depends on the metric what is better.
    """
    parts = []
    for metric in dict.fromkeys(score.metric for score in scores):
        rows = [score for score in scores if score.metric == metric]
        lines = [f'## {metric}', '', '| result | what | value | seeds |', '|---|---|---|---|']
        lines += [f'| {_cell(row.result)} | {_cell(row.name)} | {row} | {row.count} |' for row in rows]
        parts.append('\n'.join([*lines, '']))
    if any(not math.isnan(score.low) for score in scores):
        parts.append(
            'In brackets: for a probe its interval, drawn from blocks of ground or from chips (its results.md says '
            'which), or the smallest and the largest of several seeds; for a study the 95 % interval (Student) of the '
            'mean over seeds.\n'
        )
    return '\n'.join(parts)


def write_comparison(scores: Sequence[Score], output: Path) -> list[Path]:
    """Write ``compare.md``, ``compare.csv`` and ``compare.png``.

    Args:
        scores: Scores.
        output: Folder.

    Returns:
        The files.

    Raises:
        OutputError: If a file cannot be written.
    """
    paths = [output / name for name in COMPARISON]
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(comparison_table(scores), encoding='utf-8')
    with atomic_path(paths[1]) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(list(Score.__dataclass_fields__))
        writer.writerows([_blank_nan(value) for value in vars(score).values()] for score in scores)
    draw_comparison(paths[2], scores)
    return paths


def draw_comparison(path: Path, scores: Sequence[Score]) -> None:
    """Draw scores with their intervals, a panel a metric, a colour a result.

    Args:
        path: PNG to write.
        scores: Scores.

    Raises:
        OutputError: If the file cannot be written.
    """
    results = list(dict.fromkeys(score.result for score in scores))
    rows: dict[str, list[Score]] = {}
    for score in scores:
        rows.setdefault(score.metric, []).append(score)
    columns = min(_PANELS_IN_A_ROW, len(rows))
    lines = math.ceil(len(rows) / columns)
    tallest = max(len(found) for found in rows.values())
    figure = Figure(figsize=(7.5 * columns, (1.1 + 0.3 * tallest) * lines), layout='constrained')
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, (metric, found) in zip(panels, rows.items(), strict=False):
        for place, score in enumerate(found):
            colour = f'C{results.index(score.result) % 10}'
            if not math.isnan(score.low):
                axes.plot([score.low, score.high], [place, place], color=colour, linewidth=3, alpha=0.4)
            axes.plot(score.value, place, 'o', color=colour, markersize=5)
        axes.set_yticks(range(len(found)), [score.label for score in found], fontsize=7)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_title(metric, fontsize=9)
        axes.grid(axis='x', alpha=0.3)
    for axes in panels[len(rows) :]:
        axes.axis('off')
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def is_study(folder: Path) -> bool:
    """Whether a folder is that of a study, by its ``results.csv``."""
    return _kind_of(folder) == 'study'


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a table.

    Args:
        path: CSV file.

    Returns:
        Rows by column.

    Raises:
        ConfigurationError: If it is no text in UTF-8.
    """
    try:
        with path.open(newline='', encoding='utf-8') as file:
            return list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f'{path}: cannot be read as CSV ({error}); write it again.') from error


def _kind_of(folder: Path) -> str | None:
    if (folder / 'results.csv').is_file():
        with (folder / 'results.csv').open(newline='', encoding='utf-8', errors='replace') as file:
            columns = next(csv.reader(file), [])
        for kind, needed in (('study', _STUDY_COLUMNS), ('probe', _PROBE_COLUMNS)):
            if set(needed) <= set(columns):
                return kind
    return 'run' if any((folder / name).is_file() for name in _RUN_FILES) else None


def _read_folder(folder: Path) -> Iterator[Score]:
    kind = _kind_of(folder)
    if kind is None:
        inside = sorted(folder.glob('version_*')) if folder.is_dir() else []
        advice = f'name one of its runs, such as {inside[-1]}' if inside else 'check the path'
        msg = (
            f'{folder}: expected a run folder ({", ".join(_RUN_FILES)}), or the folder of a probe or a study '
            f'(results.csv with their columns); {advice}.'
        )
        raise ConfigurationError(msg)
    try:
        yield from {'run': _read_run, 'probe': _read_probe, 'study': _read_study}[kind](folder)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f'{folder}: its results cannot be read ({error}); write them again.') from error


def _read_run(folder: Path) -> Iterator[Score]:
    for metric, value in read_metrics(folder, folder).items():
        name, metric = _baseline_of(metric)
        yield Score('', 'run', name, metric, value)


def _baseline_of(metric: str) -> tuple[str, str]:
    """Name of a baseline (empty for the network itself), and the metric that it can be compared in."""
    for prefix, name in _OTHERS.items():
        if metric.startswith(prefix):
            return name, f'test_{metric.removeprefix(prefix)}'
    for score in ('knn_balanced_accuracy', 'knn_accuracy'):
        if metric.startswith(f'{score}_'):
            return metric.removeprefix(f'{score}_').replace('_', ' '), score
    return '', metric


def _read_probe(folder: Path) -> Iterator[Score]:
    groups: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for row in read_csv(folder / 'results.csv'):
        groups.setdefault((row['metric'], row['encoder'], row['probe']), []).append(row)
    for (metric, encoder, probe), rows in groups.items():
        values = [float(row['value']) for row in rows]
        ends = min(values), max(values)
        if len(rows) == 1:
            ends = float(rows[0]['low'] or 'nan'), float(rows[0]['high'] or 'nan')
        yield Score('', 'probe', f'{encoder}, {probe}', metric, sum(values) / len(values), *ends, len(values))


def _read_study(folder: Path) -> Iterator[Score]:
    rows = [dict.fromkeys(AXES, '') | row for row in read_csv(folder / 'results.csv')]
    for metric in study_metrics(folder, rows):
        found = conditions(rows, metric)
        varying = varying_axes(found)
        # the threshold depends on labels and ground alone, not on the initialisation
        thresholds: dict[Condition, Values] = {}
        for condition, values in conditions(rows, baseline_metric(metric)).items():
            thresholds.setdefault(replace(condition, initialisation=_OTHERS['baseline_']), {}).update(values)
        for condition, values in (found | thresholds).items():
            numbers = _numbers(mean_interval(by_seed(values)))
            yield Score('', 'study', condition.label(varying=varying), metric, *numbers)


def study_metrics(folder: Path, rows: Iterable[dict[str, str]]) -> list[str]:
    """Metrics that a study shows.

    Args:
        folder: Folder of the study.
        rows: Rows of its ``results.csv``.

    Returns:
        Those that its ``study.json`` names and that were measured; without that file all of them.
    """
    known = list(dict.fromkeys(row['metric'] for row in rows))
    wanted = read_plan(folder).get('metrics', known)
    return [metric for metric in wanted if metric in known] or known


def read_plan(folder: Path) -> dict[str, Any]:
    """What a study notes of itself in ``study.json``.

    Args:
        folder: Folder of the study.

    Returns:
        ``name``, ``metrics``, ``reference``, ``cells``; empty where there is no such file.

    Raises:
        ConfigurationError: If the file is damaged.
    """
    path = folder / 'study.json'
    if not path.is_file():
        return {}
    try:
        plan = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ConfigurationError(f'{path}: is no JSON ({error}); run the study again, it goes on.') from error
    return plan if isinstance(plan, dict) else {}


def _numbers(estimate: Estimate) -> tuple[float, float, float, int]:
    return estimate.mean, estimate.low, estimate.high, estimate.count


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Names that tell folders apart: ``experiment/version_N`` or the last part, longer where that is taken."""
    parts = [folder.absolute().parts for folder in folders]
    names = []
    for own in parts:
        length = 2 if own[-1].startswith('version_') else 1
        while length < len(own) and sum(own[-length:] == other[-length:] for other in set(parts)) > 1:
            length += 1
        names.append('/'.join(own[-length:]))
    return names


def _cell(text: str) -> str:
    return text.replace('|', '\\|').replace('\n', ' ')


def _blank_nan(value: Any) -> Any:
    return '' if isinstance(value, float) and math.isnan(value) else value
