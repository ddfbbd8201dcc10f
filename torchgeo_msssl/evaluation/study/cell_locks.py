"""Claims on work that several processes share, which end with the process."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from torchgeo_msssl.geo.locks import Lock, ask


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
        yield ask(file.fileno(), wait) is Lock.OURS
