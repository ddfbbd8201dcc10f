"""What came of loading weights into a network."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LoadReport:
    """What came of loading weights into a network.

    Attributes:
        source: Where the weights came from.
        model: Name of the network they were loaded into, where it has one.
        matched: Tensors of the network that were loaded.
        missing: Tensors of the network that the source need not have, and why.
        unexpected: Tensors of the source that the network has no use for, and why.
        reshaped: Tensors that were interpolated, with the old and the new shape.
        bands: Each band of the network, and where its part of the first convolution came from.
        dropped_bands: Bands of the source that the network does not have.
        kernel_scale: Factor on the first convolution that keeps the size of its output; 1 where the bands are the same.
    """

    source: str
    model: str | None = None
    matched: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    unexpected: dict[str, str] = field(default_factory=dict)
    reshaped: dict[str, str] = field(default_factory=dict)
    bands: dict[str, str] = field(default_factory=dict)
    dropped_bands: tuple[str, ...] = ()
    kernel_scale: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Turn into plain types for JSON.

        Returns:
            One entry a field.
        """
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    def __str__(self) -> str:
        """Write a short table."""
        rows = [
            ('weights', self.source),
            ('network', self.model or 'unnamed'),
            ('matched', f'{len(self.matched)} tensors'),
        ]
        for title, entries in (
            ('missing', self.missing), ('unexpected', self.unexpected), ('reshaped', self.reshaped),
        ):  # fmt: skip
            rows.extend((title, line) for line in _grouped(entries))
        rows.extend(('bands', line) for line in _grouped(self.bands))
        if self.dropped_bands:
            rows.append(('bands', f'dropped: {", ".join(self.dropped_bands)}'))
        if self.kernel_scale != 1:
            rows.append(('bands', f'first convolution × {self.kernel_scale:.3f}'))
        return '\n'.join(f'{title:<11} {text}' for title, text in rows)


def _grouped(entries: Mapping[str, str]) -> list[str]:
    """One line for each different explanation, with the first few names it holds for."""
    groups: dict[str, list[str]] = {}
    for name, why in entries.items():
        groups.setdefault(why, []).append(name)
    return [f'{first_few(names, 13)}: {why}' for why, names in groups.items()]


def first_few(names: Sequence[str], count: int = 3) -> str:
    """Write the first few names, and how many there are.

    Args:
        names: Any names.
        count: How many to write.

    Returns:
        The names, separated by commas.
    """
    more = f', … ({len(names)} in all)' if len(names) > count else ''
    return ', '.join(names[:count]) + more
