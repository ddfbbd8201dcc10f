"""Spelling of the options of ``fit``, ``validate``, ``test`` and ``predict``, which Lightning's command line reads."""

import dataclasses
import difflib
import importlib
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from torchgeo_msssl.commands.config_files import read_config
from torchgeo_msssl.commands.spelling import is_list, members, spell, split_argument, take_values
from torchgeo_msssl.errors import ConfigurationError

#: Sections of a configuration that name a class, and where short class names are looked for.
SECTIONS = {'data': 'torchgeo_msssl.datamodules', 'model': 'torchgeo_msssl.tasks'}


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

    Raises:
        ConfigurationError: If a class of this package has no such option, or a configuration cannot be read.
    """
    classes = named_classes(arguments)
    hints = {section: constructor_hints(kind) for section, kind in classes.items()}
    rest, spelled = list(arguments), []
    while rest:
        argument = rest.pop(0)
        if not argument.startswith('--'):
            spelled.append(argument)
            continue
        name, value = split_argument(argument)
        _check_name(name, hints, classes)
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


def _check_name(name: str, hints: Mapping[str, Mapping[str, Any]], classes: Mapping[str, str]) -> None:
    """Raise if a class of this package lacks an option, for which jsonargparse has no sentence."""
    section, *parts = name.removesuffix('+').split('.')
    parts = [part for part in parts if part != 'init_args']
    known = hints.get(section, {})
    if not known or not parts or parts[0] in known or parts[0] in ('class_path', 'dict_kwargs', 'help'):
        return
    # classes of other packages may hand on options that their constructors do not name
    if '.' in classes[section] and not classes[section].startswith('torchgeo_msssl.'):
        return
    close = difflib.get_close_matches(parts[0], known, 1)
    meant = f'did you mean `--{section}.{close[0]}`?' if close else f'`fit --{section}.help CLASS` lists the options.'
    kind = classes[section].rpartition('.')[2]
    raise ConfigurationError(f'--{name}: {kind} has no option `{parts[0]}`; {meant}')


def option_types(arguments: Sequence[str]) -> dict[str, Any]:
    """Look up the types of the options of the trainer, and of the classes that the arguments name.

    Args:
        arguments: ``fit``, ``validate``, ``test`` or ``predict`` and what follows.

    Returns:
        Types by section (``model``, ``data``, ``trainer``) and name.
    """
    named = {**named_classes(arguments), 'trainer': 'lightning.pytorch.Trainer'}
    return {'seed_everything': bool | int} | {section: constructor_hints(kind) for section, kind in named.items()}


def model_options(arguments: Sequence[str]) -> frozenset[str]:
    """Return the names of the options of the task that a configuration or the command line names.

    Args:
        arguments: ``fit``, ``validate``, ``test`` or ``predict`` and what follows.

    Returns:
        Names of its constructor's arguments; empty where no class is named.
    """
    named = named_classes(arguments).get('model')
    return frozenset(constructor_hints(named) if named is not None else ())


def named_classes(arguments: Sequence[str]) -> dict[str, str]:
    """Find the class of each section, that of the last configuration or option that names one.

    Args:
        arguments: ``fit``, ``validate``, ``test`` or ``predict`` and what follows.

    Returns:
        Import path or name of the class by ``model`` and ``data``, where there is one.

    Raises:
        ConfigurationError: If a configuration is not UTF-8.
    """
    found: dict[str, str] = {}
    for argument, following in zip(arguments, [*arguments[1:], ''], strict=True):
        if argument != '-c' and not argument.startswith('--'):
            continue
        name, value = ('config', None) if argument == '-c' else split_argument(argument)
        value = following if value is None else value
        if name == 'config':
            found |= _classes_of_file(value)
        elif name.removesuffix('.class_path') in SECTIONS:
            found[name.removesuffix('.class_path')] = value
    return found


def _classes_of_file(config: str) -> dict[str, str]:
    sections = read_config(config)
    named = {name: section for name in SECTIONS if isinstance(section := sections.get(name), dict)}
    return {name: str(section['class_path']) for name, section in named.items() if 'class_path' in section}


def constructor_hints(path: str) -> dict[str, Any]:
    """Look up the types of a constructor's arguments, those that it passes on to its base classes too.

    Args:
        path: Import path of the class, or the name of a task or data module of this package.

    Returns:
        Types by name; empty where there is no such class.
    """
    module, _, name = path.rpartition('.')
    for where in [module] if module else SECTIONS.values():
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
