"""``configs``: list, print or copy the configurations that ship with the package."""

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from torchgeo_msssl.commands import program
from torchgeo_msssl.commands.options import option, read_options
from torchgeo_msssl.errors import ConfigurationError, OutputError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.shipped_configs import command_of, config_names, config_text, summary_of

_COMMANDS = ('fit', 'probe', 'study', 'recommend')


@dataclass(frozen=True, kw_only=True)
class ConfigsOptions:
    """List the configurations that ship with the package, print some, or copy them to change them.

    Commands find them by name, as in `fit --config fastsiam_s2`. NAME.yaml in the working folder comes before the
    shipped one of the same name.

    Attributes:
        names: Configurations to print, or to copy; default: list all, or copy all.
        output: Folder to copy them into; or for one of them a file, whose name ends in .yaml.
        overwrite: Replace existing files.
    """

    names: tuple[str, ...] = option((), metavar='NAME', positional=True)
    output: str | None = option(None, metavar='DIR')
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ConfigurationError: If several files would have the same name.
        """
        if self.output is not None and _is_file(self.output) and len(self.names) != 1:
            raise ConfigurationError(f'output: {self.output} is one file; give one NAME, or a folder.')


def run(arguments: Sequence[str]) -> int:
    """List, print or copy configurations.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If there is no such configuration, or a file exists or cannot be written.
    """
    example = 'configs fastsiam_s2 --output .'
    options = read_options(ConfigsOptions, 'configs', arguments, example=example)
    texts = {name: config_text(name) for name in map(_without_suffix, options.names)}
    if options.output is not None:
        _copy(texts or {name: config_text(name) for name in config_names()}, options.output, options.overwrite)
    elif texts:
        _show('\n'.join(text.rstrip('\n') for text in texts.values()))
    else:
        _show(_listing())
    return 0


def _show(text: str) -> None:
    """Print a text, of which `head` or a pager may read the beginning only."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # else Python reports it again when it closes standard output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _listing() -> str:
    """List names and summaries by command."""
    names = config_names()
    indent = ' ' * (max(map(len, names)) + 4)
    width = min(shutil.get_terminal_size((120, 0)).columns, 120)
    lines = []
    for command, group in groupby(sorted(names, key=_order), key=command_of):
        lines += ['', f'{program()} {command} --config NAME']
        for name in group:
            first = f'  {name}'.ljust(len(indent))
            summary = summary_of(config_text(name))
            lines += textwrap.wrap(summary, width, initial_indent=first, subsequent_indent=indent) or [first.rstrip()]
    return '\n'.join(lines[1:])


def _order(name: str) -> tuple[int, str]:
    return _COMMANDS.index(command_of(name)), name


def _copy(texts: dict[str, str], output: str, overwrite: bool) -> None:
    targets = {Path(output) if _is_file(output) else Path(output) / f'{name}.yaml': name for name in texts}
    unchanged = [path for path, name in targets.items() if _content(path) == texts[name].encode()]
    existing = [path for path in targets if path.exists() and path not in unchanged]
    if existing and not overwrite:
        shown = f'{existing[0]} and {len(existing) - 1} more exist' if existing[1:] else f'{existing[0]} exists'
        raise OutputError(f'output: {shown} with another content; choose another folder, or set --overwrite.')
    for path, name in targets.items():
        if path in unchanged:
            print(f'{path} exists with the same content')
            continue
        with atomic_path(path) as temporary:
            temporary.write_bytes(texts[name].encode())
        print(f'{"Replaced" if path in existing else "Wrote"} {path}')


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _is_file(output: str) -> bool:
    return Path(output).suffix in ('.yaml', '.yml')


def _without_suffix(name: str) -> str:
    return name.removesuffix('.yaml')
