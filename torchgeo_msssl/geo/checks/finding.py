"""Findings of the ``doctor`` command."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Severity = Literal['error', 'slow', 'note']


@dataclass(frozen=True)
class Finding:
    """A problem or remark about one file, or about several files together.

    Attributes:
        severity: ``error`` (pixels cannot be used, or would be misinterpreted), ``slow``, or ``note``.
        topic: Short key of the problem.
        message: Description of the problem and its effect, the same for all files of the topic.
        files: Paths of the files.
        detail: Observation in these files.
        factor: Time to read a random chip relative to a tiled file, measured on this file; None if not measured.
        remedies: Commands and options that solve the problem, the best one first.
    """

    severity: Severity
    topic: str
    message: str
    files: tuple[str, ...]
    detail: str = ''
    factor: float | None = None
    remedies: tuple[str, ...] = ()

    def content(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return asdict(self)


def command(*words: object) -> str:
    """Return a command line for a shell, with quotes where they are needed."""
    return shlex.join([str(word) for word in words])


def rewrite_command(path: str, *options: object) -> str:
    """Return the command that rewrites a file in tiles, north up, with mask and band names inside.

    Args:
        path: The file.
        *options: Further options of the command.

    Returns:
        A command line. The target is in a neighbouring folder, so that a search of the first folder does not find both,
        and keeps the name of the file, which may contain date and band.
    """
    source = Path(path)
    folder = source.parent.with_name(f'{source.parent.name}_tiled') if source.parent.name else Path('tiled')
    target = folder / f'{source.stem}.tif'
    return command('python', '-m', 'torchgeo_msssl', 'doctor', path, '--rewrite', target, *options)


def edit_command(path: str, *options: object) -> str:
    """Return the ``rio edit-info`` command that edits the header of a file in place.

    Args:
        path: The file.
        *options: Options of ``rio edit-info``.

    Returns:
        A command line.
    """
    return command('rio', 'edit-info', *options, path)
