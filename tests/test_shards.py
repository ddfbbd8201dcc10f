"""Shards are a partition of the work, whatever is divided."""

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.shards import Shard, ShardSettings


@pytest.mark.parametrize('total', [0, 1, 5, 12, 97])
@pytest.mark.parametrize('count', [1, 2, 7, 12, 30])
def test_shards_are_a_partition_in_order(total: int, count: int) -> None:
    items = list(range(total))
    parts = [Shard(index, count).of(items) for index in range(1, count + 1)]
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize('text', ['1/1', '2/8', ' 8/8 '])
def test_shards_are_read_as_they_are_written(text: str) -> None:
    assert str(Shard.parse(text)) == text.strip()


@pytest.mark.parametrize('text', ['0/8', '9/8', '1', '1/', '-1/8', 'a/b', '1/0', '1/2/3', '1.5/2'])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r'^shard: expected i/n with i from 1 to n, .*, got '):
        ShardSettings(shard=text)
