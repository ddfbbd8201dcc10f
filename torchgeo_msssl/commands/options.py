"""Options of a command, declared once as a dataclass.

To write a command, declare its options as a dataclass and read them::

    @dataclass(frozen=True, kw_only=True)
    class ChipOptions(LabelOptions):
        # its docstring has the summary of the command, and one line per field in the section Attributes
        paths: list[str] = positional('SCENE')
        output: str = option(metavar='DIR')
        chip_size: int = 512
        bands: list[str] | None = None
        overwrite: bool = False

    options = read_options(ChipOptions, 'chip', arguments)

The docstring gives the help. A field without a default is required. Checks belong into ``__post_init__``, where they
serve Python too. Inherited fields form a group of the help with the summary of their class as its title, and so do the
fields of a nested dataclass, whose names get the prefix ``--field.``. Import torch and other slow libraries after
``read_options``, so that ``--help`` does not wait for them.

A dataclass below this layer, which the Python interface uses too, sets ``metadata={'metavar': 'DIR'}`` of a field
itself, or is the base of the command's own dataclass, which adds paths, output and the like.
"""

import dataclasses
import difflib
import inspect
import json
import re
import typing
from argparse import SUPPRESS, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from docstring_parser import parse as parse_docstring

from torchgeo_msssl.commands import program
from torchgeo_msssl.commands.spelling import (
    describe_type,
    is_list,
    is_mapping,
    members,
    spell,
    split_argument,
    take_values,
)
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.shipped_configs import find_config

