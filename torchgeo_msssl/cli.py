"""Lightning's command line with linked bands, short option names and resuming."""

import dataclasses
import logging
import os
import pkgutil
import re
import signal
import sys
import typing
import warnings
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from rich import get_console, reconfigure
from rich.logging import RichHandler

from torchgeo_msssl import __version__
from torchgeo_msssl.callbacks.console import console_callbacks
from torchgeo_msssl.commands import program
from torchgeo_msssl.commands.config_files import with_config_paths
from torchgeo_msssl.commands.next_steps import after_pretraining, after_training
from torchgeo_msssl.commands.parsing_errors import parsing_sentence
from torchgeo_msssl.commands.trainer_help import FULL_HELP
from torchgeo_msssl.commands.trainer_options import model_options, option_types, spell_trainer_options
from torchgeo_msssl.contract import CountedClasses, LabelledData, PredictionData, SpectralData
from torchgeo_msssl.errors import ConfigurationError, OutputError, WeightsError
from torchgeo_msssl.runs import new_run_folder, weights_in, weights_of_run
from torchgeo_msssl.shards import Shard


class CLI(LightningCLI):
    """``fit``, ``validate``, ``test`` or ``predict`` on any task and data module named in a YAML file."""

    def __init__(self, arguments: Sequence[str], model_options: Collection[str], **options: Any) -> None:
        """Run a command.

        Args:
            arguments: Its name, and the options as this class reads them from ``sys.argv``.
            model_options: Names of the task's options, of which those that follow from the data are linked to it.
            **options: Arguments of :class:`lightning.pytorch.cli.LightningCLI`.
        """
        self._arguments = arguments
        self._model_options = model_options
        super().__init__(**options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the command to run only, because each needs a parser and imports of its own.

        Returns:
            Its name with the arguments of Lightning's method that are not options.
        """
        return {self._arguments[0]: LightningCLI.subcommands()[self._arguments[0]]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the number of input channels to the bands of the data, and the number of classes to their labels."""
        follow = {'num_classes': self._classes, 'ignore_index': self._ignore_index}
        # the options of a task without these would end in its checkpoint, which then could not be loaded
        linked = {name: compute for name, compute in follow.items() if name in self._model_options}
        for name, compute in {'in_channels': self._channels, **linked}.items():
            parser.link_arguments('data', f'model.init_args.{name}', compute_fn=compute, apply_on='instantiate')

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == 'predict':
            from torchgeo_msssl.prediction.predict import MapSettings

            self._map_options = [field.name for field in dataclasses.fields(MapSettings)]
            parser.add_class_arguments(MapSettings, as_group=True)
        return parser

    def _channels(self, data: LightningDataModule) -> int:
        # predict loads the network from the checkpoint and does not open the training data
        if self.subcommand != 'predict' and isinstance(data, SpectralData):
            return data.in_channels
        return self._given('in_channels')

    def _classes(self, data: LightningDataModule) -> int:
        if self.subcommand != 'predict' and isinstance(data, CountedClasses):
            return data.num_classes
        return self._given('num_classes')

    def _ignore_index(self, data: LightningDataModule) -> int:
        if self.subcommand != 'predict' and isinstance(data, LabelledData):
            return data.ignore_index
        return self._given('ignore_index')

    def _given(self, option: str) -> int:
        return int(self._get(self.config, 'model')['init_args'][option])

    def before_instantiate_classes(self) -> None:
        """Check what the command evaluates, find the run to resume, and check that the run folder can be written."""
        self._refuse_untrained()
        self._check_precision()
        config = self.config[self.subcommand]
        given = config.get('ckpt_path')
        named = given == 'last' or (given == 'best' and self.subcommand != 'fit')
        if given not in (None, 'last', 'best', 'hpc', 'registry') and '://' not in given and not Path(given).is_file():
            raise ConfigurationError(f'ckpt_path: there is no file {given}; use a checkpoint, or `last`.')
        logger = config.get('trainer', {}).get('logger')
        if isinstance(logger, list):  # the first one names the run folder
            logger = logger[0] if logger else None
        options = logger.get('init_args') if isinstance(logger, Namespace) else None
        if options is None or options.get('save_dir') is None:
            if named:
                msg = f'ckpt_path: {given} is searched in trainer.logger.save_dir, which is not set; use the path.'
                raise ConfigurationError(msg)
            return
        runs = Path(options['save_dir']) / (options.get('name') or '')
        self._find_weights(Path(options['save_dir']))
        if named:
            remedy = 'leave --ckpt_path out to begin a run' if self.subcommand == 'fit' else 'run `fit` first'
            version, checkpoint = last_run(runs, f'{given}.ckpt', remedy)
            if checkpoint.name != f'{given}.ckpt':
                print(f'{checkpoint.parents[1]} has no {given}.ckpt, for it was trained without validation.')
            config['ckpt_path'] = str(checkpoint)
            if self.subcommand == 'fit':
                options['version'] = version
            print(f'{"Resuming" if self.subcommand == "fit" else "Taking"} {checkpoint}')
        check_writable(runs)

    def _find_weights(self, save_dir: Path) -> None:
        """Replace ``EXPERIMENT`` or ``EXPERIMENT/VERSION`` in ``model.weights`` by the path of that run's weights."""
        model = self.config[self.subcommand]['model'].get('init_args')
        weights = model.get('weights') if model is not None else None
        if not isinstance(weights, str):
            return
        model['weights'] = weights = os.path.expanduser(weights)
        if found := weights_of_run(weights, save_dir):
            model['weights'] = str(found)
            print(f'Taking the weights {found}')

    def _refuse_untrained(self) -> None:
        """Raise if there is nothing to evaluate, before data are opened and a run folder is made."""
        from torchgeo_msssl.tasks import PretrainingTask, RestorationTask

        if self.subcommand == 'fit':
            return
        config = self.config[self.subcommand]
        task = pkgutil.resolve_name(config['model']['class_path'])
        kind = task if isinstance(task, type) else LightningModule
        restores = self.subcommand != 'test' and issubclass(kind, RestorationTask)
        if issubclass(kind, PretrainingTask) and not restores:
            also = '`validate`, ' if issubclass(kind, RestorationTask) else ''
            msg = (
                f'{self.subcommand}: {kind.__name__} pretrains without labels and has nothing to {self.subcommand}; '
                f'use `fit`, {also}`export`, and the encoder in a task with labels.'
            )
            raise ConfigurationError(msg)
        if config.get('ckpt_path') is None:
            msg = (
                f'{self.subcommand}: --ckpt_path is missing, and without a checkpoint the network is untrained; give '
                '--ckpt_path best for the best checkpoint of the latest run, or the path of a checkpoint.'
            )
            raise ConfigurationError(msg)

    def _check_precision(self) -> None:
        """Raise if weights would not be float32, which images are normalized to."""
        from torchgeo_msssl.tasks.training import TrainingTask

        config = self.config[self.subcommand]
        task, precision = pkgutil.resolve_name(config['model']['class_path']), str(config['trainer'].get('precision'))
        own = isinstance(task, type) and issubclass(task, TrainingTask)
        if own and precision in ('16-true', 'bf16-true', '64-true', '64'):
            raise ConfigurationError(
                f'trainer.precision: {precision} changes the type of the weights, and images are normalized in '
                'float32; use bf16-mixed, 16-mixed or 32-true.'
            )

    def predict(self, model: LightningModule, datamodule: LightningDataModule, **options: Any) -> None:
        """Map or restore whole scenes, instead of Lightning's loop over batches.

        Args:
            model: Task of the configuration.
            datamodule: Data module that names the scenes in ``predict_paths``.
            **options: Arguments of Lightning's method, with ``ckpt_path``.

        Raises:
            ConfigurationError: If there is no scene to predict, or the task cannot predict scenes.
        """
        from torchgeo_msssl.prediction.predict import MapSettings, map_scenes, refuse_map_options
        from torchgeo_msssl.prediction.ranks import run_on_ranks
        from torchgeo_msssl.prediction.reconstruct import reconstruct_scenes
        from torchgeo_msssl.tasks import PixelClassification, RestorationTask

        data = datamodule if isinstance(datamodule, PredictionData) else None
        paths, checkpoint = data.predict_paths if data is not None else None, options['ckpt_path']
        if not isinstance(model, PixelClassification | RestorationTask):
            raise ConfigurationError(
                f'model: predict maps scenes with a segmentation and restores them with MAE or Reconstruction, got '
                f'{type(model).__name__}.'
            )
        if data is None or paths is None:
            raise ConfigurationError('predict: --data.predict_paths is missing; name scenes, such as ortho.tif.')
        task = type(model).load_from_checkpoint(checkpoint, map_location='cpu', weights_only=True)
        config = self.config[self.subcommand]
        settings = MapSettings(**{name: config[name] for name in self._map_options})
        if isinstance(task, RestorationTask):
            refuse_map_options(settings, type(task).__name__)

        def predict(rank: Shard) -> None:
            where: dict[str, Any] = {
                'sensor': data.sensor,
                'offset': data.offset_option,  # as in training
                'device': self.trainer.strategy.root_device,
                'on_bad_scene': data.on_bad_scene,
                'rank': rank if rank.count > 1 else None,
            }
            if isinstance(task, PixelClassification):
                map_scenes(task, paths, checkpoint, settings, crs=data.crs, res=data.res, **where)
            else:
                shared = {name: getattr(settings, name) for name in ('overwrite', 'check_radiometry')}
                reconstruct_scenes(task, paths, settings.output, shard=settings.own_shard, **shared, **where)

        run_on_ranks(self.trainer, predict)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer, with callbacks that print little.

        Args:
            **kwargs: Further arguments of the trainer.

        Returns:
            The trainer.
        """
        options = self._get(self.config_init, 'trainer')
        if not options.get('barebones'):
            given = options.get('callbacks') or []
            listed = given if isinstance(given, list) else [given]
            bar = options.get('enable_progress_bar') is not False and get_console().is_terminal
            summary = options.get('enable_model_summary') is not False
            self.trainer_defaults = {'callbacks': console_callbacks(listed, bar, summary)}
            own_bar = any(isinstance(callback, ProgressBar) for callback in listed)
            kwargs |= {'enable_model_summary': False} | ({} if bar or own_bar else {'enable_progress_bar': False})
        return super().instantiate_trainer(**kwargs)

    def next_commands(self) -> list[str]:
        """Return the commands that use what this one has made; none on other processes than the first."""
        if not self.trainer.is_global_zero or self.trainer.interrupted:
            return []
        if self.subcommand == 'test':
            return after_training(self._arguments, Path(self.config['test']['ckpt_path']))
        found = weights_in(self._folder) if self._folder is not None and self.subcommand == 'fit' else None
        if found is None:
            return []
        after = after_training if found.suffix == '.ckpt' else after_pretraining
        return after(self._arguments, found)

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the command; a run that fails before its first step leaves no folder."""
        # the folder is asked for here, since all processes have to take part in that
        with nullcontext() if subcommand == 'predict' else new_run_folder(self.trainer) as self._folder:
            super()._run_subcommand(subcommand)

    def test(self, model: LightningModule, datamodule: LightningDataModule, **options: Any) -> None:
        """Score a task on the test ground: its map, or chips of a folder.

        Args:
            model: Task of the configuration.
            datamodule: Its data module.
            **options: Arguments of Lightning's method, with ``ckpt_path``.
        """
        from torchgeo_msssl.callbacks import MapScores

        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(callback, MapScores) for callback in callbacks):
            callbacks.insert(0, MapScores())  # before the progress bar starts
        self.trainer.test(model, datamodule, **options)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Load checkpoints as tensors and plain values only, so that no code in a file is executed."""
        return super()._prepare_subcommand_kwargs(subcommand) | {'weights_only': True}

    def _parse_ckpt_path(self) -> None:
        """Keep the configuration: YAML and options describe the model, not the checkpoint."""


def last_run(runs: Path, name: str = 'last.ckpt', remedy: str = 'run `fit` first') -> tuple[int | str, Path]:
    """Find the most recently saved run of an experiment.

    Args:
        runs: Folder of the experiment, with a folder for each run: ``version_N``, or named by
            ``trainer.logger.version``.
        name: Name of the checkpoint; a run without ``best.ckpt`` has its ``last.ckpt`` taken.
        remedy: What to do if there is none.

    Returns:
        ``(version, checkpoint)``: N, or the name.

    Raises:
        ConfigurationError: If there is no checkpoint.
    """
    names = dict.fromkeys((name, 'last.ckpt')) if name == 'best.ckpt' else {name: None}
    found: dict[int | str, list[Path]] = {}
    for each in names:  # the wanted one comes first
        for path in runs.glob(f'*/checkpoints/{each}'):
            run = path.parent.parent.name
            match = re.fullmatch(r'version_(\d+)', run)
            found.setdefault(int(match[1]) if match else run, []).append(path)
    if not found:
        msg = f'ckpt_path: there is no {runs}/*/checkpoints/{name}; {remedy}, or give the path of a checkpoint.'
        raise ConfigurationError(msg)
    version, paths = max(found.items(), key=lambda run: max(path.stat().st_mtime_ns for path in run[1]))
    return version, paths[0]


def check_writable(folder: Path) -> None:
    """Check before hours of work that a folder can be written.

    Args:
        folder: Folder, which is created.

    Raises:
        OutputError: If it cannot be written.
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
        MSSSLError: If the data, the options or the weights do not fit.
    """
    show_log()
    map_hints = _map_hints() if arguments[0] == 'predict' else {}
    arguments = ['--help' if argument == FULL_HELP else argument for argument in arguments]
    arguments = spell_trainer_options(arguments, map_hints)
    before = sys.argv
    sys.argv = [
        *sys.argv[:1],
        *with_config_paths(arguments),
    ]  # Lightning warns if it gets other arguments than the process
    try:
        return CLI(
            arguments,
            model_options(arguments),
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            seed_everything_default=0,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={'overwrite': True},  # by a resumed run
            parser_kwargs={'prog': program(), 'version': __version__, 'exit_on_error': False},
        )
    except ArgumentError as error:
        message = parsing_sentence(str(error), arguments[0], option_types(arguments) | map_hints)
        raise ConfigurationError(message) from error
    except UnpicklingError as error:
        msg = 'ckpt_path: the file holds more than tensors and plain values; it was not loaded, and no code in it ran.'
        raise WeightsError(msg) from error
    except MisconfigurationException as error:
        gpu = '; set trainer.accelerator to auto or cpu' if 'backend found' in str(error) else ''
        raise ConfigurationError(f'trainer: {" ".join(str(error).split()).rstrip(".")}{gpu}.') from error
    except ValueError as error:
        if not str(error).startswith('Expected more than 1 value per channel'):
            raise
        msg = (
            'batch_size: batch normalization needs several values per channel, and a batch of one chip has a single '
            'one where its features are 1 × 1; set data.batch_size to 2 or more, or use a larger chip_size.'
        )
        raise ConfigurationError(msg) from error
    except SIGTERMException as error:
        # its own exit status is that of success
        raise SystemExit(128 + signal.SIGTERM) from error
    finally:
        sys.argv = before


def _map_hints() -> dict[str, Any]:
    """Return the types of the options that only ``predict`` has."""
    from torchgeo_msssl.prediction.predict import MapSettings

    return typing.get_type_hints(MapSettings)


class _PlainHandler(logging.Handler):
    """Handler that prints whole lines to standard error, for logs outside of a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        print(f'{record.levelname}: {record.getMessage()}', file=sys.stderr)


