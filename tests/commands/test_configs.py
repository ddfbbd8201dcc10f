"""``configs`` from the command line, and commands that are given names."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.commands.config_files import with_config_paths
from torchgeo_msssl.commands.recommend import read_recommendation
from torchgeo_msssl.commands.study import read_study
from torchgeo_msssl.commands.trainer_options import named_classes
from torchgeo_msssl.evaluation.study.cell_commands import config_path, steps_of
from torchgeo_msssl.evaluation.study.design import make_cells
from torchgeo_msssl.shipped_configs import ConfigFile, config_folder, config_names

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['torchgeo-msssl'])
    monkeypatch.setenv('COLUMNS', '100')
    return tmp_path


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['configs']) == 0
    shown = capsys.readouterr().out
    listed = [line.split()[0] for line in shown.splitlines() if line.startswith('  ') and line[2] != ' ']
    assert sorted(listed) == config_names()
    assert max(map(len, shown.splitlines())) <= 100
    assert shown.startswith(
        'torchgeo-msssl fit --config NAME\n  barlow_twins_s2       Barlow Twins on Sentinel-2 scenes\n'
    )
    assert shown.index('fastsiam_s2') < shown.index('probe --config NAME') < shown.index('probe_s2')


def test_print(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['configs', 'fastsiam_s2']) == 0
    assert capsys.readouterr().out == (CONFIGS / 'fastsiam_s2.yaml').read_text(encoding='utf-8')
    assert main(['configs', 'fastsiam_s3']) == 1
    assert 'there is no shipped configuration fastsiam_s3; did you mean fastsiam_s2' in capsys.readouterr().err


def test_the_reader_of_a_pipe_may_stop() -> None:
    script = f'"{sys.executable}" -m torchgeo_msssl configs mae_s2 | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(['bash', '-c', script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, '')


def test_copy(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['configs', 'fastsiam_s2', 'study_vines.yaml', '--output', 'mine']) == 0
    assert capsys.readouterr().out == 'Wrote mine/fastsiam_s2.yaml\nWrote mine/study_vines.yaml\n'
    for name in ('fastsiam_s2', 'study_vines'):
        assert (folder / 'mine' / f'{name}.yaml').read_bytes() == (CONFIGS / f'{name}.yaml').read_bytes()
    assert main(['configs', 'fastsiam_s2', '--output', 'new.yaml']) == 0
    assert (folder / 'new.yaml').is_file()
    assert main(['configs', 'fastsiam_s2', 'mae_s2', '--output', 'both.yaml']) == 1
    assert 'output: both.yaml is one file; give one NAME, or a folder.' in capsys.readouterr().err


def test_a_changed_copy_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / 'mae_s2.yaml').write_text('mine')
    assert main(['configs', 'fastsiam_s2', 'mae_s2', '--output', '.']) == 1
    assert 'mae_s2.yaml exists with another content; choose another folder' in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ['mae_s2.yaml']  # nothing or everything
    assert main(['configs', '--output', '.', '--overwrite']) == 0
    assert 'Replaced mae_s2.yaml' in capsys.readouterr().out
    assert sorted(path.stem for path in folder.iterdir()) == config_names()
    assert main(['configs', 'mae_s2', '--output', '.']) == 0
    assert capsys.readouterr().out == 'mae_s2.yaml exists with the same content\n'


@pytest.mark.parametrize('given', [['--config', 'mae_s2'], ['-c', 'mae_s2.yaml'], ['--config=mae_s2']])
def test_fit_finds_a_name(given: list[str]) -> None:
    arguments = with_config_paths(['fit', *given, '--model.lr', '0.1'])
    assert str(config_folder() / 'mae_s2.yaml') in arguments[1 if '=' in given[0] else 2]
    assert arguments[-2:] == ['--model.lr', '0.1']
    assert named_classes(['fit', *given])['model'] == 'torchgeo_msssl.tasks.MAE'


@pytest.mark.slow
def test_fit_prints_the_configuration_of_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['fit', '--config', 'fastsiam_s2', '--print_config'])
    shown: Any = yaml.safe_load(capsys.readouterr().out)
    given = yaml.safe_load((CONFIGS / 'fastsiam_s2.yaml').read_text(encoding='utf-8'))
    assert shown['data']['init_args']['chip_size'] == given['data']['init_args']['chip_size']


def test_references_of_a_study(folder: Path) -> None:
    """They are next to the file that refers to them, or else shipped ones."""
    assert main(['configs', 'study_vines', '--output', 'mine']) == 0
    changed = folder / 'mine' / 'fastsiam_drone.yaml'
    changed.write_bytes((CONFIGS / 'fastsiam_drone.yaml').read_bytes())
    study = read_study(['--config', 'mine/study_vines.yaml', '--fractions', '1.0'])
    steps = steps_of(study, make_cells(study, ['blocks'])[1])
    assert steps.pretraining is not None
    assert steps.pretraining[:3] == ('fit', '--config', 'mine/fastsiam_drone.yaml')
    assert steps.fit[:3] == ('fit', '--config', 'vineseg_drone')
    assert steps.test is not None
    assert steps.test[:3] == ('test', '--config', 'vineseg_drone')


def test_names_in_commands_are_unambiguous(folder: Path) -> None:
    shipped = ConfigFile('vineseg_drone')
    (folder / 'vineseg_drone.yaml').touch()
    assert config_path(shipped) == str(config_folder() / 'vineseg_drone.yaml')
    assert config_path(ConfigFile('vineseg_drone')) == 'vineseg_drone.yaml'


def test_recommend_finds_a_name() -> None:
    found = read_recommendation(['--config', 'recommend_vines'])
    assert found.fit == str(config_folder() / 'vineseg_drone.yaml')
    assert found.candidates[0].fit == str(config_folder() / 'quickmap.yaml')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('fit: vineseg_dron.yaml', 'fit: there is no file or shipped configuration vineseg_dron.yaml; did you mean vi'),
        (
            'fit: quickmap\ninitialisations: [{name: a, fit: qickmap}]',
            'fit: there is no file or shipped configuration ',
        ),
        (
            'fit: quickmap\ninitialisations: [{name: a, pretraining: {config: mae_s3}}]',
            'config: there is no file or shipped configuration mae_s3; did you mean mae_s2?',
        ),
    ],
)
def test_references_that_are_not_found(
    text: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / 'study.yaml').write_text(f'name: s\noutput: out\n{text}\n')
    assert main(['study', '--config', 'study.yaml', '--dry_run']) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: {message}')


@pytest.mark.parametrize('command', ['probe', 'study', 'recommend', 'embed'])
def test_other_commands_report_unknown_names(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, '--config', 'probe_s3']) == 1
    assert 'no file or shipped configuration probe_s3; did you mean probe_s2' in capsys.readouterr().err
