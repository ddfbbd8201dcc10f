"""Options of commands, declared as dataclasses."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from torchgeo_msssl.commands.options import declared_options, option, positional, read_options
from torchgeo_msssl.errors import ConfigurationError

type Edge = Literal['pad', 'drop']


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Labels.

    Attributes:
        labels: Mask rasters, or vector files.
        class_names: Names of the classes, or names with the values of the source.
    """

    labels: str | list[str] | None = None
    class_names: list[str] | dict[str, int | list[int] | str] | None = None


@dataclass(frozen=True)
class Split:
    """Split of the ground.

    Attributes:
        fractions: Fractions of training, validation and test.
        seed: Seed of the assignment.
    """

    fractions: tuple[float, ...] = (0.6, 0.2, 0.2)
    seed: int = 0

    def __post_init__(self) -> None:
        if sum(self.fractions) > 1.01:
            raise ConfigurationError(f'split.fractions: expected a sum of 1, got {self.fractions}.')


@dataclass(frozen=True, kw_only=True)
class Options(LabelOptions):
    """Cut scenes into chips.

    Attributes:
        paths: Scenes: files, folders or quoted patterns.
        output: Folder to write into.
        chip_size: Side of a chip in pixels.
        min_valid: Minimum fraction of valid pixels, 100 % at most.
        bands: Bands to write; default: all.
        edge: Chips at the border.
        offset: Offset of digital numbers.
        overwrite: Replace chips that are there.
        split: How the ground is split.
    """

    paths: list[str] = positional('SCENE')
    output: str = option(metavar='DIR')
    chip_size: int = 512
    min_valid: float = 0.5
    bands: list[str] | None = None
    edge: Edge = 'pad'
    offset: float | Literal['auto'] = 'auto'
    overwrite: bool = False
    split: Split = field(default_factory=Split)


BASE = ['a.tif', '--output', 'out']


def read(*arguments: str) -> Options:
    return read_options(Options, 'chip', [*BASE, *arguments], config=True)


def test_defaults_are_those_of_the_dataclass() -> None:
    assert read() == Options(paths=['a.tif'], output='out')


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--min-valid', '0.2'], {'min_valid': 0.2}),
        (['--min_valid=0.2'], {'min_valid': 0.2}),
        (['--bands', 'B02,B03'], {'bands': ['B02', 'B03']}),
        (['--bands', '[B02,B03]'], {'bands': ['B02', 'B03']}),
        (['--bands', '02'], {'bands': ['02']}),
        (['--bands', 'null'], {'bands': None}),
        (['--class-names', 'vine,grass'], {'class_names': ['vine', 'grass']}),
        (['--class_names', 'vine=1,grass=[2,3]'], {'class_names': {'vine': 1, 'grass': [2, 3]}}),
        (['--class_names', '{vine: 1, grass: [2, 3]}'], {'class_names': {'vine': 1, 'grass': [2, 3]}}),
        (['--class_names', 'vine=yes,old vine=2020-01-01'], {'class_names': {'vine': 'yes', 'old vine': '2020-01-01'}}),
        (['--labels', 'a.gpkg'], {'labels': 'a.gpkg'}),
        (['--labels', 'a.gpkg,b.gpkg'], {'labels': ['a.gpkg', 'b.gpkg']}),
        (['--labels', 'a.gpkg', 'b.gpkg'], {'labels': ['a.gpkg', 'b.gpkg']}),
        (['--labels', '{a,b}.gpkg'], {'labels': '{a,b}.gpkg'}),
        (['--overwrite'], {'overwrite': True}),
        (['--overwrite', 'b.tif'], {'overwrite': True, 'paths': ['a.tif', 'b.tif']}),
        (['--overwrite', 'false'], {'overwrite': False}),
        (['--overwrite=True'], {'overwrite': True}),
        (['--bands', 'B02', 'b.tif'], {'bands': ['B02'], 'paths': ['a.tif', 'b.tif']}),
        (['--offset', '-1000'], {'offset': -1000.0}),
        (['--split.fractions', '0.8,0.2', '--split.seed', '3'], {'split': Split((0.8, 0.2), 3)}),
        (['--edge', 'drop', '--chip_size', '64', '--chip_size', '32'], {'edge': 'drop', 'chip_size': 32}),
    ],
)
def test_spellings(arguments: list[str], expected: dict[str, Any]) -> None:
    assert read(*arguments) == Options(**({'paths': ['a.tif'], 'output': 'out'} | expected))


