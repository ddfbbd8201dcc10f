"""Processes do the work, say what went wrong, and end."""

import os
import signal
import time

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.chipping.workers import WorkerError, Workers


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
