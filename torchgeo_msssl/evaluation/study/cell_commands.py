"""Commands of a cell, which can be repeated by hand."""

import hashlib
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchgeo_msssl.evaluation.study.design import Cell, Options, Study, folder_name
from torchgeo_msssl.shipped_configs import ConfigFile, config_folder, find_config


@dataclass(frozen=True)
class Steps:
    """Commands and folder of a cell.

    Attributes:
        folder: Folder of the cell.
        pretraining: Arguments of the pretraining, None without one.
        fit: Arguments of the training.
        test: Arguments of the test or of the validation, None without one.
    """

    folder: Path
    pretraining: tuple[str, ...] | None
    fit: tuple[str, ...]
    test: tuple[str, ...] | None

    @property
    def command(self) -> str:
        """All commands as one line for a shell."""
        return ' && '.join(command_line(step) for step in (self.pretraining, self.fit, self.test) if step)


def command_line(arguments: Sequence[str]) -> str:
    """Format arguments as a command.

    Args:
        arguments: ``fit`` or ``test`` with its options.
    """
    return shlex.join(['python', '-m', 'torchgeo_msssl', *arguments])


def steps_of(study: Study, cell: Cell) -> Steps:
    """Compose the commands of a cell."""
    folder = cell_folder(study, cell)
    options = [*_config(_fit_of(study, cell)), *as_arguments(_options_of(study, cell))]
    weights = weights_of(study, cell)
    fit = ('fit', *options, *_logger(folder, 'fit'), *as_arguments({'model.weights': weights} if weights else {}))
    trained = folder / 'fit' / 'checkpoints' / f'{study.checkpoint}.ckpt'
    command = 'test' if study.part == 'test' else 'validate'
    test = (command, *options, *_logger(folder, study.part), '--ckpt_path', str(trained)) if study.test else None
    return Steps(folder, _pretraining(study, cell), fit, test)


def cell_folder(study: Study, cell: Cell) -> Path:
    """Return the folder of a cell, whose run folders are ``fit/`` and ``test/``."""
    return Path(study.output) / 'cells' / cell.name


def pretraining_folder(study: Study, cell: Cell) -> Path | None:
    """Return the folder of the pretraining of a cell, whose run folder is ``fit/``; None without a pretraining."""
    name = cell.pretraining_name
    return None if name is None else Path(study.output) / 'pretraining' / name


def weights_of(study: Study, cell: Cell) -> str | None:
    """Return the file with the weights of the pretraining of a cell; None without a pretraining."""
    folder, pretraining = pretraining_folder(study, cell), cell.initialisation.pretraining
    return str(folder / 'fit' / pretraining.weights) if folder and pretraining else None


def pretraining_command(study: Study, cell: Cell) -> tuple[str, str] | None:
    """Return the command of the pretraining of a cell and the digest of its configuration; None without one."""
    pretraining, arguments = cell.initialisation.pretraining, _pretraining(study, cell)
    return (command_line(arguments), digest(_content(pretraining.config))) if pretraining and arguments else None


def configuration_digest(study: Study, cell: Cell) -> str:
    """Return the digest of the content of a cell's configurations, of which the command has the names only."""
    pretraining = cell.initialisation.pretraining
    paths = (_fit_of(study, cell), pretraining.config if pretraining else None)
    return digest(*(_content(path) for path in paths if path))


def digest(*contents: bytes) -> str:
    """Hash contents.

    Returns:
        Twelve hexadecimal digits.
    """
    found = hashlib.sha256()
    for content in contents:
        found.update(hashlib.sha256(content).digest())
    return found.hexdigest()[:12]


