"""Worker processes.

``concurrent.futures`` is not used because its workers share one result pipe: when one is terminated while it sends a
result, the parent waits for the rest forever. Here every worker has its own pipe, so the end of a worker is always the
end of its pipe. Workers are not forked from this process, which would share GDAL's handles and locks, but from a server
that has imported what they need and opened nothing; where there is no such server (Windows), they are spawned.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self, cast

from torchgeo_msssl.errors import MSSSLError

_FORKSERVER = 'forkserver' in multiprocessing.get_all_start_methods()


def available_cpus() -> int:
    """Return the number of CPUs that this process may use.

    Returns:
        The size of the CPU affinity mask where the system has one (Linux), else the number of CPUs of the machine.
    """
    affinity = getattr(os, 'sched_getaffinity', None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class WorkerError(MSSSLError, RuntimeError):
    """A worker process ended before its work was done."""


def start_server(modules: Sequence[str] = ()) -> None:
    """Start the server of worker processes early, so that it imports while this process still imports its own modules.

    Does nothing where processes are spawned.

    Args:
        modules: Modules that the server imports once, for all workers. Ignored if the server runs already.
    """
    if _FORKSERVER:
        from multiprocessing import forkserver  # the module does not exist on Windows

        forkserver.set_forkserver_preload(list(modules))
        resource_tracker.ensure_running()  # started here, because its start unblocks SIGINT
        with _interrupts_blocked():
            forkserver.ensure_running()


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in this thread and in the processes that it starts meanwhile: only the parent handles Ctrl-C."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerPool:
    """Processes that apply functions to tasks, for use in a ``with`` block.

    They start with the first call of :meth:`map` and are terminated at the end of the block, so an error or Ctrl-C ends
    them at once. They also end when this process is killed.

    Args:
        processes: Number of processes. With 1, tasks run in this process.
        context: Makes a context manager, such as ``partial(rasterio.Env, GDAL_CACHEMAX=…)``, in which each worker (or
            this process, for the tasks that it runs itself) stays while it works. Has to be picklable.
        isolated: Never run tasks in this process, even if there is only one worker or one task.
    """

    def __init__(
        self,
        processes: int,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        isolated: bool = False,
    ) -> None:
        self.processes, self.isolated = processes, isolated
        self._context = context
        self._workers: list[BaseProcess] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> Self:
        """Return the pool; no process has started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Terminate the processes, whatever they are doing."""
        for pipe in self._pipes:
            pipe.close()
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            worker.join()
        self._workers, self._pipes = [], []

    def map[T, R](
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        ordered: bool = False,
        on_wait: Callable[[], None] | None = None,
        interval: float = 0.5,
    ) -> Iterator[R]:
        """Apply a function to tasks. Worker processes start at once, this process only when a result is requested.

        Args:
            function: Function of a module, or a ``partial`` of one. Pickled once per worker.
            tasks: Its arguments.
            ordered: Yield results in the order of the tasks instead of the order in which they are ready.
            on_wait: Called in this process whenever no result has come for some time.
            interval: That time in seconds.

        Returns:
            The results.

        Raises:
            WorkerError: If a worker process was killed.
            Exception: Whatever the function raises.
        """
        if not self.isolated and (self.processes <= 1 or len(tasks) <= 1):
            return self._apply_here(function, tasks)
        queue = iter(enumerate(tasks))
        self._start(min(self.processes, len(tasks)))
        for pipe in self._pipes:
            _send(pipe, function)
        busy = [pipe for pipe in self._pipes if _send_next(pipe, queue)]
        numbered = self._results(busy, queue, on_wait, interval)
        return _in_order(numbered) if ordered else (result for _, result in numbered)

    def _apply_here[T, R](self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
        with self._context():
            yield from map(function, tasks)

    def _results(
        self,
        busy: list[Connection],
        queue: Iterator[tuple[int, Any]],
        on_wait: Callable[[], None] | None,
        interval: float,
    ) -> Iterator[tuple[int, Any]]:
        """Yield the number of each task with its result, and send the next task to the worker that gave it."""
        while busy:
            # of another class on Windows, with the same methods
            ready = cast(list[Connection], wait(busy, interval if on_wait else None))
            if not ready and on_wait:
                on_wait()
            for pipe in ready:
                numbered = _receive(pipe)
                if not _send_next(pipe, queue):
                    busy.remove(pipe)
                yield numbered

    def _start(self, number: int) -> None:
        context: Any = multiprocessing.get_context('forkserver' if _FORKSERVER else 'spawn')
        start_server()
        with _interrupts_blocked() if _FORKSERVER else nullcontext():
            while len(self._workers) < number:
                ours, theirs = context.Pipe()
                worker = context.Process(target=_serve, args=(theirs, self._context, dict(os.environ)))
                worker.start()
                theirs.close()  # so that the end of the worker is the end of the pipe
                self._workers.append(worker)
                self._pipes.append(ours)


def _in_order[R](numbered: Iterator[tuple[int, R]]) -> Iterator[R]:
    """Sort results by the number of their task, as soon as all before it are there."""
    early: dict[int, R] = {}
    expected = 0
    for number, result in numbered:
        early[number] = result
        while expected in early:
            yield early.pop(expected)
            expected += 1


def _send_next(pipe: Connection, queue: Iterator[tuple[int, Any]]) -> bool:
    """Send the next task, if there is one: never a second one to a worker, which might be sending a result."""
    task = next(queue, None)
    if task is not None:
        _send(pipe, task)
    return task is not None


def _send(pipe: Connection, content: Any) -> None:
    try:
        pipe.send(content)
    except ConnectionError:
        raise _killed() from None


def _receive(pipe: Connection) -> tuple[int, Any]:
    try:
        number, result, error = pipe.recv()
    except (EOFError, ConnectionError):
        raise _killed() from None
    if error is not None:
        raise error
    return number, result


def _killed() -> WorkerError:
    return WorkerError('A worker process was killed, perhaps because memory ran out; use fewer worker processes.')


def _serve(
    pipe: Connection, context: Callable[[], AbstractContextManager[Any]], environment: Mapping[str, str]
) -> None:
    """Work in a worker process: receive functions, and tasks for the latest of them, until the pipe closes."""
    os.environ.update(environment)  # that of the server may be older
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the work
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    function: Callable[[Any], Any] | None = None
    with context(), contextlib.suppress(EOFError, ConnectionError):
        while True:
            received = pipe.recv()
            if not isinstance(received, tuple):
                function = received
                continue
            number, task = received
            answer: tuple[int, Any, Exception | None]
            try:
                assert function is not None
                answer = number, function(task), None
            except Exception as error:
                answer = number, None, error
            pipe.send(answer)


def _exit_with_parent() -> None:
    """End this process as soon as its parent has ended, even in the middle of a task."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
