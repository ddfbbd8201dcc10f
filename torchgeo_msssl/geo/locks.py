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

__all__ = ('Lock', 'lock')


class Lock(Enum):
    """What became of asking for a lock."""

    OURS = 'ours'
    THEIRS = 'theirs'
    #: Neither: not every network disk, nor every system, has locks.
    UNKNOWN = 'unknown'


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
    if fcntl is None:
        return Lock.UNKNOWN, None
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open('ab')
        except OSError:  # said in full by whoever writes there next
            return Lock.UNKNOWN, None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.close()
            return Lock.THEIRS, None
        except OSError:
            file.close()
            return Lock.UNKNOWN, None
        if _is_at(file, path):
            return Lock.OURS, file
        file.close()  # who held it took the file away: the lock is of nothing, and others may hold a new one


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
