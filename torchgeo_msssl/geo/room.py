"""Room for the entries of a cache folder whose size is limited.

An entry is a folder; when it was last used is the time of a small file in it. The least recently used entries go
first. Whoever has one mapped keeps reading it: the disk gives its place back when the last one lets go.
"""

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Collection
from pathlib import Path

from torchgeo_msssl.errors import ConfigurationError

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
        entry: used for entry in sizes if entry not in keep and (used := _last_used(entry / mark)) is not None
    }
    for entry in sorted(candidates, key=lambda entry: candidates[entry]):
        if over <= 0:
            break
        if _remove(entry):
            over -= sizes[entry]
    return max(over, 0)


def touch(mark: Path) -> None:
    """Note that the entry of a mark is used now."""
    with contextlib.suppress(OSError):  # a cache that others wrote can be read all the same
        os.utime(mark)


def _last_used(mark: Path) -> float | None:
    """When an entry was used, or None for what is no complete entry (somebody may be building it)."""
    try:
        return mark.stat().st_mtime
    except OSError:
        return None


def _size_of(entry: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):  # somebody else is removing it
        total = sum(file.stat().st_size for file in entry.iterdir())
    return total


def _remove(entry: Path) -> bool:
    """Take an entry away in one move, so that nobody finds half of it, and delete it then."""
    away = entry.with_name(f'.{entry.name}.{uuid.uuid4().hex[:12]}')
    try:
        entry.rename(away)
    except OSError:
        return not entry.exists()
    shutil.rmtree(away, ignore_errors=True)
    return True
