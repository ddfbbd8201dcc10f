"""Sizes as people write them."""

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.eviction import format_size, parse_size


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
def test_sizes_are_written_as_they_are_read(size: float, text: str) -> None:
    assert format_size(size) == text
    if size:
        assert parse_size(text) == pytest.approx(size, rel=1e-2)


@pytest.mark.parametrize('text', ['', 'GB', '-5GB', '0', '5 PB', 'much', '5iB', -1, 0])
def test_what_is_no_size(text: int | str) -> None:
    with pytest.raises(ConfigurationError, match=r"cache_size: expected bytes or text such as '50GB', got"):
        parse_size(text)
