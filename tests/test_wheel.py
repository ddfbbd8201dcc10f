"""scripts/check_wheel.py finds files that a wheel or an sdist lacks or should not have."""

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location('check_wheel', ROOT / 'scripts' / 'check_wheel.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


METADATA = ['torchgeo_msssl-1.dist-info/METADATA', 'torchgeo_msssl-1.dist-info/licenses/LICENSE']


def test_a_complete_wheel_passes(check: ModuleType) -> None:
    names = check.expected_wheel_files()
    assert {'torchgeo_msssl/py.typed', 'torchgeo_msssl/configs/fastsiam_s2.yaml', 'torchgeo_msssl/cli.py'} <= names
    assert check.wheel_faults([*names, *METADATA]) == []


def test_faults_of_a_wheel_are_found(check: ModuleType) -> None:
    names = check.expected_wheel_files() - {'torchgeo_msssl/py.typed', 'torchgeo_msssl/configs/mae_s2.yaml'}
    assert check.wheel_faults([*names, 'tests/conftest.py', METADATA[0]]) == [
        'torchgeo_msssl/configs/mae_s2.yaml is missing in the wheel.',
        'torchgeo_msssl/py.typed is missing in the wheel.',
        'tests/conftest.py is not expected in the wheel.',
        'LICENSE is missing in the wheel.',
    ]


def test_faults_of_an_sdist_are_found(check: ModuleType) -> None:
    folders = ('configs', 'data_prep', 'docs', 'scripts', 'tests', 'torchgeo_msssl')
    files = ('CHANGELOG.md', 'CITATION.cff', 'LICENSE', 'README.md')
    inside = [name for folder in folders for name in check.source_files(folder)]
    names = [f'torchgeo_msssl-1/{name}' for name in (*inside, *files)]
    assert check.sdist_faults(names) == []
    names.remove('torchgeo_msssl-1/configs/mae_s2.yaml')
    assert check.sdist_faults(names) == ['configs/mae_s2.yaml is missing in the sdist.']


def test_supported_versions_of_python_are_declared() -> None:
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']
    start = 'Programming Language :: Python :: 3.'
    declared = [int(name.removeprefix(start)) for name in project['classifiers'] if name.startswith(start)]
    assert declared == [12, 13, 14]
    assert project['requires-python'] == f'>=3.{declared[0]}'
