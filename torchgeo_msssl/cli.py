"""Lightning's command line, with what this package adds: linked bands, short names, resuming."""

import dataclasses
import logging
import os
import re
import signal
import sys
import typing
import warnings
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich.console import Console
from rich.logging import RichHandler

from torchgeo_msssl import __version__
from torchgeo_msssl.commands.trainer_options import spell_trainer_options
from torchgeo_msssl.errors import ConfigurationError, OutputError, WeightsError


class CLI(LightningCLI):
    """``fit``, ``validate``, ``test`` or ``predict`` on any task and data module named in a YAML file."""

    def __init__(self, command: str, **options: Any) -> None:
        """Run a command.

        Args:
            command: Its name.
            **options: What Lightning's command line takes.
        """
        self._command = command
        super().__init__(**options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that is to run: each costs a parser of its own, and the imports of what it describes.

        Returns:
            Its name and the arguments that are not options.
        """
        return {self._command: LightningCLI.subcommands()[self._command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let the encoder's first layer follow the bands of the data."""
        parser.link_arguments('data', 'model.init_args.in_channels', compute_fn=self._channels, apply_on='instantiate')

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == 'predict':
            from torchgeo_msssl.prediction.predict import MapSettings

            self._map_options = [field.name for field in dataclasses.fields(MapSettings)]
            parser.add_class_arguments(MapSettings, as_group=True)
        return parser

    def _channels(self, data: LightningDataModule) -> int:
        # predict takes the network from the checkpoint, and has no need of the training data
        channels = getattr(data, 'in_channels', None) if self.subcommand != 'predict' else None
        if channels is None:  # what the YAML says holds, also for a data module of somebody else's
            channels = self._get(self.config, 'model')['init_args']['in_channels']
        return int(channels)

    def before_instantiate_classes(self) -> None:
        """Find the run to go on with, and see that the run folder can be written."""
        config = self.config[self.subcommand]
        given = config.get('ckpt_path')
        named = given == 'last' or (given == 'best' and self.subcommand != 'fit')
        if given not in (None, 'last', 'best', 'hpc', 'registry') and '://' not in given and not Path(given).is_file():
            raise ConfigurationError(f'ckpt_path: there is no file {given}; give a checkpoint, or `last`.')
        logger = config.get('trainer', {}).get('logger')
        if isinstance(logger, list):  # the first one names the run folder
            logger = logger[0] if logger else None
        options = getattr(logger, 'init_args', None)
        if options is None or options.get('save_dir') is None:
            if named:
                msg = f'ckpt_path: {given} is looked for in trainer.logger.save_dir, which is not set; give the path.'
                raise ConfigurationError(msg)
            return
        runs = Path(options['save_dir']) / (options.get('name') or '')
        if named:
            version, checkpoint = last_run(runs, f'{given}.ckpt')
            config['ckpt_path'] = str(checkpoint)
            if self.subcommand == 'fit':
                options['version'] = version
            print(f'{"Resuming" if self.subcommand == "fit" else "Taking"} {checkpoint}')
        check_writable(runs)

    def _refuse_pretraining(self) -> None:
        """Tell that there is nothing to evaluate, where Lightning would tell of a missing method."""
        # what `--help` does not need, it does not wait for
        from torchgeo_msssl.tasks import PretrainingTask, RestorationTask

        restores = self.subcommand != 'test' and isinstance(self.model, RestorationTask)
        if isinstance(self.model, PretrainingTask) and not restores:
            also = '`validate`, ' if isinstance(self.model, RestorationTask) else ''
            msg = (
                f'{self.subcommand}: {type(self.model).__name__} pretrains without labels and has nothing to '
                f'{self.subcommand}; use `fit`, {also}`export`, and the encoder in a task with labels.'
            )
            raise ConfigurationError(msg)

    before_validate = before_test = before_predict = _refuse_pretraining

    def predict(self, model: LightningModule, datamodule: LightningDataModule, **options: Any) -> None:
        """Map or restore whole scenes, instead of Lightning's loop over batches.

        Args:
            model: The task, as the configuration has it.
            datamodule: Names the scenes in ``predict_paths``.
            **options: What Lightning's method takes; ``ckpt_path`` is needed.

        Raises:
            ConfigurationError: If there is no checkpoint, nothing to map, or the task makes no maps.
        """
        from torchgeo_msssl.prediction.predict import MapSettings, map_scenes
        from torchgeo_msssl.prediction.reconstruct import reconstruct_scenes
        from torchgeo_msssl.tasks import RestorationTask, Segmentation

        paths, checkpoint = getattr(datamodule, 'predict_paths', None), options.get('ckpt_path')
        if not isinstance(model, Segmentation | RestorationTask):
            raise ConfigurationError(
                f'model: predict maps scenes with a segmentation and restores them with MAE or Reconstruction, got '
                f'{type(model).__name__}.'
            )
        if paths is None or checkpoint is None:
            missing = '--data.predict_paths ortho.tif' if paths is None else '--ckpt_path best.ckpt'
            raise ConfigurationError(
                f'predict: {missing} is missing; say which scenes to map, and with what checkpoint.'
            )
        task = type(model).load_from_checkpoint(checkpoint, map_location='cpu', weights_only=True)
        config = self.config[self.subcommand]
        settings = MapSettings(**{name: config[name] for name in self._map_options})
        where: dict[str, Any] = {
            'sensor': getattr(datamodule, 'sensor', None),
            'offset': getattr(datamodule, 'offset_option', 'auto'),  # as in training
            'device': self.trainer.strategy.root_device,
        }
        if isinstance(task, Segmentation):
            map_scenes(task, paths, checkpoint, settings, **where)
            return
        for name in self._map_options:
            if name not in ('output', 'overwrite') and getattr(settings, name) != getattr(MapSettings(), name):
                raise ConfigurationError(f'{name}: it is for maps of classes; {type(task).__name__} restores scenes.')
        reconstruct_scenes(task, paths, settings.output, overwrite=settings.overwrite, **where)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Load checkpoints as tensors and plain values only: nothing that came in a file is executed."""
        return super()._prepare_subcommand_kwargs(subcommand) | {'weights_only': True}

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration as it is: the YAML and the options say what the model is, not the checkpoint."""


def last_run(runs: Path, name: str = 'last.ckpt') -> tuple[int, Path]:
    """Find the run of an experiment that was saved last.

    Args:
        runs: Folder of the experiment, with ``version_N`` folders.
        name: Of the checkpoint.

    Returns:
        ``(N, checkpoint)``.

    Raises:
        ConfigurationError: If there is no checkpoint.
    """
    found = [
        (int(match[1]), path)
        for path in runs.glob(f'version_*/checkpoints/{name}')
        if (match := re.fullmatch(r'version_(\d+)', path.parent.parent.name))
    ]
    if not found:
        msg = f'ckpt_path: there is no {runs}/version_*/checkpoints/{name} to go on from; leave --ckpt_path out.'
        raise ConfigurationError(msg)
    return max(found, key=lambda run: run[1].stat().st_mtime_ns)


def check_writable(folder: Path) -> None:
    """See that a folder can be made and written, before hours of work.

    Args:
        folder: Folder; it is made.

    Raises:
        OutputError: If it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, 'Permission denied')
    except OSError as error:
        msg = f'{folder}: run folders cannot be written there ({error.strerror}); set trainer.logger.save_dir.'
        raise OutputError(msg) from error


def run_trainer(arguments: Sequence[str]) -> Any:
    """Run a trainer command.

    Args:
        arguments: ``fit``, ``validate``, ``test`` or ``predict`` with its options.

    Returns:
        The command line object, with ``trainer``, ``model`` and ``datamodule``.

    Raises:
        MSSSLError: If the data, the options or the weights do not suit.
    """
    show_log()
    arguments = spell_trainer_options(arguments, _map_hints() if arguments[0] == 'predict' else None)
    try:
        return CLI(
            arguments[0],
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            seed_everything_default=0,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={'overwrite': True},  # a resumed run writes it again
            parser_kwargs={'prog': 'python -m torchgeo_msssl', 'version': __version__},
            args=None if arguments == sys.argv[1:] else arguments,  # Lightning warns of both
        )
    except UnpicklingError as error:
        msg = 'ckpt_path: the file holds more than tensors and plain values; it was not loaded, no code in it ran.'
        raise WeightsError(msg) from error
    except SIGTERMException as error:
        # its own exit status is that of a run that ended well
        raise SystemExit(128 + signal.SIGTERM) from error


def _map_hints() -> dict[str, Any]:
    """Types of the options of ``predict`` alone."""
    from torchgeo_msssl.prediction.predict import MapSettings

    return typing.get_type_hints(MapSettings)


class _PlainHandler(logging.Handler):
    """Whole lines on standard error, for logs that no one reads in a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        print(f'{record.levelname}: {record.getMessage()}', file=sys.stderr)


def show_log() -> None:
    """Show what this package logs, once, whatever the number of processes."""
    # from inside torch and Lightning, and nothing that a user could change
    warnings.filterwarnings('ignore', '.*LeafSpec.*is deprecated')
    logger = logging.getLogger('torchgeo_msssl')
    if logger.handlers:
        return
    console = Console(stderr=True)
    rich = RichHandler(console=console, show_time=False, show_path=False, markup=False)
    logger.addHandler(rich if console.is_terminal else _PlainHandler())
    logger.setLevel(logging.INFO if getattr(rank_zero_only, 'rank', 0) == 0 else logging.ERROR)
