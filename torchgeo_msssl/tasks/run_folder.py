"""Fill the run folder: metrics, curves, a picture of the views, and the encoder."""

import csv
import logging
import time
from collections.abc import Mapping
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
from matplotlib.image import imsave
from torch import Tensor

from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.models.weights import save_encoder
from torchgeo_msssl.runs import run_folder
from torchgeo_msssl.transforms.pictures import contact_sheet

if TYPE_CHECKING:  # tasks.base imports this module
    from torchgeo_msssl.tasks.base import PretrainingTask

log = logging.getLogger(__name__)

matplotlib.use('agg')  # pictures go to files; a display need not exist

_CHIPS_SHOWN = 8


class MetricsFile:
    """A CSV file with a row a step, which grows by appending.

    Args:
        path: The file; rows of an earlier part of the same run are kept.
        resumed_at: Rows from this step on belong to a part of the run that was lost, and go.
    """

    def __init__(self, path: Path, resumed_at: int) -> None:
        """Read what is there."""
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline='', encoding='utf-8') as file:
                # a killed process may have left half a row, whose step is then missing or too large
                self.rows = [row for row in csv.DictReader(file) if _step_of(row) < resumed_at]
        self.columns = list(self.rows[0]) if self.rows else ['step', 'epoch']
        self._rewrite()

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; new columns rewrite the file once.

        Args:
            row: Values by column, with ``step``.

        Raises:
            OutputError: If the disk is full or the folder has gone.
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
            msg = f'{self.path} cannot be written ({error.strerror}); the run stopped, go on with --ckpt_path last.'
            raise OutputError(msg) from error

    def series(self, column: str) -> tuple[list[float], list[float]]:
        """Steps and values of a column, where it has values."""
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
    """Writes ``metrics.csv``, ``views.png``, ``curves.png`` and ``encoder.safetensors`` beside the checkpoints.

    Where Lightning's own ``CSVLogger`` writes ``metrics.csv`` into the same folder, ours is ``curves.csv``.
    """

    def __init__(self) -> None:
        """Start without a folder."""
        self.folder: Path | None = None
        self.metrics: MetricsFile | None = None
        self._clock = 0.0
        self._chips = 0
        self._steps = 0
        self._lr = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the metrics file."""
        folder = run_folder(trainer)  # not on rank 0 alone: the others would wait for it for ever
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
        """Draw what the network is about to see, in the first step of a run."""
        self._lr = trainer.optimizers[0].param_groups[0]['lr']  # after the step it is that of the next one
        if self.folder is not None and not (self.folder / 'views.png').exists() and hasattr(pl_module, 'make_views'):
            draw_views(pl_module, batch, self.folder / 'views.png')

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """Log the throughput, and a row of metrics every ``log_every_n_steps`` steps."""
        self._chips += len(batch['image'])
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # several batches make one step where gradients are accumulated
        if every < 1 or trainer.global_step == self._steps or trainer.global_step % every:
            return
        self._steps = trainer.global_step
        now = time.perf_counter()
        rate = self._chips * trainer.world_size / max(now - self._clock, 1e-9)
        self._clock, self._chips = now, 0
        pl_module.log('chips_per_s', rate, prog_bar=True, batch_size=1)
        if self.metrics is not None:
            values = {'lr': self._lr, 'chips_per_s': rate} | self._values(trainer, '_step')
            self.metrics.add(self._row(trainer) | values)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the metrics of the epoch."""
        if self.metrics is not None:
            self.metrics.add(self._row(trainer) | self._values(trainer, ''))

    @staticmethod
    def _row(trainer: Trainer) -> dict[str, float]:
        return {'step': trainer.global_step - 1, 'epoch': trainer.current_epoch}

    @staticmethod
    def _values(trainer: Trainer, suffix: str) -> dict[str, float]:
        """Metrics that are logged each step (``…_step``, and those without a suffix) or each epoch."""
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if suffix:
            return {key: value for key, value in values.items() if key.endswith('_step') or key == 'embedding_std'}
        return {
            key: value for key, value in values.items()
            if not key.endswith('_step') and f'{key}_step' not in values and key not in ('embedding_std', 'chips_per_s')
        }  # fmt: skip

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write curves and encoder, and say where they are."""
        self._finish(pl_module)

    @rank_zero_only
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what was learnt so far when a run is interrupted."""
        stopped = isinstance(exception, KeyboardInterrupt | SIGTERMException)
        if stopped and self.metrics is not None and self.metrics.rows:
            self._finish(pl_module)

    @staticmethod
    def draw_curves(metrics: MetricsFile, path: Path) -> None:
        """Draw what was logged over the steps; a folder of another kind of task draws other things.

        Args:
            metrics: Metrics of the run.
            path: PNG to write.
        """
        draw_curves(metrics, path)

    def _finish(self, pl_module: LightningModule) -> None:
        if self.folder is None or self.metrics is None:
            return
        task: PretrainingTask = pl_module  # type: ignore[assignment]
        self.draw_curves(self.metrics, self.folder / 'curves.png')
        save_encoder(task.model, self.folder / 'encoder.safetensors', task.metadata())
        print(f'Run folder: {self.folder}')


def draw_views(task: Any, batch: dict[str, Tensor], path: Path) -> None:
    """Draw chips beside the views the network sees in this step.

    Args:
        task: A task that makes views, inside a training loop.
        batch: The batch on the device.
        path: PNG to write.
    """
    with torch.no_grad(), torch.random.fork_rng():
        task.seed_step(task.trainer.fit_loop.total_batch_idx)
        views, valid = task.make_views(batch)
        chip = task.reflectance(batch)
    data = getattr(task.trainer, 'datamodule', None)
    rgb = getattr(data, 'rgb_index', (0, 0, 0))
    sheet = contact_sheet(
        chip, views, rgb, batch.get('valid'), valid, rows=_CHIPS_SHOWN, zoom=max(1, 128 // views.shape[-1])
    )
    with atomic_path(path) as temporary:
        imsave(temporary, sheet)


def draw_curves(metrics: MetricsFile, path: Path) -> None:
    """Draw every logged quantity over the steps.

    Args:
        metrics: Metrics of the run.
        path: PNG to write.
    """
    shown = [
        ('train_loss_step', 'train_loss_epoch', 'loss'),
        ('embedding_std', 'epoch_embedding_std', 'std of embeddings'),
        ('', 'mean_cosine', 'mean pairwise cosine'),
        ('', 'rank_me', 'RankMe of features'),
        ('lr', '', 'learning rate'),
        ('chips_per_s', '', 'chips / s'),
    ]
    if metrics.series('knn_accuracy')[0]:  # where there are labels to probe with
        shown.append(('', 'knn_accuracy', 'accuracy of frozen kNN'))
    columns = (len(shown) + 1) // 2
    figure = Figure(figsize=(4 * columns, 6), layout='constrained')
    panels = figure.subplots(2, columns).flatten()
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for axes, (each_step, each_epoch, title) in zip(panels, shown, strict=False):
        if each_step:
            axes.plot(*metrics.series(each_step), linewidth=1, color='tab:blue', alpha=0.6 if each_epoch else 1)
        if each_epoch:
            axes.plot(*metrics.series(each_epoch), marker='o', markersize=3, color='tab:orange')
        axes.set_title(title)
        axes.set_xlabel('step')
        axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
