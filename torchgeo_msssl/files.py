"""Files that appear complete or not at all."""

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

#: Suffixes of GDAL's sidecar files of a raster: statistics and colours, masks, overviews.
SIDECARS = ('.aux.xml', '.msk', '.ovr')

#: Age in seconds up to which a file may be written again within the same tick of the clock.
FRESH = 2.0

#: Failures of the disk: full, over quota, file too large, read-only, broken.
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to a target, and rename it to the target at the end.

    Readers never find a partial file, and an existing file stays until the new one is complete. If the block raises,
    the temporary file is removed. A killed process leaves at most a hidden file (``.name.<hexadecimal>.suffix``), which
    a search for scenes ignores. Missing folders are created. :data:`SIDECARS` that the block writes are renamed, too,
    and those of the old file are removed.

    Args:
        path: Path of the target.

    Yields:
        A path in the same folder and with the same suffix, at which no file exists.

    Raises:
        OutputError: If the target cannot be written, the disk is full, or the block wrote nothing.
    """
    target = Path(path)
    # the stem is cut, so that the name is not too long for the file system
    temporary = target.with_name(f'.{target.stem[:64]}.{uuid.uuid4().hex[:12]}{target.suffix}')
    mode = _check_writable(target, temporary)
    try:
        yield temporary
        if not temporary.exists():
            raise unwritable(target, 'nothing was written')
        temporary.chmod(mode)  # some writers (safetensors) create files that only their owner may read
        _flush_to_disk(temporary)
        _publish(temporary, target)
    except MSSSLError:
        raise
    except OSError as error:
        # other errors may be about another file, such as a scene that cannot be read
        own = {str(temporary), str(target)}
        if error.errno in _DISK_ERRORS or not own.isdisjoint({str(error.filename), str(error.filename2)}):
            raise unwritable(target, error.strerror or str(error)) from error
        raise
    finally:
        for leftover in (temporary, *(_sidecar(temporary, suffix) for suffix in SIDECARS)):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write plain values as JSON, with null for NaN.

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
    """Raise if the target cannot be written, before hours of work; return the mode of new files in its folder."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, 'it is a folder')
        if target.exists() and not target.is_file():
            raise OSError(errno.EINVAL, 'it is not a regular file')
        # removed again, as some writers refuse existing files
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777
        temporary.unlink()
        return mode
    except OSError as error:
        raise unwritable(target, error.strerror or str(error)) from error


def _publish(temporary: Path, target: Path) -> None:
    for suffix in SIDECARS:
        if _sidecar(temporary, suffix).exists():
            _sidecar(temporary, suffix).replace(_sidecar(target, suffix))
        elif os.path.lexists(_sidecar(target, suffix)):
            # the mask or statistics of the old file would be used for the new one
            _sidecar(target, suffix).unlink()
    temporary.replace(target)


def _sidecar(path: Path, suffix: str) -> Path:
    return path.with_name(f'{path.name}{suffix}')


def _flush_to_disk(path: Path) -> None:
    """Write the buffers of a file to the disk, so that after a power failure a renamed file has its content."""
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
