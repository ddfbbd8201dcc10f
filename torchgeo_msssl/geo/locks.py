"""Locks between processes: files that one process at a time holds.

The system lets go of a lock when its process ends, however it ends, so a lock that can be had tells that whoever held
it is gone.
"""

import contextlib
import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # a system without these locks
    fcntl = None  # type: ignore[assignment]


class Lock(Enum):
    """What became of asking for a lock."""

    OURS = 'ours'
    THEIRS = 'theirs'
    #: Neither: not every network disk, nor every system, has locks.
    UNKNOWN = 'unknown'


def has_locks() -> bool:
    """Whether this system has locks."""
    return fcntl is not None


def ask(descriptor: int, wait: bool) -> Lock:
    """Ask for the lock of an open file or folder, where there are locks; it lasts until that is closed.

    Args:
        descriptor: The file or folder.
        wait: Wait for another process, or thread, that holds it.

    Returns:
        Whether it is ours or theirs.

    Raises:
        OSError: If its file system has no locks, or fails.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return Lock.THEIRS
    return Lock.OURS


@contextlib.contextmanager
def lock(path: Path, wait: bool = True) -> Iterator[Lock]:
    """Hold a lock while the context lasts.

    Args:
        path: File of the lock; it is made, and taken away again by who held it.
        wait: Wait for another process, or thread, that holds it.

    Yields:
        What became of it; never :attr:`Lock.THEIRS` where it was waited for.
    """
    state, file = _take(path, wait)
    try:
        yield state
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            file.close()


def _take(path: Path, wait: bool) -> tuple[Lock, BinaryIO | None]:
    if not has_locks():
        return Lock.UNKNOWN, None
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open('ab')
        except OSError:  # said in full by whoever writes there next
            return Lock.UNKNOWN, None
        try:
            state = ask(file.fileno(), wait)
        except OSError:
            state = Lock.UNKNOWN
        if state is Lock.OURS and _is_at(file, path):
            return state, file
        file.close()
        if state is not Lock.OURS:
            return state, None
        # who held it took the file away: the lock is of nothing, and others may hold a new one


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
