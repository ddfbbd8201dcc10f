"""One sentence for what jsonargparse says in several lines about an option or a configuration."""

import ast
import difflib
import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torchgeo_msssl.commands import program
from torchgeo_msssl.commands.spelling import describe_type, members

#: Options of the trainer commands outside of sections.
_TOP = (
    'config',
    'ckpt_path',
    'data',
    'lr_scheduler',
    'model',
    'optimizer',
    'seed_everything',
    'trainer',
    'weights_only',
)
_PACKAGES = ('torchgeo_msssl', 'torchgeo', 'lightning')
_MODULES = {'model': 'torchgeo_msssl.tasks', 'data': 'torchgeo_msssl.datamodules'}


def parsing_sentence(message: str, command: str, hints: Mapping[str, Any]) -> str:
    """Say what is wrong with an option, and what to do.

    Args:
        message: Message of a :class:`jsonargparse.ArgumentError`.
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        hints: Types of the options by section and name, see :func:`.trainer_options.option_types`.

    Returns:
        One sentence that names the option and the remedy.
    """
    text = ' '.join(message.split())
    option = '.'.join(re.findall(r'Parser key "([^"]+)"', text))
    if match := re.search(r"Problem with given class_path '([\w.]+)': Option '([^']+)' is not accepted", text):
        return _unknown_argument(option, *match.groups())
    if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text):
        return f'{option}: {match[1]} has no {match[2]}; {_meant(match[2], _classes_in(match[1]))}'
    if match := re.search(r"No module named '(\S+)'", text):
        return f'{option}: there is no module {match[1]}; {_meant(match[1], _PACKAGES)}'
    if match := re.search(r'Expected a dot import path string: (\S+)', text):
        known = _classes_in(_MODULES.get(option, 'lightning.pytorch.callbacks'))
        return f'{option}: there is no class {match[1]}; {_meant(match[1], known)}'
    if match := re.search(r"does not accept option '([\w.]+)'|unrecognized arguments: (--\S+)", text):
        return _unknown_option(match[1] or match[2], command, hints)
    if match := re.search(r'unrecognized arguments: (\S+)', text):
        return f'{match[1]}: unexpected; the names of options start with --.'
    if 'arguments are required' in text:
        return f'{command}: no model and data are named; give a configuration, such as --config fastsiam_s2.'
    return _wrong_value(message, option, hints) or text


def _unknown_argument(option: str, class_path: str, name: str) -> str:
    from torchgeo_msssl.commands.trainer_options import constructor_hints

    close = difflib.get_close_matches(name, constructor_hints(class_path), 1)
    meant = f'did you mean `{close[0]}`?' if close else 'remove it.'
    return f'{option}.{name}: {class_path.rpartition(".")[2]} has no option `{name}`; {meant}'


def _unknown_option(given: str, command: str, hints: Mapping[str, Any]) -> str:
    name = given.removeprefix('--').partition('=')[0]
    section, _, rest = name.partition('.')
    known = {one: one for one in (*_TOP, *hints)}
    nested = hints.get(section)
    if rest and isinstance(nested, Mapping):
        known = {one: f'{section}.{one}' for one in nested}
        close = difflib.get_close_matches(rest.partition('.')[0], known, 1)
    else:
        close = difflib.get_close_matches(section, known, 1)
    dashes = '--' if given.startswith('--') else ''
    meant = f'did you mean `{dashes}{known[close[0]]}`?' if close else f'see {program()} {command} --help.'
    return f'{given}: {command} has no such option; {meant}'


def _wrong_value(message: str, option: str, hints: Mapping[str, Any]) -> str:
    """Name the expected type and the value; empty if the message names no value."""
    values = re.findall(r'(?:Given|Got) value: (.*)', message[message.rfind('Parser key "') :])
    found = [value for value in values if not value.startswith(('NestedArg(', "{'class_path'"))]
    if not option or not found:
        return ''
    value = found[0]
    if len(found) > 1 and found[1].startswith('['):  # the list instead of its element
        value = found[1]
    hint: Any = hints
    for part in option.split('.'):
        hint = hint.get(part) if isinstance(hint, Mapping) else None
    expected = 'another type' if hint is None or isinstance(hint, Mapping) else describe_type(hint)
    remark = '; YAML reads no, yes, on and off as booleans: write them in quotes' if _has_booleans(value, hint) else ''
    return f'{option}: expected {expected}, got {value}{remark}.'


def _has_booleans(value: str, hint: Any) -> bool:
    try:
        parsed = ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return False
    parts = parsed if isinstance(parsed, list | tuple) else [*parsed] if isinstance(parsed, dict) else [parsed]
    return bool not in members(hint) and any(isinstance(part, bool) for part in parts)


def _meant(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, 1)
    return f'did you mean {close[0]}?' if close else f'available are {", ".join(names)}.'


def _classes_in(module: str) -> list[str]:
    try:
        found = vars(importlib.import_module(module))
    except ImportError:
        return []
    return [name for name, value in found.items() if isinstance(value, type) and not name.startswith('_')]
