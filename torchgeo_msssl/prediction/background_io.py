"""Reading ahead of the network, writing behind it.

GDAL decodes and compresses without Python's lock, so one thread that reads and one that writes keep a network busy.
Results come in order and calls are made in order: what is computed does not depend on the threads.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

__all__ = ('WriteBehind', 'read_ahead')


def read_ahead[Item, Result](
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Generator[Result]:
    """Call a function on items in another thread, some items ahead of who uses the results.

    Args:
        pool: With one thread, where calls must not run side by side.
        function: The call; what it raises is raised where its result would have come.
        items: Arguments of the calls, one after the other.
        depth: Results that may wait to be used, 1 or more; they are in memory.

    Yields:
        The results, in the order of the items.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class WriteBehind:
    """Calls one after the other in a thread of its own.

    Use it as a context manager: leaving it waits for the calls, or drops those that have not begun after an exception.
    """

    def __init__(self, depth: int = 1) -> None:
        """Start no thread yet.

        Args:
            depth: Calls that may wait or run; another one waits with its caller. Their arguments are in memory.
        """
        self._depth = depth
        self._pool = ThreadPoolExecutor(1, 'writer')
        self._running: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        """Take calls from now on."""
        return self

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Make a call later, in order.

        Args:
            function: What to call.
            *arguments: Its arguments; they must not change any more.

        Raises:
            Exception: What an earlier call raised.
        """
        while len(self._running) >= self._depth:
            self._running.popleft().result()
        self._running.append(self._pool.submit(function, *arguments))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the calls.

        Args:
            kind: Type of the exception, if any.
            error: The exception.
            traceback: Its traceback.

        Raises:
            Exception: What a call raised, unless another exception is on its way.
        """
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for future in self._running:
                future.result()
