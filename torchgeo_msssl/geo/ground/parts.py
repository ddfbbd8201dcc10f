"""Names of the parts of a split, without any library that takes long to import."""

from collections.abc import Sequence

from torchgeo_msssl.errors import ConfigurationError

#: Parts of a split: values of the column ``split`` in files, and names of folders of chips.
PARTS = ('train', 'val', 'test')
#: Name of the file of regions in the folder of a run or of chips.
SPLIT_FILE = 'split.geojson'


def part_names(fractions: Sequence[float]) -> tuple[str, ...]:
    """Name the parts of a split.

    Args:
        fractions: Fractions of two parts (training, validation) or three (training, validation, test).

    Returns:
        Names of the parts whose fraction is not 0.

    Raises:
        ConfigurationError: If there are fewer or more fractions, or they are not shares of a whole with training.
    """
    right = 2 <= len(fractions) <= len(PARTS) and min(fractions) >= 0 and fractions[0] > 0
    if not right or abs(sum(fractions) - 1) > 1e-6:
        msg = f'fractions: expected two or three shares of the ground with a sum of 1, got {tuple(fractions)}.'
        raise ConfigurationError(msg)
    return tuple(part for part, fraction in zip(PARTS, fractions, strict=False) if fraction > 0)
