"""The probe as a whole: known features score what they must, and the tables say what was computed."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from sklearn.metrics import f1_score

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.chips import open_chips
from torchgeo_msssl.evaluation.encoders import random_encoder
from torchgeo_msssl.evaluation.features import band_statistics, extract_features
from torchgeo_msssl.evaluation.probe import ProbeReport, run_probe
from torchgeo_msssl.evaluation.probe_report import COLUMNS, markdown, next_folder, write_report
from torchgeo_msssl.evaluation.probe_settings import ProbeData, ProbeSettings
from torchgeo_msssl.evaluation.probes import knn_probe, standardized
from torchgeo_msssl.models.encoders import StageFeatures
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.weights import save_encoder
from torchgeo_msssl.transforms.normalize import Normalize

Make = Callable[..., str]
Tiles = tuple[list[str], str]


def settings_of(tiles: Tiles, **options: Any) -> ProbeSettings:
    data = ProbeData(paths=tiles[0], labels=tiles[1], chip_size=16, block_size=32)
    return ProbeSettings(
        **({'data': data, 'resamples': 200, 'seeds': 2, 'device': 'cpu', 'model': 'test_resnet'} | options)
    )


@pytest.fixture
def encoder(tiles: Tiles, tmp_path: Path) -> str:
    """What the first random initialisation is, as a file."""
    data = open_chips(settings_of(tiles).data).data
    constants = {'mean': data.mean, 'std': data.std}
    metadata = EncoderMetadata('test', 'test_resnet', data.bands, sensor=data.sensor_name, **constants)
    save_encoder(random_encoder('test_resnet', data, 0), tmp_path / 'ours.safetensors', metadata)
    return str(tmp_path / 'ours.safetensors')


@pytest.fixture
def report(tiles: Tiles, encoder: str) -> ProbeReport:
    return run_probe(settings_of(tiles, encoders=f'ours={encoder}', seeds=1, metric=['accuracy', 'f1'], top_k=2))


def test_known_features_score_what_they_must(report: ProbeReport) -> None:
    # separable classes are found
    for probe in ('knn', 'linear'):
        found = report.shared['band statistics', probe]['accuracy']
        assert (found.value, found.low, found.high) == (1, 1, 1)
    constant = report.shared['constant answer', 'constant']
    counts = np.bincount(report.chips.test.labels)
    assert constant['accuracy'].value == counts.max() / counts.sum()
    assert constant['top2_accuracy'].value == 1  # of two classes

    # random weights gain nothing: they are the random initialisation itself, with the same resamples
    assert set(report.gains) == {('ours', 'knn'), ('ours', 'linear')}
    for gain in report.gains.values():
        assert (gain.value, gain.low, gain.high) == (0, 0, 0)

    # scores are those of the probes
    chips, data = report.chips, report.chips.data
    normalize = Normalize(2)
    normalize.set_statistics(data.mean, data.std, data.scale, data.offset)
    network = random_encoder('test_resnet', data, 0)

    def prepare(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return normalize(*(batch[key] for key in ('image', 'valid', 'scale', 'offset')))

    for name, embed in (('ours', network), ('band statistics', band_statistics)):
        train, test = (extract_features(embed, data.scenes, part, prepare) for part in (chips.train, chips.test))
        expected = knn_probe(train, chips.train.labels, test, chips.test.labels)
        (row,) = (row for row in report.rows if (row.encoder, row.probe) == (name, 'knn'))
        assert row.scores['accuracy'].value == pytest.approx(expected.accuracy)
        f1 = f1_score(chips.test.labels, row.found.predicted, average='macro')
        assert row.scores['f1_macro'].value == pytest.approx(f1)


def test_features_of_all_stages(tiles: Tiles, encoder: str) -> None:
    """Encoders and random weights alike: an encoder of random weights gains nothing over the same random weights."""
    report = run_probe(settings_of(tiles, encoders=f'ours={encoder}', seeds=1, probe=['knn'], features='stages'))
    assert report.gains['ours', 'knn'].value == 0
    data, chips = report.chips.data, report.chips
    network, normalize = StageFeatures(random_encoder('test_resnet', data, 0)), Normalize(2)
    normalize.set_statistics(data.mean, data.std, data.scale, data.offset)

    def prepare(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return normalize(*(batch[key] for key in ('image', 'valid', 'scale', 'offset')))

    parts = (extract_features(network, data.scenes, part, prepare) for part in (chips.train, chips.test))
    train, test = standardized(*parts)
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-4)
    (row,) = (row for row in report.rows if row.encoder == 'ours')
    expected = knn_probe(train, chips.train.labels, test, chips.test.labels)
    assert row.scores['accuracy'].value == pytest.approx(expected.accuracy)
    with pytest.raises(ConfigurationError, match='features: expected one of last, stages'):
        settings_of(tiles, features='all')


def test_normalisation_alone_is_no_gain(tiles: Tiles, tmp_path: Path) -> None:
    """Random weights with the statistics of other scenes gain nothing."""
    data = open_chips(settings_of(tiles).data).data
    metadata = EncoderMetadata(
        'test', 'test_resnet', data.bands, sensor=data.sensor_name, mean=(0.5, 0.1), std=(0.2, 0.4)
    )
    save_encoder(random_encoder('test_resnet', data, 0), tmp_path / 'nothing.safetensors', metadata)
    source = str(tmp_path / 'nothing.safetensors')
    report = run_probe(settings_of(tiles, encoders=f'nothing={source}', seeds=1, probe=['knn']))
    gain = report.gains['nothing', 'knn']
    assert (gain.value, gain.low, gain.high) == (0, 0, 0)
    shown = markdown(report)[-1]
    assert 'of the weights: nothing, random initialisation (test_resnet) normalised as nothing' in shown
    assert 'of the data: band statistics, texture statistics, random convolutions' in shown


@pytest.mark.slow
def test_shuffled_labels_are_at_chance(tiles: Tiles, make_scene: Make) -> None:
    rng = np.random.default_rng(3)
    labels = np.kron(rng.permutation(np.arange(96) % 2 + 1).reshape(8, 12), np.ones((16, 16)))
    shuffled = make_scene('shuffled.tif', labels.astype(np.uint8), nodata=0)
    report = run_probe(settings_of((tiles[0], shuffled), seeds=1))
    for (encoder, _), scores in report.shared.items():
        found = scores['balanced_accuracy']
        assert found.low <= 0.5 <= found.high, encoder
        assert found.high - found.low < 0.5 or encoder == 'constant answer'


def test_several_seeds_are_one_line_with_their_mean(tiles: Tiles) -> None:
    report = run_probe(settings_of(tiles, probe=['knn']))
    name = 'random initialisation (test_resnet)'
    each = [row.scores['accuracy'].value for row in report.rows if row.encoder == name]
    assert len(each) == 2
    shared = report.shared[name, 'knn']['accuracy']
    assert shared.value == pytest.approx(np.mean(each))
    assert shared.low <= shared.value <= shared.high
    (line,) = (line for line in markdown(report) if line.startswith(f'| {name}'))
    assert 'mean of 2 seeds' in line
    assert str(shared) in line


@pytest.mark.slow
def test_few_labels_are_drawn_several_times(tiles: Tiles, encoder: str, tmp_path: Path) -> None:
    data = replace(settings_of(tiles).data, label_fraction=0.2, label_draws=3)
    settings = settings_of(tiles, data=data, probe=['knn'], k=3, encoders=f'ours={encoder}', seeds=1)
    report = run_probe(settings)
    chips = report.chips
    sizes = {len(draw) for draw in chips.draws}
    assert len(chips.draws) == 3
    assert max(sizes) < 0.3 * len(chips.train.labels)
    mine = [row for row in report.rows if row.encoder == 'band statistics']
    assert [row.draw for row in mine] == [0, 1, 2]
    shared = report.shared['band statistics', 'knn']['accuracy']
    assert shared.value == pytest.approx(np.mean([row.scores['accuracy'].value for row in mine]))
    # the encoder is the random initialisation itself, on the same draws
    same = report.differences['ours', 'random initialisation (test_resnet)', 'knn']
    assert (same.value, same.low, same.high) == (0, 0, 0)
    other = report.differences['ours', 'band statistics', 'knn']
    assert other.value == pytest.approx(report.shared['ours', 'knn']['accuracy'].value - shared.value)
    assert other.low <= other.value <= other.high
    shown = markdown(report)
    assert f'{len(chips.draws[0])} of {len(chips.train.labels)} training chips, mean of 3 draws' in shown[0]
    assert any(line.startswith('| ours | band statistics | kNN | ') for line in shown)
    write_report(report, tmp_path / 'out')
    with (tmp_path / 'out' / 'differences.csv').open(newline='') as file:
        rows = {row['minus']: row for row in csv.DictReader(file)}
    assert float(rows['band statistics']['value']) == other.value


@pytest.mark.slow
def test_the_folder_is_whole(report: ProbeReport, tmp_path: Path) -> None:
    folder = tmp_path / 'out'
    write_report(report, folder)
    with (folder / 'results.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    columns = 'experiment encoder probe metric value low high n_train n_test classes seed draw'
    assert tuple(rows[0]) == COLUMNS == tuple(columns.split())
    assert {row['metric'] for row in rows} == {'accuracy', 'f1_macro', 'top2_accuracy'}
    assert {(row['encoder'], row['seed']) for row in rows} == {
        ('constant answer', ''),
        ('ours', ''),
        ('band statistics', ''),
        ('texture statistics', ''),
        ('random convolutions', '0'),
        ('random initialisation (test_resnet)', '0'),
    }
    assert all(float(row['low']) <= float(row['value']) <= float(row['high']) for row in rows)
    n = [len(part.labels) for part in (report.chips.train, report.chips.test)]
    assert {(row['n_train'], row['n_test'], row['classes']) for row in rows} == {(str(n[0]), str(n[1]), '2')}

    results = json.loads((folder / 'results.json').read_text())
    assert results['interval']['number'] == len(np.unique(report.chips.blocks[1]))
    assert sum(results['test'].values()) == n[1]
    (ours,) = (one for one in results['encoders'] if one['name'] == 'ours')
    assert (ours['statistics'], ours['report']['missing']) == ('weights', {})
    for row in results['rows']:
        matrix = np.array(row['confusion'])
        assert row['scores']['accuracy']['value'] == pytest.approx(matrix.trace() / matrix.sum())
        assert row['classes']['2']['recall'] == pytest.approx(matrix[1, 1] / matrix[1].sum())
    with (folder / 'confusion_ours_knn.csv').open(newline='') as file:
        written = [[int(cell) for cell in line[1:]] for line in list(csv.reader(file))[1:]]
    (row,) = (one for one in results['rows'] if (one['encoder'], one['probe']) == ('ours', 'knn'))
    assert written == row['confusion']
    for name in ('confusion_ours_linear', 'scores', 'split'):
        assert imread(folder / f'{name}.png').std() > 0
    assert '\n'.join(markdown(report)) in (folder / 'results.md').read_text()
    assert (folder / 'classes.csv').read_text().count('\n') == 1 + 2 * len(report.rows)


def test_folders_are_numbered(tmp_path: Path) -> None:
    assert next_folder('a', str(tmp_path)) == tmp_path / 'a' / 'version_0'
    (tmp_path / 'a' / 'version_9').mkdir(parents=True)
    (tmp_path / 'a' / 'version_x').mkdir()
    assert next_folder('a', str(tmp_path)).name == 'version_10'


def test_sources_have_names() -> None:
    assert ProbeSettings(encoders=['random', 'a=b.ckpt', 'runs/x/version_0/encoder.safetensors']).sources == {
        'a': 'b.ckpt',
        'x/version_0': 'runs/x/version_0/encoder.safetensors',
    }
    assert ProbeSettings(encoders={'one': 'a.ckpt'}).sources == {'one': 'a.ckpt'}
    for name in ('band statistics', 'constant answer', 'random initialisation (test_resnet)'):
        with pytest.raises(ConfigurationError, match='name of a baseline'):
            _ = ProbeSettings(encoders={name: 'a.ckpt'}).sources
    with pytest.raises(ConfigurationError, match='two have the same name'):
        _ = ProbeSettings(encoders=['a/x.ckpt', 'b/x.ckpt']).sources


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'metric': ['auc']}, 'metric'),
        ({'metric': []}, 'metric'),
        ({'metric': ['f1'], 'top_k': 3}, 'top_k: 3 applies to accuracy'),
        ({'temperature': -1.0}, 'temperature: expected a number above 0'),
        ({'probe': ['mlp']}, 'probe'),
        ({'k': 0}, 'k: expected'),
        ({'seeds': 0}, 'seeds'),
        ({'level': 1.0}, 'level'),
        ({'strengths': [0.0]}, 'strengths'),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ProbeSettings(**options)


def test_what_cannot_be_done_is_told_before_the_work(tiles: Tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('torchgeo_msssl.evaluation.probe.extract_all', lambda *_: pytest.fail('work began'))
    settings = settings_of(tiles)
    with pytest.raises(ConfigurationError, match='k: expected at most'):
        run_probe(replace(settings, k=10_000))
    with pytest.raises(ConfigurationError, match='device'):
        run_probe(replace(settings, device='quantum'))
    data = replace(settings.data, block_size=1000, test_scenes='*_20210701_*')
    with pytest.raises(ConfigurationError, match='one ground block'):
        run_probe(replace(settings, data=data))
