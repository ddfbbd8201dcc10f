"""Folder of a training run."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


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
