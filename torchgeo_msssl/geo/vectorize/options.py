"""Options of vectorizing a class map."""

from dataclasses import dataclass

import numpy as np

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.labels.classes import ClassNames


@dataclass(frozen=True)
class VectorizeOptions:
    """Polygons and rows.

    Attributes:
        class_names: Classes to write: a list of names, whose index is the value in the map, or a mapping of names to
            values such as vine=1,trees=[2,3]. Default: all values but the background (class 0 without a name, or a
            class named background, other, none or rest), with the names in the map's tag CLASS_NAMES.
        min_area: Smallest area to write, in m².
        simplify: Tolerance of simplified edges, in metres: a corner is removed if the triangle with its neighbours is
            smaller than its square. Shared edges are simplified together.
        centrelines: Write rows of plants, with their lengths and gaps, as a second layer.
        min_gap: Shortest gap in a row, in metres.
        max_gap: Longest gap in a row, in metres; pieces farther apart are different rows.

    Raises:
        ConfigurationError: If an option is out of its range.
    """

    class_names: ClassNames | None = None
    min_area: float = 0.0
    simplify: float = 0.0
    centrelines: bool = False
    min_gap: float = 0.5
    max_gap: float = 5.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for option in ('min_area', 'simplify', 'min_gap'):
            value = getattr(self, option)
            if not (np.isfinite(value) and value >= 0):
                raise ConfigurationError(f'{option}: expected 0 or more, got {value}.')
        if not (np.isfinite(self.max_gap) and self.max_gap >= self.min_gap):
            raise ConfigurationError(f'max_gap: expected {self.min_gap} m (min_gap) or more, got {self.max_gap}.')
