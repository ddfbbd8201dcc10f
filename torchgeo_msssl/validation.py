"""Checks of constructor arguments, which raise an error that names the argument, what it allows and its value."""

import difflib
import math
from collections.abc import Collection, Sequence
from typing import Any, get_args

from torchgeo_msssl.errors import ConfigurationError


def check_choice(name: str, value: object, choices: Any) -> None:
    """Check that an argument is one of several values.

    Args:
        name: Name of the argument, for the message.
        value: The argument.
        choices: Allowed values: a ``Literal`` type, or any iterable.

    Raises:
        ConfigurationError: If it is not.
    """
    allowed = get_args(choices) or tuple(choices)
    if value not in allowed:
        raise ConfigurationError(f'{name}: expected one of {", ".join(map(str, allowed))}, got {value!r}.')


def check_names(name: str, given: Collection[str], known: Collection[str]) -> None:
    """Check that a mapping of options holds known names only.

    Args:
        name: Name of the argument that is the mapping, for the message.
        given: Names in it.
        known: Names that it may hold.

    Raises:
        ConfigurationError: If one is unknown.
    """
    for unknown in given:
        if unknown not in known:
            close = difflib.get_close_matches(str(unknown), known, 1)
            remedy = f'did you mean `{close[0]}`?' if close else f'available are {", ".join(known)}.'
            raise ConfigurationError(f'{name}: there is no option `{unknown}`; {remedy}')


def check_at_least(low: float, **arguments: float) -> None:
    """Check that arguments are finite numbers that are not too small.

    Args:
        low: Smallest allowed value.
        **arguments: The arguments by name.

    Raises:
        ConfigurationError: If one is not.
    """
    for name, value in arguments.items():
        if not low <= value < math.inf:
            raise ConfigurationError(f'{name}: expected {low} or more, got {value}.')


def check_positive(**arguments: float) -> None:
    """Check that arguments are finite numbers above 0.

    Args:
        **arguments: The arguments by name.

    Raises:
        ConfigurationError: If one is not.
    """
    for name, value in arguments.items():
        if not 0 < value < math.inf:
            raise ConfigurationError(f'{name}: expected a positive number, got {value}.')


def check_probability(name: str, value: float, below_one: bool = False) -> float:
    """Check that an argument is a probability or a fraction.

    Args:
        name: Name of the argument, for the message.
        value: The argument.
        below_one: Whether to refuse 1.

    Returns:
        The argument.

    Raises:
        ConfigurationError: If it is not.
    """
    if not 0 <= value <= 1 or (below_one and value == 1):
        end = 'below 1' if below_one else '1'
        raise ConfigurationError(f'{name}: expected a number from 0 to {end}, got {value}.')
    return float(value)


def check_interval(
    name: str, interval: Sequence[float], low: float, high: float = math.inf, above: bool = False
) -> tuple[float, float]:
    """Check that an argument is an ordered pair of finite numbers within a range.

    Args:
        name: Name of the argument, for the message.
        interval: The argument: smallest and largest value.
        low: Smallest allowed value.
        high: Largest allowed value.
        above: Whether to refuse ``low`` itself.

    Returns:
        The pair.

    Raises:
        ConfigurationError: If it is not.
    """
    ordered = len(interval) == 2 and low <= interval[0] <= interval[1] <= high and interval[1] < math.inf
    if not ordered or (above and interval[0] == low):
        start = f'above {low}' if above else f'from {low}'
        raise ConfigurationError(
            f'{name}: expected two numbers {start} to {high}, the smaller one first, got {interval}.'
        )
    return float(interval[0]), float(interval[1])
