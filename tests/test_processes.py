"""Worker processes do the work, report errors, and end."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.processes import WorkerError, WorkerPool, _serve, available_cpus


def square(number: int) -> int:
    if number == 13:
        raise ConfigurationError('thirteen')
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def process(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def test_available_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(os, 'sched_getaffinity'):
        assert available_cpus() == len(os.sched_getaffinity(0))
        monkeypatch.delattr(os, 'sched_getaffinity')  # as on macOS and Windows
    assert available_cpus() == os.cpu_count()
    monkeypatch.setattr(os, 'cpu_count', lambda: None)
    assert available_cpus() == 1


def test_results_of_several_functions() -> None:
    for number in (1, 2):
        with WorkerPool(number) as pool:
            assert sorted(pool.map(square, list(range(10)))) == [n**2 for n in range(10)]
            found = set(pool.map(process, list(range(8))))
            assert (os.getpid() in found) == (number == 1)
            assert len(found) == number
            assert list(pool.map(square, [3])) == [9]
            assert list(pool.map(square, [])) == []


def test_isolated_tasks_never_run_here() -> None:
    with WorkerPool(1, isolated=True) as pool:
        assert os.getpid() not in set(pool.map(process, [1]))


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_order_of_results() -> None:
    times = [0.4, 0.1, 0.05, 0.0]
    with WorkerPool(2) as pool:
        assert list(pool.map(sleep, times, ordered=True)) == times
        assert next(iter(pool.map(sleep, times))) != times[0]


def test_waiting_is_reported() -> None:
    calls: list[float] = []
    with WorkerPool(1, isolated=True) as pool:
        assert list(pool.map(sleep, [0.3], on_wait=lambda: calls.append(time.time()), interval=0.05)) == [0.3]
    assert calls


@contextlib.contextmanager
def variable(value: str) -> Iterator[None]:
    os.environ['MSSSL_TEST_VARIABLE'] = value
    yield
    del os.environ['MSSSL_TEST_VARIABLE']


def read_variable(_: int) -> str | None:
    return os.environ.get('MSSSL_TEST_VARIABLE')


@pytest.mark.parametrize('processes', [1, 2])
def test_tasks_run_within_the_context(processes: int) -> None:
    with WorkerPool(processes, partial(variable, 'set')) as pool:
        assert list(pool.map(read_variable, [0, 1, 2])) == ['set'] * 3
    assert read_variable(0) is None


def test_workers_have_the_current_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ('first', 'second'):
        monkeypatch.setenv('MSSSL_TEST_VARIABLE', value)
        with WorkerPool(2) as pool:
            assert list(pool.map(read_variable, [0, 1])) == [value] * 2


def test_errors_come_back() -> None:
    with WorkerPool(2) as pool, pytest.raises(ConfigurationError, match='thirteen'):
        list(pool.map(square, [1, 13, 2, 3]))


def test_a_killed_worker_is_noticed_and_the_others_end() -> None:
    with WorkerPool(2) as pool, pytest.raises(WorkerError, match='was killed'):
        list(pool.map(square, [1, 2, 99, 3]))
    assert not pool._workers


def large_or_late(number: int) -> NDArray[np.float64]:
    if number == 0:
        raise ConfigurationError('first')
    return np.zeros(4_000_000)  # far more than a pipe holds: the worker is terminated while it sends


@pytest.fixture
def no_worker_remains() -> Iterator[None]:
    """Check that the test leaves no process; earlier tests may have left workers of their loaders."""
    before = multiprocessing.active_children()
    yield
    assert set(multiprocessing.active_children()) <= set(before)


@pytest.mark.usefixtures('no_worker_remains')
def test_workers_are_terminated_while_they_send() -> None:
    with WorkerPool(2) as pool:
        results = pool.map(large_or_late, [1, 0])
        time.sleep(1)
        with pytest.raises(ConfigurationError, match='first'):
            list(results)
        busy = pool.map(large_or_late, [1, 1])
        time.sleep(0.5)  # both send, and this process does not receive
    del busy


@pytest.mark.usefixtures('no_worker_remains')
def test_workers_are_terminated_on_ctrl_c() -> None:
    def interrupted() -> None:
        with WorkerPool(2) as pool:
            pool.map(sleep, [600.0, 600.0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def blocks_interrupts(_: int) -> tuple[bool, bool]:
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return blocked, signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.skipif(sys.platform == 'win32', reason='Windows has neither signal masks nor a fork server')
def test_only_the_parent_handles_ctrl_c() -> None:
    with WorkerPool(2) as pool:
        assert list(pool.map(blocks_interrupts, [0, 1])) == [(True, True)] * 2
    assert blocks_interrupts(0) == (False, False)
    code = (
        'import os, signal, time; from multiprocessing import forkserver\n'
        'from torchgeo_msssl.processes import start_server\n'
        "start_server(['pyarrow'])\n"
        'server = forkserver._forkserver._forkserver_pid\n'
        'for _ in range(12):\n'  # while it starts, and while it imports
        '    try:\n'
        '        os.killpg(0, signal.SIGINT)\n'
        '    except KeyboardInterrupt:\n'
        '        time.sleep(0.05)\n'
        'print(os.waitpid(server, os.WNOHANG))\n'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, start_new_session=True)
    assert (result.stdout.strip(), result.stderr) == ('(0, 0)', '')


@pytest.mark.skipif(sys.platform == 'win32', reason='reads the process table with kill')
def test_workers_end_when_their_parent_is_killed() -> None:
    code = (
        'import os, signal, time\n'
        'from torchgeo_msssl.processes import WorkerPool\n'
        'pool = WorkerPool(2)\n'
        'pool.map(time.sleep, [600, 600])\n'
        'print(*(worker.pid for worker in pool._workers), flush=True)\n'
        'time.sleep(1)\n'
        'os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    workers = [int(pid) for pid in result.stdout.split()]
    assert len(workers) == 2
    until = time.monotonic() + 20
    while any(_exists(pid) for pid in workers):
        assert time.monotonic() < until, 'the workers outlive their parent'
        time.sleep(0.05)


def _exists(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


class Gone:
    """A pipe that delivers some messages and then turns out to be closed at the other end."""

    def __init__(self, received: list[Any]) -> None:
        self.received = received

    def recv(self) -> Any:
        if not self.received:
            raise ConnectionResetError
        return self.received.pop(0)

    def send(self, content: Any) -> None:
        raise ConnectionResetError


@pytest.mark.parametrize('received', [[], [square], [square, (0, 3)]])
def test_a_worker_ends_silently_when_its_parent_is_gone(received: list[Any]) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        _serve(cast('Connection', Gone(received)), contextlib.nullcontext, {})
    finally:
        signal.signal(signal.SIGINT, before)
    assert not received


class OtherPipe:
    """A pipe of another class than ``Connection``, as on Windows."""

    def __init__(self, pipe: Connection) -> None:
        self.fileno, self.send, self.recv, self.close = pipe.fileno, pipe.send, pipe.recv, pipe.close


def test_pipes_of_another_class() -> None:
    with WorkerPool(2) as pool:
        list(pool.map(square, [1, 2]))
        pool._pipes = [cast('Connection', OtherPipe(pipe)) for pipe in pool._pipes]
        assert sorted(pool.map(square, [1, 2, 3])) == [1, 4, 9]


def test_a_worker_that_was_killed_before_it_gets_a_task() -> None:
    with WorkerPool(2) as pool:
        list(pool.map(square, [1, 2]))
        pool._workers[0].kill()
        pool._workers[0].join()
        with pytest.raises(WorkerError, match='was killed'):
            list(pool.map(square, [1, 2]))
