"""Room for the entries of a cache folder whose size is limited.

An entry is a folder; when it was last used is the time of a small file in it. The least recently used entries go
first. Whoever has one mapped keeps reading it: the disk gives its place back when the last one lets go.

An entry is built in a folder beside it, ``.<entry>.<number>``, under the lock ``.lock-<entry>``: where the lock can be
had, the builder was killed.
"""

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Collection
from pathlib import Path

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.locks import Lock, lock

#: Seconds after which a folder beside an entry is taken for left behind where no lock can tell.
_LEFT_BEHIND = 24 * 3600.0

_SIZE = re.compile(r'(\d+(?:\.\d+)?)\s*(?:([kMGT])(i?))?B?', re.IGNORECASE)
_POWERS = {'': 0, 'k': 1, 'm': 2, 'g': 3, 't': 4}


def parse_size(size: int | str, option: str = 'cache_size') -> int:
    """Understand a size.

    Args:
        size: Bytes, or text such as ``50GB``, ``1.5 TB`` or ``200GiB`` (powers of 1,024).
        option: Name for the message.

    Returns:
        Bytes.

    Raises:
        ConfigurationError: If it is no size above 0.
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None or float(match[1]) == 0:
        raise ConfigurationError(f"{option}: expected bytes or text such as '50GB', got {size!r}.")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[(match[2] or '').lower()])


def format_size(size: float) -> str:
    """Write a size so that :func:`parse_size` understands it.

    Args:
        size: Bytes.

    Returns:
        Three or four digits and a unit, such as ``33.6 MB``.
    """
    for unit in ('B', 'kB', 'MB', 'GB'):
        if size < 999.5:
            return f'{size:.3g} {unit}'
        size /= 1000
    return f'{size:,.4g} TB'


def lock_of(entry: Path) -> Path:
    """The lock under which an entry is built."""
    return entry.with_name(f'.lock-{entry.name}')


def beside(entry: Path) -> Path:
    """A new name for a folder that is about to be an entry, or no longer is one."""
    return entry.with_name(f'.{entry.name}.{uuid.uuid4().hex[:12]}')


def clear_left_behind(folder: Path, mine: Path | None = None) -> list[Path]:
    """Delete what killed builders left.

    Args:
        folder: The cache folder.
        mine: An entry whose lock the caller holds.

    Returns:
        Entries that others are building now.
    """
    running = set()
    for left in folder.glob('.*-*.*'):
        entry = left.with_name(left.name[1:].rpartition('.')[0])
        if entry == mine:
            shutil.rmtree(left, ignore_errors=True)
            continue
        with lock(lock_of(entry), wait=False) as state:
            if state is Lock.OURS or (state is Lock.UNKNOWN and _is_old(left)):
                shutil.rmtree(left, ignore_errors=True)
            elif state is Lock.THEIRS and left.exists():
                running.add(entry)
    return sorted(running)


def _is_old(folder: Path) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > _LEFT_BEHIND
    except FileNotFoundError:  # its builder has just finished
        return False


def make_room(target: Path, need: int, limit: int, keep: Collection[Path], mark: str) -> int:
    """Remove the least recently used entries until so many bytes fit under the limit, or nothing else may go.

    Args:
        target: The entry that is to be written, in the cache folder; what stands there is about to be replaced.
        need: Bytes that it will have.
        limit: Bytes that all entries may have together.
        keep: Entries that stay.
        mark: Name of the file in an entry whose time tells when it was last used.

    Returns:
        Bytes by which it will be over the limit in spite of that, 0 if it fits.
    """
    sizes = {entry: _size_of(entry) for entry in target.parent.iterdir() if entry.is_dir() and entry != target}
    over = sum(sizes.values()) + need - limit
    candidates = {
        entry: _last_used(entry / mark) for entry in sizes if entry not in keep and not entry.name.startswith('.')
    }
    for entry in sorted(candidates, key=lambda entry: candidates[entry]):
        if over <= 0:
            break
        if remove(entry):
            over -= sizes[entry]
    return max(over, 0)


def touch(mark: Path) -> None:
    """Note that the entry of a mark is used now."""
    with contextlib.suppress(OSError):  # a cache that others wrote can be read all the same
        os.utime(mark)


def _last_used(mark: Path) -> float:
    """When an entry was used; what is no complete entry is of no use."""
    try:
        return mark.stat().st_mtime
    except OSError:
        return 0.0


def _size_of(entry: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):  # somebody else is removing it
        total = sum(file.stat().st_size for file in entry.iterdir())
    return total


def remove(entry: Path) -> bool:
    """Take an entry away in one move, so that nobody finds half of it, and delete it then.

    Args:
        entry: A folder, or a file that stands in its place.

    Returns:
        Whether nothing is there any more.
    """
    away = beside(entry)
    try:
        entry.rename(away)
    except OSError:
        return not entry.exists()
    if away.is_dir():
        shutil.rmtree(away, ignore_errors=True)
    else:
        away.unlink(missing_ok=True)
    return True
