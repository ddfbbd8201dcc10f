"""Hand-made results of probes, studies and runs."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows as CSV and give the folder they are in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path.parent


def study_rows(
    initialisations: Sequence[str] = ('random', 'fastsiam'),
    fractions: Sequence[float] = (0.1, 1.0),
    seeds: int = 3,
    regions: Sequence[str] = ('blocks',),
) -> list[dict[str, Any]]:
    """Rows of a study in which the second initialisation is better by 0.1 at the first fraction, worse at the last."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for fraction in fractions:
            for number, initialisation in enumerate(initialisations):
                for region in regions:
                    cell = f'{initialisation}_{fraction}_{region}_{seed}'
                    gain = number * (0.1 if fraction < 1 else -0.1)
                    common = {
                        'study': 'vines',
                        'cell': cell,
                        'initialisation': initialisation,
                        'fraction': fraction,
                        'shots': '',
                        'scenes': '',
                        'seed': seed,
                        'region': region,
                    }
                    last = {'seconds': 10 + seed, 'run': f'cells/{cell}', 'command': f'fit --name "{cell}" && test'}
                    values = {
                        'test_iou_vine': 0.5 + gain + rng.normal(0, 0.01),
                        'baseline_iou_vine': 0.3 + 0.01 * seed,
                        'train_loss': rng.random(),
                    }
                    rows += [common | {'metric': name, 'value': value} | last for name, value in values.items()]
    return rows


def write_study(folder: Path, **options: Any) -> Path:
    """Write a study's ``results.csv`` and ``study.json``."""
    plan = {'name': 'vines', 'metrics': ['test_iou_vine'], 'reference': 'random', 'cells': ['a'] * 30}
    write_table(folder / 'results.csv', study_rows(**options))
    (folder / 'study.json').write_text(json.dumps(plan), encoding='utf-8')
    return folder


def write_probe(folder: Path) -> Path:
    """Write a probe's ``results.csv``: an encoder with an interval, and a baseline with three seeds."""
    common = {'experiment': 'probe', 'n_train': 50, 'n_test': 40, 'classes': 3, 'probe': 'knn', 'metric': 'accuracy'}
    rows = [common | {'encoder': 'runs/a | b', 'value': 0.8, 'low': 0.7, 'high': 0.9, 'seed': ''}]
    for seed, value in enumerate((0.4, 0.5, 0.6)):
        random = {'encoder': 'random initialisation', 'value': value, 'low': 0.1, 'high': 0.9, 'seed': seed}
        rows.append(common | random)
    return write_table(folder / 'results.csv', rows)


def write_run(folder: Path) -> Path:
    """Write what the test of a segmentation and the probe of a pretraining leave."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = {'iou': 0.83, 'f1': 0.9, 'precision': 0.92, 'recall': 0.89}
    report = {'mean_iou': 0.9, 'accuracy': 0.97, 'pixels': 100, 'classes': {'vine': scores | {'pixels': 30}}}
    baseline = {'class': 'vine', 'threshold': {}, 'scores': {'network': scores, 'NDVI > 0.7': {'iou': 0.38}}}
    knn = {'pretrained': {'accuracy': 0.6}, 'random initialisation': {'accuracy': 0.4}}
    for name, content in (('metrics_test', report), ('baseline', baseline), ('knn', knn)):
        (folder / f'{name}.json').write_text(json.dumps(content), encoding='utf-8')
    return folder
