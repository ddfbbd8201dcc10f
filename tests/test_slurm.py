"""The job scripts are valid, and their commands are accepted, with stand-ins for ``srun`` and ``python``."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import test_documentation
from tests.test_documentation import fault_of

SLURM = Path(__file__).parents[1] / 'slurm'
SCRIPTS = sorted(SLURM.glob('*.sh'))

pytestmark = pytest.mark.skipif(os.name != 'posix' or shutil.which('bash') is None, reason='bash scripts')

parse_only = test_documentation.parse_only

#: What Slurm sets in the third task of an array of four, and in a job of two nodes.
TASK = {'SLURM_ARRAY_TASK_ID': '3', 'SLURM_ARRAY_TASK_COUNT': '4', 'SLURM_CPUS_PER_TASK': '2', 'SLURM_JOB_ID': '17'}
NODES = {'SLURM_JOB_NUM_NODES': '2', 'SLURM_NTASKS_PER_NODE': '4'}

TRAINING = ['--trainer.num_nodes', '2', '--trainer.devices', '4', '--trainer.strategy', 'ddp']
TRAINING += ['--trainer.default_root_dir', 'runs/requeue/17', '--trainer.logger.version', 'job_17']


def run_script(
    name: str,
    arguments: list[str],
    folder: Path,
    environment: dict[str, str],
    python: str = 'printf "%s\\n" "$@"',
) -> 'subprocess.CompletedProcess[str]':
    """Run a script with a ``python`` that prints its arguments, and an ``srun`` that runs its command once."""
    programs = folder / 'programs'
    programs.mkdir(exist_ok=True)
    for program, line in (('python', python), ('srun', '"$@"')):
        path = programs / program
        path.write_text(f'#!/bin/sh\n{line}\n')
        path.chmod(0o755)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith('SLURM')}
    return subprocess.run(
        ['bash', str(SLURM / name), *arguments],
        cwd=folder,
        env=inherited | {'PATH': f'{programs}:{os.environ["PATH"]}'} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid(script: Path) -> None:
    done = subprocess.run(['bash', '-n', str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, '')
    text = script.read_text()
    assert 'set -euo pipefail' in text
    assert os.access(script, os.X_OK)
    directives = [line for line in text.splitlines() if line.startswith('#SBATCH')]
    first = text.index('set -euo pipefail')
    assert all(text.index(line) < first for line in directives), 'Slurm stops at the first command'


@pytest.mark.parametrize(
    ('name', 'arguments', 'environment', 'expected'),
    [
        ('train.sh', ['fastsiam_s2', '--data.paths', 'a b/*.tif'], TASK | NODES, TRAINING),
        ('study.sh', ['study_vines', '--seeds', '[0, 1]'], TASK, ['--index', '3']),
        ('chip.sh', ['a b/*.tif', '--output', 'chips'], TASK, ['--shard', '3/4', '--num_workers', '2']),
        ('chip.sh', ['a b/*.tif', '--output', 'chips'], {}, ['--num_workers', '1']),
        (
            'predict.sh',
            ['vineseg_drone', '--ckpt_path', 'best', '--data.predict_paths', 'a b/*.tif'],
            TASK,
            ['--shard', '3/4', '--trainer.devices', '1'],
        ),
    ],
    ids=['train', 'study', 'chip', 'manifest', 'predict'],
)
def test_scripts_run_commands_that_are_accepted(
    name: str,
    arguments: list[str],
    environment: dict[str, str],
    expected: list[str],
    tmp_path: Path,
    parse_only: list[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = run_script(name, arguments, tmp_path, environment)
    assert done.returncode == 0, done.stderr
    module, package, command, *options = done.stdout.splitlines()
    assert (module, package) == ('-m', 'torchgeo_msssl')
    given = arguments if name == 'chip.sh' else ['--config', *arguments]
    assert options == [*given, *expected]
    assert fault_of(['python', '-m', 'torchgeo_msssl', command, *options], capsys) is None


@pytest.mark.slow
def test_an_array_of_chips_and_its_manifest(make_scene: Callable[..., str], random_array: Any, tmp_path: Path) -> None:
    """The script with the command itself: two tasks of an array, then the job without one."""
    make_scene('scenes/a.tif', random_array((2, 64, 96)), names=['red', 'nir'])
    chips = ['scenes/*.tif', '--output', 'chips', '--chip_size', '16']
    for task in ('1', '2', None):
        array = {} if task is None else {'SLURM_ARRAY_TASK_ID': task, 'SLURM_ARRAY_TASK_COUNT': '2'}
        python = {'PYTHONPATH': str(SLURM.parent)}
        done = run_script('chip.sh', chips, tmp_path, array | python, f'exec {sys.executable} "$@"')
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / 'chips/images').iterdir())) == 24
    assert (tmp_path / 'chips/summary.json').is_file()
    assert '24 of 24 windows are chips' in done.stdout
