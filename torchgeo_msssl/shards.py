"""Division of work among machines."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torchgeo_msssl.errors import ConfigurationError


@dataclass(frozen=True)
class Shard:
    """One of several parts of some work, each of which another process does.

    Attributes:
        index: Number of the part, from 1.
        count: Number of parts.
    """

    index: int = 1
    count: int = 1

    @staticmethod
    def parse(text: str) -> 'Shard':
        """Read a part as users write it.

        Args:
            text: Such as ``2/8``.

        Returns:
            The part.

        Raises:
            ConfigurationError: If it is not of that form, or the index is not from 1 to the number of parts.
        """
        match = re.fullmatch(r'(\d{1,9})/(\d{1,9})', str(text).strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigurationError(
                f'shard: expected i/n with i from 1 to n, such as 1/8 for the first of eight, got {text}.'
            )
        return Shard(int(match[1]), int(match[2]))

    def of[Item](self, items: Sequence[Item]) -> Sequence[Item]:
        """Select the items of this part.

        Each item is in exactly one part, neighbours stay together, and the sizes of the parts differ by one at most.

        Args:
            items: All items, in the same order for every part.

        Returns:
            Consecutive items; none where there are more parts than items.
        """
        start, stop = (len(items) * end // self.count for end in (self.index - 1, self.index))
        return items[start:stop]

    def __str__(self) -> str:
        """Return ``i/n``."""
        return f'{self.index}/{self.count}'

    @property
    def file_part(self) -> str:
        """Return ``i-of-n``, for names of files."""
        return f'{self.index}-of-{self.count}'


@dataclass(frozen=True, kw_only=True)
class ShardSettings:
    """Division among machines.

    Attributes:
        shard: Do only the i-th of n parts of the work, given as i/n such as 1/8, so that n machines can share it.
            Default: all of it.
    """

    shard: str | None = None

    def __post_init__(self) -> None:
        """Check the form of the shard."""
        if self.shard is not None:
            Shard.parse(self.shard)

    @property
    def own_shard(self) -> Shard | None:
        """The part to do, or None for everything."""
        return None if self.shard is None else Shard.parse(self.shard)
