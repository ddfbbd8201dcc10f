"""Mistakes in options and configurations are one sentence."""

import sys
from pathlib import Path

import pytest

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.commands.config_files import read_config
from torchgeo_msssl.errors import ConfigurationError

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture
def failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, 'argv', ['torchgeo_msssl'])

    def run(*arguments: str) -> str:
        assert main(['fit', *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()  # neither usage nor a dump
        return line.removeprefix('error: ')

    return run


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('hidden_dim', 'hiden_dim', 'model.hiden_dim: FastSiam has no option `hiden_dim`; did you mean `hidden_dim`?'),
        ('max_epochs: 25', 'max_epoch: 25', 'trainer.max_epoch: fit has no such option; did you mean `trainer.max_e'),
        ('\ntrainer:', '\ntrainner:', 'trainner.logger.init_args.save_dir: fit has no such option; did you mean `trai'),
        ('tasks.FastSiam', 'tasks.FastSam', 'model: torchgeo_msssl.tasks has no FastSam; did you mean FastSiam?'),
        (
            'torchgeo_msssl.tasks',
            'torchgeo_mssl.tasks',
            'there is no module torchgeo_mssl; did you mean torchgeo_msssl',
        ),
        (
            'every_n_epochs',
            'every_n_epoch',
            'trainer.callbacks.every_n_epoch: FrozenProbe has no option `every_n_epoch`',
        ),
        ('TensorBoard', 'TensorBord', 'loggers has no TensorBordLogger; did you mean TensorBoardLogger?'),
        ('chip_size: 32', 'chip_size: big', 'data.chip_size: expected an integer or null, got big.'),
        (
            'chip_size: 32',
            'bands: [on, off]',
            'data.bands: expected a list such as B02,B03 or null, got [True, False];',
        ),
        ('chip_size: 32', 'chip_size: 3: 2', 'line LINE, column 17: mapping values are not allowed here; check colons'),
        ('    views: 4', '   views: 4', 'line LINE, column 4: expected <block end>'),
    ],
)
def test_mistakes_in_a_file(failure, tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (CONFIGS / 'fastsiam_s2.yaml').read_text(encoding='utf-8')
    assert old in text
    path = tmp_path / 'config.yaml'
    path.write_text(text.replace(old, new), encoding='utf-8')
    line = text[: text.index(old)].count('\n') + 1
    assert message.replace('LINE', str(line)) in failure('--config', str(path))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--trainr.max_epochs', '3'], '--trainr.max_epochs: fit has no such option; did you mean `--trainer`?'),
        (['--trainer.max_epochz', '3'], 'no such option; did you mean `--trainer.max_epochs`?'),
        (['--trainer.max_epochs', 'three'], 'trainer.max_epochs: expected an integer or null, got three.'),
        (['--model.optimizer', 'sdg'], 'model.optimizer: expected one of sgd, adam, adamw, lars, got sdg.'),
        (
            ['--trainer.logger.nam', 'x'],
            'trainer.logger.nam: TensorBoardLogger has no option `nam`; did you mean `name`',
        ),
        (['--model', 'FastSam'], 'model: there is no class FastSam; did you mean FastSiam?'),
        (['extra'], 'extra: unexpected; the names of options start with --.'),
        (['--config'], 'config: expected a file or a name after --config'),
    ],
)
def test_mistakes_on_the_command_line(failure, options: list[str], message: str) -> None:
    assert message in failure('--config', str(CONFIGS / 'fastsiam_s2.yaml'), *options)


def test_no_configuration(failure) -> None:
    assert failure() == 'fit: no model and data are named; give a configuration, such as --config fastsiam_s2.'


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    (tmp_path / 'vines.yaml').write_text('- a\n')
    (tmp_path / 'empty.yaml').write_text('')
    (tmp_path / 'tab.yaml').write_text('model:\n\tviews: 4\n')
    messages = {
        'vines.yaml': 'holds a list; expected the sections',
        'empty.yaml': 'is empty; expected the sections',
        'tab.yaml': 'line 2, column 1: found character',
        '.': 'is a folder; give one of its YAML files',
        'vinse.yaml': r'there is no file .*vinse\.yaml; did you mean .*vines\.yaml\?',
    }
    for name, message in messages.items():
        with pytest.raises(ConfigurationError, match=message):
            read_config(tmp_path / name)
