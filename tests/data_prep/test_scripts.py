"""The commands by file name, from a checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.marks import first_fast

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / 'data_prep').glob('[a-z]*.py'))


def run(script: Path, folder: Path, *arguments: str, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {'PYTHONPATH': path}
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)


def test_all_commands_of_data_preparation_have_one() -> None:
    assert {path.stem for path in SCRIPTS} == {'chip', 'doctor', 'rasterize', 'statistics', 'vectorize'}


@pytest.mark.parametrize('script', first_fast(SCRIPTS), ids=lambda path: path.stem)
def test_they_are_the_commands(script: Path) -> None:
    """Also in their own folder, whose statistics.py must not replace that of the standard library."""
    done = run(script, script.parent, '--help')
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'usage: python -m torchgeo_msssl {script.stem} ')


@pytest.mark.slow
def test_the_exit_status_is_that_of_the_command(tmp_path: Path) -> None:
    done = run(ROOT / 'data_prep' / 'statistics.py', tmp_path, 'nothing.tif')
    assert done.returncode == 1
    assert done.stderr.startswith('error: ')


def test_without_the_package_it_says_so(tmp_path: Path) -> None:
    copy = tmp_path / 'data_prep'
    copy.mkdir()
    for path in (ROOT / 'data_prep').glob('*.py'):
        (copy / path.name).write_text(path.read_text())
    # -S leaves site-packages out, where the package may be installed
    command = [sys.executable, '-S', str(copy / 'chip.py')]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={'PATH': os.environ['PATH']})
    assert done.returncode == 1
    assert done.stderr.count('\n') == 1
    assert 'pip install -e .' in done.stderr
