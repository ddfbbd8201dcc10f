"""Names of classes and the values that stand for them in a mask."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError

#: Values listed in a message.
_LISTED = 10


def class_values(column: Any, class_names: Sequence[str], where: str) -> NDArray[np.uint8]:
    """Turn the values of a column into class values.

    Args:
        column: Names of classes, or their numbers (also as text); a value that is a name means that class even where
            it looks like a number.
        class_names: Names; the index is the value.
        where: File and column, for messages.

    Returns:
        Class values, shape (n,).

    Raises:
        ConfigurationError: If a value is missing or is neither a name nor an index of ``class_names``.
    """
    names = list(class_names)
    return _translated(
        column,
        lambda value: _class_of(value, names),
        where,
        f'which the classes ({", ".join(names)}) do not have; add the names, or write class numbers from 0 to '
        f'{len(names) - 1}.',
    )


def mapped_values(column: Any, classes: Mapping[str, int], where: str) -> NDArray[np.uint8]:
    """Turn the values of a column into the values that were given to them by name.

    Args:
        column: Names of classes; a whole number is its decimal digits.
        classes: Value of each name, 0 to 255.
        where: File and column, for messages.

    Returns:
        Values, shape (n,).

    Raises:
        ConfigurationError: If a value is missing or has no name in ``classes``.
    """
    return _translated(
        column,
        lambda value: next((classes[name] for name in _spellings(value) if name in classes), None),
        where,
        f'which classes ({", ".join(classes)}) does not name; give each a value, such as --classes='
        f'{example_of_classes(column)} (several may share one, and the value of the background is allowed).',
    )


def example_of_classes(column: Any) -> str:
    """Classes for a shell, as the user could write them for what a column holds: ``grass=1,vine=2``, at most a few."""
    names = sorted({_spellings(value)[-1] for value in pd.Series(column).dropna().unique()} - {''})
    more = ',…' if len(names) > _LISTED else ''
    return shlex.quote(','.join(f'{name}={number}' for number, name in enumerate(names[:_LISTED], start=1)) + more)


def parse_classes(text: str, most: int = 255) -> dict[str, int]:
    """Read classes as they are written on a command line.

    Args:
        text: ``vine=1,grass=2``.
        most: Largest value.

    Returns:
        Value of each name.

    Raises:
        ConfigurationError: If a part is not a name and a whole number from 0 to ``most``, or a name comes twice.
    """
    classes: dict[str, int] = {}
    for part in text.split(','):
        name, _, number = (piece.strip() for piece in part.rpartition('='))
        if not name or not number.isdecimal() or int(number) > most:
            msg = f'classes: expected name=value,… with values from 0 to {most}, such as vine=1, got {part!r}.'
            raise ConfigurationError(msg)
        if name in classes:
            raise ConfigurationError(f'classes: {name!r} is named twice in {text!r}; give it one value.')
        classes[name] = int(number)
    return classes


def names_by_value(classes: Mapping[str, int]) -> dict[int, str]:
    """Name of each value, in their order; names that share a value are joined by ``+``."""
    names: dict[int, list[str]] = {value: [] for value in sorted(classes.values())}
    for name, value in classes.items():
        names[value].append(name)
    return {value: '+'.join(shared) for value, shared in names.items()}


def _translated(column: Any, value_of: Callable[[Any], int | None], where: str, remedy: str) -> NDArray[np.uint8]:
    series = pd.Series(column)
    missing = series.isna() | series.map(lambda value: isinstance(value, str) and not value.strip())
    if missing.any():
        msg = f'{where}: {int(missing.sum())} of {len(series)} geometries have no class; fill it in or remove them.'
        raise ConfigurationError(msg)
    values = {value: value_of(value) for value in series.unique()}
    unknown = sorted(str(value) for value, number in values.items() if number is None)
    if unknown:
        more = f' and {len(unknown) - _LISTED} more' if len(unknown) > _LISTED else ''
        raise ConfigurationError(f'{where}: holds {", ".join(unknown[:_LISTED])}{more}, {remedy}')
    return series.map(values).to_numpy(dtype=np.uint8)


def _class_of(value: Any, class_names: list[str]) -> int | None:
    for name in _spellings(value):
        if name in class_names:
            return class_names.index(name)
    return int(name) if name.isdecimal() and int(name) < len(class_names) else None


def _spellings(value: Any) -> tuple[str, str]:
    """A value as text, and a whole number in its shortest form."""
    if isinstance(value, bool | np.bool_):
        value = int(value)
    text = str(value).strip()
    try:
        return text, str(int(value)) if float(value) == int(value) else str(value)
    except (TypeError, ValueError, OverflowError):
        return text, text


def check_classes(class_names: Sequence[str], ignore_index: int) -> tuple[str, ...]:
    """Check that classes and the value of unlabelled pixels fit into uint8 and do not meet.

    Args:
        class_names: Names; the index is the value.
        ignore_index: Value of unlabelled pixels.

    Returns:
        The names.

    Raises:
        ConfigurationError: If there is no class, a name comes twice, or a value does not fit.
    """
    names = tuple(str(name) for name in class_names)
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f'class_names: expected different names, at least one, got {list(names)}.')
    if not len(names) <= ignore_index <= np.iinfo(np.uint8).max:
        msg = (
            f'ignore_index: expected {len(names)} to 255, which no class of class_names has and uint8 can hold, got '
            f'{ignore_index}.'
        )
        raise ConfigurationError(msg)
    return names
