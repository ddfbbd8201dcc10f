"""What a run prints: one line for the network, a bar of one line or one line per epoch, and the expected time."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ModelSummary, ProgressBar, RichProgressBar
from lightning.pytorch.utilities.model_summary import get_human_readable_count  # type: ignore[attr-defined]
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from torchgeo_msssl.callbacks.run_time import Stopwatch, duration

log = logging.getLogger(__name__)

_BAR_WIDTH = 10


def console_callbacks(given: Sequence[Callback], bar: bool, summary: bool) -> list[Callback]:
    """Choose the callbacks that print.

    Args:
        given: Callbacks of the configuration; one that does the same is not repeated.
        bar: Whether there is a terminal that a progress bar can be drawn in, and the user wants one.
        summary: Whether the user wants a line about the network.

    Returns:
        Further callbacks.
    """
    own_bar = any(isinstance(callback, ProgressBar) for callback in given)
    found: list[Callback] = [Stopwatch()]
    if summary and not any(isinstance(callback, ModelSummary) for callback in given):
        found.append(NetworkLine())
    if not own_bar:
        found.append(OneLineBar() if bar else EpochLines())
    return found


def shown_metrics(trainer: Trainer, suffix: str) -> dict[str, float]:
    """Choose the metrics that fit into a line: losses, and those that choose the best checkpoint.

    Args:
        trainer: Trainer of the run.
        suffix: ``_step`` or ``_epoch``: which values of the loss to show.

    Returns:
        Values by name.
    """
    monitored = [one.monitor for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    names = {'loss': f'train_loss{suffix}', 'val_loss': 'val_loss', **{name: name for name in monitored if name}}
    values = trainer.callback_metrics
    return {shown: float(values[name]) for shown, name in names.items() if name in values}


class NetworkLine(ModelSummary):
    """Log the number of parameters in one line, instead of Lightning's table."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int,
        **summarize_kwargs: Any,
    ) -> None:
        """Log the line, unless there are no parameters; see :class:`lightning.pytorch.callbacks.ModelSummary`."""
        if not total_parameters:
            return
        columns = dict(summary_data)
        counts = zip(columns['Name'], columns['Params'], strict=True)
        parts = ', '.join(f'{name} {count.strip()}' for name, count in counts if count.strip() not in ('0', '--'))
        frozen = total_parameters - trainable_parameters
        also = f', {get_human_readable_count(frozen).strip()} frozen' if frozen else ''
        log.info('Parameters: %s trained%s (%s).', get_human_readable_count(trainable_parameters).strip(), also, parts)


class OneLineBar(RichProgressBar):
    """Progress bar of one line on standard error, also in a terminal of 80 columns.

    Metrics that do not fit are cut off; TensorBoard and ``metrics.csv`` have all of them.
    """

    def __init__(self) -> None:
        """Draw ten times per second at most."""
        super().__init__(refresh_rate=10, console_kwargs={'stderr': True})

    def configure_columns(self, trainer: Trainer) -> list[ProgressColumn]:
        """Return epoch, bar, steps and remaining time; the metrics follow."""
        return [
            TextColumn('{task.description}', table_column=Column(no_wrap=True)),
            BarColumn(_BAR_WIDTH),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
        ]

    def _init_progress(self, trainer: Trainer) -> None:
        super()._init_progress(trainer)
        if self._metric_component is not None:
            self._metric_component._table_column = Column(no_wrap=True, overflow='ellipsis')

    def _get_train_description(self, current_epoch: int) -> str:
        return _epoch(self.trainer)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the loss of the step, chips per second and the metric of the best checkpoint."""
        rate = trainer.callback_metrics.get('chips_per_s')
        shown = shown_metrics(trainer, '_step')
        return {**shown, **({} if rate is None else {'chips/s': f'{float(rate):.0f}'})}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the metrics of the epoch, whose means over processes are computed on all of them."""
        _ = trainer.callback_metrics
        super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the last state on the screen before the results are printed."""
        self._stop_progress()


class EpochLines(Callback):
    """Log one line per epoch, where there is no progress bar: losses, speed and remaining time."""

    def __init__(self) -> None:
        """Count no chips yet."""
        self._chips = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from zero."""
        self._chips = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the chips."""
        if isinstance(batch, Mapping) and 'image' in batch:
            self._chips += len(batch['image'])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the line, on one process."""
        shown = shown_metrics(trainer, '_epoch')  # on every process, since means over them are computed now
        if not trainer.is_global_zero:
            return
        stopwatch = next((one for one in trainer.callbacks if isinstance(one, Stopwatch)), None)  # type: ignore[attr-defined]
        parts = [f'{name} {value:.4g}' for name, value in shown.items()]
        if stopwatch is not None:
            seconds = stopwatch.epoch_seconds()
            parts.append(f'{self._chips * trainer.world_size / seconds:.0f} chips/s')
            last = trainer.current_epoch + 1 == trainer.max_epochs
            left = 0.0 if last else stopwatch.seconds_left(trainer)
            parts += ['finished'] if last else [f'{duration(left)} left'] if left > 1 else []
        log.info('%s: %s', _epoch(trainer), ', '.join(parts))


def _epoch(trainer: Trainer) -> str:
    total = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else None
    return f'Epoch {trainer.current_epoch + 1}' + (f'/{total}' if total else '')