def split_file(study: Study, cell: Cell) -> Path | None:
    """Return the file of the split if the study makes it; None if the data module splits blocks or reads a file.

    The study makes it if a scene is held out, or if a pretraining has the split of its cell: both may have different
    labels, and blocks are balanced by the classes of the labels. Its name contains a digest of the options of the data
    and of the configuration, on which it depends.
    """
    if cell.region is None:
        return None
    shared = any(one.pretraining is not None and one.pretraining.same_split for one in study.initialisations)
    blocks = cell.region == 'blocks' and shared
    if not blocks and cell.region in study.regions and cell.region != 'scene':
        return None
    parts = [f'{key}-{value}' for key, value in (('scenes', cell.scenes), ('shots', cell.shots)) if cell.scenes]
    data = {name: value for name, value in study.options.items() if name.startswith('data.')}
    made_of = digest(json.dumps(data, sort_keys=True).encode(), _content(study.fit))
    what = 'blocks' if blocks else f'without-{cell.region}'
    name = folder_name('_'.join([what, *parts, f'seed-{cell.seed}', made_of]))
    return Path(study.output) / 'splits' / f'{name}.geojson'


def as_arguments(options: Options) -> list[str]:
    """Format options as arguments.

    Returns:
        ``['--name', 'value', …]``.
    """
    return [text for name, value in options.items() for text in (f'--{name}', _as_text(value))]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fit_of(study: Study, cell: Cell) -> ConfigFile:
    return cell.initialisation.fit or study.fit


def _options_of(study: Study, cell: Cell) -> Options:
    """Options of all commands of a cell; those of networks do not suit a model of another configuration."""
    common: Options = study.options | (cell.variant.options if cell.variant else {})
    if cell.initialisation.fit is not None:
        common = {name: value for name, value in common.items() if name.startswith('data.')}
    elif cell.steps is not None:
        common |= {'trainer.max_steps': cell.steps, 'trainer.max_epochs': -1}
    return common | cell.initialisation.options | {'seed_everything': cell.seed, **_label_options(study, cell)}


def _label_options(study: Study, cell: Cell) -> Options:
    """Options of the split and of the labels; a split file of drawn scenes holds no other labels."""
    if cell.region is None:  # nothing is tested, or a folder of chips is divided already
        return {'data.seed': cell.seed} if study.test else {}
    split = split_file(study, cell) or cell.region
    options: Options = {'data.split': str(split), 'data.seed': cell.seed}
    if cell.fraction is not None:
        options['data.label_fraction'] = cell.fraction
    if cell.shots is not None and cell.scenes is None:
        options['data.shots'] = cell.shots
    return options


def _pretraining(study: Study, cell: Cell) -> tuple[str, ...] | None:
    pretraining, folder = cell.initialisation.pretraining, pretraining_folder(study, cell)
    if pretraining is None or folder is None:
        return None
    options: Options = dict(pretraining.options)
    if pretraining.each_seed:
        options['seed_everything'] = cell.seed
    if pretraining.same_split:
        kept = ('data.split', 'data.seed')
        options |= {name: value for name, value in _label_options(study, cell).items() if name in kept}
    return ('fit', *_config(pretraining.config), *as_arguments(options), *_logger(folder, 'fit'))


def _content(path: ConfigFile) -> bytes:
    return Path(path).read_bytes()


def config_path(config: ConfigFile) -> str:
    """Return what names a configuration in a command.

    Returns:
        Its path, relative to the working folder if it lies below it; or the name of a shipped configuration.
    """
    path = Path(config)
    if path.is_relative_to(Path.cwd()):
        return os.path.relpath(path)
    # a file of the same name in the working folder would be taken instead
    shipped = path.parent == config_folder() and find_config(path.stem) == path
    return path.stem if shipped else config


def _config(path: ConfigFile) -> list[str]:
    return ['--config', config_path(path)]


def _logger(folder: Path, version: str) -> list[str]:
    """Options that make ``save_dir/name/version`` of the logger the run folder."""
    logger = {'save_dir': str(folder.parent), 'name': folder.name, 'version': version}
    return as_arguments({f'trainer.logger.init_args.{name}': value for name, value in logger.items()})
