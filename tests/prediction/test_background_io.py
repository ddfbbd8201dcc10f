"""Reading ahead and writing behind: order, bounds, errors, and that they run concurrently."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from torchgeo_msssl.errors import OutputError, SceneReadError
from torchgeo_msssl.prediction.background_io import WriteBehind, read_ahead


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.mark.parametrize('depth', [1, 3, 50])
def test_results_come_in_order(pool: ThreadPoolExecutor, depth: int) -> None:
    def slow_at_first(item: int) -> int:
        time.sleep(0.002 if item < 3 else 0)
        return item**2

    assert list(read_ahead(pool, slow_at_first, range(20), depth)) == [item**2 for item in range(20)]
    assert list(read_ahead(pool, slow_at_first, [], depth)) == []


def test_no_more_is_read_than_may_wait(pool: ThreadPoolExecutor) -> None:
    begun: list[int] = []
    with closing(read_ahead(pool, begun.append, range(100), 4)) as results:
        for used in range(1, 4):
            next(results)
            assert len(begun) <= used + 4
        while len(begun) < 7:  # reading continues without a consumer
            time.sleep(0.001)
    time.sleep(0.01)
    assert len(begun) <= 8


def test_what_reading_raises_comes_in_its_place(pool: ThreadPoolExecutor) -> None:
    def read(item: int) -> int:
        if item == 2:
            raise SceneReadError('scene.tif: damaged')
        return item

    results = read_ahead(pool, read, range(9), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(SceneReadError, match='damaged'):
        next(results)


def test_calls_are_made_in_order_beside_the_caller() -> None:
    gate, made = threading.Event(), list[int]()

    def write(item: int) -> None:
        gate.wait(5)
        made.append(item)

    with WriteBehind(depth=2) as writer:
        writer.call(write, 0)
        writer.call(write, 1)
        assert made == []  # the caller did not wait
        gate.set()
        for item in range(2, 9):
            writer.call(write, item)
    assert made == list(range(9))


@pytest.mark.parametrize('later', [0, 5])
def test_what_a_call_raises_reaches_the_caller(later: int) -> None:
    made: list[int] = []

    def full() -> None:
        raise OutputError('map.tif cannot be written (No space left on device)')

    def write_all() -> None:
        with WriteBehind() as writer:
            writer.call(full)
            for item in range(later):
                writer.call(made.append, item)

    with pytest.raises(OutputError, match='No space left'):
        write_all()
    assert made == []


def test_an_error_of_the_caller_drops_what_has_not_begun() -> None:
    gate, made = threading.Event(), list[int]()

    def interrupted() -> None:
        with WriteBehind(depth=9) as writer:
            writer.call(lambda: gate.wait(5) and None)
            for item in range(5):
                writer.call(made.append, item)
            threading.Timer(0.05, gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert made == []
