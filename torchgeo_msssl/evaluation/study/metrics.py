"""Metrics from the run folders of a cell."""

import csv
import json
import math
from pathlib import Path
from typing import Any, Literal

from torchgeo_msssl.tasks.confusion import CLASS_SCORES
from torchgeo_msssl.tasks.segmentation_figures import metric_name

#: Columns of ``metrics.csv`` whose last value is collected, with their names in the results.
_LAST = {'train_loss_epoch': 'train_loss', 'rank_me': 'rank_me', 'mean_cosine': 'mean_cosine', 'val_loss': 'val_loss'}


def read_metrics(fit: Path, test: Path | None, part: Literal['test', 'val'] = 'test') -> dict[str, float]:
    """Collect scores and losses.

    Args:
        fit: Run folder of the training.
        test: Run folder of the test or of the validation, None without one.
        part: Ground whose scores are collected.

    Returns:
        ``test_mean_iou``, ``test_accuracy``, ``test_iou_CLASS``, … (``val_…`` of a validation); the same of classifiers
        of pixels, with their keys (:data:`.baseline_names.BASELINES`) instead of ``test``; ``baseline_iou_CLASS`` if
        the test compared with a threshold; ``knn_accuracy`` if training probed its encoder; ``train_loss`` and others
        at the end of training.
    """
    found = _last_values(fit / 'metrics.csv') | _probe(fit / 'knn.json')
    if test is not None:
        found |= _scores(test / f'metrics_{part}.json', part) | _baseline(test / 'baseline.json')
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}


def _scores(path: Path, part: str) -> dict[str, float]:
    report = _read(path)
    scores = _report_scores(part, report)
    for key, baseline in report.get('baselines', {}).items():
        scores |= _report_scores(key, baseline)
    return _numbers(scores)


def _report_scores(prefix: str, report: dict[str, Any]) -> dict[str, Any]:
    scores = {f'{prefix}_{name}': report[name] for name in ('mean_iou', 'accuracy') if name in report}
    for name, values in report.get('classes', {}).items():
        scores |= {f'{prefix}_{score}_{metric_name(name)}': values[score] for score in CLASS_SCORES}
    return scores


def _baseline(path: Path) -> dict[str, float]:
    """Scores of the threshold, and those of assigning the class everywhere."""
    report = _read(path)
    found: dict[str, Any] = {}
    for name, scores in report.get('scores', {}).items():
        if name != 'network':
            kind = name if name == 'everything' else 'baseline'
            found |= {f'{kind}_{score}_{metric_name(report["class"])}': value for score, value in scores.items()}
    return _numbers(found)


def _probe(path: Path) -> dict[str, float]:
    found: dict[str, Any] = {}
    for name, result in _read(path).items():
        who = '' if name == 'pretrained' else f'_{metric_name(name)}'
        if isinstance(result, dict):
            found |= {f'knn_{score}{who}': result.get(score) for score in ('accuracy', 'balanced_accuracy')}
    return _numbers(found)


def _last_values(path: Path) -> dict[str, float]:
    if not path.is_file():
        return {}
    with path.open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    last = {column: [row[column] for row in rows if row.get(column)][-1:] for column in _LAST}
    return {_LAST[column]: float(values[0]) for column, values in last.items() if values}


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
