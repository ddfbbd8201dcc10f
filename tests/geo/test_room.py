"""Sizes as people write them."""

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.room import parse_size


@pytest.mark.parametrize(
    ('text', 'size'),
    [(5000, 5000), ('5000', 5000), ('50GB', 50 * 10**9), ('1.5 TB', 1.5 * 10**12), ('2GiB', 2 * 2**30), ('3k', 3000),
     ('7 mb', 7 * 10**6), ('10B', 10)],
)  # fmt: skip
def test_sizes(text: int | str, size: float) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize('text', ['', 'GB', '-5GB', '0', '5 PB', 'much', '5iB', -1, 0])
def test_what_is_no_size(text: int | str) -> None:
    with pytest.raises(ConfigurationError, match=r"cache_size: expected bytes or text such as '50GB', got"):
        parse_size(text)
