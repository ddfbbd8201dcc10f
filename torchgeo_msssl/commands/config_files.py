"""Configuration files of ``fit``, ``validate``, ``test`` and ``predict``."""

import difflib
from pathlib import Path
from typing import Any

import yaml

from torchgeo_msssl.errors import ConfigurationError

_SECTIONS = 'expected the sections model, data and trainer, as in configs/fastsiam_s2.yaml'


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration.

    Args:
        path: YAML file.

    Returns:
        Its sections.

    Raises:
        ConfigurationError: If there is no such file, or it is not a YAML file of sections in UTF-8.
    """
    if path == Path():
        raise ConfigurationError('config: expected a file after --config, such as configs/fastsiam_s2.yaml.')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f'config: {path} is not UTF-8 ({error.reason}); save it as UTF-8.') from error
    except IsADirectoryError as error:
        raise ConfigurationError(f'config: {path} is a folder; give one of its YAML files.') from error
    except FileNotFoundError as error:
        raise ConfigurationError(f'config: there is no file {path}; {_remedy(path)}') from error
    except OSError as error:
        raise ConfigurationError(f'config: {path} cannot be read ({error.strerror}).') from error
    except yaml.YAMLError as error:
        raise ConfigurationError(_syntax(path, error)) from error
    if not isinstance(content, dict):
        kind = 'is empty' if content is None else f'holds a {type(content).__name__}'
        raise ConfigurationError(f'config: {path} {kind}; {_SECTIONS}.')
    return content


def _remedy(path: Path) -> str:
    names = [other.name for other in sorted(path.parent.glob('*.y*ml'))] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, names, 1)
    return f'did you mean {path.parent / close[0]}?' if close else 'give the path of a YAML file.'


def _syntax(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, 'problem_mark', None)
    problem = getattr(error, 'problem', None) or ' '.join(str(error).split())
    where = f', line {mark.line + 1}, column {mark.column + 1}' if mark is not None else ''
    return f'config: {path}{where}: {problem}; check colons, quotes and indentation (spaces, no tabs) there.'