def test_a_path_that_holds_a_comma(tmp_path: Path) -> None:
    path = tmp_path / 'a,b.gpkg'
    path.touch()
    assert read('--labels', str(path)).labels == str(path)
    assert read('--labels', str(path), 'c.gpkg').labels == [str(path), 'c.gpkg']
    pattern = f'{tmp_path}/a,*.gpkg'
    assert read('--labels', pattern).labels == pattern
    assert read_options(Options, 'chip', ['a,b.tif', '--output', 'x']).paths == ['a,b.tif']


def test_a_list_that_is_too_long_for_a_path() -> None:
    names = [f'labels_{number}.gpkg' for number in range(500)]
    assert read('--labels', ','.join(names)).labels == names


def test_later_options_override_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / 'chip.yaml'
    path.write_text('chip_size: 7\nbands: [B02]\nsplit: {seed: 5}\npaths: [b.tif]\noutput: there\n')
    found = read_options(Options, 'chip', ['--config', str(path), '--bands', 'B03'], config=True)
    assert found == Options(paths=['b.tif'], output='there', chip_size=7, bands=['B03'], split=Split(seed=5))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['a.tif'], r'^--output: required; see python -m torchgeo_msssl chip --help\.$'),
        (['--output', 'out'], '^SCENE: required'),
        ([*BASE, '--min-valib', '1'], r'^--min_valib: chip has no such option; did you mean --min_valid\?$'),
        ([*BASE, '--zzz'], '^--zzz: chip has no such option; see'),
        ([*BASE, '--chip_size', 'x'], '^chip_size: expected an integer, got x.$'),
        ([*BASE, '--chip_size'], '^--chip_size: expected a value after it.$'),
        ([*BASE, '--edge', 'x'], '^edge: expected one of pad, drop, got x.$'),
        ([*BASE, '--class_names', 'vine=1,grass'], 'expected a value for each name, as in vine=1'),
        ([*BASE, '--split.fractions', '0.8,0.8'], r'^split\.fractions: expected a sum of 1'),
        ([*BASE, '--split.fractions', 'a,b'], r'^split\.fractions: expected a list such as 1,2, got'),
        ([*BASE, '--config', 'nothing.yaml'], 'nothing.yaml'),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        read_options(Options, 'chip', arguments, config=True)
    assert '\n' not in str(error.value)


def test_positional_arguments_in_order() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Export:
        """Export.

        Attributes:
            source: Source.
            target: Target.
        """

        source: str = positional('FROM')
        target: str = positional('TO')

    assert read_options(Export, 'export', ['a', 'b']) == Export(source='a', target='b')
    with pytest.raises(ConfigurationError, match='TO: required'):
        read_options(Export, 'export', ['a'])
    with pytest.raises(ConfigurationError, match='c: unexpected'):
        read_options(Export, 'export', ['a', 'b', 'c'])


def test_the_help_is_made_of_the_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        read_options(Options, 'chip', ['--help'], config=True, example='chip a.tif --output out')
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith('usage: python -m torchgeo_msssl chip SCENE ... --output DIR [options]\n')
    words = ' '.join(text.split())
    assert 'Cut scenes into chips.' in words
    assert '--chip_size INT Side of a chip in pixels. (default: 512)' in words
    assert '--min_valid FLOAT Minimum fraction of valid pixels, 100 % at most. (default: 0.5)' in words
    assert '--bands VALUE,... Bands to write; default: all.' in words
    assert '--edge {pad,drop} Chips at the border. (default: pad)' in words
    assert '--output DIR Folder to write into. Required.' in words
    assert 'Labels: --labels LABELS Mask rasters, or vector files.' in words
    assert 'Split of the ground: --split.fractions VALUE,...' in words
    assert '(default: 0.6,0.2,0.2)' in words
    assert words.endswith('example: python -m torchgeo_msssl chip a.tif --output out')


def test_every_option_has_a_description() -> None:
    assert all(one.help for one in declared_options(Options))
