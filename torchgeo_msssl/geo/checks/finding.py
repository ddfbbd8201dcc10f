"""What a check found."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Severity = Literal['wrong', 'slow', 'note']


@dataclass(frozen=True)
class Finding:
    """One thing to know about one file, or about several files together.

    Attributes:
        severity: ``wrong`` (pixels would be taken for what they are not, or cannot be used), ``slow``, or ``note``.
        topic: Short key of what it is, the same for all files that have it.
        message: What it is and what it does, the same for all files of the topic.
        files: The files it is about.
        detail: What was seen in these very files.
        factor: How many times as long a random chip takes as from tiles, measured on this file; None where it was not.
        remedies: Commands and options that mend it, the best one first.
    """

    severity: Severity
    topic: str
    message: str
    files: tuple[str, ...]
    detail: str = ''
    factor: float | None = None
    remedies: tuple[str, ...] = ()

    def content(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def command(*words: object) -> str:
    """A command line for a shell, with what needs quotes in quotes."""
    return shlex.join([str(word) for word in words])


def mend_command(path: str, *options: object) -> str:
    """The command that writes a file anew: in tiles, with masks and names inside.

    Args:
        path: The file.
        *options: Further options of it.

    Returns:
        A command line.
    """
    # a folder beside, for a search of the first one must not find both; the name stays, as it may tell date and band
    source = Path(path)
    folder = source.parent.with_name(f'{source.parent.name}_tiled') if source.parent.name else Path('tiled')
    target = folder / f'{source.stem}.tif'
    return command('python', '-m', 'torchgeo_msssl', 'doctor', path, '--mend', target, *options)


def edit_command(path: str, *options: object) -> str:
    """The command of rasterio that edits a file's header in place.

    Args:
        path: The file.
        *options: Options of ``rio edit-info``.

    Returns:
        A command line.
    """
    return command('rio', 'edit-info', *options, path)
