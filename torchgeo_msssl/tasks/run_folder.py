"""Run folder of a training: metrics, curves, a picture of the views, and the encoder."""

import csv
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from matplotlib.figure import Figure
from torch import Tensor

from torchgeo_msssl.contract import spectral_data
from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.models.weights import save_encoder
from torchgeo_msssl.runs import run_folder
from torchgeo_msssl.tasks.column_pictures import draw_columns

if TYPE_CHECKING:  # tasks.base imports this module
    from torchgeo_msssl.tasks.base import PretrainingTask

log = logging.getLogger(__name__)

matplotlib.use('agg')  # pictures go to files; a display need not exist

#: Columns that have a value per step without saying so in their name.
_PER_STEP = ('embedding_std', 'lr', 'chips_per_s')

#: Columns of ``metrics.csv`` by the title of the panel that shows them.
Panels = Mapping[str, Sequence[str]]

#: Panels of a pretraining.
PANELS: Panels = {
    'loss': ('train_loss_step', 'train_loss_epoch'),
    'std of embeddings': ('embedding_std', 'epoch_embedding_std'),
    'mean pairwise cosine': ('mean_cosine',),
    'RankMe of features': ('rank_me',),
    'learning rate': ('lr',),
    'chips / s': ('chips_per_s',),
}


class MetricsFile:
    """A CSV file with one row per step, which grows by appending."""

    def __init__(self, path: Path, resumed_at: int) -> None:
        """Read the rows of an earlier part of the same run.

        Args:
            path: The file.
            resumed_at: Rows from this step on are removed; they belong to a part of the run that was lost.
        """
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline='', encoding='utf-8') as file:
                # a killed process may have left an incomplete row, whose step is missing or too large
                self.rows = [row for row in csv.DictReader(file) if _step_of(row) < resumed_at]
        self.columns = list(self.rows[0]) if self.rows else ['step', 'epoch']
        self._rewrite()

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; new columns rewrite the whole file.

        Args:
            row: Values by column, with ``step``.

        Raises:
            OutputError: If the disk is full or the folder was removed.
        """
        text = {key: repr(value) for key, value in row.items()}
        self.rows.append(text)
        new = [key for key in text if key not in self.columns]
        if new:
            self.columns += sorted(new)
            self._rewrite()
            return
        try:
            with self.path.open('a', newline='', encoding='utf-8') as file:
                csv.DictWriter(file, self.columns, restval='').writerow(text)
        except OSError as error:
            raise OutputError(
                f'{self.path} cannot be written ({error.strerror}); the run stopped, resume it with --ckpt_path last.'
            ) from error

    def series(self, column: str) -> tuple[list[float], list[float]]:
        """Return steps and values of the rows that have a value in a column."""
        found = [(float(row['step']), float(row[column])) for row in self.rows if row.get(column)]
        return [step for step, _ in found], [value for _, value in found]

    def _rewrite(self) -> None:
        with atomic_path(self.path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, self.columns, restval='')
            writer.writeheader()
            writer.writerows(self.rows)


def _step_of(row: Mapping[str, Any]) -> float:
    try:
        return float(row['step'])
    except (KeyError, TypeError, ValueError):
        return float('inf')


class RunFolder(Callback):
    """Writes ``metrics.csv``, ``views.png``, ``curves.png`` and ``encoder.safetensors`` next to the checkpoints.

    If Lightning's own ``CSVLogger`` writes ``metrics.csv`` into the same folder, ours is ``curves.csv``.
    """

    def __init__(self) -> None:
        """Start without a folder."""
        self.folder: Path | None = None
        self.metrics: MetricsFile | None = None
        self.evaluation: Path | None = None
        self._clock = 0.0
        self._chips = 0
        self._steps = 0
        self._lr = 0.0
        self._dimension = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the metrics file."""
        folder = run_folder(trainer)  # on every rank, since the ranks agree on it
        self._clock, self._chips, self._steps = time.perf_counter(), 0, trainer.global_step
        self.folder, self.metrics = None, None
        if not trainer.is_global_zero:
            return
        if folder is None:
            log.info('There is no run folder without a logger: no metrics, pictures or encoder will be written.')
            return
        taken = any(isinstance(logger, CSVLogger) and Path(logger.log_dir) == folder for logger in trainer.loggers)
        name = 'curves.csv' if taken else 'metrics.csv'
        self.folder, self.metrics = folder, MetricsFile(folder / name, resumed_at=trainer.global_step)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """Draw the network's input in the first step of a run."""
        self._lr = trainer.optimizers[0].param_groups[0]['lr']  # after the step it is that of the next one
        if self.folder is None or (self.folder / 'views.png').exists():
            return
        task: Any = pl_module
        with torch.no_grad(), torch.random.fork_rng():
            task.seed_step(trainer.fit_loop.total_batch_idx)
            self.draw_input(task, batch, self.folder / 'views.png')

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """Log the throughput, and a row of metrics every ``log_every_n_steps`` steps."""
        self._chips += len(batch['image'])
        if isinstance(outputs, Mapping) and 'embedding' in outputs:
            self._dimension = outputs['embedding'].shape[1]
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # with accumulated gradients several batches are one step
        if every < 1 or trainer.global_step == self._steps or trainer.global_step % every:
            return
        self._steps = trainer.global_step
        now = time.perf_counter()
        rate = self._chips * trainer.world_size / max(now - self._clock, 1e-9)
        self._clock, self._chips = now, 0
        pl_module.log('chips_per_s', rate, prog_bar=True, batch_size=1)
        if self.metrics is not None:
            values = {'lr': self._lr, 'chips_per_s': rate} | self._values(trainer, each_step=True)
            self.metrics.add(self._row(trainer) | values)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the metrics of the epoch."""
        if self.metrics is not None:
            self.metrics.add(self._row(trainer) | self._values(trainer, each_step=False))

    @staticmethod
    def _row(trainer: Trainer) -> dict[str, float]:
        return {'step': trainer.global_step - 1, 'epoch': trainer.current_epoch}

    @staticmethod
    def _values(trainer: Trainer, each_step: bool) -> dict[str, float]:
        """Metrics that are logged each step, or each epoch."""
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if each_step:
            return {key: value for key, value in values.items() if key.endswith('_step') or key == 'embedding_std'}
        both = {key for key in values if key.endswith('_step') or f'{key}_step' in values}
        return {key: value for key, value in values.items() if key not in both and key not in _PER_STEP}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the folder for the results of an evaluation; None on other ranks and for the sanity check."""
        folder = run_folder(trainer)  # on every rank, since the ranks agree on it
        self.evaluation = folder if trainer.is_global_zero and not trainer.sanity_checking else None

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write curves and encoder, and print the folder."""
        self._finish(pl_module)

    @rank_zero_only
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the results so far when a run is interrupted."""
        stopped = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        if stopped and self.metrics is not None and self.metrics.rows:
            self._finish(pl_module)

    def _finish(self, task: Any) -> None:
        if self.folder is None or self.metrics is None:
            return
        references = {'std of embeddings': (f'1/√{self._dimension}', self._dimension**-0.5)} if self._dimension else {}
        draw_curves(self.metrics, self.folder / 'curves.png', self.panels(task), references)
        self.write_results(task, self.folder)
        print(f'Run folder: {self.folder}')

    # Defined by each kind of task.

    def panels(self, task: Any) -> Panels:
        """Return the panels of ``curves.png``."""
        return PANELS

    def draw_input(self, task: Any, batch: dict[str, Tensor], path: Path) -> None:
        """Draw the network's input of a step.

        Args:
            task: The task, its random numbers seeded for the step.
            batch: The batch on the device.
            path: PNG to write.
        """
        draw_views(task, batch, path)

    def write_results(self, task: Any, folder: Path) -> None:
        """Write the results of a run."""
        trained: PretrainingTask = task
        save_encoder(trained.model, folder / 'encoder.safetensors', trained.metadata())


