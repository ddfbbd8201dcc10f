"""Committed files contain no local paths or package registries, and configurations are portable."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]

# Assembled here, so that this file does not contain the patterns.
FORBIDDEN = re.compile(
    '|'.join(
        (
            *(rf'(?<![\w.~-])/{folder}\b' for folder in ('work', 'root')),
            *('-'.join(words) for words in (('index', 'url'), ('find', 'links'), ('extra', 'index'))),
        )
    )
)
#: Configurations of `fit`, without those of `probe`, `recommend` and `study`.
OTHERS = ('probe_', 'recommend_', 'study_')
CONFIGS = sorted(path for path in (ROOT / 'configs').glob('**/*.yaml') if not path.name.startswith(OTHERS))


def committed_files() -> list[Path]:
    """Return the files that git tracks or would add."""
    if shutil.which('git') is None or not (ROOT / '.git').exists():
        pytest.skip('not a git checkout')
    listed = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '-z'],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [path for name in listed.stdout.split(b'\0') if name and (path := ROOT / name.decode()).is_file()]


def forbidden_lines(text: str) -> list[str]:
    """Return the lines with a local path or a registry option, with their numbers."""
    return [f'{number}: {line.strip()}' for number, line in enumerate(text.splitlines(), 1) if FORBIDDEN.search(line)]


def third_party_imports(code: str) -> set[str]:
    """Return the top-level names of the third-party libraries that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split('.')[0])
    return names - sys.stdlib_module_names - {'torchgeo_msssl'}


def normalized(distribution: str) -> str:
    """Return the normalized name of a distribution."""
    return re.sub(r'[-_.]+', '-', distribution).lower()


def class_paths(node: Any) -> Iterator[str]:
    """Yield every class_path in a configuration, at any depth."""
    if isinstance(node, dict):
        if 'class_path' in node:
            yield node['class_path']
        for value in node.values():
            yield from class_paths(value)
    elif isinstance(node, list):
        for value in node:
            yield from class_paths(value)


def test_no_local_paths() -> None:
    faults = []
    for path in committed_files():
        try:
            text = path.read_text(encoding='utf-8')
        except UnicodeDecodeError:
            continue  # an image or raster
        faults += [f'{path.relative_to(ROOT)}:{line}' for line in forbidden_lines(text)]
    assert not faults, '\n'.join(faults)


@pytest.mark.parametrize(
    'line',
    [
        'see {s}work{s}shared',
        'PATH={s}root{s}.cache',
        'cd {s}work',
        'pip install --index{d}url x',
        'find{d}links',
        '--extra{d}index{d}url=y',
    ],
)
def test_local_paths_are_found(line: str) -> None:
    assert len(forbidden_lines(f'fine\n{line.format(s="/", d="-")}\n')) == 1


@pytest.mark.parametrize(
    'line', ['frame{s}work', 'run the net{s}work{s}test', '$HOME{s}.cache', 'index_url', 'work in progress']
)
def test_other_text_passes(line: str) -> None:
    assert forbidden_lines(line.format(s='/')) == []


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.name)
def test_configs_use_dotted_class_paths(path: Path) -> None:
    config = yaml.safe_load(path.read_text(encoding='utf-8'))
    paths = list(class_paths(config))
    # TorchGeo's command finds classes of this package only by their full names.
    assert {'model', 'data'} & set(config), f'{path.name} configures neither model nor data'
    assert all('class_path' in config[key] for key in ('model', 'data') if key in config)
    short = [name for name in paths if '.' not in name]
    assert not short, f'{path.name}: {short} must be full dotted class paths'


def test_class_paths_are_found_at_any_depth() -> None:
    config = {'model': {'class_path': 'A'}, 'trainer': {'callbacks': [{'class_path': 'b.C', 'init_args': {'x': 1}}]}}
    assert list(class_paths(config)) == ['A', 'b.C']


@pytest.mark.slow
def test_imported_libraries_are_declared() -> None:
    with (ROOT / 'pyproject.toml').open('rb') as file:
        project = tomllib.load(file)['project']
    requirements = project['dependencies'] + project['optional-dependencies']['onnx']
    declared = {normalized(re.split(r'[\[<>=!~; ]', requirement)[0]) for requirement in requirements}
    providers = packages_distributions()
    faults = [
        f'{path.relative_to(ROOT)} imports {name}, which pyproject.toml does not list'
        for path in sorted((ROOT / 'torchgeo_msssl').rglob('*.py'))
        for name in sorted(third_party_imports(path.read_text(encoding='utf-8')))
        if declared.isdisjoint(map(normalized, providers.get(name, [name])))
    ]
    assert not faults, '\n'.join(faults)


def test_third_party_imports_are_found() -> None:
    code = 'import os.path\nimport numpy as np\nfrom . import x\ndef f():\n    from sklearn.svm import SVC'
    assert third_party_imports(code) == {'numpy', 'sklearn'}


def test_python_version() -> None:
    assert (ROOT / '.python-version').read_text(encoding='utf-8').strip() == '3.12'


@pytest.mark.parametrize('name', ['scripts/demo', 'scripts/test', '.ci/run'])
def test_scripts_are_valid(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK), f'{name} is not executable'
    subprocess.run(['bash', '-n', ROOT / name], check=True)


def test_workflows_and_hooks_are_valid_yaml() -> None:
    paths = [ROOT / '.pre-commit-config.yaml', *(ROOT / '.github').rglob('*.yml')]
    assert len(paths) >= 4
    for path in paths:
        assert isinstance(yaml.safe_load(path.read_text(encoding='utf-8')), dict), path


#: Words of an earlier private dialect; the package and its documentation are in plain English.
DIALECT = re.compile(r'\b(mend|anew|nobody|goes on|is told|spoil|dealt)\b', re.IGNORECASE)


def package_text() -> Iterator[tuple[Path, list[str]]]:
    """Yield the lines of every text file of the package, of docs/ and of README.md."""
    for path in committed_files():
        if path.relative_to(ROOT).parts[0] in ('torchgeo_msssl', 'docs', 'README.md') and path.suffix != '.png':
            yield path, path.read_text(encoding='utf-8').splitlines()


def test_plain_english() -> None:
    faults = [
        f'{path.relative_to(ROOT)}:{number}: {line.strip()}'
        for path, lines in package_text()
        for number, line in enumerate(lines, 1)
        if DIALECT.search(line)
    ]
    assert not faults, '\n'.join(faults)


def test_files_of_the_package_are_short() -> None:
    """A module has one purpose; above 450 lines it has several."""
    faults = [
        f'{path.relative_to(ROOT)}: {len(lines)} lines'
        for path, lines in package_text()
        if path.suffix == '.py' and len(lines) > 450
    ]
    assert not faults, '\n'.join(faults)


def test_formatting_is_not_suppressed() -> None:
    faults = [
        f'{path.relative_to(ROOT)}:{number}'
        for path in committed_files()
        if path.suffix in ('.py', '.pyi')
        for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1)
        if re.search('fmt: ' + '(skip|off)', line)
    ]
    assert not faults, '\n'.join(faults)
