"""Help of ``fit``, ``validate``, ``test`` and ``predict``: what users of this package need, and where the rest is."""

import importlib
import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from docstring_parser import parse as parse_docstring

from torchgeo_msssl.commands import program
from torchgeo_msssl.commands.trainer_options import SECTIONS, named_classes

#: Requests the complete help of Lightning's command line.
FULL_HELP = '--full_help'

_SUMMARIES = {
    'fit': 'Train a task on data.',
    'validate': 'Evaluate a task on the validation part of its data, chip by chip.',
    'test': 'Evaluate a task on the test part of its data: the map of scenes, or chips of a folder.',
    'predict': 'Map scenes with a segmentation, or restore them.',
}
_EXAMPLES = {
    'fit': "fastsiam_s2 --data.paths 'scenes/*.tif'",
    'validate': 'vineseg_drone --ckpt_path best',
    'test': 'vineseg_drone --ckpt_path best',
    'predict': 'vineseg_drone --ckpt_path best --data.predict_paths ortho.tif',
}
#: Options that are named where the task and the data are not known.
_MOST_USED = {
    'data.paths': 'Scenes: files, folders or patterns; or a folder of chips.',
    'data.labels': 'Mask rasters, or polygons and lines, for tasks with labels.',
    'data.bands': 'Bands by name.',
    'data.sensor': 'Sensor, where the files do not name it.',
    'data.chip_size': 'Side of a chip in pixels.',
    'data.batch_size': 'Chips per batch on each device.',
    'model.weights': 'Initial weights: `encoder.safetensors`, a checkpoint, a TorchGeo weight, or `imagenet`.',
    'model.lr': 'Maximum learning rate.',
}
_SECTION_TITLES = {'data': 'data', 'model': 'task'}
_CHECKPOINTS = {
    'fit': '`last` resumes the latest run of the experiment, or the path of a checkpoint.',
    'other': '`best` or `last` of the latest run of the experiment, or the path of a checkpoint. Required.',
}
_TRAINING = {
    'max_epochs': 'Number of epochs.',
    'max_steps': 'Number of optimizer steps, instead of epochs.',
    'accumulate_grad_batches': 'Batches per optimizer step.',
    'gradient_clip_val': 'Largest norm of the gradients.',
    'check_val_every_n_epoch': 'Epochs from one validation to the next.',
}
_TRAINER = {
    'accelerator': '`auto`, `cpu`, `gpu` or `mps`.',
    'devices': 'Number of devices, or `auto`.',
    'precision': '`32-true`, `bf16-mixed` or `16-mixed`.',
    'enable_progress_bar': 'Whether to show a progress bar.',
    'logger.save_dir': 'Folder of all runs.',
    'logger.name': 'Name of the experiment, a folder in that of all runs.',
}


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Return whether the help of a trainer command is requested.

    Args:
        arguments: The command and what follows.
    """
    return not {'-h', '--help'}.isdisjoint(arguments)


def trainer_help(arguments: Sequence[str]) -> str:
    """Format the help of a trainer command.

    Args:
        arguments: ``fit``, ``validate``, ``test`` or ``predict`` and what follows; the options of the task and the data
            that a configuration or the command line names are listed.

    Returns:
        The help.

    Raises:
        ConfigurationError: If a configuration is not UTF-8.
    """
    command, this = arguments[0], f'{program()} {arguments[0]}'
    named = named_classes(arguments)
    lines = [
        f'usage: {this} --config FILE.yaml [options]',
        '',
        _SUMMARIES[command],
        '',
        *_section('options', _own_options(command)),
    ]
    for section in SECTIONS:
        if section in named:
            found = [(f'--{section}.{name}', text) for name, text in _constructor_options(section, named[section])]
            kind = named[section].rpartition('.')[2]
            lines += _section(f'options of the {_SECTION_TITLES[section]}, with the defaults of {kind}', found)
    if not named:
        lines += _section('most used options of the data and the task', _prefixed('', _MOST_USED))
    trainer = (_TRAINING if command == 'fit' else {}) | _TRAINER
    lines += _section('most used options of the trainer', _prefixed('trainer.', trainer))
    lines += _more(command, this, named)
    return '\n'.join(lines)


def _prefixed(prefix: str, texts: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f'--{prefix}{name}', text) for name, text in texts.items()]


def _own_options(command: str) -> list[tuple[str, str]]:
    options = [
        (
            '-c, --config',
            'YAML file with the task, the data and the trainer, or a name that `configs` lists; options given here '
            'replace its values.',
        ),
        ('--ckpt_path', _CHECKPOINTS.get(command, _CHECKPOINTS['other'])),
        ('--seed_everything', 'Seed of everything random in training.'),
        ('--print_config', 'Print the complete configuration and exit.'),
    ]
    if command == 'predict':
        from torchgeo_msssl.prediction.predict import MapSettings

        options.insert(2, ('--data.predict_paths', 'Scenes: files, folders or patterns. Required.'))
        options += [(f'--{name}', text) for name, text in _documented(MapSettings)]
    return options


def _constructor_options(section: str, path: str) -> Iterator[tuple[str, str]]:
    """Yield the options of a class and their descriptions, its own ones first."""
    module, _, name = path.rpartition('.')
    try:
        kind = getattr(importlib.import_module(module or SECTIONS[section]), name)
    except (ImportError, AttributeError) as error:
        yield '…', f'{path} cannot be imported: {error}.'
        return
    seen = set()
    for base in kind.__mro__:
        if '__init__' not in vars(base) or base.__module__ == 'builtins':
            continue
        texts = dict(_documented(base.__init__))
        parameters = inspect.signature(base.__init__).parameters.values()
        for parameter in parameters:
            named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            if named and parameter.name in texts and parameter.name not in seen:
                seen.add(parameter.name)
                yield parameter.name, texts[parameter.name] + _default_of(parameter, texts[parameter.name])
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return  # what follows is not passed on


def _documented(described: object) -> Iterator[tuple[str, str]]:
    """Yield the arguments or attributes that a docstring describes, in one line each."""
    for parameter in parse_docstring(inspect.getdoc(described) or '').params:
        text = ' '.join((parameter.description or '').split())
        text = re.sub(r':\w+:`~?([\w.]+\.)?(\w+)`', r'\2', text).replace('``', '`')  # no markup of Sphinx
        yield parameter.arg_name.lstrip('*'), text


def _default_of(parameter: inspect.Parameter, text: str) -> str:
    default = parameter.default
    if default is parameter.empty or default is None or 'default' in text.lower():
        return ''
    return f' (default: {str(default).lower() if isinstance(default, bool) else default})'


def _more(command: str, this: str, named: dict[str, str]) -> list[str]:
    """Say where the other options are."""
    lines = []
    if not named:
        lines += [f'{this} --config FILE.yaml --help', '  lists all options of the data and the task that it names']
    lines += [f'{this} --model.help CLASS', '  lists those of a class with their types; --data.help likewise']
    lines += [f'{this} {FULL_HELP}', '  lists all options of the trainer']
    example = f'{this} --config {_EXAMPLES[command]}'
    return ['more:', *(f'  {line}' for line in lines), '', 'example:', f'  {example}']


def _section(title: str, options: Sequence[tuple[str, str]]) -> list[str]:
    """Format names and descriptions in two columns."""
    width, column = min(shutil.get_terminal_size().columns, 120), 26
    lines = [f'{title}:']
    for name, text in options:
        wrapped = textwrap.wrap(text, max(width - column, 30)) or ['']
        head = f'  {name}'
        if len(head) + 2 > column:
            lines.append(head)
            head = ''
        lines.append(f'{head:<{column}}{wrapped[0]}')
        lines += [' ' * column + line for line in wrapped[1:]]
    return [*(line.rstrip() for line in lines), '']
