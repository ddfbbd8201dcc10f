"""The commands that follow a training or a test."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from torchgeo_msssl.commands import program
from torchgeo_msssl.commands.spelling import split_argument

#: Options of the data that describe the scenes, and thus apply to a fine-tuning too.
_SCENES = ('paths', 'bands', 'sensor', 'offset', 'crs', 'res')
#: Ground of the sample area by what occurs in the name of a configuration.
_SAMPLE = {'land': 'data/sample/sentinel2', '': 'data/sample/drone'}


def after_pretraining(arguments: Sequence[str], encoder: Path) -> list[str]:
    """Return the commands that use an encoder.

    Args:
        arguments: ``fit`` and the options of the pretraining.
        encoder: File of the encoder.

    Returns:
        Fine-tuning, and a probe for Sentinel-2.
    """
    config = _config(arguments)
    kind = next((name for name in ('drone', 'chips') if name in config.stem), 'landcover')
    segmentation = _related(config, 'landcover_l1' if kind == 'landcover' else f'vineseg_{kind}')
    scenes = [
        text
        for name, value in _options(arguments)
        if name.removeprefix('data.').removeprefix('init_args.') in _SCENES and name.startswith('data.')
        for text in (f'--{name}', value)
    ]
    data = shlex.join([*scenes, '--data.labels', 'LABELS']) if '--data.paths' in scenes else ''
    commands = [f'fit --config {segmentation} --model.weights {shlex.quote(str(encoder))} {data}']
    if kind == 'landcover':
        probe = _related(config, 'probe_s2')
        commands.append(f'probe --config {probe} --encoders {shlex.quote(str(encoder))} {data}')
    return [f'{program()} {command.strip()}' for command in commands]


def after_training(arguments: Sequence[str], checkpoint: Path) -> list[str]:
    """Return the commands that test and map with a checkpoint of a segmentation.

    Args:
        arguments: ``fit`` or ``test`` and its options.
        checkpoint: The checkpoint.

    Returns:
        ``test``, unless that was the command, and ``predict``.
    """
    kept = [
        text
        for name, value in _options(arguments)
        if not name.startswith(('trainer.', 'model.weights', 'model.init_args.weights')) and name != 'ckpt_path'
        for text in (f'--{name}', value)
    ]
    options = dict(_options(arguments))
    default = next(folder for part, folder in _SAMPLE.items() if part in _config(arguments).stem)
    scenes = options.get('data.paths', default)
    common = [*kept, '--ckpt_path', str(checkpoint)]
    commands = [['predict', *common, '--data.predict_paths', scenes]]
    if arguments[0] == 'fit':
        commands.insert(0, ['test', *common])
    return [f'{program()} {shlex.join(command)}' for command in commands]


def _related(config: Path, name: str) -> str:
    """Configuration in the folder of another one, or else the shipped one."""
    path = config.with_name(f'{name}.yaml')
    return shlex.quote(str(path)) if path.is_file() else name


def _config(arguments: Sequence[str]) -> Path:
    named = [value for name, value in _options(arguments) if name == 'config']
    return Path(named[-1]) if named else Path('fastsiam_s2')


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield names and values of options as :func:`.trainer_options.spell_trainer_options` spells them."""
    rest = list(arguments[1:])
    while rest:
        argument = rest.pop(0)
        if argument == '-c':
            yield 'config', rest.pop(0)
        elif argument.startswith('--'):
            name, value = split_argument(argument)
            yield name, rest.pop(0) if value is None and rest else value or ''