def _is_wanted(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning says something about the run: no advertisement, no accelerator that is not there."""
    message = record.getMessage()
    noise = (
        'litlogger',
        'litmodels',
        'TPU available: False',
        'Loading `train_dataloader`',
        '`max_epochs',
        '`max_steps',
    )
    return not any(text in message for text in noise)


def show_log() -> None:
    """Show the log of this package, on one process only."""
    # a warning of torch about Lightning, which a user cannot change
    warnings.filterwarnings('ignore', '.*LeafSpec.*is deprecated')
    # a frozen encoder and a teacher are in evaluation mode on purpose
    warnings.filterwarnings('ignore', r'Found \d+ module\(s\) in eval mode')
    # the summary counts parameters, whatever the precision
    warnings.filterwarnings('ignore', r'Precision .* is not supported by the model summary')
    logging.getLogger('lightning.pytorch.utilities.rank_zero').addFilter(_is_wanted)
    logger = logging.getLogger('torchgeo_msssl')
    if logger.handlers:
        return
    reconfigure(stderr=True)  # the console of the progress bar, above which lines appear
    console = get_console()
    rich = RichHandler(console=console, show_time=False, show_path=False, markup=False)
    logger.addHandler(rich if console.is_terminal else _PlainHandler())
    logger.setLevel(logging.INFO if getattr(rank_zero_only, 'rank', 0) == 0 else logging.ERROR)
