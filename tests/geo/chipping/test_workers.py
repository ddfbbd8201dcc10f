"""Processes do the work, say what went wrong, and end."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from typing import Any, cast

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.chipping.workers import WorkerError, Workers, _serve


def square(number: int) -> int:
    if number == 13:
        raise ConfigurationError('thirteen')
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def process(_: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def test_results_of_several_functions() -> None:
    for number in (1, 2):
        with Workers(number, {}) as workers:
            assert sorted(workers.run(square, list(range(10)))) == [n**2 for n in range(10)]
            found = set(workers.run(process, list(range(8))))
            assert (os.getpid() in found) == (number == 1)
            assert len(found) == number
            assert list(workers.run(square, [3])) == [9]
            assert list(workers.run(square, [])) == []


def test_errors_come_back() -> None:
    with Workers(2, {}) as workers, pytest.raises(ConfigurationError, match='thirteen'):
        list(workers.run(square, [1, 13, 2, 3]))


def test_a_killed_process_is_noticed_and_the_others_end() -> None:
    with Workers(2, {}) as workers, pytest.raises(WorkerError, match='ended from outside'):
        list(workers.run(square, [1, 2, 99, 3]))
    assert not any(process.is_alive() for process in workers._processes)


def holds_interrupts_back(_: int) -> tuple[bool, bool]:
    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return blocked, signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_ctrl_c_is_for_the_process_that_ends_the_others() -> None:
    with Workers(2, {}) as workers:
        assert list(workers.run(holds_interrupts_back, [0, 1])) == [(True, True)] * 2
    assert holds_interrupts_back(0) == (False, False)
    code = (
        'import os, signal, time; from multiprocessing import forkserver\n'
        'from torchgeo_msssl.geo.chipping.workers import start_server\n'
        'start_server()\n'
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


class Gone:
    """A pipe whose other end was closed while something was on its way, when it is used as often as it says."""

    def __init__(self, received: list[Any]) -> None:
        self.received = received

    def recv(self) -> Any:
        if not self.received:
            raise ConnectionResetError
        return self.received.pop(0)

    def send(self, content: Any) -> None:
        raise ConnectionResetError


@pytest.mark.parametrize('received', [[], [square], [square, (3,)]])
def test_a_worker_ends_in_silence_when_its_parent_is_gone(received: list[Any]) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        _serve(cast('Connection', Gone(received)), {})
    finally:
        signal.signal(signal.SIGINT, before)
    assert not received


def test_a_worker_that_is_gone_before_it_gets_a_task() -> None:
    with Workers(2, {}) as workers:
        list(workers.run(square, [1, 2]))
        workers._processes[0].kill()
        workers._processes[0].join()
        with pytest.raises(WorkerError, match='ended from outside'):
            list(workers.run(square, [1, 2]))
