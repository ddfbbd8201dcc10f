"""Run a command of the installed package."""

import importlib.util
import os
import subprocess
import sys


def run(command: str) -> int:
    """Run ``python -m torchgeo_msssl COMMAND`` with the arguments of this process.

    The command runs in an interpreter of its own, because Python puts the folder of a script first on the module path,
    where data_prep/statistics.py would hide the standard library's module.

    Args:
        command: Name of the command.

    Returns:
        Exit status.
    """
    if importlib.util.find_spec('torchgeo_msssl') is None:
        print('error: torchgeo_msssl is not installed; run `pip install -e .` in its folder.', file=sys.stderr)
        return 1
    arguments = [sys.executable, '-P', '-m', 'torchgeo_msssl', command, *sys.argv[1:]]
    if sys.platform == 'win32':
        return subprocess.call(arguments)
    os.execv(sys.executable, arguments)
