"""Files that land complete or not at all."""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from torchgeo_msssl.errors import MSSSLError, OutputError

#: Failures of the disk itself, whoever was writing: full, over quota, too large, read-only, broken.
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lend a temporary path beside a target and move it onto the target at the end.

    A reader never sees a half-written file, and an older file at the target stays as it is until the new one is
    complete. When the block raises, the temporary file is removed. Folders above the target are made.

    Args:
        path: Where the file is to be in the end.

    Yields:
        A path in the same folder with the same suffix, at which nothing exists yet.

    Raises:
        OutputError: If the target cannot be written, or the block wrote nothing.
    """
    target = Path(path)
    temporary = target.with_name(f'.{target.stem}.{uuid.uuid4().hex[:8]}{target.suffix}')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, 'it is a folder')
        # Found out now, not after hours of work. The probe is removed because some writers refuse existing files.
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise _unwritable(target, error) from error

    try:
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(target)
    except MSSSLError:
        raise
    except OSError as error:
        # Any other OSError in the block may be about another file (a scene that cannot be read): it is not ours.
        if error.errno in _DISK_ERRORS or error.filename in (str(temporary), temporary):
            raise _unwritable(target, error) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    """Force a file out of the system's buffers, so that a rename never outlives its content in a power cut."""
    with path.open('rb+') as file:
        os.fsync(file.fileno())


def _unwritable(target: Path, error: OSError) -> OutputError:
    reason = error.strerror or str(error)
    return OutputError(f'{target} cannot be written ({reason}); choose another path or make room there.')
