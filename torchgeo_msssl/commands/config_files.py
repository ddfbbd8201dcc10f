"""Configuration files of ``fit``, ``validate``, ``test`` and ``predict``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.shipped_configs import find_config

_SECTIONS = 'expected the sections model, data and trainer, as `configs fastsiam_s2` prints them'


def read_config(given: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a configuration.

    Args:
        given: YAML file, or name of a shipped configuration.

    Returns:
        Its sections.

    Raises:
        ConfigurationError: If there is no such file or name, or it is not a YAML file of sections in UTF-8.
    """
    if not str(given):
        raise ConfigurationError('config: expected a file or a name after --config, such as fastsiam_s2.')
    path = find_config(given)
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f'config: {path} is not UTF-8 ({error.reason}); save it as UTF-8.') from error
    except OSError as error:
        raise ConfigurationError(f'config: {path} cannot be read ({error.strerror}).') from error
    except yaml.YAMLError as error:
        raise ConfigurationError(_syntax(path, error)) from error
    if not isinstance(content, dict):
        kind = 'is empty' if content is None else f'holds a {type(content).__name__}'
        raise ConfigurationError(f'config: {path} {kind}; {_SECTIONS}.')
    return content


def with_config_paths(arguments: Sequence[str]) -> list[str]:
    """Replace the names of shipped configurations by their paths, which Lightning's command line opens.

    Args:
        arguments: ``fit``, ``validate``, ``test`` or ``predict`` and what follows.

    Returns:
        The same arguments with paths after ``--config`` and ``-c``.

    Raises:
        ConfigurationError: If there is no such file or name.
    """
    found: list[str] = []
    for before, argument in zip(['', *arguments], arguments, strict=False):
        if before in ('-c', '--config'):
            found.append(str(find_config(argument)))
        elif argument.startswith('--config='):
            found.append(f'--config={find_config(argument.removeprefix("--config="))}')
        else:
            found.append(argument)
    return found


def _syntax(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, 'problem_mark', None)
    problem = getattr(error, 'problem', None) or ' '.join(str(error).split())
    where = f', line {mark.line + 1}, column {mark.column + 1}' if mark is not None else ''
    return f'config: {path}{where}: {problem}; check colons, quotes and indentation (spaces, no tabs) there.'
