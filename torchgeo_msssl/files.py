"""Files that land complete or not at all."""

import contextlib
import errno
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torchgeo_msssl.errors import MSSSLError, OutputError

#: What GDAL keeps beside a raster: statistics and colours, masks, overviews. They belong to the pixels they describe.
SIDECARS = ('.aux.xml', '.msk', '.ovr')

#: A file that was written this many seconds ago may be written again within the same tick of the clock.
FRESH = 2.0

#: Failures of the disk itself, whoever was writing: full, over quota, too large, read-only, broken.
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lend a temporary path beside a target and move it onto the target at the end.

    A reader never sees a half-written file, and an older file at the target stays as it is until the new one is
    complete. When the block raises, the temporary file is removed; a killed process leaves at most a hidden file
    (``.name.<hexadecimal>.suffix``), which no search for scenes takes up. Folders above the target are made.
    :data:`SIDECARS` that the block writes beside the temporary file move with it, and those of the older file go.

    Args:
        path: Where the file is to be in the end.

    Yields:
        A path in the same folder with the same suffix, at which nothing exists yet.

    Raises:
        OutputError: If the target cannot be written, the disk is full, or the block wrote nothing.
    """
    target = Path(path)
    # The name is cut short so that a target with the longest name that a folder can hold has room for the rest.
    temporary = target.with_name(f'.{target.stem[:64]}.{uuid.uuid4().hex[:12]}{target.suffix}')
    mode = _check_writable(target, temporary)
    try:
        yield temporary
        if not temporary.exists():
            raise unwritable(target, 'nothing was written')
        temporary.chmod(mode)  # some writers (safetensors) leave files that only their owner may read
        _flush_to_disk(temporary)
        _publish(temporary, target)
    except MSSSLError:
        raise
    except OSError as error:
        # Any other OSError in the block may be about another file (a scene that cannot be read): it is not ours.
        ours = {str(temporary), str(target)}
        if error.errno in _DISK_ERRORS or not ours.isdisjoint({str(error.filename), str(error.filename2)}):
            raise unwritable(target, error.strerror or str(error)) from error
        raise
    finally:
        for leftover in (temporary, *(_beside(temporary, suffix) for suffix in SIDECARS)):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write plain values as JSON, NaN as null.

    Args:
        path: The file; it appears complete or not at all.
        content: Plain values.

    Raises:
        OutputError: If the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_without_nan(content), indent=2, allow_nan=False), encoding='utf-8')


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_writable(target: Path, temporary: Path) -> int:
    """Find out now, not after hours of work, whether the target can be written, and what mode new files have here."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, 'it is a folder')
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, 'it is no ordinary file')
        # The probe is removed because some writers refuse existing files.
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777
        temporary.unlink()
        return mode
    except OSError as error:
        raise unwritable(target, error.strerror or str(error)) from error


def _publish(temporary: Path, target: Path) -> None:
    for suffix in SIDECARS:
        if _beside(temporary, suffix).exists():
            _beside(temporary, suffix).replace(_beside(target, suffix))
        elif os.path.lexists(_beside(target, suffix)):
            # The mask or statistics of the file that is being replaced would be taken for the new one's.
            _beside(target, suffix).unlink()
    temporary.replace(target)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f'{path.name}{suffix}')


def _flush_to_disk(path: Path) -> None:
    """Force a file out of the system's buffers, so that a rename never outlives its content in a power cut."""
    with path.open('rb+') as file:
        os.fsync(file.fileno())


def unwritable(path: str | os.PathLike[str], reason: str) -> OutputError:
    """Return the error for a file that cannot be written.

    Args:
        path: The file.
        reason: What the system or a library reports.

    Returns:
        The error, to be raised.
    """
    return OutputError(f'{path} cannot be written ({reason}); choose another path or free some space.')
