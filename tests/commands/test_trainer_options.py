"""Spelling of the options of the trainer's commands."""

from pathlib import Path

import pytest

from torchgeo_msssl.commands.trainer_options import spell_trainer_options
from torchgeo_msssl.errors import ConfigurationError

CONFIGS = Path(__file__).parents[2] / 'configs'
FIT = ['fit', '--config', str(CONFIGS / 'vineseg_drone.yaml')]


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        (['--data.bands', 'red,nir'], ['--data.bands', '["red", "nir"]']),
        (['--data.bands', '[red,nir]'], ['--data.bands', '[red,nir]']),
        (['--data.bands=red'], ['--data.bands', '["red"]']),
        (['--data.bands', 'red', 'nir', '--x', '1'], ['--data.bands', '["red", "nir"]', '--x', '1']),
        (['--data.init-args.bands', 'red'], ['--data.init_args.bands', '["red"]']),
        (['--data.class-names', 'background,vine'], ['--data.class_names', '["background", "vine"]']),
        (['--data.labels', 'a.gpkg', 'b.gpkg'], ['--data.labels', '["a.gpkg", "b.gpkg"]']),
        (['--data.labels', 'a.gpkg', '--x', '1', '2'], ['--data.labels', 'a.gpkg', '--x', '1', '2']),
        (['--data.fractions', '0.5,0.25,0.25'], ['--data.fractions', '[0.5, 0.25, 0.25]']),
        (['--data.chip-size=32'], ['--data.chip_size', '32']),
        (['--data.class_balance', '--data.seed', '1'], ['--data.class_balance', 'true', '--data.seed', '1']),
        (['--model.lr', '-1e-3'], ['--model.lr=-1e-3']),
        (['--trainer.max-steps=3'], ['--trainer.max_steps=3']),
        (['--data.labels'], ['--data.labels']),
        (['--print_config'], ['--print_config']),
    ],
)
def test_spellings(given: list[str], expected: list[str]) -> None:
    assert spell_trainer_options([*FIT, *given]) == [*FIT, *expected]


def test_classes_named_on_the_command_line() -> None:
    arguments = ['fit', '--data=PretrainingDataModule', '--data.paths', 'a', 'b']
    assert spell_trainer_options(arguments) == ['fit', '--data=PretrainingDataModule', '--data.paths', '["a", "b"]']
    arguments = [*FIT, '--data.class_path', 'torchgeo.datamodules.EuroSATDataModule', '--data.paths', 'a', 'b']
    assert spell_trainer_options(arguments) == arguments  # no such option: left to Lightning's parser
    arguments = ['fit', '-c', FIT[2], '--data.bands', 'red,nir']
    assert spell_trainer_options(arguments) == ['fit', '-c', FIT[2], '--data.bands', '["red", "nir"]']


def test_what_cannot_be_read_is_left_alone() -> None:
    arguments = ['fit', '--data', 'no.such.Class', '--data.x', '1,2']
    assert spell_trainer_options(arguments) == arguments
    arguments = ['fit', '--data', './data.yaml', '--data.x', '1,2']
    assert spell_trainer_options(arguments) == arguments


def test_further_options_by_name() -> None:
    arguments = ['predict', '--overwrite', '--output', 'maps', '--classes', 'a,b']
    hints = {'overwrite': bool, 'output': str, 'classes': list[str]}
    expected = ['predict', '--overwrite', 'true', '--output', 'maps', '--classes', '["a", "b"]']
    assert spell_trainer_options(arguments, hints) == expected


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('--data.pathz', '--data.pathz: SegmentationDataModule has no option `pathz`; did you mean `--data.paths`?'),
        ('--model.init_args.learning', 'VineSegmentation has no option `learning`; '),
        ('--data.xyzzy=1', '`fit --data.help CLASS` lists the options'),
    ],
)
def test_mistyped_options(given: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        spell_trainer_options([*FIT, given, 'a.tif'])
    assert message in str(error.value)


def test_options_of_other_packages_may_be_handed_on() -> None:
    arguments = ['fit', '--data', 'torchgeo.datamodules.EuroSATDataModule', '--data.download', 'true']
    assert spell_trainer_options(arguments) == arguments


def test_configuration_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / 'latin.yaml'
    path.write_bytes('# Rebflächen'.encode('latin-1'))
    with pytest.raises(ConfigurationError, match=r'latin\.yaml is not UTF-8'):
        spell_trainer_options(['fit', '--config', str(path)])
