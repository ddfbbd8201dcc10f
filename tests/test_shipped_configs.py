"""Configurations are found by path and by name."""

import subprocess
import sys
from pathlib import Path

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.shipped_configs import (
    ConfigFile,
    command_of,
    config_folder,
    config_names,
    config_text,
    find_config,
    summary_of,
)

CONFIGS = Path(__file__).parents[1] / 'configs'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_are_those_of_the_files() -> None:
    assert config_names() == sorted(path.stem for path in CONFIGS.glob('*.yaml'))
    assert len(config_names()) > 20


@pytest.mark.parametrize('given', ['vineseg_drone', 'vineseg_drone.yaml'])
def test_a_name_is_found_in_any_folder(given: str) -> None:
    assert find_config(given) == config_folder() / 'vineseg_drone.yaml'
    assert find_config(given).read_bytes() == (CONFIGS / 'vineseg_drone.yaml').read_bytes()


def test_a_file_comes_before_a_name(folder: Path) -> None:
    (folder / 'vineseg_drone').mkdir()  # a folder is no configuration
    assert find_config('vineseg_drone') == config_folder() / 'vineseg_drone.yaml'
    (folder / 'vineseg_drone.yaml').touch()
    for given in ('vineseg_drone', 'vineseg_drone.yaml'):
        assert find_config(given) == Path('vineseg_drone.yaml')
    (folder / 'simclr_s2').touch()
    assert find_config('simclr_s2') == Path('simclr_s2')


def test_paths_are_no_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / 'mine.yml').touch()
    assert find_config(folder / 'mine.yml') == folder / 'mine.yml'
    monkeypatch.setenv('HOME', str(folder))
    assert find_config('~/mine.yml') == folder / 'mine.yml'
    with pytest.raises(ConfigurationError, match=r'no file other/vineseg_drone\.yaml; did you mean vineseg_drone, whi'):
        find_config('other/vineseg_drone.yaml')


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('./fastsiam_s2', 'there is no file fastsiam_s2; did you mean fastsiam_s2, which ships with the package?'),
        ('fastsiam_s3', 'config: there is no file or shipped configuration fastsiam_s3; did you mean fastsiam_s2, '),
        ('vinse.yaml', 'did you mean vines.yaml?'),
        ('./vinse.yaml', 'there is no file vinse.yaml; did you mean vines.yaml'),
        ('qqq', '`configs` lists those that ship with the package.'),
        (
            'other/qqq.yaml',
            'there is no file other/qqq.yaml; give the path of a YAML file, or a name that `config',
        ),
        ('vineseg_drone.yaml.bak', 'there is no file or shipped configuration vineseg_drone.yaml.bak; '),
        ('x' * 300, 'there is no file or shipped configuration'),
        ('.', 'config: . is a folder; give one of its YAML files.'),
    ],
)
def test_what_is_not_found(given: str, message: str, folder: Path) -> None:
    (folder / 'vines.yaml').touch()
    with pytest.raises(ConfigurationError) as error:
        find_config(given)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_installed_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders as in a wheel, where the package holds the configurations, and in an incomplete installation."""
    package = folder / 'site-packages' / 'torchgeo_msssl'
    monkeypatch.setattr('torchgeo_msssl.shipped_configs.__file__', str(package / 'shipped_configs.py'))
    with pytest.raises(ConfigurationError, match=r'was installed without configs/; install torchgeo_msssl again\.'):
        config_names()
    (package / 'configs').mkdir(parents=True)
    (package / 'configs' / 'fastsiam_s2.yaml').touch()
    assert config_names() == ['fastsiam_s2']
    assert find_config('fastsiam_s2') == package / 'configs' / 'fastsiam_s2.yaml'


def test_option_of_a_command(folder: Path) -> None:
    (folder / 'mine.yaml').touch()
    assert ConfigFile('mine.yaml') == str(folder / 'mine.yaml')
    assert ConfigFile('vineseg_drone') == str(config_folder() / 'vineseg_drone.yaml')


def test_summaries() -> None:
    assert summary_of('# One thing. Another\n# thing.\nmodel: {}\n') == 'One thing'
    assert summary_of('# Does it\n# help? Yes.\n#\n# No.\n') == 'Does it help?'
    assert summary_of('model: {}\n# A model.\n') == ''
    for name in config_names():
        assert 5 < len(summary_of(config_text(name))) < 250, name


def test_commands() -> None:
    assert [command_of(name) for name in ('mae_s2', 'probe_s2', 'study_vines', 'recommend_vines')] == [
        'fit',
        'probe',
        'study',
        'recommend',
    ]


def test_the_list_does_not_wait_for_slow_libraries() -> None:
    code = (
        'import sys; from torchgeo_msssl.__main__ import main; main(["configs"]); '
        'sys.exit(", ".join({"torch", "lightning", "torchgeo", "numpy"} & set(sys.modules)) or 0)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, encoding='utf-8', check=False)
    assert done.returncode == 0, done.stderr
    assert 'fastsiam_s2' in done.stdout
