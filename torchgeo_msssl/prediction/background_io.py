"""Reading ahead of a network and writing behind it, in threads.

GDAL decodes and compresses without Python's global lock, so that one reading and one writing thread keep a network
busy. Results are returned and calls are executed in order: what is computed does not depend on the threads.
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
    """Call a function on items in another thread, some items ahead of the consumer.

    Args:
        pool: Executor; it has one thread if calls must not run concurrently.
        function: Function; its exceptions are raised where its result would be yielded.
        items: Arguments of the calls, in order.
        depth: Results that may wait in memory, 1 or more.

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
    """Executor of calls, in order, in a thread of its own.

    Leaving the context waits for the calls, or cancels those that have not started after an exception.
    """

    def __init__(self, depth: int = 1) -> None:
        """Create the executor; it starts its thread at the first call.

        Args:
            depth: Calls that may wait or run, with their arguments in memory; the caller of another one is blocked.
        """
        self._depth = depth
        self._pool = ThreadPoolExecutor(1, 'writer')
        self._running: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        """Return the executor itself."""
        return self

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Schedule a call.

        Args:
            function: Function to call.
            *arguments: Its arguments; they must not be modified afterwards.

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
            Exception: What a call raised, unless another exception is already propagating.
        """
        self._pool.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for future in self._running:
                future.result()
