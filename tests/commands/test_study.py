"""Studies that really train, on a small sample area."""

import csv
import json
import shlex
import sys
from pathlib import Path

import geopandas as gpd
import pytest

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.commands.study import read_study
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study import session
from torchgeo_msssl.evaluation.study.results import Result
from torchgeo_msssl.evaluation.study.run import try_lock
from torchgeo_msssl.geo.sample import SampleArea

CONFIGS = Path(__file__).parents[2] / 'configs'

DATA = ['chip_size', '32', 'batch_size', '4', 'chips_per_epoch', '4']
HEADS = ['hidden_dim', '32', 'output_dim', '32', 'bottleneck_dim', '8']


def small(prefix: str, group: str, options: list[str]) -> list[str]:
    pairs = zip(options[::2], options[1::2], strict=True)
    return [text for name, value in pairs for text in (f'--{prefix}{group}.{name}', value)]


@pytest.fixture
def area(small_area: SampleArea) -> Path:
    return small_area.directory


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run where nothing else is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['torchgeo_msssl'])


def command(name: str, area: Path | None, *options: str, heads: str = 'pretraining.') -> list[str]:
    arguments = ['study', '--config', str(CONFIGS / f'study_{name}.yaml'), '--output', 'study', *options]
    for prefix in ('', 'pretraining.'):
        arguments += small(prefix, 'data', DATA)
        arguments += [f'--{prefix}data.sample_dir', str(area)] if area else []
        arguments += [f'--{prefix}trainer.max_epochs', '1', f'--{prefix}trainer.limit_val_batches', '4']
        arguments += [f'--{prefix}trainer.limit_test_batches', '4']
    return [*arguments, *small(heads, 'model', HEADS)] if heads else arguments