def draw_views(task: 'PretrainingTask', batch: dict[str, Tensor], path: Path) -> None:
    """Draw chips, then their views in columns with titles, or nothing for a task that shows none.

    Args:
        task: A task inside a training loop.
        batch: The batch on the device.
        path: PNG to write.
    """
    shown = task.shown_views(batch)
    if not shown:
        return
    views, valid = zip(*shown, strict=True)
    data = spectral_data(task.trainer)
    rgb = (0, 0, 0) if data is None else data.rgb_index
    names = task.view_titles or [f'view {number}' for number in range(1, len(views) + 1)]
    images = [task.reflectance(batch), *views]
    titles = [f'{name}, {image.shape[-1]} px' for name, image in zip(['chip', *names], images, strict=True)]
    draw_columns(path, titles, images, [batch.get('valid'), *valid], rgb)


def draw_curves(
    metrics: MetricsFile, path: Path, panels: Panels = PANELS, references: Mapping[str, tuple[str, float]] | None = None
) -> None:
    """Draw logged quantities over the steps.

    Args:
        metrics: Metrics of the run.
        path: PNG to write.
        panels: Columns by the title of their panel.
        references: Name and value of a line by the title of the panel in which it is drawn.

    Raises:
        OutputError: If the file cannot be written.
    """
    shown = dict(panels)
    if metrics.series('knn_accuracy')[0]:  # where a frozen probe has labels
        shown['accuracy of frozen kNN'] = ('knn_accuracy',)
    width = (len(shown) + 1) // 2
    figure = Figure(figsize=(4 * width, 6), layout='constrained')
    axes_list = figure.subplots(2, width).flatten()
    for axes in axes_list[len(shown) :]:
        axes.set_axis_off()
    for axes, (title, columns) in zip(axes_list, shown.items(), strict=False):
        drawn = [column for column in columns if metrics.series(column)[0]]
        for column in drawn:
            marker = '' if column.endswith('_step') or column in _PER_STEP else 'o'
            axes.plot(*metrics.series(column), marker=marker, markersize=3, linewidth=1, label=column)
        if title in (references or {}):
            name, value = (references or {})[title]
            axes.axhline(value, linestyle='--', linewidth=1, color='gray', label=f'{name} (healthy)')
        if 0 < len(drawn) <= 12:
            axes.legend(fontsize=7)
        axes.set_title(title)
        axes.set_xlabel('step')
        axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
