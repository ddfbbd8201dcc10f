"""Comparisons against what pandas and scipy make of the same tables."""

import csv
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from scipy import stats

from tests.evaluation.tables import write_probe, write_run, write_study, write_table
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.compare import Score, compare, comparison_table


def by_name(scores: list[Score]) -> dict[tuple[str, str], Score]:
    return {(score.name, score.metric): score for score in scores}


def test_means_of_a_study_are_those_of_pandas(tmp_path: Path) -> None:
    """Regions are averaged within a seed first; a seed that lacks one is left out."""
    folder = write_study(tmp_path / 'study', regions=('north', 'south'))
    table = pd.read_csv(folder / 'results.csv')
    found = by_name(compare([folder]))
    known = table[table['metric'] == 'test_iou_vine']
    seeds = known.groupby(['initialisation', 'fraction', 'seed'])['value'].mean()
    for (initialisation, fraction), values in seeds.groupby(['initialisation', 'fraction']):
        score = found[f'{initialisation}, fraction {fraction}', 'test_iou_vine']
        low, high = stats.t.interval(0.95, 2, values.mean(), values.std(ddof=1) / math.sqrt(3))
        assert (score.value, score.low, score.high) == pytest.approx((values.mean(), low, high))
        assert score.count == 3
    assert found['threshold on an index, fraction 0.1', 'test_iou_vine'].value == pytest.approx(0.31)
    assert {metric for _, metric in found} == {'test_iou_vine'}  # what study.json names


def test_a_study_without_its_plan_shows_all_metrics(tmp_path: Path) -> None:
    folder = write_study(tmp_path / 'study')
    (folder / 'study.json').unlink()
    assert {score.metric for score in compare([folder])} == {'test_iou_vine', 'baseline_iou_vine', 'train_loss'}


def test_probes_have_their_own_intervals_or_the_range_of_seeds(tmp_path: Path) -> None:
    found = by_name(compare([write_probe(tmp_path / 'probe')]))
    one, several = found['runs/a | b, knn', 'accuracy'], found['random initialisation, knn', 'accuracy']
    assert (one.value, one.low, one.high, one.count) == (0.8, 0.7, 0.9, 1)
    assert (several.value, several.low, several.high, several.count) == pytest.approx((0.5, 0.4, 0.6, 3))


def test_runs_are_shown_beside_their_baselines(tmp_path: Path) -> None:
    found = by_name(compare([write_run(tmp_path / 'runs' / 'a' / 'version_0')]))
    assert found['', 'test_iou_vine'].value == 0.83
    assert found['threshold on an index', 'test_iou_vine'].value == 0.38
    assert found['', 'knn_accuracy'].value == 0.6
    assert found['random initialisation', 'knn_accuracy'].value == 0.4
    assert math.isnan(found['', 'knn_accuracy'].low)
    assert {score.result for score in found.values()} == {'a/version_0'}


def test_files_of_a_comparison(tmp_path: Path) -> None:
    folders = [
        write_study(tmp_path / 'study'),
        write_probe(tmp_path / 'probe'),
        write_run(tmp_path / 'a' / 'version_3'),
    ]
    scores = compare(folders, ['accuracy', 'test_iou_vine'], tmp_path / 'out')
    assert [score.metric for score in scores] == ['accuracy'] * 2 + ['test_iou_vine'] * 8
    with (tmp_path / 'out' / 'compare.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [float(row['value']) for row in rows] == [score.value for score in scores]
    assert [row['low'] == '' for row in rows] == [math.isnan(score.low) for score in scores]
    text = (tmp_path / 'out' / 'compare.md').read_text(encoding='utf-8')
    assert text == comparison_table(scores)
    assert '| probe | runs/a \\| b, knn | 0.800 [0.700, 0.900] | 1 |' in text
    assert '| a/version_3 | threshold on an index | 0.380 | 1 |' in text
    picture = imread(tmp_path / 'out' / 'compare.png')
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 50


def test_the_same_name_twice_is_told_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / path) for path in ('x/a/version_0', 'y/a/version_0', 'y/a/version_1')]
    names = list(dict.fromkeys(score.result for score in compare(folders)))
    assert names == ['x/a/version_0', 'y/a/version_0', 'a/version_1']


def test_folders_without_results_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / 'runs' / 'version_4')
    with pytest.raises(ConfigurationError, match=r'such as .*version_4'):
        compare([tmp_path / 'runs'])
    with pytest.raises(ConfigurationError, match='expected a run folder'):
        compare([tmp_path / 'nothing'])
    other = write_table(tmp_path / 'other' / 'results.csv', [{'a': 1}])
    with pytest.raises(ConfigurationError, match='with their columns'):
        compare([other])
    empty = write_table(tmp_path / 'empty' / 'results.csv', [{'metric': '', 'value': ''}])
    columns = 'cell,initialisation,fraction,shots,scenes,seed,region,metric,value,run\n'
    (empty / 'results.csv').write_text(columns)
    with pytest.raises(ConfigurationError, match='has no results yet'):
        compare([empty])
    (empty / 'results.csv').write_text(f'{columns}a,random,1,,,0,blocks,test_iou,high,cells/a\n')
    with pytest.raises(ConfigurationError, match='high'):
        compare([empty])


def test_metrics_that_nobody_measured_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r'unknown metric f2; available: accuracy\.'):
        compare([write_probe(tmp_path / 'probe')], ['f2'])
