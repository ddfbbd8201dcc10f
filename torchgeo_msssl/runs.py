"""Folders of runs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torchgeo_msssl.errors import NonFiniteLossError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

#: What a run writes before its first step is complete.
_BEFORE_FIRST_STEP = {
    'config.yaml',
    'hparams.yaml',
    'statistics.json',
    'split.geojson',
    'split.png',
    'weights_report.json',
    'metrics.csv',
    'curves.csv',
    'views.png',
}
#: Files of a run from which another one can start, the preferred one first.
_WEIGHTS = ('encoder.safetensors', 'checkpoints/best.ckpt', 'checkpoints/last.ckpt')


def run_folder(trainer: 'Trainer | None') -> Path | None:
    """Return the folder of a run, in which Lightning also keeps its checkpoints.

    Args:
        trainer: Trainer, or None without a run. Call this on every rank: the ranks agree on the folder by a broadcast.

    Returns:
        The folder, or None for a run that writes nothing (``logger: false``, ``fast_dev_run``).
    """
    if trainer is None or not trainer.loggers or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    logger = trainer.loggers[0]
    if logger.log_dir is not None:
        folder = Path(logger.log_dir)
    else:  # trainer.log_dir would be the folder that all runs of such a logger share
        version = logger.version if isinstance(logger.version, str) else f'version_{logger.version}'
        folder = Path(logger.save_dir or trainer.default_root_dir, str(logger.name), version)
    return Path(trainer.strategy.broadcast(str(folder)))


def weights_in(run: Path) -> Path | None:
    """Return the file of a run folder from which another run can start, the encoder first; None without any."""
    return next((run / file for file in _WEIGHTS if (run / file).is_file()), None)


def weights_of_run(name: str, save_dir: Path = Path('runs')) -> Path | None:
    """Find the weights of a run by its name.

    Args:
        name: ``EXPERIMENT`` for its latest run, or ``EXPERIMENT/VERSION``.
        save_dir: Folder of the experiments.

    Returns:
        ``encoder.safetensors`` of a pretraining, else ``best.ckpt`` or ``last.ckpt``; None if there is no such run,
        or a file of this name.
    """
    if Path(name).exists():
        return None
    folder = save_dir / name
    runs = [folder, *(path for path in folder.glob('*') if path.is_dir())]
    found = [path for run in runs if (path := weights_in(run)) is not None]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


@contextmanager
def new_run_folder(trainer: 'Trainer') -> Iterator[Path | None]:
    """Create the folder of a run, and remove it if the run fails before its first step.

    A folder that existed before, as that of a resumed run, is never removed, nor one that holds anything else than what
    this process writes before the first step. The folder of a run whose first loss is not finite is kept, because it
    shows the chips.

    Args:
        trainer: Trainer that is about to run.

    Yields:
        The folder, None without a logger, or where the logger names it later.
    """
    logger = trainer.loggers[0] if trainer.loggers else None
    named = logger is not None and (logger.log_dir is not None or logger.version is not None)
    folder, step = run_folder(trainer) if named else None, trainer.global_step
    created = folder is not None and trainer.is_global_zero and _create(folder)
    try:
        yield folder
    except BaseException as error:
        started = trainer.global_step > step or isinstance(error, NonFiniteLossError)
        if created and folder is not None and not started and _is_unused(folder):
            for logger in trainer.loggers:
                logger.finalize('failed')  # TensorBoard would write its last records later
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _create(folder: Path) -> bool:
    """Create a folder; return False if another process, or an earlier run, has done so."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError:  # Lightning reports a folder that cannot be written
        return False
    return True


def _is_unused(folder: Path) -> bool:
    """Whether a folder holds only what this process has written before its first step."""
    files = [path for path in folder.rglob('*') if not path.is_dir() or path.is_symlink()]
    own_events = f'.{os.getpid()}.'  # TensorBoard names its files after host and process
    return all(
        path.parent == folder
        and not path.is_symlink()
        and (
            path.name in _BEFORE_FIRST_STEP
            or (path.name.startswith('events.out.tfevents.') and own_events in path.name)
        )
        for path in files
    )
