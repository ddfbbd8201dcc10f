"""Report of loading weights into a network."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LoadReport:
    """Result of loading weights into a network.

    Attributes:
        source: Origin of the weights.
        model: Name of the network they were loaded into, or None.
        matched: Tensors of the network that were loaded.
        missing: Tensors of the network that the source need not have, with the reason.
        unexpected: Tensors of the source that the network does not use, with the reason.
        reshaped: Tensors that were interpolated, with the old and the new shape.
        bands: Each band of the network, with the origin of its part of the first convolution.
        dropped_bands: Bands of the source that the network does not have.
        kernel_scale: Factor on the first convolution that keeps the scale of its output; 1 for the same bands.
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
        """Convert to plain types for JSON."""
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    def __str__(self) -> str:
        """Format as a short table; one line if nothing was to be loaded."""
        if not self.matched and not self.unexpected:
            return f'{self.model or "The encoder"}: {self.source}.'
        rows = [
            ('weights', self.source),
            ('network', self.model or 'unnamed'),
            ('matched', f'{len(self.matched)} tensors'),
        ]
        for title, entries in (
            ('missing', self.missing),
            ('unexpected', self.unexpected),
            ('reshaped', self.reshaped),
        ):
            rows.extend((title, line) for line in _grouped(entries))
        rows.extend(('bands', line) for line in _grouped(self.bands))
        if self.dropped_bands:
            rows.append(('bands', f'dropped: {", ".join(self.dropped_bands)}'))
        if self.kernel_scale != 1:
            rows.append(('bands', f'first convolution × {self.kernel_scale:.3f}'))
        return '\n'.join(f'{title:<11} {text}' for title, text in rows)


def _grouped(entries: Mapping[str, str]) -> list[str]:
    """One line per reason, with the first few names it applies to."""
    groups: dict[str, list[str]] = {}
    for name, reason in entries.items():
        groups.setdefault(reason, []).append(name)
    return [f'{first_few(names, 13)}: {reason}' for reason, names in groups.items()]


def first_few(names: Sequence[str], count: int = 3) -> str:
    """Format the first ``count`` names, and the number of all."""
    more = f', … ({len(names)} in all)' if len(names) > count else ''
    return ', '.join(names[:count]) + more