def rows(study: str = 'study') -> list[dict[str, str]]:
    with (Path(study) / 'results.csv').open(newline='') as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_vines_and_its_commands_by_hand(
    area: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command('vines', area, '--fractions', '[0.1]', '--seeds', '[0]', '--data.block_size', '64')
    assert main(arguments) == 0
    known = [row for row in rows() if row['metric'] == 'test_iou_vine']
    assert [row['initialisation'] for row in known] == ['random', 'pretrained']
    assert any(row['metric'] == 'baseline_iou_vine' for row in rows())
    for name in ('curves.png', 'paired.md', 'summary.md', 'report.html'):
        assert (tmp_path / 'study' / name).is_file()
    assert 'read the pixels of the test ground' in (tmp_path / 'study' / 'summary.md').read_text()
    before = (tmp_path / 'study' / 'results.csv').read_bytes()

    assert main(arguments) == 0  # nothing is left to do
    assert (tmp_path / 'study' / 'results.csv').read_bytes() == before
    assert main([*arguments, '--dry-run']) == 0
    assert 'about' in capsys.readouterr().out  # now it is known how long a cell takes

    # the second cell of a process, after a pretraining, is what its commands give by hand
    (tmp_path / 'hand').mkdir()
    monkeypatch.chdir(tmp_path / 'hand')
    for step in known[1]['command'].split(' && '):
        assert main(shlex.split(step)[3:]) == 0
    name = f'{known[1]["run"]}/test/metrics_test.json'
    found = [json.loads((tmp_path / place / 'study' / name).read_text()) for place in ('.', 'hand')]
    assert found[0] == found[1]
    assert found[0]['classes']['vine']['iou'] == float(known[1]['value'])


@pytest.mark.slow
def test_landcover_hands_the_coarse_network_on(area: Path) -> None:
    options = [
        '--fractions',
        '[0.3]',
        '--seeds',
        '[2]',
        '--data.block_size',
        '32',
        '--pretraining.data.block_size',
        '32',
    ]
    options += ['--trainer.check_val_every_n_epoch', '1']  # there is but one
    arguments = command('landcover', area, *options, '--index', '1', heads='')
    assert main(arguments) == 0
    cell = Path('study/cells/coarse_fraction-0.3_on-blocks_seed-2')
    report = json.loads((cell / 'fit' / 'weights_report.json').read_text())
    assert any(name.startswith('decoder') for name in report['matched'])
    coarse = Path('study/pretraining/coarse_on-blocks_seed-2/fit/split.geojson')
    ground = [gpd.read_file(path).dissolve('split').geometry['test'] for path in (coarse, cell / 'fit/split.geojson')]
    # the coarse labels of the test ground were not seen either
    assert ground[0].symmetric_difference(ground[1]).area < 1e-9 * ground[0].area
    assert {row['cell'] for row in rows()} == {cell.name}


@pytest.mark.slow
def test_variation_trains_on_some_scenes_and_tests_on_another() -> None:
    flights = ('--flights', '3', '--flights_side', '256', '--scenes', '[1, 2]', '--shots', '[2]', '--seeds', '[1]')
    assert main(command('variation', None, *flights, '--data.block_size', '64', '--index', '1', heads='')) == 0
    row = rows()[0]
    assert (row['scenes'], row['shots'], row['region']) == ('2', '2', 'scene')
    assert any(row['metric'] == 'test_iou_vine' for row in rows())


@pytest.mark.slow
def test_views_read_loss_and_probe(area: Path) -> None:
    assert main(command('views', area, '--seeds', '[0]', '--index', '0', heads='')) == 0
    found = {row['metric']: float(row['value']) for row in rows()}
    assert 0 <= found['knn_accuracy'] <= 1
    assert -1 <= found['train_loss'] <= 1
    assert rows()[0]['variant'] == '2 views'


def test_dry_run_lists_what_index_runs(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['study', '--config', str(CONFIGS / 'study_vines.yaml'), '--model.lr', '0.5']
    arguments += ['--fractions', '[0.1, 1.0]']
    assert main([*arguments, '--dry-run', '--seeds', '[3]', '--pretraining.trainer.max_steps=7']) == 0
    shown = capsys.readouterr().out
    assert '4 cells' in shown
    assert shown.count('--model.lr 0.5') == 2 * 4  # fit and test of each
    assert shown.count('--trainer.max_steps 7') == 2  # the pretraining that half of them share
    assert not Path('runs').exists()
    assert main([*arguments, '--index', '99']) == 1
    assert 'expected 0 to 19' in capsys.readouterr().err


def test_a_cell_that_another_process_has_is_not_run_by_its_index(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran(*_: object) -> Result:
        return Result({'test_iou_vine': 0.5}, 1.0, 'fit')

    written: list[int] = []
    monkeypatch.setattr(session, 'run_cell', ran)
    monkeypatch.setattr(session, 'write_results', lambda _, cells: written.append(len(cells)))
    arguments = ['study', '--config', str(CONFIGS / 'study_vines.yaml'), '--output', 'study', '--index', '0']
    arguments += ['--fractions', '[0.1]', '--seeds', '[0]']
    with try_lock(Path('study', 'cells', 'random_fraction-0.1_on-blocks_seed-0')) as free:
        assert free
        assert main(arguments) == 1
    assert 'another process runs it' in capsys.readouterr().out
    assert not written
    assert main(arguments) == 0
    assert written == [2]
    assert 'Wrote study/summary.md' in capsys.readouterr().out  # tables too, also where cells run one by one


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--model.lr'], r'--model\.lr: expected a value'),
        (['--model.lr', '--jobs', '2'], r'--model\.lr: expected a value'),
        (['--trainer.max_epochs', '1', '2'], r'2: unexpected'),
    ],
)
def test_an_option_without_a_value(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_study(['--config', str(CONFIGS / 'study_vines.yaml'), *arguments])


def test_options_of_cells_are_spelled_as_those_of_fit() -> None:
    given = ['--data.bands', 'red,nir', '--data.class_balance', '--pretraining.data.paths', 'a.tif', 'b.tif']
    study = read_study(['--config', str(CONFIGS / 'study_vines.yaml'), *given, '--jobs', '2', '--model.lr=-1e-3'])
    expected = {'data.bands': '["red", "nir"]', 'data.class_balance': 'true', 'model.lr': '-1e-3'}
    assert expected.items() <= study.options.items()
    (pretraining,) = [entry.pretraining for entry in study.initialisations if entry.pretraining]
    assert pretraining.options['data.paths'] == '["a.tif", "b.tif"]'
    assert study.jobs == 2
