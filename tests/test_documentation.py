"""Commands and option names in README.md and docs/ are accepted by the parsers."""

import argparse
import dataclasses
import importlib.util
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonargparse
import pytest

from torchgeo_msssl import datamodules, tasks
from torchgeo_msssl.__main__ import main
from torchgeo_msssl.commands import COMMANDS
from torchgeo_msssl.geo import decoded_cache, header_cache, user_cache
from torchgeo_msssl.geo.chipping import manifest

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md')))
TRAINER_COMMANDS = ('fit', 'validate', 'test', 'predict')

#: Options of other programs that the pages mention: sbatch, mypy, rio; torchrun.
OTHER_PROGRAMS = {
    *(
        '--array',
        '--dependency',
        '--gpus-per-node',
        '--nodes',
        '--ntasks-per-node',
        '--parsable',
        '--strict',
        '--transform',
    ),
    *('--nnodes', '--nproc-per-node', '--rdzv-backend', '--rdzv-endpoint'),
}
#: Names of Python files that are no files of this repository: a program of GDAL, an example, a placeholder.
OTHER_FILES = {'gdal_retile.py', 'align_uniform.py', 'data_prep/COMMAND.py'}

OPTION = re.compile(r'(?<![\w-])--[a-z][\w.-]*\w')


class Parsed(BaseException):
    """Raised once a parser has accepted its arguments, instead of running the command."""


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> list[argparse.ArgumentParser]:
    """Stop every command after its arguments are parsed; return the list of the parsers that were used."""
    used: list[argparse.ArgumentParser] = []

    def stop(parse: Callable[..., Any]) -> Callable[..., Any]:
        def parse_args(self: argparse.ArgumentParser, *arguments: Any, **options: Any) -> None:
            used.append(self)
            parse(self, *arguments, **options)
            raise Parsed

        return parse_args

    for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
        monkeypatch.setattr(parser, 'parse_args', stop(parser.parse_args))
    monkeypatch.setattr(sys, 'argv', ['torchgeo_msssl'])
    monkeypatch.chdir(ROOT)
    return used


def code_blocks(text: str) -> Iterator[str]:
    """Yield fenced bash blocks and blocks indented by four spaces."""
    yield from re.findall(r'```bash\n(.*?)```', text, flags=re.DOTALL)
    fenced = re.sub(r'```.*?```', '', text, flags=re.DOTALL)
    yield from re.findall(r'(?:^    .*\n)+', fenced, flags=re.MULTILINE)


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield the words of each ``python …`` command of a page."""
    for block in code_blocks(text):
        for line in re.sub(r'\\\n\s*', ' ', block).splitlines():
            if line.strip().startswith('python '):
                yield words_of(line)


def inline_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of this package in inline code, such as ```doctor scenes/ --quick```."""
    for span in re.findall(r'`([^`\n]+)`', re.sub(r'```.*?```', '', text, flags=re.DOTALL)):
        if span.split()[0] in (*COMMANDS, *TRAINER_COMMANDS) and ' --' in span:
            yield ['python', '-m', 'torchgeo_msssl', *words_of(span)]


def words_of(line: str) -> list[str]:
    """Split a command; an ellipsis is the value of the option before it, or is left out."""
    words = shlex.split(line.replace('$weights', 'null'), comments=True)
    return [
        'value' if word == '…' else word.rstrip('…')
        for before, word in zip(['', *words], words, strict=False)
        if word != '…' or before.startswith('--')
    ]


def arguments_of(words: list[str]) -> tuple[Callable[[list[str]], Any], list[str]] | None:
    """Return the function that runs a command and its arguments; None for commands of other packages."""
    if words[1:3] == ['-m', 'torchgeo_msssl']:
        return main, words[3:]
    if words[1].startswith('data_prep/'):
        return main, [Path(words[1]).stem, *words[2:]]
    if words[1].startswith('benchmarks/'):
        return benchmark(words[1]), words[2:]
    return None


