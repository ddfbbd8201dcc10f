"""The help of every command."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.commands import COMMANDS
from torchgeo_msssl.datamodules import SegmentationDataModule
from torchgeo_msssl.tasks import VineSegmentation

PROGRAM = 'python -m torchgeo_msssl'
CONFIG = Path(__file__).parents[2] / 'configs' / 'vineseg_drone.yaml'
TRAINER_COMMANDS = ('fit', 'validate', 'test')  # predict imports the options of maps
SLOW_LIBRARIES = ('lightning', 'sklearn', 'torch', 'torchgeo')
SCRIPT = f"""
import contextlib, io, sys
from torchgeo_msssl.__main__ import main
for command in {[*COMMANDS, *TRAINER_COMMANDS]}:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main([command, '--help'])
    if found := [name for name in {SLOW_LIBRARIES} if name in sys.modules]:
        sys.exit(f'{{command}} --help imports {{", ".join(found)}}')
"""


def test_no_help_waits_for_slow_libraries() -> None:
    done = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('command', [*COMMANDS, *TRAINER_COMMANDS, 'predict'])
def test_usage_names_the_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, '--help'])
    assert not stop.value.code
    assert capsys.readouterr().out.startswith(f'usage: python -m torchgeo_msssl {command} ')


def help_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        main([*arguments, '--help'])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ('called', 'shown'),
    [('/usr/bin/torchgeo-msssl', 'torchgeo-msssl'), ('/site-packages/torchgeo_msssl/__main__.py', PROGRAM)],
)
def test_usage_names_what_was_typed(
    called: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr('sys.argv', [called])
    for command in ('fit', 'chip'):
        assert help_of(capsys, command).startswith(f'usage: {shown} {command} ')
    assert main(['--help']) == 0
    assert capsys.readouterr().out.startswith(f'usage: {shown} COMMAND')


def test_help_of_a_trainer_command_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys, 'fit')
    assert len(shown.splitlines()) < 70
    for option in ('--data.paths', '--model.weights', '--ckpt_path', '--trainer.max_epochs', '--full_help'):
        assert option in shown
    assert '--min_area' in help_of(capsys, 'predict')


def test_help_of_a_configuration_lists_every_option_of_its_classes(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that constructors accept, by inspection of the classes."""
    shown = help_of(capsys, 'fit', '--config', str(CONFIG))
    known = {line.split()[0] for line in shown.splitlines() if line.startswith('  --')}
    for prefix, kind in (('data', SegmentationDataModule), ('model', VineSegmentation)):
        bases = [base for base in kind.__mro__ if base.__module__.startswith('torchgeo_msssl.')]
        accepted = {name for base in bases for name in inspect.signature(base.__init__).parameters}
        accepted -= {'self', 'kwargs', 'args'}
        assert {f'--{prefix}.{name}' for name in accepted} <= known
    assert shown.index('--data.labels') < shown.index('--trainer.accelerator')
    assert ':class:' not in shown
