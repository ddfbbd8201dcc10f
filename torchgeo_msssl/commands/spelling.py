"""Spelling of options on the command line, the same in every command."""

import glob
import json
import os
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAliasType, Union, get_args, get_origin

from torchgeo_msssl.errors import ConfigurationError

_NAMES = {bool: 'true or false', int: 'an integer', float: 'a number', str: 'text', type(None): 'null'}


def split_argument(argument: str) -> tuple[str, str | None]:
    """Take ``--min-valid=0.5`` apart.

    Returns:
        Name with underscores, and the value where there is one.
    """
    name, equals, value = argument.removeprefix('--').partition('=')
    return name.replace('-', '_'), value if equals else None


def take_values(rest: list[str], value: str | None, hint: Any, *, several: bool) -> list[str]:
    """Take the values of an option off the arguments that follow its name.

    Args:
        rest: Following arguments; those that are values are removed.
        value: Value that came with the name, as in ``--name=value``.
        hint: Declared type of the option.
        several: Whether values may be separated by spaces.

    Returns:
        Values; empty where one is missing.
    """
    if value is not None:
        return [value]
    if bool in members(hint):  # a flag may stand alone
        return [rest.pop(0).lower()] if rest and rest[0].lower() in ('true', 'false', 'null') else ['true']
    if not several:
        return [rest.pop(0)] if rest and not rest[0].startswith('--') else []
    count = next((i for i, text in enumerate(rest) if text.startswith('--')), len(rest))
    taken = rest[:count]
    del rest[:count]
    return taken


def spell(values: Sequence[str], hint: Any) -> str:
    """Write the values of one option as the text that jsonargparse reads.

    Args:
        values: Values from the command line, at least one.
        hint: Declared type of the option.

    Returns:
        ``B02,B03`` as ``["B02", "B03"]`` where the type has a list, ``vine=1`` as ``{"vine": 1}`` where it has a
        mapping; other text as it is. A path that exists, or a pattern of some, is never split.

    Raises:
        ConfigurationError: If only some parts of a mapping have a value.
    """
    kinds, text = members(hint), values[0] if len(values) == 1 else ''
    paths = {value for value in values if str in kinds and _is_path(value)}
    if text[:1] in ('[', '{') or text == 'null' or text in paths:
        return text
    parts = [part for value in values for part in ([value] if value in paths else _split(value))]
    pairs = [part.partition('=') for part in parts]
    if any(is_mapping(one) for one in kinds) and any(equals for _, equals, _ in pairs):
        if all(name.strip() and equals for name, equals, _ in pairs):
            return json.dumps({name.strip(): _plain(value) for name, _, value in pairs})
        if str not in kinds:
            msg = f'{",".join(values)}: expected a value for each name, as in vine=1,grass=[2,3].'
            raise ConfigurationError(msg)
    lists = [one for one in kinds if is_list(one)]
    is_choice = any(get_origin(one) is Literal and text in map(str, get_args(one)) for one in kinds)
    if lists and (len(parts) > 1 or (str not in kinds and not is_choice)):
        return json.dumps(parts if any(_holds_text(one) for one in lists) else [_plain(part) for part in parts])
    return text


def describe_type(hint: Any) -> str:
    """Describe a type to a user.

    Returns:
        Such as ``an integer or null``.
    """
    return ' or '.join(dict.fromkeys(_describe_member(one) for one in members(hint)))


def members(hint: Any) -> tuple[Any, ...]:
    """List the types that a union holds.

    Returns:
        The types; the type itself where it is no union.
    """
    if isinstance(hint, TypeAliasType):
        return members(hint.__value__)
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for part in get_args(hint) for member in members(part))
    return (hint,)


def is_list(hint: Any) -> bool:
    """Tell whether a type is a list or a tuple."""
    return (get_origin(hint) or hint) in (list, tuple, Sequence)


def is_mapping(hint: Any) -> bool:
    """Tell whether a type is a mapping."""
    return (get_origin(hint) or hint) in (dict, Mapping)


def _describe_member(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f'one of {", ".join(map(str, get_args(hint)))}'
    if is_list(hint):
        return f'a list such as {"B02,B03" if _holds_text(hint) else "1,2"}'
    if is_mapping(hint):
        return 'a mapping such as vine=1,grass=2'
    return _NAMES.get(hint, getattr(hint, '__name__', str(hint)))


def _holds_text(hint: Any) -> bool:
    elements = members((get_args(hint) or (str,))[0])
    return any(one is str or get_origin(one) is Literal for one in elements)


def _plain(text: str) -> Any:
    """Value of a mapping or a list: a number, a list in brackets, or text."""
    text = text.strip()
    if text.startswith('[') and text.endswith(']'):
        return [_plain(part) for part in _split(text[1:-1])]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text.strip('\'"')


def _is_path(text: str) -> bool:
    """Whether a text is the path of a file, or a pattern with a comma that matches some."""
    # unlike pathlib, os.path takes text that is too long for a path
    return os.path.exists(text) or (',' in text and any(glob.iglob(text, recursive=True)))


def _split(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    parts, depth = [''], 0
    for letter in text:
        depth += (letter in '[{(') - (letter in ']})')
        if letter == ',' and depth == 0:
            parts.append('')
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