_METAVARS = {bool: '[true|false]', int: 'INT', float: 'FLOAT'}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        name: Name, after those of the fields that hold its dataclass, such as ``data.paths``.
        type: Declared type.
        default: Default value, ``dataclasses.MISSING`` where there is none.
        help: Description from the docstring.
        group: Title of its group in the help; empty for the command's own options.
        metavar: Placeholder of the value in the help.
        positional: Whether its values stand without the name.
    """

    name: str
    type: Any
    default: Any = None
    help: str = ''
    group: str = ''
    metavar: str = 'FILE'
    positional: bool = False

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING

    @property
    def several(self) -> bool:
        """Whether it takes a list."""
        return any(is_list(one) for one in members(self.type))


def option(default: Any = dataclasses.MISSING, *, metavar: str, positional: bool = False) -> Any:
    """Declare a field whose placeholder in the help is not made of its name or type.

    Args:
        default: Default value; without it the option is required.
        metavar: Placeholder of the value, such as ``DIR``.
        positional: Whether the value stands without the name.

    Returns:
        A field of a dataclass.
    """
    return dataclasses.field(default=default, metadata={'metavar': metavar, 'positional': positional})


def positional(metavar: str) -> Any:
    """Declare a required field whose values stand on the command line without its name.

    Args:
        metavar: Placeholder of the value, such as ``SCENE``.

    Returns:
        A field of a dataclass; one value or more where its type is a list.
    """
    return option(metavar=metavar, positional=True)


def read_options[T](
    kind: type[T], command: str, arguments: Sequence[str], *, config: bool = False, example: str = ''
) -> T:
    """Read the options of a command.

    ``--min-valid`` is ``--min_valid``; lists are ``B02,B03`` or ``[B02, B03]``; mappings are ``vine=1,grass=[2,3]`` or
    ``{vine: 1, grass: [2, 3]}``; a flag may stand alone. ``--help`` prints the help and exits.

    Args:
        kind: Dataclass of the options.
        command: Name of the command.
        arguments: Arguments that follow it on the command line.
        config: Whether YAML files with options, or names of shipped ones, may be given as ``--config``.
        example: Example to show below the help, without the name of the program.

    Returns:
        The options.

    Raises:
        ConfigurationError: If an option is unknown or missing, or its value is of another type.
    """
    declared = list(declared_options(kind))
    if not {'-h', '--help'}.isdisjoint(arguments):
        print(_help_text(kind, command, declared, config, example), end='')
        raise SystemExit(0)
    extra = [Option('config', str)] if config else []
    named, unnamed = _read_arguments(arguments, [*declared, *extra], command)
    given = [*named, *_read_positionals(unnamed, [one for one in declared if one.positional], command)]
    given = [(name, str(find_config(value)) if name == 'config' else value) for name, value in given]
    names = {name for name, _ in given}
    missing = [
        one.metavar if one.positional else f'--{one.name}' for one in declared if one.required and one.name not in names
    ]
    if missing and 'config' not in names:
        raise ConfigurationError(f'{", ".join(missing)}: required; {_see_help(command)}')
    return _validate(kind, declared, given, config)


def declared_options(kind: Any, prefix: str = '') -> Iterator[Option]:
    """List the options that a dataclass declares, those of nested dataclasses too.

    Args:
        kind: Dataclass.
        prefix: Prefix of their names.

    Yields:
        Options in the order of the fields.
    """
    hints = typing.get_type_hints(kind)
    owners = {name: base for base in reversed(kind.__mro__) for name in inspect.get_annotations(base)}
    for field in dataclasses.fields(kind):
        hint, name, owner = hints[field.name], f'{prefix}{field.name}', owners[field.name]
        if dataclasses.is_dataclass(hint):
            yield from declared_options(hint, f'{name}.')
            continue
        documented = parse_docstring(inspect.getdoc(owner) or '')
        texts = {
            one.arg_name: ' '.join((one.description or '').replace('``', '`').split()) for one in documented.params
        }
        yield Option(
            name,
            hint,
            field.default if field.default_factory is dataclasses.MISSING else field.default_factory(),
            texts.get(field.name, ''),
            (documented.short_description or owner.__name__) if prefix or owner is not kind else '',
            field.metadata.get('metavar') or _metavar(hint, field.name),
            field.metadata.get('positional', False),
        )


def _read_arguments(
    arguments: Sequence[str], declared: Sequence[Option], command: str
) -> tuple[list[tuple[str, str]], list[str]]:
    """Values by name in the order given, and the arguments without a name."""
    known = {one.name: one for one in declared if not one.positional}
    has_positionals = any(one.positional for one in declared)
    rest, named, unnamed = list(arguments), [], []
    while rest:
        argument = rest.pop(0)
        if not argument.startswith('--'):
            unnamed.append(argument)
            continue
        name, value = split_argument(argument)
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f'did you mean --{near[0]}?' if near else _see_help(command)
            raise ConfigurationError(f'--{name}: {command} has no such option; {hint}')
        one = known[name]
        # files that a shell makes of a pattern; after other lists a positional argument may follow
        several = one.several and (str in members(one.type) or not has_positionals)
        values = take_values(rest, value, one.type, several=several)
        if not values:
            raise ConfigurationError(f'--{name}: expected a value after it.')
        named.append((name, spell(values, one.type)))
    return named, unnamed


def _read_positionals(unnamed: Sequence[str], wanted: Sequence[Option], command: str) -> list[tuple[str, str]]:
    rest, found = list(unnamed), []
    for behind, one in zip(reversed(range(len(wanted))), wanted, strict=True):
        count = max(len(rest) - behind, 0) if one.several else 1
        values, rest = rest[:count], rest[count:]
        if values:
            # paths may hold commas: each argument is one
            found.append((one.name, json.dumps(values) if one.several else values[0]))
    if rest:
        raise ConfigurationError(f'{rest[0]}: unexpected; the names of options start with --, {_see_help(command)}')
    return found


def _validate[T](kind: type[T], declared: Sequence[Option], given: Sequence[tuple[str, str]], config: bool) -> T:
    # imported here: the help does without
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    if config:
        parser.add_argument('--config', action='config')
    parser.add_class_arguments(kind, as_group=False)
    try:
        found = parser.instantiate(parser.parse_args([f'--{name}={value}' for name, value in given]))
    except jsonargparse.ArgumentError as error:
        raise ConfigurationError(_sentence(str(error), declared, dict(given))) from error
    return kind(**{field.name: found[field.name] for field in dataclasses.fields(typing.cast(Any, kind))})


def _sentence(message: str, declared: Sequence[Option], given: Mapping[str, str]) -> str:
    """Say in one sentence what jsonargparse says in several lines."""
    if match := re.search('Not of type ConfigFile: config: (.+)', message):
        return f'{re.findall(r'key "([^"]+)"', message)[-1]}: {match[1]}'
    match = re.search(r'key "([^"]+)"', message)
    one = next((one for one in declared if match and one.name == match[1]), None)
    if one is None or one.name not in given:
        return ' '.join(message.split())
    return f'{one.name}: expected {describe_type(one.type)}, got {given[one.name]}.'


def _see_help(command: str) -> str:
    return f'see {program()} {command} --help.'


def _help_text(kind: type, command: str, declared: Sequence[Option], config: bool, example: str) -> str:
    usage = [_usage(one) for one in declared if one.positional]
    usage += [f'--{one.name} {one.metavar}' for one in declared if one.required and not one.positional]
    documented = parse_docstring(inspect.getdoc(kind) or '')
    texts = [documented.short_description, documented.long_description]
    parser = ArgumentParser(
        usage=' '.join([program(), command, *usage, '[options]']),
        description='\n\n'.join(text for text in texts if text),
        epilog=f'example:\n  {program()} {example}' if example else None,
        formatter_class=RawDescriptionHelpFormatter,
    )
    if config:
        parser.add_argument(
            '--config', metavar='FILE', help='YAML file with any of these options, or a name that `configs` lists.'
        )
    groups = {'': parser}
    for one in declared:
        if one.positional:
            parser.add_argument(one.name, metavar=one.metavar, help=_escape(one.help))
            continue
        if one.group not in groups:
            groups[one.group] = parser.add_argument_group(one.group.rstrip('.'))  # type: ignore[assignment]
        groups[one.group].add_argument(f'--{one.name}', metavar=one.metavar, default=SUPPRESS, help=_described(one))
    return parser.format_help()


def _usage(one: Option) -> str:
    text = f'{one.metavar}{" ..." if one.several else ""}'
    return text if one.required else f'[{text}]'


def _described(one: Option) -> str:
    """Description with the default, unless the description names it."""
    text, default = _escape(one.help), one.default
    if one.required:
        return f'{text} Required.'
    if default is None or default is False or default in ((), [], {}, '') or 'default' in text.lower():
        return text
    shown = ','.join(map(str, default)) if isinstance(default, list | tuple) else default
    shown = shown if shown is not True else 'true'
    return f'{text} (default: {_escape(str(shown))})'


def _escape(text: str) -> str:
    return text.replace('%', '%%')


def _metavar(hint: Any, name: str) -> str:
    kinds = [one for one in members(hint) if one is not type(None)]
    if kinds and all(get_origin(one) is Literal for one in kinds):
        return '{' + ','.join(str(value) for one in kinds for value in get_args(one)) + '}'
    if any(is_mapping(one) for one in kinds):
        return 'NAME=VALUE,...'
    if kinds and all(is_list(one) for one in kinds):
        return 'VALUE,...'
    return _METAVARS.get(kinds[0], name.upper()) if len(kinds) == 1 else name.upper()
