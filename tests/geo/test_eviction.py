"""Sizes in text, and the lock of an entry."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.eviction import entry_lock, format_size, parse_size


@pytest.mark.parametrize(
    ('text', 'size'),
    [
        (5000, 5000),
        ('5000', 5000),
        ('50GB', 50 * 10**9),
        ('1.5 TB', 1.5 * 10**12),
        ('2GiB', 2 * 2**30),
        ('3k', 3000),
        ('7 mb', 7 * 10**6),
        ('10B', 10),
    ],
)
def test_sizes(text: int | str, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ('size', 'text'),
    [(0, '0 B'), (512, '512 B'), (33_554_432, '33.6 MB'), (999_700, '1 MB'), (5e10, '50 GB'), (12e12, '12 TB')],
)
def test_formatted_sizes_can_be_parsed(size: float, text: str) -> None:
    assert format_size(size) == text
    if size:
        assert parse_size(text) == pytest.approx(size, rel=1e-2)


@pytest.mark.parametrize('text', ['', 'GB', '-5GB', '0', '5 PB', 'much', '5iB', -1, 0])
def test_invalid_sizes(text: int | str) -> None:
    with pytest.raises(ConfigurationError, match=r"cache_size: expected bytes or text such as '50GB', got"):
        parse_size(text)


def state(entry: Path) -> bool | None:
    with entry_lock(entry, wait=False) as held:
        return held


def hold(entry: Path, ready) -> None:
    with entry_lock(entry):
        ready.set()
        signal.pause()


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    entry = tmp_path / 'cache' / 'entry'
    with entry_lock(entry) as held, ThreadPoolExecutor(1) as other:
        assert held is True
        assert other.submit(state, entry).result() is False
    assert state(entry) is True
    assert not os.listdir(tmp_path / 'cache')  # no file is left
    context = multiprocessing.get_context('spawn')
    ready = context.Event()
    process = context.Process(target=hold, args=(entry, ready))
    process.start()
    assert ready.wait(60)
    assert state(entry) is False
    process.kill()
    process.join()
    assert state(entry) is True


def test_a_folder_that_cannot_be_written_has_no_locks(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    assert state(tmp_path / 'file' / 'entry') is None
