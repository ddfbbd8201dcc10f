"""Smoke test for any platform: import every module, ask every command for its help, and run a small pretraining.

    python scripts/smoke.py             # everything, in a temporary folder
    python scripts/smoke.py --no-run    # imports and help texts only

The package must be installed. The test suite needs bash for some of its scripts; this file needs Python alone.
"""

import argparse
import importlib
import os
import pkgutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torchgeo_msssl
from torchgeo_msssl.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
TRAINER_COMMANDS = ('fit', 'validate', 'test', 'predict')
#: Options of a pretraining that takes seconds.
SMALL_FIT = (
    *('--trainer.max_steps', '2', '--trainer.accelerator', 'cpu', '--trainer.enable_progress_bar', 'false'),
    *('--data.sample_dir', 'sample', '--data.batch_size', '4', '--data.chips_per_epoch', '8'),
    *('--data.num_workers', '0'),
)


def module_names() -> list[str]:
    """Return the dotted names of all modules of the package."""
    found = pkgutil.walk_packages(torchgeo_msssl.__path__, f'{torchgeo_msssl.__name__}.')
    return sorted(module.name for module in found if not module.name.endswith('__main__'))


def help_commands() -> list[list[str]]:
    """Return the command lines that print a help text."""
    package = [[sys.executable, '-m', 'torchgeo_msssl', *words, '--help'] for words in ([], *_commands())]
    scripts = [[sys.executable, str(path), '--help'] for path in sorted((ROOT / 'data_prep').glob('[a-z]*.py'))]
    return package + scripts


def _commands() -> list[list[str]]:
    return [[name] for name in (*TRAINER_COMMANDS, *COMMANDS)]


def run_commands() -> list[list[str]]:
    """Return the command lines of a small run, in order: sample area, configurations, pretraining, export, chips."""
    program = [sys.executable, '-m', 'torchgeo_msssl']
    last = str(Path('runs') / 'fastsiam_s2' / 'version_0' / 'checkpoints' / 'last.ckpt')
    return [
        [*program, 'sample', 'sample'],
        [*program, 'configs'],
        [*program, 'configs', 'fastsiam_s2', 'study_vines', '--output', '.'],
        [*program, 'study', '--config', 'study_vines.yaml', '--dry_run'],
        [*program, 'fit', '--config', 'fastsiam_s2', *SMALL_FIT],
        [*program, 'export', last, 'encoder.safetensors'],
        [*program, 'doctor', str(Path('sample') / 'drone'), '--quick'],
        [*program, 'chip', str(Path('sample') / 'drone'), '--output', 'chips', '--chip-size', '128'],
    ]


def call(command: Sequence[str], folder: Path) -> bool:
    """Run a command; print its output if it fails.

    Args:
        command: The command line.
        folder: Working folder.

    Returns:
        Whether it succeeded.
    """
    environment = os.environ | {'TORCHGEO_MSSSL_CACHE': str(folder / 'cache'), 'PYTHONUTF8': '1'}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, encoding='utf-8', check=False
    )
    print(f'{"ok" if done.returncode == 0 else "FAILED"}: {" ".join(command[1:])}', flush=True)
    if done.returncode != 0:
        print(done.stdout[-4000:], done.stderr[-4000:], sep='\n', flush=True)
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the smoke test.

    Args:
        arguments: Arguments; None takes those of the process.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--no-run', action='store_true', help='only import modules and print help texts')
    options = parser.parse_args(arguments)
    for name in module_names():
        importlib.import_module(name)
    print(f'ok: imported {len(module_names())} modules from {torchgeo_msssl.__path__[0]}', flush=True)
    commands = help_commands() + ([] if options.no_run else run_commands())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        failures = sum(not call(command, Path(folder)) for command in commands)
    print(f'{len(commands) - failures} of {len(commands)} commands succeeded', flush=True)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
