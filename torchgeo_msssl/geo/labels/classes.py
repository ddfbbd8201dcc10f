"""Class names and the values of a source that they stand for.

``class_names`` has one syntax everywhere. In a list of names, the index of a name is its value. A mapping of names to
values that the source holds, such as ``{forest: 2, built: [8, 9]}``, numbers the classes 0, 1, 2, … in the order given,
merges values, and leaves all other values without a class.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError

ClassNames = Sequence[str] | Mapping[str, int | str | Sequence[int | str]]
#: Value of unlabelled pixels, or several values that a source has for them.
IgnoreIndex = int | Sequence[int]

#: Name of the class of ground without a label, and of a value 0 without a name.
BACKGROUND = 'background'
#: Value of unlabelled pixels in masks by default.
UNLABELLED = 255
#: Values listed in a message.
_LISTED = 10


@dataclass(frozen=True)
class Classes:
    """Classes of a mask, and how they follow from the values of a source.

    Attributes:
        names: Class names; the index is the value in the mask.
        ignore_index: Value of unlabelled pixels in the mask.
        unlabelled: Values of the source that mean unlabelled.
        values: Class of each source value, in its shortest text form; None where the source holds the indices of
            ``names`` (a column may also hold the names).
    """

    names: tuple[str, ...]
    ignore_index: int
    unlabelled: tuple[int, ...]
    values: Mapping[str, int] | None = None

    @property
    def background(self) -> int | None:
        """Class of ground without a label: the one named ``background``, else 0; None for a mapping without it."""
        if BACKGROUND in self.names:
            return self.names.index(BACKGROUND)
        return 0 if self.values is None else None

    def of_value(self, value: Any) -> int | None:
        """Return the class of one value of a raster, or None."""
        if self.values is not None:
            return self.values.get(spellings(value)[-1])
        return int(value) if 0 <= value < len(self.names) and value == int(value) else None

    def of_pixels(
        self, values: NDArray[Any], labelled: NDArray[np.bool_], where: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Translate the pixels of a raster.

        Args:
            values: Pixels, any shape.
            labelled: Which of them hold data, same shape.
            where: File, for messages.

        Returns:
            Classes, and which pixels have one.

        Raises:
            ConfigurationError: If ``class_names`` is a list and a pixel with data holds neither the index of a class
                nor a value that means unlabelled.
        """
        if self.values is not None:
            keys, classes = self._numbers(where)
            # the last entry is for values without a class
            place = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
            return classes[place], labelled & (keys[place] == values)
        labelled = labelled & ~np.isin(values, self.unlabelled)
        known = (values >= 0) & (values < len(self.names)) & (values == np.floor(values))
        if (labelled & ~known).any():
            unknown = [f'{value:g}' for value in np.unique(values[labelled & ~known])]
            msg = (
                f'{where}: holds the value(s) {listed(unknown)}, and the classes ({", ".join(self.names)}) have 0 to '
                f'{len(self.names) - 1}; name these values too, choose values with a mapping such as '
                f'{{{self.names[-1]}: {unknown[0]}}}, or set ignore_index to those that mean unlabelled.'
            )
            raise ConfigurationError(msg)
        return np.where(labelled, values, 0).astype(np.uint8), labelled

    def _numbers(self, where: str) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return the values of the mapping in rising order as numbers, with their classes."""
        assert self.values is not None
        try:
            pairs = sorted((int(text), number) for text, number in self.values.items())
        except ValueError as error:
            msg = f'class_names: {where} is a raster, whose values are whole numbers, got {", ".join(self.values)}.'
            raise ConfigurationError(msg) from error
        return np.array([value for value, _ in pairs]), np.array([number for _, number in pairs], dtype=np.uint8)


def unlabelled_values(ignore_index: IgnoreIndex) -> tuple[int, tuple[int, ...]]:
    """Return the value of unlabelled pixels in masks, and the values of the source that mean unlabelled.

    Args:
        ignore_index: One value, or several.

    Returns:
        The first one that uint8 can hold, else 255; and all of them.
    """
    given = (ignore_index,) if isinstance(ignore_index, int) else tuple(ignore_index)
    return next((value for value in given if 0 <= value <= UNLABELLED), UNLABELLED), given


def resolve_classes(
    class_names: ClassNames, ignore_index: IgnoreIndex = UNLABELLED, background: bool | None = None
) -> Classes:
    """Resolve ``class_names``.

    Args:
        class_names: A list of names, or a mapping of names to values that the source holds, see the module.
        ignore_index: Value of unlabelled pixels, or several; see :func:`unlabelled_values`.
        background: If true, a mapping that does not name ``background`` gets it as class 0, and so does a list of one
            name.

    Returns:
        The classes.

    Raises:
        ConfigurationError: If there is no class, a name or value comes twice, or a class does not fit into uint8 below
            ``ignore_index``.
    """
    ignore_index, unlabelled = unlabelled_values(ignore_index)
    if not isinstance(class_names, Mapping):
        names = [normalized(name) for name in class_names]
        names = [BACKGROUND, *names] if background and len(names) == 1 and names != [BACKGROUND] else names
        return Classes(check_classes(names, ignore_index), ignore_index, unlabelled)
    names = [normalized(name) for name in class_names]
    names = [BACKGROUND, *names] if background and BACKGROUND not in names else names
    values: dict[str, int] = {}
    for name, given in class_names.items():
        for value in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
            text = spellings(value)[-1]
            if values.setdefault(text, names.index(normalized(name))) != names.index(normalized(name)):
                msg = (
                    f'class_names: the value {text} belongs to {names[values[text]]!r} and to {name!r}; give it to one.'
                )
                raise ConfigurationError(msg)
    if not values:
        raise ConfigurationError(
            f'class_names: the mapping of {", ".join(names) or "nothing"} names no value; add one.'
        )
    return Classes(check_classes(names, ignore_index), ignore_index, unlabelled, values)


def check_classes(class_names: Sequence[str], ignore_index: int) -> tuple[str, ...]:
    """Check that classes and the value of unlabelled pixels fit into uint8 and differ.

    Args:
        class_names: Names; the index is the value.
        ignore_index: Value of unlabelled pixels.

    Returns:
        The names.

    Raises:
        ConfigurationError: If there is no class, a name comes twice, or a value does not fit.
    """
    names = tuple(normalized(name) for name in class_names)
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f'class_names: expected different names, at least one, got {list(names)}.')
    if not len(names) <= ignore_index <= np.iinfo(np.uint8).max:
        msg = (
            f'ignore_index: expected {len(names)} to 255, which no class of class_names has and uint8 can hold, got '
            f'{ignore_index}.'
        )
        raise ConfigurationError(msg)
    return names


def normalized(name: Any) -> str:
    """Return a name in Unicode's composed form (NFC): macOS and some editors write ``é`` as two characters."""
    return unicodedata.normalize('NFC', str(name))


def spellings(value: Any) -> tuple[str, str]:
    """Return a value as text, and a whole number in its shortest form."""
    if isinstance(value, bool | np.bool_):
        value = int(value)
    text = normalized(value).strip()
    try:
        return text, str(int(value)) if float(value) == int(value) else normalized(value)
    except (TypeError, ValueError, OverflowError):
        return text, text


def listed(values: Sequence[str]) -> str:
    """Return values for a message, at most a few."""
    more = f' and {len(values) - _LISTED} more' if len(values) > _LISTED else ''
    return ', '.join(values[:_LISTED]) + more
