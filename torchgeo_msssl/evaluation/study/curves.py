"""Label-efficiency curves: a metric against labels, with bands over seeds."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter, NullLocator

from torchgeo_msssl.evaluation.study.conditions import (
    Condition,
    Row,
    Values,
    baseline_metric,
    by_seed,
    conditions,
    main_axis,
    varying_axes,
)
from torchgeo_msssl.evaluation.study.statistics import Estimate, mean_interval
from torchgeo_msssl.files import atomic_path

matplotlib.use('agg')  # pictures go to files; a display need not exist

_TITLES = {
    'fraction': 'share of the training labels', 'shots': 'labelled training blocks', 'scenes': 'scenes with labels',
    'variant': '',
}  # fmt: skip
_MARKERS = 'osD^vP*X'


def draw_curves(path: Path, rows: Sequence[Row], metrics: Sequence[str]) -> None:
    """Draw each metric against the main axis of a study, a line an initialisation.

    Bands are 95 % intervals of the mean over seeds. A dashed line is the threshold that tests compare with.

    Args:
        path: PNG to write.
        rows: Rows of ``results.csv``.
        metrics: Names of the metrics, one panel each.

    Raises:
        OutputError: If the file cannot be written.
    """
    figure = Figure(figsize=(6 * len(metrics), 4.5), layout='constrained')
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False).flat, metrics, strict=True):
        _draw_metric(axes, rows, metric)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_metric(axes: Any, rows: Sequence[Row], metric: str) -> None:
    found = conditions(rows, metric)
    axis = main_axis(found)
    axes.set_title(metric)
    if axis is None:
        _draw_single(axes, found)
        return
    ticks = _positions(found, axis)
    varying = varying_axes(found)
    lines: dict[str, dict[float, Estimate]] = {}
    for condition, values in found.items():
        points = lines.setdefault(condition.label(axis, varying), {})
        points[ticks[condition.value(axis)]] = mean_interval(by_seed(values))
    for number, (label, points) in enumerate(lines.items()):
        _draw_line(axes, label, points, f'C{number}', _MARKERS[number % len(_MARKERS)], joined=_are_numbers(ticks))
    _draw_baseline(axes, rows, metric, axis, ticks)
    _set_ticks(axes, axis, ticks)
    means = [estimate.mean for points in lines.values() for estimate in points.values()]
    if all(0 <= mean <= 1 for mean in means):  # shares: an interval of few seeds may reach beyond what they can be
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _draw_line(axes: Any, label: str, points: dict[float, Estimate], colour: str, marker: str, *, joined: bool) -> None:
    """Points with intervals; between names there is nothing to join."""
    x = sorted(points)
    mean = [points[position].mean for position in x]
    half = [0.0 if math.isnan(points[position].half) else points[position].half for position in x]
    low, high = ([m + sign * h for m, h in zip(mean, half, strict=True)] for sign in (-1, 1))
    seeds = {points[position].count for position in x}
    told = f'{min(seeds)}–{max(seeds)}' if len(seeds) > 1 else f'{min(seeds)}'
    style = '-' if joined else 'none'
    axes.plot(x, mean, color=colour, linestyle=style, marker=marker, markersize=5, label=f'{label} ({told} seeds)')
    if joined:
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.errorbar(x, mean, yerr=half, color=colour, fmt='none', capsize=3, linewidth=1)


def _draw_baseline(axes: Any, rows: Sequence[Row], metric: str, axis: str, ticks: dict[str, float]) -> None:
    """The threshold depends on labels and region alone: that of each seed and region counts once."""
    points: dict[float, Values] = {}
    for condition, values in conditions(rows, baseline_metric(metric)).items():
        points.setdefault(ticks[condition.value(axis)], {}).update(values)
    if points:
        x = sorted(points)
        mean = [mean_interval(by_seed(points[position])).mean for position in x]
        axes.plot(x, mean, color='black', linestyle='--', linewidth=1, marker='.', label='threshold on an index')


def _draw_single(axes: Any, found: dict[Condition, Values]) -> None:
    """One point an initialisation, where nothing else varies."""
    for number, values in enumerate(found.values()):
        estimate = mean_interval(by_seed(values))
        half = 0.0 if math.isnan(estimate.half) else estimate.half
        axes.errorbar([number], [estimate.mean], yerr=[half], fmt='o', color=f'C{number}', capsize=4)
    axes.set_xticks(range(len(found)), [condition.initialisation for condition in found])
    axes.set_xlim(-0.5, len(found) - 0.5)
    axes.grid(alpha=0.3)


def _positions(found: dict[Condition, Values], axis: str) -> dict[str, float]:
    """Places on the axis: the numbers themselves, or the order of names that are none."""
    texts = list(dict.fromkeys(condition.value(axis) for condition in found))
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
    labels = [_tick(axis, names[place]) for place in places]
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FixedFormatter(labels))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(_TITLES[axis])


def _tick(axis: str, text: str) -> str:
    return f'{100 * float(text):.3g} %' if axis == 'fraction' else text
