"""The help of every command."""

import subprocess
import sys

import pytest

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.commands import COMMANDS

SLOW_LIBRARIES = ('lightning', 'sklearn', 'torch', 'torchgeo')
SCRIPT = f"""
import contextlib, io, sys
from torchgeo_msssl.__main__ import main
for command in {list(COMMANDS)}:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main([command, '--help'])
    if found := [name for name in {SLOW_LIBRARIES} if name in sys.modules]:
        sys.exit(f'{{command}} --help imports {{", ".join(found)}}')
"""


def test_no_help_waits_for_slow_libraries() -> None:
    done = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('command', COMMANDS)
def test_usage_names_the_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, '--help'])
    assert not stop.value.code
    assert capsys.readouterr().out.startswith(f'usage: python -m torchgeo_msssl {command} ')