def benchmark(path: str) -> Callable[[list[str]], None]:
    """Return a function that runs a benchmark with arguments."""
    spec = importlib.util.spec_from_file_location(f'benchmarks_{Path(path).stem}', ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(arguments: list[str]) -> None:
        sys.argv = [path, *arguments]  # restored by the fixture
        module.main()

    return run


def fault_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str | None:
    """Parse a command; return what the parser objects to."""
    found = arguments_of(words)
    if found is None:
        return None
    run, arguments = found
    try:
        status = run(arguments)
    except Parsed:
        return None
    except SystemExit as stopped:
        status = stopped.code
    error = capsys.readouterr().err.strip().splitlines()
    return None if status == 0 else f'{shlex.join(words)}\n    {error[-1] if error else status}'


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_commands_are_accepted(page: Path, parse_only: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text(encoding='utf-8')
    found = {tuple(words): None for words in (*command_lines(text), *inline_commands(text))}
    faults = [fault for words in found if (fault := fault_of(list(words), capsys))]
    # `chip --virtual` only names an option
    faults = [fault for fault in faults if not re.search(r'arguments are required|: required;', fault)]
    assert not faults, '\n'.join(faults)


def init_options(package: Any, prefix: str) -> set[str]:
    """Return ``--prefix.option`` for all constructor arguments of the classes that a package exports."""
    classes = [value for name in package.__all__ if inspect.isclass(value := getattr(package, name))]
    bases = {base for each in classes for base in inspect.getmro(each)}
    return {f'--{prefix}.{name}' for each in bases for name in inspect.signature(each.__init__).parameters}


def test_smoke_test_is_complete(parse_only: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """scripts/smoke.py, which runs on other platforms, asks every command for help and runs accepted commands."""
    spec = importlib.util.spec_from_file_location('smoke', ROOT / 'scripts' / 'smoke.py')
    assert spec is not None
    assert spec.loader is not None
    smoke = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(smoke)
    helped = {words[3] for words in smoke.help_commands() if words[1] == '-m'}
    assert helped == {'--help', *COMMANDS, *TRAINER_COMMANDS}
    assert 'torchgeo_msssl.geo.grid' in smoke.module_names()
    faults = [fault for words in smoke.run_commands() if (fault := fault_of(words, capsys))]
    assert not faults, '\n'.join(faults)


def test_options_exist(parse_only: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    for command in (*COMMANDS, 'fit', 'predict'):
        with pytest.raises((Parsed, SystemExit)):
            main([command, '--help'])
    with pytest.raises(SystemExit):
        main(['fit', '--full_help'])
    for path in (ROOT / 'benchmarks').glob('*.py'):
        with pytest.raises((Parsed, SystemExit)):
            benchmark(f'benchmarks/{path.name}')(['--help'])
    known = set(OPTION.findall(capsys.readouterr().out)) | {'--model', '--data', '--trainer', '--no-run'}
    known |= init_options(datamodules, 'data') | init_options(tasks, 'model') | OTHER_PROGRAMS
    known |= {f'--model.augmentation.{field.name}' for field in dataclasses.fields(tasks.Augmentation)}
    known = {name.replace('-', '_') for name in known}
    faults = []
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding='utf-8').splitlines(), 1):
            for name in OPTION.findall(line):
                short = name.replace('.init_args', '').replace('pretraining.', '')
                if short.startswith('--trainer.') or short.endswith(('help', '.OPTION')):
                    continue
                if short.replace('-', '_') not in known:
                    faults.append(f'{page.name}:{number}: {name}')
    assert not faults, '\n'.join(faults)


def test_modules_exist() -> None:
    """Every Python file that a page names exists, with the folders that it names."""
    known = {path.relative_to(ROOT).as_posix() for path in ROOT.glob('*/**/*.py')}
    faults = [
        f'{page.name}: {name}'
        for page in PAGES
        for name in re.findall(r'(?<![\w/<>.-])[\w/]+\.py\b', page.read_text(encoding='utf-8'))
        if name not in OTHER_FILES and not any(f'/{path}'.endswith(f'/{name}') for path in known)
    ]
    assert not faults, '\n'.join(faults)


def test_links_between_pages_exist() -> None:
    faults = [
        f'{page.name}: {target}'
        for page in PAGES
        for target in re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', page.read_text(encoding='utf-8'))
        if not (page.parent / target).exists()
    ]
    assert not faults, '\n'.join(faults)


def test_versions_of_formats_are_current() -> None:
    text = ' '.join((ROOT / 'docs' / 'formats.md').read_text(encoding='utf-8').split())
    assert f'`FORMAT` is {manifest.FORMAT}' in text
    assert f'`_VERSION` ({user_cache._VERSION})' in text
    assert f'`geo/decoded_cache.py` ({decoded_cache._VERSION})' in text
    assert f'`geo/header_cache.py` ({header_cache._VERSION})' in text


@pytest.mark.parametrize(
    ('page', 'heading', 'kinds'),
    [
        ('README.md', '`torchgeo_msssl.datamodules.PretrainingDataModule`:', [datamodules.PretrainingDataModule]),
        ('README.md', 'Options of the task, `torchgeo_msssl.tasks.FastSiam`', [tasks.FastSiam]),
        ('README.md', '`torchgeo_msssl.datamodules.SegmentationDataModule`, in', [datamodules.SegmentationDataModule]),
        ('README.md', '`torchgeo_msssl.tasks.VineSegmentation` (or', [tasks.VineSegmentation]),
        (
            'docs/data_preparation.md',
            '`PretrainingDataModule` and `SegmentationDataModule` read',
            [datamodules.PretrainingDataModule, datamodules.SegmentationDataModule],
        ),
    ],
)
def test_tables_list_constructor_arguments(page: str, heading: str, kinds: list[type]) -> None:
    text = (ROOT / page).read_text(encoding='utf-8')
    table = text[text.index('|---|---|', text.index(heading)) :].split('\n\n')[0]
    names = [name for row in table.splitlines()[1:] for name in re.findall(r'`(\w+)`', row.split('|')[1])]
    bases = {base for kind in kinds for base in inspect.getmro(kind)}
    known = {name for base in bases for name in inspect.signature(base.__init__).parameters}
    assert len(names) > 5
    assert set(names) <= known
