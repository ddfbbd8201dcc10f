"""Classes from the column of a vector file."""

import json
import logging
import re
import shlex
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.labels.classes import (
    BACKGROUND,
    Classes,
    IgnoreIndex,
    listed,
    resolve_classes,
    spellings,
    unlabelled_values,
)
from torchgeo_msssl.geo.labels.options import MissingClass

log = logging.getLogger(__name__)

#: Largest class number; 255 is the value of unlabelled pixels.
_LARGEST = 254
#: Classes in an example.
_SHOWN = 10


def classes_of_column(
    classes: Classes, column: Any, where: str, missing_class: MissingClass = 'refuse'
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Translate the values of a column.

    Args:
        classes: The classes.
        column: Values, shape (n,): text or numbers. Where ``class_names`` is a list, they are names, or indices (also
            as text); a value that is a name means that class even where it looks like a number.
        where: File and column, for messages.
        missing_class: Whether rows without a value are refused, or unlabelled with a line in the log.

    Returns:
        Class of each row, shape (n,), and which rows have one.

    Raises:
        ConfigurationError: If a value is missing and such rows are refused, or all are missing; if ``class_names`` is a
            list and a value is neither a name nor an index nor ``ignore_index``; if ``class_names`` is a mapping and no
            row holds one of its values.
    """
    series = pd.Series(column)
    missing = without_class(series)
    count = f'{int(missing.sum())} of {len(series)} geometries have no class'
    if missing.any() and missing_class == 'refuse':
        msg = f'{where}: {count}; fill it in, remove them, or set missing_class to unlabelled.'
        raise ConfigurationError(msg)
    if missing.all():
        raise ConfigurationError(f'{where}: {count}; choose another column.')
    if missing.any():
        log.warning('%s: %s and are unlabelled ground.', where, count)
    found = {value: _class_of(classes, value) for value in series[~missing].unique()}
    unknown = sorted(str(value) for value, number in found.items() if number is None)
    if classes.values is None and unknown:
        msg = (
            f'{where}: holds {listed(unknown)}, which the classes ({", ".join(classes.names)}) do not have; add the '
            f'names, choose values with a mapping, or write class numbers from 0 to {len(classes.names) - 1}.'
        )
        raise ConfigurationError(msg)
    if len(unknown) == len(found):
        msg = (
            f'{where}: holds {listed(unknown)}, and none of the values of class_names '
            f'({", ".join(classes.values or ())}); correct class_names.'
        )
        raise ConfigurationError(msg)
    numbers = series.map({value: classes.ignore_index if number is None else number for value, number in found.items()})
    result = numbers.mask(missing, classes.ignore_index).to_numpy(dtype=np.uint8)
    return result, result != classes.ignore_index


def without_class(column: Any) -> Any:
    """Return which values of a column are missing or blank, as a boolean Series."""
    series = pd.Series(column)
    return series.isna() | series.map(lambda value: isinstance(value, str) and not value.strip())


def _class_of(classes: Classes, value: Any) -> int | None:
    texts = spellings(value)
    if classes.values is not None:
        return next((classes.values[text] for text in texts if text in classes.values), None)
    for text in texts:
        if text in classes.names:
            return classes.names.index(text)
    number = int(texts[-1]) if re.fullmatch(r'-?\d+', texts[-1]) else None
    if number in classes.unlabelled:
        return classes.ignore_index
    return number if number is not None and 0 <= number < len(classes.names) else None


def classes_of_numbers(column: Any, ignore_index: IgnoreIndex, where: str) -> Classes:
    """Return the classes of a column of whole numbers that is used as it is.

    Args:
        column: Values, shape (n,).
        ignore_index: Value of unlabelled pixels, or several.
        where: File and column, for messages.

    Returns:
        Classes named ``background`` (0) and ``class_1``, ``class_2``, ….

    Raises:
        ConfigurationError: If the column holds text, or numbers outside 0 to 254.
    """
    series = pd.Series(column).dropna()
    _, unlabelled = unlabelled_values(ignore_index)
    texts = {spellings(value)[-1] for value in series.unique()} - set(map(str, unlabelled))
    numeric = pd.api.types.is_numeric_dtype(series) and all(text.isdecimal() for text in texts)
    most = max(map(int, texts), default=0) if numeric else _LARGEST + 1
    if most > _LARGEST:
        msg = (
            f'class_names: {where} holds no class numbers from 0 to {_LARGEST}; name its classes, for example '
            f'--class_names={example_of_classes(series)}.'
        )
        raise ConfigurationError(msg)
    names = [BACKGROUND, *(f'class_{value}' for value in range(1, most + 1))]
    return resolve_classes(names, ignore_index)


def example_of_classes(column: Any) -> str:
    """Return a list of class names for what a column holds, quoted for a shell; at most a few."""
    names = sorted({spellings(value)[-1] for value in pd.Series(column).dropna().unique()} - {'', BACKGROUND})
    more = ['…'] if len(names) > _SHOWN else []
    return shlex.quote(json.dumps([BACKGROUND, *names[:_SHOWN], *more], ensure_ascii=False))
