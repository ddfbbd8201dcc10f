"""Configurations that ship with the package and are found by name."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from torchgeo_msssl.errors import ConfigurationError

#: Commands by the first part of the name of their configurations; all other configurations are for ``fit``.
_COMMANDS = {'probe_': 'probe', 'study_': 'study', 'recommend_': 'recommend'}
_SUFFIXES = ('.yaml', '.yml')


def config_folder() -> Path:
    """Return the folder of the configurations: inside the installed package, or next to it in a checkout.

    Raises:
        ConfigurationError: If there is none, because the installation is incomplete.
    """
    package = Path(__file__).parent
    for folder in (package / 'configs', package.parent / 'configs'):
        if (folder / 'fastsiam_s2.yaml').is_file():
            return folder
    raise ConfigurationError(f'config: {package} was installed without configs/; install torchgeo_msssl again.')


def config_names() -> list[str]:
    """Return the names of all configurations in alphabetical order."""
    return sorted(path.stem for path in config_folder().glob('*.yaml'))


def config_text(name: str) -> str:
    """Return the content of a configuration.

    Args:
        name: One of :func:`config_names`.

    Raises:
        ConfigurationError: If there is none of this name.
    """
    path = config_folder() / f'{name}.yaml'
    if not path.is_file():
        msg = f'there is no shipped configuration {name}; {_meant(name, {known: known for known in config_names()})}'
        raise ConfigurationError(msg)
    return path.read_text(encoding='utf-8')


def command_of(name: str) -> str:
    """Return the command that a configuration is for: ``fit``, ``probe``, ``study`` or ``recommend``."""
    return next((command for start, command in _COMMANDS.items() if name.startswith(start)), 'fit')


def summary_of(text: str) -> str:
    """Return the first sentence of the comment at the top of a configuration; empty without a comment.

    Args:
        text: Content of the configuration.
    """
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith('#') or not line.strip('# '):
            break
        lines.append(line.strip('# '))
    return re.split(r'(?<=[.?])\s', ' '.join(lines))[0].rstrip('.:')


def find_config(given: str | os.PathLike[str]) -> Path:
    """Find a configuration by its path or its name.

    A file on disk comes first: that of the given path, for a bare name that with ``.yaml`` in the working folder, too.

    Args:
        given: Path of a YAML file, or one of :func:`config_names`, with or without ``.yaml``.

    Returns:
        Path of an existing file.

    Raises:
        ConfigurationError: If there is neither.
    """
    path = Path(given).expanduser()
    name = None if os.path.dirname(given) else path.stem if path.suffix in _SUFFIXES else path.name
    # unlike pathlib, os.path takes text that is too long for a path
    for candidate in _candidates(path, name):
        if os.path.isfile(candidate):
            return candidate
    if os.path.isdir(path):
        raise ConfigurationError(f'config: {path} is a folder; give one of its YAML files.')
    if os.path.exists(path):  # a pipe
        return path
    raise ConfigurationError(f'config: there is no {_remedy(path, name)}')


def _candidates(path: Path, name: str | None) -> list[Path]:
    if name is None:
        return [path]
    return [path, *([] if path.suffix else [Path(f'{name}.yaml')]), config_folder() / f'{name}.yaml']


def _remedy(path: Path, name: str | None) -> str:
    """Say that nothing is found, and what was probably meant."""
    files = {other.stem: str(other) for other in sorted(path.parent.glob('*.y*ml'))}
    shipped = {name: name for name in config_names()}
    if name is not None:
        return f'file or shipped configuration {path}; {_meant(name, shipped | files)}'
    if close := difflib.get_close_matches(path.stem, files, 1):
        return f'file {path}; did you mean {files[close[0]]}?'
    if path.stem in shipped:
        return f'file {path}; did you mean {path.stem}, which ships with the package?'
    return f'file {path}; give the path of a YAML file, or a name that `configs` lists.'


def _meant(name: str, known: Mapping[str, str]) -> str:
    close = [known[one] for one in difflib.get_close_matches(name, known, 3)]
    if not close:
        return '`configs` lists those that ship with the package.'
    return f'did you mean {" or ".join([", ".join(close[:-1]), close[-1]] if close[1:] else close)}?'


class ConfigFile(str):
    """Absolute path of a configuration that is given by its path or its name, as an option of a command."""

    def __new__(cls, given: str | os.PathLike[str]) -> 'ConfigFile':
        """Find the configuration.

        Args:
            given: Path, relative to the working folder, or name; see :func:`find_config`.

        Raises:
            ConfigurationError: If there is neither.
        """
        return super().__new__(cls, find_config(given).absolute())
