"""Results grouped by condition."""

import json
from pathlib import Path

import pandas as pd
import pytest

from torchgeo_msssl.evaluation.baseline_names import BASELINES
from torchgeo_msssl.evaluation.study.conditions import (
    condition_label,
    estimates,
    main_axis,
    read_results,
    seed_means,
    values_of,
    varying_axes,
)
from torchgeo_msssl.evaluation.study.metrics import read_metrics
from torchgeo_msssl.evaluation.study.paired import paired_differences


def row(initialisation: str, value: float, **others: str) -> dict[str, str]:
    empty = {
        'fraction': '',
        'shots': '',
        'scenes': '',
        'variant': '',
        'steps': '',
        'seed': '0',
        'region': 'blocks',
        'metric': 'm',
    }
    return empty | {'initialisation': initialisation, 'value': repr(value)} | others


def test_values_by_condition_seed_and_region() -> None:
    rows = [row('a', 0.1, fraction='0.1'), row('a', 0.2, fraction='1.0'), row('a', 0.3, fraction='1.0', seed='1')]
    found = estimates(pd.DataFrame([*rows, row('a', 9.0, metric='other')]), 'm')
    assert [one.mean for one in found['estimate']] == pytest.approx([0.1, 0.25])
    assert [one.count for one in found['estimate']] == [1, 2]
    assert varying_axes(found) == ['fraction']
    assert main_axis(found) == 'fraction'
    assert [condition_label(one, ['fraction', 'shots']) for one in found.to_dict('records')] == [
        'a, fraction 0.1',
        'a, fraction 1.0',
    ]


def test_regions_are_averaged_within_a_seed_and_incomplete_seeds_wait() -> None:
    values = {('0', 'a'): 0.2, ('0', 'b'): 0.4, ('1', 'a'): 0.6, ('1', 'b'): 0.8, ('2', 'a'): 5.0}
    rows = [row('x', value, seed=seed, region=region) for (seed, region), value in values.items()]
    assert seed_means(values_of(pd.DataFrame(rows), 'm')) == pytest.approx([0.3, 0.7])


def test_a_group_counts_each_seed_and_region_once() -> None:
    """As for the threshold, which is the same for all initialisations."""
    table = pd.DataFrame([row('a', 0.1), row('b', 0.1), row('a', 0.3, seed='1'), row('b', 0.3, seed='1')])
    (found,) = estimates(table, 'm', ['fraction'])['estimate']
    assert (found.mean, found.count) == (pytest.approx(0.2), 2)
    (found,) = estimates(table, 'm', [])['estimate']
    assert (found.mean, found.count) == (pytest.approx(0.2), 2)
    assert len(estimates(table, 'none', [])) == 0


def test_the_axis_that_varies_is_drawn() -> None:
    scenes = [row('a', 0.1, shots='4', scenes=n) for n in ('1', '2')]
    assert main_axis(pd.DataFrame(scenes)) == 'scenes'
    assert main_axis(pd.DataFrame([row('a', 0.1, shots='4')])) == 'shots'
    assert main_axis(pd.DataFrame([row('a', 0.1)])) is None


def test_classifiers_of_pixels_are_initialisations_that_count_once(tmp_path: Path) -> None:
    """Cells of two initialisations repeat them, with the same value for the same seed."""
    rows = []
    for seed in ('0', '1'):
        for name, iou in (('random', 0.6), ('pretrained', 0.7)):
            test = tmp_path / f'{name}_{seed}'
            test.mkdir()
            scores = {score: iou for score in ('iou', 'f1', 'precision', 'recall')}
            ours = {'mean_iou': iou, 'accuracy': 0.9, 'classes': {'vine': scores}}
            theirs = ours | {'classes': {'vine': scores | {'iou': 0.8 + 0.1 * int(seed)}}}
            report = ours | {'baselines': {'logistic_texture': theirs}}
            (test / 'metrics_test.json').write_text(json.dumps(report))
            metrics = read_metrics(tmp_path / 'fit', test)
            rows += [row(name, value, seed=seed, metric=metric, cell=test.name) for metric, value in metrics.items()]
    pd.DataFrame(rows).to_csv(tmp_path / 'results.csv', index=False)
    table = read_results(tmp_path)
    found = estimates(table, 'test_iou_vine').set_index('initialisation')['estimate']
    assert list(found.index) == ['random', 'pretrained', BASELINES['logistic_texture']]
    assert (found.iloc[-1].mean, found.iloc[-1].count) == (pytest.approx(0.85), 2)
    differences = paired_differences(table, 'test_iou_vine', 'random').set_index('initialisation')
    one = differences.loc[BASELINES['logistic_texture']]
    assert (one['pairs'], one['wins']) == (2, 2)
    assert one['difference'] == pytest.approx(0.25)
