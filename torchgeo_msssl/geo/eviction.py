"""Eviction of the least recently used entries of a cache folder with limited size.

An entry is a folder. The modification time of one small file in it, its marker, tells when it was last used. A process
that has mapped an evicted entry keeps reading it; the disk space is free when the last one closes it.

An entry is built in a neighbouring folder ``.<entry>.<number>`` while the builder holds the lock of the entry. If the
lock is free, the builder of such a folder was killed.
"""

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from torchgeo_msssl.errors import ConfigurationError

#: Age in seconds from which an unfinished entry counts as abandoned on a file system without locks.
_ABANDONED = 24 * 3600.0

_SIZE = re.compile(r'(\d+(?:\.\d+)?)\s*(?:([kMGT])(i?))?B?', re.IGNORECASE)
_POWERS = {'': 0, 'k': 1, 'm': 2, 'g': 3, 't': 4}


def parse_size(size: int | str, option: str = 'cache_size') -> int:
    """Convert a size to bytes.

    Args:
        size: Bytes, or text such as ``50GB``, ``1.5 TB`` or ``200GiB`` (powers of 1,024).
        option: Name of the option for the error message.

    Returns:
        Bytes.

    Raises:
        ConfigurationError: If it is not a size above 0.
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None or float(match[1]) == 0:
        raise ConfigurationError(f"{option}: expected bytes or text such as '50GB', got {size!r}.")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[(match[2] or '').lower()])


def format_size(size: float) -> str:
    """Format bytes with three or four digits and a unit, such as ``33.6 MB``; :func:`parse_size` reads it back."""
    for unit in ('B', 'kB', 'MB', 'GB'):
        if size < 999.5:
            return f'{size:.3g} {unit}'
        size /= 1000
    return f'{size:,.4g} TB'


@contextlib.contextmanager
def entry_lock(entry: Path, wait: bool = True) -> Iterator[bool | None]:
    """Hold the lock of an entry; the system releases it when the process ends, however it ends.

    Args:
        entry: Path of the entry, whether or not it exists.
        wait: Wait for another process or thread that holds the lock.

    Yields:
        True if the lock is held, False if another process or thread holds it, None if the file system has no locks or
        the folder cannot be written.
    """
    lock = FileLock(entry.with_name(f'.lock-{entry.name}'), timeout=-1 if wait else 0)
    held: bool | None = True
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        held = False
    except OSError:  # if the folder cannot be written, building the entry reports it
        held = None
    try:
        yield held
    finally:
        if held:
            with contextlib.suppress(OSError):  # Windows does not delete open files
                os.unlink(lock.lock_file)
            lock.release()


def building_path(entry: Path) -> Path:
    """Return a new name for a folder that is to become an entry, or no longer is one."""
    return entry.with_name(f'.{entry.name}.{uuid.uuid4().hex[:12]}')


def remove_abandoned(folder: Path, locked: Path | None = None) -> list[Path]:
    """Delete the unfinished entries of killed processes.

    Args:
        folder: The cache folder.
        locked: An entry whose lock the caller holds.

    Returns:
        Entries that other processes are building.
    """
    in_progress = set()
    for unfinished in folder.glob('.*-*.*'):
        entry = unfinished.with_name(unfinished.name[1:].rpartition('.')[0])
        if entry == locked:
            shutil.rmtree(unfinished, ignore_errors=True)
            continue
        with entry_lock(entry, wait=False) as held:
            if held or (held is None and _is_old(unfinished)):
                shutil.rmtree(unfinished, ignore_errors=True)
            elif held is False and unfinished.exists():
                in_progress.add(entry)
    return sorted(in_progress)


def _is_old(folder: Path) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > _ABANDONED
    except FileNotFoundError:  # it has just been completed
        return False


def make_room(target: Path, need: int, limit: int, keep: Collection[Path], marker: str) -> int:
    """Remove the least recently used entries until a new one fits under the limit.

    Args:
        target: The entry to be written, in the cache folder; an existing one is about to be replaced.
        need: Its size in bytes.
        limit: Bytes that all entries together may have.
        keep: Entries that must stay.
        marker: Name of the marker file of an entry.

    Returns:
        Bytes above the limit that could not be removed, 0 if the entry fits.
    """
    sizes = {entry: _size_of(entry) for entry in target.parent.iterdir() if entry.is_dir() and entry != target}
    over = sum(sizes.values()) + need - limit
    candidates = [entry for entry in sizes if entry not in keep and not entry.name.startswith('.')]
    for entry in sorted(candidates, key=lambda entry: _last_used(entry / marker)):
        if over <= 0:
            break
        if remove(entry):
            over -= sizes[entry]
    return max(over, 0)


def touch(marker: Path) -> None:
    """Record that the entry of a marker is used now."""
    with contextlib.suppress(OSError):  # a cache without write permission can still be read
        os.utime(marker)


def _last_used(marker: Path) -> float:
    try:
        return marker.stat().st_mtime
    except OSError:  # an incomplete entry is removed first
        return 0.0


def _size_of(entry: Path) -> int:
    with contextlib.suppress(OSError):  # another process is removing it
        return sum(file.stat().st_size for file in entry.iterdir())
    return 0


def remove(entry: Path) -> bool:
    """Rename an entry, so that no process finds half of it, and delete it.

    Args:
        entry: A folder, or a file in its place.

    Returns:
        Whether the entry no longer exists.
    """
    away = building_path(entry)
    try:
        entry.rename(away)
    except OSError:
        return not entry.exists()
    if away.is_dir():
        shutil.rmtree(away, ignore_errors=True)
    else:
        away.unlink(missing_ok=True)
    return True
