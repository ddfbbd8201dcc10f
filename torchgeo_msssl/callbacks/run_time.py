"""Expected time of a run from its first steps, and what would shorten it."""

import logging
import math
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from torchgeo_msssl.processes import available_cpus

log = logging.getLogger(__name__)

#: The time is measured over this many steps after the first one, which is slower, or over at least this many seconds.
_STEPS, _SECONDS = 10, 5.0
#: A run that is expected to be shorter needs no announcement; a longer one on a processor gets hints.
_SHORT, _LONG = 20.0, 1800.0
#: Time to suggest instead, in seconds.
_SUGGESTED = 600.0
#: Fraction of its threads below which a process is said to wait for processors.
_BUSY = 0.6


class Stopwatch(Callback):
    """Log once how long the run will take, and what would shorten a run that is far longer than usual."""

    def __init__(self) -> None:
        """Start without a measurement."""
        self._start: tuple[int, float] | None = None
        self._announced = False
        self._epoch_start = 0.0
        self._batch_start = (0.0, 0.0)
        self._busy = [0.0, 0.0]  # processor time and time of the steps alone, without reading

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._epoch_start = time.perf_counter()

    def epoch_seconds(self) -> float:
        """Return the seconds since the epoch began."""
        return max(time.perf_counter() - self._epoch_start, 1e-6)

    def seconds_left(self, trainer: Trainer) -> float:
        """Estimate the remaining time from all steps so far, validation included.

        Args:
            trainer: Trainer of the run.

        Returns:
            Seconds; 0 where nothing has been measured or the number of steps is unknown.
        """
        total = trainer.estimated_stepping_batches
        if self._start is None or math.isinf(total) or trainer.global_step <= self._start[0]:
            return 0.0
        step, start = self._start
        return (total - trainer.global_step) * (time.perf_counter() - start) / (trainer.global_step - step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the clocks of the step."""
        self._batch_start = (time.process_time(), time.perf_counter())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop the clocks; announce the time once enough steps are measured."""
        if self._announced:
            return
        if self._start is None:  # the first step is over
            self._start = (trainer.global_step, time.perf_counter())
            return
        self._busy[0] += time.process_time() - self._batch_start[0]
        self._busy[1] += time.perf_counter() - self._batch_start[1]
        steps, seconds = trainer.global_step - self._start[0], time.perf_counter() - self._start[1]
        if steps < 1 or (steps < _STEPS and seconds < _SECONDS):
            return
        self._announced = True
        if trainer.is_global_zero:
            cores = self._busy[0] / max(self._busy[1], 1e-6)
            for line in announcement(trainer, seconds / steps, cores, _device(pl_module)):
                log.info('%s', line)


def announcement(trainer: Trainer, per_step: float, cores: float, device: str) -> list[str]:
    """Say how long a run takes, with hints if that is far longer than usual on a processor.

    Args:
        trainer: Trainer of the run.
        per_step: Seconds of an optimizer step.
        cores: Processors that the steps kept busy.
        device: Type of the device, ``cpu`` or ``cuda``.

    Returns:
        Lines; none for a short run or one without an end.
    """
    total = trainer.estimated_stepping_batches
    left = (total - trainer.global_step) * per_step
    if math.isinf(left) or left < _SHORT:
        return []
    each = f'{per_step:.2g} s' if per_step < 10 else duration(per_step)
    lines = [f'{int(total):,} steps of {each}: about {duration(left)} left, without validation.']
    if device != 'cpu':
        return lines
    threads, available = torch.get_num_threads(), available_cpus()
    if threads > 1 and cores < _BUSY * threads:
        lines.append(
            f'{threads} threads keep {cores:.1f} processors busy, since other programs or a limit have the rest: '
            f'OMP_NUM_THREADS={max(1, round(cores))} may be faster.'
        )
    elif threads == 1 < available and left > _LONG:
        lines.append(f'One of {available} processors is used: OMP_NUM_THREADS={available} may be faster.')
    if left > _LONG:
        steps = max(1, round(_SUGGESTED / per_step))
        lines.append(f'For a run of {duration(_SUGGESTED)} set --trainer.max_steps {steps}.')
    return lines


def duration(seconds: float) -> str:
    """Write a time with one unit.

    Args:
        seconds: The time.

    Returns:
        Such as ``40 s``, ``12 min`` or ``3.5 h``.
    """
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


def _device(module: LightningModule) -> str:
    return str(module.device.type)
