"""Comparison of runs, probes and studies."""

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.baseline_names import baseline_of
from torchgeo_msssl.evaluation.study.conditions import (
    AXES,
    baseline_metric,
    condition_label,
    estimates,
    read_results,
    read_table,
    varying_axes,
)
from torchgeo_msssl.evaluation.study.metrics import read_metrics
from torchgeo_msssl.files import atomic_path

matplotlib.use('agg')  # figures are written to files, without a display

#: Files of a comparison.
COMPARISON = ('compare.md', 'compare.csv', 'compare.png')

_RUN_FILES = ('metrics_test.json', 'metrics.csv', 'knn.json')
_PROBE_COLUMNS = ('encoder', 'probe', 'metric', 'value', 'low', 'high', 'seed')
_STUDY_COLUMNS = (
    *('cell', 'initialisation', 'fraction', 'shots', 'scenes', 'seed', 'region', 'metric', 'value', 'run'),
)

#: Baselines in a run folder by the prefix of their metrics.
_BASELINES = {'baseline_': 'threshold on an index', 'everything_': 'everything is the class'}
_PANELS_IN_A_ROW = 2


@dataclass(frozen=True)
class Score:
    """A number with its interval.

    Attributes:
        result: Short name of the run, probe or study.
        kind: ``run``, ``probe`` or ``study``.
        name: Encoder with its probe, initialisation with its labels, or baseline; empty for the network of a run.
        metric: Name of the metric.
        value: Value, or mean over seeds.
        low: Lower end of the 95 % interval, or the smallest value of several seeds of a probe; NaN without any.
        high: Upper end, or the largest value.
        count: Number of seeds.
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
        """``0.830 [0.809, 0.851]``, without brackets if there is no interval."""
        return f'{self.value:.3f}' + ('' if math.isnan(self.low) else f' [{self.low:.3f}, {self.high:.3f}]')


def compare(
    results: Sequence[str | os.PathLike[str]],
    metrics: Sequence[str] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> list[Score]:
    """Compare the results of runs, probes and studies.

    Args:
        results: Run folders, folders of probes, folders of studies.
        metrics: Metrics to show; None for all.
        output: Folder for ``compare.md``, ``compare.csv`` and ``compare.png``; None writes nothing.

    Raises:
        ConfigurationError: If a folder has no results, or none of them has a metric.
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

    Returns:
        Scores, in the order of the folders and of their files.

    Raises:
        ConfigurationError: If a folder is none of these, or has no results yet.
    """
    found = []
    for folder, name in zip(folders, _short_names(folders), strict=True):
        scores = [replace(score, result=name) for score in _read_folder(folder)]
        if not scores:
            raise ConfigurationError(f'{folder}: has no results yet; wait for it to end, or leave it out.')
        found += scores
    return found


def choose_metrics(scores: Sequence[Score], metrics: Sequence[str] | None) -> list[str]:
    """Choose the metrics to show.

    Args:
        scores: All scores.
        metrics: Requested names; None for all.

    Returns:
        Names in the order given, or in that of the scores.

    Raises:
        ConfigurationError: If no score has one of them.
    """
    known = list(dict.fromkeys(score.metric for score in scores))
    if unknown := [name for name in metrics or () if name not in known]:
        raise ConfigurationError(f'metric: unknown metric {", ".join(unknown)}; available: {", ".join(known)}.')
    return list(metrics or known)


def comparison_table(scores: Sequence[Score]) -> str:
    """Format scores in Markdown, one table per metric.

    Returns:
        The text; the best value is not marked, because it depends on the metric whether more is better.
    """
    parts = []
    for metric in dict.fromkeys(score.metric for score in scores):
        rows = [score for score in scores if score.metric == metric]
        lines = [f'## {metric}', '', '| result | what | value | seeds |', '|---|---|---|---|']
        lines += [f'| {_cell(row.result)} | {_cell(row.name)} | {row} | {row.count} |' for row in rows]
        parts.append('\n'.join([*lines, '']))
    if any(not math.isnan(score.low) for score in scores):
        parts.append(
            'In brackets: for a probe its bootstrap interval over ground blocks or chips (see its results.md), or the '
            'smallest and the largest value of several seeds; for a study the 95 % interval (Student) of the mean over '
            'seeds.\n'
        )
    return '\n'.join(parts)


def write_comparison(scores: Sequence[Score], output: Path) -> list[Path]:
    """Write ``compare.md``, ``compare.csv`` and ``compare.png``.

    Raises:
        OutputError: If a file cannot be written.
    """
    paths = [output / name for name in COMPARISON]
    with atomic_path(paths[0]) as temporary:
        temporary.write_text(comparison_table(scores), encoding='utf-8')
    with atomic_path(paths[1]) as temporary:
        pd.DataFrame(map(vars, scores)).to_csv(temporary, index=False)
    draw_comparison(paths[2], scores)
    return paths


def draw_comparison(path: Path, scores: Sequence[Score]) -> None:
    """Plot scores with their intervals, one panel per metric and one colour per result.

    Raises:
        OutputError: If the file cannot be written.
    """
    results = list(dict.fromkeys(score.result for score in scores))
    metrics = list(dict.fromkeys(score.metric for score in scores))
    panels_of = {metric: [score for score in scores if score.metric == metric] for metric in metrics}
    columns = min(_PANELS_IN_A_ROW, len(metrics))
    lines = math.ceil(len(metrics) / columns)
    tallest = max(map(len, panels_of.values()))
    figure = Figure(figsize=(7.5 * columns, (1.1 + 0.3 * tallest) * lines), layout='constrained')
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, (metric, found) in zip(panels, panels_of.items(), strict=False):
        for place, score in enumerate(found):
            colour = f'C{results.index(score.result) % 10}'
            if not math.isnan(score.low):
                axes.plot([score.low, score.high], [place, place], color=colour, linewidth=3, alpha=0.4)
            axes.plot(score.value, place, 'o', color=colour, markersize=5)
        axes.set_yticks(range(len(found)), [score.label for score in found], fontsize=7)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.set_title(metric, fontsize=9)
        axes.grid(axis='x', alpha=0.3)
    for axes in panels[len(metrics) :]:
        axes.axis('off')
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def is_study(folder: Path) -> bool:
    """Tell whether a folder is that of a study, by its ``results.csv``."""
    return _kind_of(folder) == 'study'


def _kind_of(folder: Path) -> str | None:
    if (folder / 'results.csv').is_file():
        columns = set(read_table(folder / 'results.csv').columns)
        for kind, needed in (('study', _STUDY_COLUMNS), ('probe', _PROBE_COLUMNS)):
            if set(needed) <= columns:
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
    """Name of a baseline (empty for the network itself), and the metric to compare it in."""
    if found := baseline_of(metric):
        return found
    for prefix, name in _BASELINES.items():
        if metric.startswith(prefix):
            return name, f'test_{metric.removeprefix(prefix)}'
    for score in ('knn_balanced_accuracy', 'knn_accuracy'):
        if metric.startswith(f'{score}_'):
            return metric.removeprefix(f'{score}_').replace('_', ' '), score
    return '', metric


def _read_probe(folder: Path) -> Iterator[Score]:
    table = read_table(folder / 'results.csv')
    numbers = {name: table[name].map(lambda text: float(text or 'nan')) for name in ('value', 'low', 'high')}
    for (metric, encoder, probe), rows in table.assign(**numbers).groupby(['metric', 'encoder', 'probe'], sort=False):
        values = rows['value']
        ends = (rows['low'].iloc[0], rows['high'].iloc[0]) if len(rows) == 1 else (values.min(), values.max())
        low, high = map(float, ends)
        yield Score('', 'probe', f'{encoder}, {probe}', metric, float(values.mean()), low, high, len(values))


def _read_study(folder: Path) -> Iterator[Score]:
    table = read_results(folder)
    for metric in study_metrics(folder, table):
        found = estimates(table, metric)
        # the threshold depends on labels and ground alone, not on the initialisation
        thresholds = estimates(table, baseline_metric(metric), AXES).assign(initialisation=_BASELINES['baseline_'])
        axes = varying_axes(found)
        for row in [*found.to_dict('records'), *thresholds.to_dict('records')]:
            one = row['estimate']
            yield Score('', 'study', condition_label(row, axes), metric, one.mean, one.low, one.high, one.count)


def study_metrics(folder: Path, table: pd.DataFrame) -> list[str]:
    """List the metrics that a study shows.

    Args:
        folder: Folder of the study.
        table: Rows of its ``results.csv``.

    Returns:
        Metrics with results that its ``study.json`` names; all of them without that file.
    """
    known = list(table['metric'].unique())
    wanted = read_plan(folder).get('metrics', known)
    return [metric for metric in wanted if metric in known] or known


def read_plan(folder: Path) -> dict[str, Any]:
    """Read ``study.json``.

    Returns:
        ``name``, ``metrics``, ``reference``, ``cells``; empty without such a file.

    Raises:
        ConfigurationError: If the file is damaged.
    """
    path = folder / 'study.json'
    if not path.is_file():
        return {}
    try:
        plan = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ConfigurationError(f'{path}: is not valid JSON ({error}); rerun the study to resume.') from error
    return plan if isinstance(plan, dict) else {}


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Unique names: ``experiment/version_N`` or the last part of the path, longer if that is not unique."""
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
