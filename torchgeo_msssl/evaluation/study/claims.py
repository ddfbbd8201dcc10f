"""Claims on work that several processes share, which end with the process."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def claim(path: Path, wait: bool = False) -> Iterator[bool]:
    """Claim a piece of work.

    The system lets go of a claim when its process ends, however it ends, so that nothing stays blocked.

    Args:
        path: File that stands for the work; it is made and stays.
        wait: Whether to wait until nobody else has it.

    Yields:
        Whether the claim is ours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
