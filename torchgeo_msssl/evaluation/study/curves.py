"""Label-efficiency curves: a metric against labels, with intervals over seeds."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

from torchgeo_msssl.evaluation.study.conditions import (
    baseline_metric,
    condition_label,
    estimates,
    main_axis,
    varying_axes,
)
from torchgeo_msssl.files import atomic_path

matplotlib.use('agg')  # figures are written to files, without a display

_TITLES = {
    'fraction': 'fraction of the training labels',
    'shots': 'labelled training blocks',
    'scenes': 'scenes with labels',
    'variant': '',
    'steps': 'optimizer steps',
}
_MARKERS = 'osD^vP*X'


def draw_curves(path: Path, table: pd.DataFrame, metrics: Sequence[str]) -> None:
    """Plot each metric against the main axis of a study, one line per initialisation.

    Bands are 95 % intervals of the mean over seeds. A dashed line is the threshold that tests compare with.

    Args:
        path: PNG to write.
        table: Rows of ``results.csv``.
        metrics: Names of the metrics, one panel each.

    Raises:
        OutputError: If the file cannot be written.
    """
    figure = Figure(figsize=(6 * len(metrics), 4.5), layout='constrained')
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False).flat, metrics, strict=True):
        _draw_metric(axes, table, metric)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_metric(axes: Any, table: pd.DataFrame, metric: str) -> None:
    found = estimates(table, metric)
    axis = main_axis(found)
    axes.set_title(metric)
    axes.grid(alpha=0.3)
    if axis is None:
        _draw_points(axes, found)
        return
    ticks = _positions(found[axis])
    others = [name for name in varying_axes(found) if name != axis]
    found = found.assign(x=found[axis].map(ticks), mean=[estimate.mean for estimate in found['estimate']])
    found['label'] = [condition_label(row, others) for row in found.to_dict('records')]
    for number, (label, points) in enumerate(found.groupby('label', sort=False)):
        style = {'color': f'C{number}', 'marker': _MARKERS[number % len(_MARKERS)]}
        _draw_line(axes, str(label), points.sort_values('x'), style, joined=_are_numbers(ticks))
    _draw_baseline(axes, table, metric, axis, ticks)
    _set_ticks(axes, axis, ticks)
    if found['mean'].between(0, 1).all():  # an interval of few seeds may reach beyond the range of a fraction
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 1))
    axes.legend(fontsize=8)


def _draw_line(axes: Any, label: str, points: pd.DataFrame, style: dict[str, str], *, joined: bool) -> None:
    """Draw points with intervals, joined by a line unless the positions are names."""
    x, mean = points['x'], points['mean']
    half = pd.Series([estimate.half for estimate in points['estimate']], points.index).fillna(0)
    counts = {estimate.count for estimate in points['estimate']}
    seeds = f'{min(counts)}–{max(counts)}' if len(counts) > 1 else f'{min(counts)}'
    line = '-' if joined else 'none'
    axes.plot(x, mean, linestyle=line, markersize=5, label=f'{label} ({seeds} seeds)', **style)
    if joined:
        axes.fill_between(x, mean - half, mean + half, color=style['color'], alpha=0.15, linewidth=0)
    axes.errorbar(x, mean, yerr=half, color=style['color'], fmt='none', capsize=3, linewidth=1)


def _draw_baseline(axes: Any, table: pd.DataFrame, metric: str, axis: str, ticks: dict[str, float]) -> None:
    """Draw the threshold, which depends on labels and region alone: each seed and region counts once."""
    found = estimates(table, baseline_metric(metric), [axis])
    if len(found):
        points = sorted((ticks[row[axis]], row['estimate'].mean) for row in found.to_dict('records'))
        x, mean = zip(*points, strict=True)
        axes.plot(x, mean, color='black', linestyle='--', linewidth=1, marker='.', label='threshold on an index')


def _draw_points(axes: Any, found: pd.DataFrame) -> None:
    """Draw one point per initialisation of a study without axes."""
    for number, estimate in enumerate(found['estimate']):
        half = 0.0 if math.isnan(estimate.half) else estimate.half
        axes.errorbar([number], [estimate.mean], yerr=[half], fmt='o', color=f'C{number}', capsize=4)
    axes.set_xticks(range(len(found)), list(found['initialisation']))
    axes.set_xlim(-0.5, len(found) - 0.5)


def _positions(values: Iterable[str]) -> dict[str, float]:
    """Positions on the axis: the numbers themselves, or the order of other values."""
    texts = list(dict.fromkeys(values))
    return {text: float(text) if _are_numbers(texts) else float(number) for number, text in enumerate(texts)}


def _are_numbers(texts: Iterable[str]) -> bool:
    try:
        return all(math.isfinite(float(text)) for text in texts)
    except ValueError:
        return False


def _set_ticks(axes: Any, axis: str, ticks: dict[str, float]) -> None:
    places = sorted(set(ticks.values()))
    names = {place: text for text, place in ticks.items()}
    if not _are_numbers(ticks):
        axes.tick_params('x', rotation=30)
    elif min(places) > 0:
        axes.set_xscale('log')
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FixedFormatter([axis_value(axis, names[place]) for place in places]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(_TITLES[axis])


def axis_value(axis: str, text: str) -> str:
    """Format a value of an axis, fractions as percentages."""
    return f'{100 * float(text):.3g} %' if axis == 'fraction' and text else text
