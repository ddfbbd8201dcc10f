"""Spelling of the options of ``fit``, ``validate``, ``test`` and ``predict``, which Lightning's command line reads."""

import dataclasses
import importlib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from torchgeo_msssl.commands.spelling import is_list, members, spell, split_argument, take_values

#: Sections of a configuration that name a class, and where short class names are looked for.
_SECTIONS = {'data': 'torchgeo_msssl.datamodules', 'model': 'torchgeo_msssl.tasks'}


def spell_trainer_options(arguments: Sequence[str], options: Mapping[str, Any] | None = None) -> list[str]:
    """Spell options as Lightning's command line reads them.

    The types of ``--data.…`` and ``--model.…`` are those of the constructors of the classes that the configuration or
    the command line names. Dashes in names become underscores; lists are ``B02,B03`` or several values, such as the
    files that a shell makes of a pattern; mappings are ``vine=1,grass=[2,3]``; a flag may stand alone.

    Args:
        arguments: ``fit``, ``validate``, ``test`` or ``predict`` and what follows.
        options: Types of further options by name.

    Returns:
        The same arguments with names and values that jsonargparse reads.
    """
    hints = {section: _constructor_hints(kind) for section, kind in _named_classes(arguments).items()}
    rest, spelled = list(arguments), []
    while rest:
        argument = rest.pop(0)
        if not argument.startswith('--'):
            spelled.append(argument)
            continue
        name, value = split_argument(argument)
        hint = _hint(name.split('.'), {**(options or {}), **hints})
        if hint is None:
            spelled.append(f'--{name}' if value is None else f'--{name}={value}')
            continue
        values = take_values(rest, value, hint, several=any(is_list(one) for one in members(hint)))
        text = spell(values, hint) if values else ''
        if text.startswith('-'):  # argparse takes -1e-3 for the name of an option
            spelled.append(f'--{name}={text}')
        else:
            spelled += [f'--{name}', text] if values else [f'--{name}']
    return spelled


def _named_classes(arguments: Sequence[str]) -> dict[str, str]:
    """Class of each section, that of the last configuration or option that names one."""
    found: dict[str, str] = {}
    for argument, following in zip(arguments, [*arguments[1:], ''], strict=True):
        if argument != '-c' and not argument.startswith('--'):
            continue
        name, value = ('config', None) if argument == '-c' else split_argument(argument)
        value = following if value is None else value
        if name == 'config':
            found |= _classes_of_file(Path(value))
        elif name.removesuffix('.class_path') in _SECTIONS:
            found[name.removesuffix('.class_path')] = value
    return found


def _classes_of_file(path: Path) -> dict[str, str]:
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):  # Lightning's parser reports what is wrong with it
        return {}
    sections = content if isinstance(content, dict) else {}
    named = {name: section for name in _SECTIONS if isinstance(section := sections.get(name), dict)}
    return {name: str(section['class_path']) for name, section in named.items() if 'class_path' in section}


def _constructor_hints(path: str) -> dict[str, Any]:
    """Types of a constructor's arguments, those that it passes on to its base classes too."""
    module, _, name = path.rpartition('.')
    for where in [module] if module else _SECTIONS.values():
        try:
            kind = getattr(importlib.import_module(where), name)
        except (ImportError, AttributeError, TypeError, ValueError):  # Lightning's parser reports it
            continue
        hints: dict[str, Any] = {}
        for base in reversed(kind.__mro__):
            if '__init__' in vars(base) and base.__module__ != 'builtins':
                hints |= typing.get_type_hints(base.__init__)
        return hints
    return {}


def _hint(parts: Sequence[str], hints: Mapping[str, Any]) -> Any:
    """Type of an option by the parts of its name; None where it is not known."""
    found: Any = hints
    for part in parts:
        if part == 'init_args':
            continue
        if dataclasses.is_dataclass(found):
            found = typing.get_type_hints(found)
        if not isinstance(found, Mapping):
            return None
        found = found.get(part)
    return None if isinstance(found, Mapping) or dataclasses.is_dataclass(found) else found
