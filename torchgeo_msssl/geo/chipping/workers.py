"""Processes that end with the one that started them.

A pool of the standard library either hangs when one of its processes is killed, or leaves its processes behind when
the parent is; here both ends of a pipe notice. Processes are not forked from this one, which would share GDAL's handles
and locks, but from a server that has imported what they need and opened nothing.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from torchgeo_msssl.errors import MSSSLError

#: Modules that the functions of all tasks are in or import; imported once, for all processes.
_MODULES = ('torchgeo_msssl.geo.chipping.pixel_counts', 'pyarrow')
_FORKSERVER = 'forkserver' in multiprocessing.get_all_start_methods()


def start_server() -> None:
    """Let the server import what processes need while this process still imports its own."""
    if _FORKSERVER:
        forkserver.set_forkserver_preload(list(_MODULES))
        resource_tracker.ensure_running()  # here, because it would let Ctrl-C through again
        with _without_interrupts():
            forkserver.ensure_running()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back, also from the processes that are started meanwhile and theirs: this one ends the work."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerError(MSSSLError, RuntimeError):
    """A worker process ended before its work was done."""


class Workers:
    """Processes that run functions over tasks, for use in a ``with`` block. They are started when first needed.

    Args:
        number: Processes; with one the work is done in this process.
        environment: GDAL's options while they work.
    """

    def __init__(self, number: int, environment: dict[str, Any]) -> None:
        """Remember what to start."""
        self.number = number
        self.environment = environment
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the processes, whatever they are doing."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
            process.join()

    def run[T, R](self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
        """Run a function over tasks; several processes begin at once, one with the first result that is asked for.

        Args:
            work: The function; it and all that it holds can be pickled.
            tasks: What it is called with.

        Returns:
            Results as they come, in no particular order with several processes.

        Raises:
            WorkerError: If a process was killed.
            MSSSLError: Whatever the function raises on purpose.
        """
        if self.number <= 1 or len(tasks) <= 1:
            return self._alone(work, tasks)
        queue = iter(tasks)
        self._start(min(self.number, len(tasks)))
        for pipe in self._pipes:
            _send(pipe, work)
        return self._results([pipe for pipe in self._pipes if _send_next(pipe, queue)], queue)

    def _alone[T, R](self, work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
        import rasterio  # imported here: a server has to be started before anything that takes its time

        with rasterio.Env(**self.environment):
            yield from map(work, tasks)

    def _results(self, busy: list[Connection], queue: Iterator[Any]) -> Iterator[Any]:
        while busy:
            for pipe in [pipe for pipe in wait(busy) if isinstance(pipe, Connection)]:
                result = _received(pipe)
                if not _send_next(pipe, queue):
                    busy.remove(pipe)
                yield result

    def _start(self, number: int) -> None:
        context: Any = multiprocessing.get_context('forkserver' if _FORKSERVER else 'spawn')
        start_server()
        with _without_interrupts() if _FORKSERVER else contextlib.nullcontext():
            while len(self._processes) < number:
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, self.environment), daemon=True)
                process.start()
                theirs.close()  # so that the end of the process is the end of the pipe
                self._processes.append(process)
                self._pipes.append(ours)


def _send_next(pipe: Connection, tasks: Iterator[Any]) -> bool:
    for task in tasks:
        _send(pipe, (task,))
        return True
    return False


def _send(pipe: Connection, content: Any) -> None:
    try:
        pipe.send(content)
    except ConnectionError:
        raise _ended() from None


def _received(pipe: Connection) -> Any:
    try:
        result, error = pipe.recv()
    except (EOFError, ConnectionError):
        raise _ended() from None
    if error is not None:
        raise error
    return result


def _ended() -> WorkerError:
    return WorkerError('A worker process was ended from outside, perhaps for lack of memory; use fewer workers.')


def _serve(pipe: Connection, environment: dict[str, Any]) -> None:
    """Take functions, and tasks for the last one of them, from a pipe until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the work
    import rasterio

    work: Callable[[Any], Any] | None = None
    with rasterio.Env(**environment):
        while True:
            try:
                received = pipe.recv()
            except (EOFError, ConnectionError):  # the parent is done, or gone
                return
            if not isinstance(received, tuple):
                work = received
                continue
            answer: tuple[Any, Exception | None]
            try:
                assert work is not None
                answer = work(received[0]), None
            except Exception as error:
                answer = None, error
            try:
                pipe.send(answer)
            except ConnectionError:
                return
