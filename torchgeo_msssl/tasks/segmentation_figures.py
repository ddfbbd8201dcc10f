"""What a segmentation task leaves in its run folder."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.errors import BandError
from torchgeo_msssl.files import atomic_path, write_json
from torchgeo_msssl.runs import run_folder
from torchgeo_msssl.tasks.confusion import CLASS_SCORES, accuracy, class_scores, mean_iou
from torchgeo_msssl.tasks.run_folder import MetricsFile, RunFolder
from torchgeo_msssl.transforms.normalize import valid_pixels
from torchgeo_msssl.transforms.pictures import contact_sheet

log = logging.getLogger(__name__)

_CHIPS_SHOWN = 6
_BATCHES_SEARCHED = 16
_GREY, _WRONG, _RIGHT = (np.array(colour, np.uint8) for colour in ((128,) * 3, (214, 39, 40), (235,) * 3))


# ------------------------------------------------------------------------------------------------------ files


def score_report(matrix: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Put all scores together.

    Args:
        matrix: Counts (label, prediction).
        names: Class names.

    Returns:
        ``mean_iou``, ``accuracy``, ``pixels``, and under ``classes`` the scores and the labelled pixels of each.
    """
    scores = {name: values.tolist() for name, values in class_scores(matrix).items()}
    classes = {
        name: {score: scores[score][index] for score in CLASS_SCORES} | {'pixels': int(matrix[index].sum())}
        for index, name in enumerate(names)
    }
    return {
        'mean_iou': mean_iou(matrix),
        'accuracy': accuracy(matrix),
        'pixels': int(matrix.sum()),
        'classes': classes,
    }


def write_confusion(path: Path, matrix: Tensor, names: Sequence[str]) -> None:
    """Write counts as CSV: a row a label, a column a prediction.

    Args:
        path: The file; it appears complete or not at all.
        matrix: Counts (label, prediction).
        names: Class names.

    Raises:
        OutputError: If the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(['label \\ prediction', *names])
        writer.writerows([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))


# --------------------------------------------------------------------------------------------------- pictures


def draw_confusion(path: Path, matrix: Tensor, names: Sequence[str], unit: str = 'pixels') -> None:
    """Draw a confusion matrix: shades and percentages of what each label has, counts below.

    Args:
        path: PNG to write.
        matrix: Counts (label, prediction).
        names: Class names.
        unit: What was counted.

    Raises:
        OutputError: If the file cannot be written.
    """
    counts = matrix.cpu().numpy()
    labelled = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, labelled, out=np.full(counts.shape, np.nan), where=labelled > 0)
    side = max(4.0, 1.0 * len(names) + 2)
    figure = Figure(figsize=(side + 1, side), layout='constrained')
    axes = figure.subplots()
    picture = axes.imshow(share, vmin=0, vmax=1, cmap='Blues')
    axes.set_xticks(range(len(names)), list(names), rotation=45, ha='right')
    axes.set_yticks(range(len(names)), list(names))
    axes.set_xlabel('prediction')
    axes.set_ylabel('label')
    for (row, column), count in np.ndenumerate(counts):
        if labelled[row, 0]:
            colour = 'white' if share[row, column] > 0.5 else 'black'
            text = f'{share[row, column]:.1%}\n{count:,}'
            axes.text(column, row, text, ha='center', va='center', color=colour, fontsize=8)
    figure.colorbar(picture, ax=axes, label=f"share of the label's {unit}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def class_colours(num_classes: int) -> NDArray[np.uint8]:
    """Colours to tell classes apart, the same for the same number of classes.

    Args:
        num_classes: Number of classes.

    Returns:
        Colours (class, 3).
    """
    if num_classes == 2:  # background and what is looked for
        return np.array([(222, 203, 164), (44, 120, 60)], np.uint8)
    if num_classes <= 20:
        colours = matplotlib.colormaps['tab10' if num_classes <= 10 else 'tab20'](range(num_classes))
    else:
        colours = matplotlib.colormaps['turbo'](np.linspace(0, 1, num_classes))
    return np.rint(np.asarray(colours)[:, :3] * 255).astype(np.uint8)


@dataclass(frozen=True)
class ChipPicture:
    """A chip with its label and, after evaluation, its prediction, on the CPU.

    Attributes:
        image: Reflectance (band, height, width).
        valid: Valid pixels (1, height, width), bool.
        label: Classes (height, width), or ``ignore_index``.
        prediction: Classes (height, width), or None.
    """

    image: Tensor
    valid: Tensor
    label: Tensor
    prediction: Tensor | None = None


def draw_chips(
    path: Path, chips: Sequence[ChipPicture], names: Sequence[str], rgb_index: Sequence[int], ignore_index: int
) -> None:
    """Draw a row a chip: image, label and, where there is one, prediction and errors.

    Args:
        path: PNG to write.
        chips: The chips.
        names: Class names.
        rgb_index: Bands drawn red, green and blue, or the one drawn in grey.
        ignore_index: Label that is drawn in grey.

    Raises:
        OutputError: If the file cannot be written.
    """
    colours = class_colours(len(names))
    titles = ['image', 'label'] + (['prediction', 'errors'] if chips[0].prediction is not None else [])
    figure = Figure(figsize=(2.5 * len(titles), 2.5 * len(chips) + 0.8), layout='constrained')
    grid = figure.subplots(len(chips), len(titles), squeeze=False)
    for row, chip in zip(grid, chips, strict=True):
        for axes, title, picture in zip(row, titles, _panels(chip, colours, rgb_index, ignore_index), strict=True):
            axes.imshow(picture, interpolation='nearest')
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
    legend = [Patch(color=_hex(colour), label=name) for colour, name in zip(colours, names, strict=True)]
    legend.append(Patch(color=_hex(_GREY), label='not labelled, no data'))
    if len(titles) > 2:
        legend.append(Patch(color=_hex(_WRONG), label='error'))
    figure.legend(handles=legend, loc='outside lower center', ncols=min(5, len(legend)), fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _hex(colour: NDArray[np.uint8]) -> str:
    return '#' + ''.join(f'{part:02x}' for part in colour.tolist())


def _panels(
    chip: ChipPicture, colours: NDArray[np.uint8], rgb_index: Sequence[int], ignore_index: int
) -> list[NDArray[np.uint8]]:
    image = chip.image[None]
    photo = contact_sheet(image, image.new_zeros(0, *image.shape), rgb_index, chip.valid[None], rows=1, separator=0)
    label = chip.label.numpy()
    known = label != ignore_index
    panels = [photo, _paint_classes(label, known, colours)]
    if chip.prediction is not None:
        prediction = chip.prediction.numpy()
        errors = np.where((prediction == label)[..., None], _RIGHT, _WRONG)
        errors[~known] = _GREY
        panels += [_paint_classes(prediction, chip.valid[0].numpy(), colours), errors]
    return panels


def _paint_classes(classes: NDArray[Any], shown: NDArray[np.bool_], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = colours[np.where(shown, classes, 0)]
    picture[~shown] = _GREY
    return picture


def draw_curves(metrics: MetricsFile, names: Sequence[str], path: Path) -> None:
    """Draw loss, scores, learning rate and throughput over the steps.

    Args:
        metrics: Metrics of the run.
        names: Class names.
        path: PNG to write.

    Raises:
        OutputError: If the file cannot be written.
    """
    shown = {
        'loss': ['train_loss_step', 'train_loss_epoch', 'val_loss'],
        'IoU': ['val_mean_iou', *(f'val_iou_{metric_name(name)}' for name in names)],
        'learning rate': ['lr'],
        'chips / s': ['chips_per_s'],
    }
    figure = Figure(figsize=(10, 6), layout='constrained')
    for axes, (title, columns) in zip(figure.subplots(2, 2).flat, shown.items(), strict=True):
        for column in columns:
            steps, values = metrics.series(column)
            marker = None if column.endswith('_step') or len(columns) == 1 else 'o'
            axes.plot(steps, values, marker=marker, markersize=3, linewidth=1, label=column)
        axes.set_title(title)
        axes.set_xlabel('step')
        axes.grid(alpha=0.3)
        if 1 < len(columns) <= 12:
            axes.legend(fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def metric_name(class_name: str) -> str:
    """Name of a class as part of a metric's name.

    Args:
        class_name: Any name.

    Returns:
        Letters and digits, others replaced by ``_``.
    """
    return ''.join(letter if letter.isalnum() else '_' for letter in class_name)


# --------------------------------------------------------------------------------------------------- callback


class SegmentationFolder(RunFolder):
    """Writes metrics and curves like every run, and what the network saw, took for what, and confused.

    In the run folder: ``views.png`` (augmented chips and labels of the first step), after validation or test
    ``confusion_matrix.csv`` and ``.png``, ``sample_predictions.png`` and ``metrics_val.json`` or ``metrics_test.json``.
    The last evaluation of a folder is the one that is kept; while a run trains, pictures wait for its end.
    """

    def __init__(self) -> None:
        """Start without chips."""
        super().__init__()
        self.chips: list[ChipPicture] = []
        self._evaluation: Path | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """Draw what the network is about to see, in the first step of a run."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        task: Any = pl_module
        if self.folder is None or (self.folder / 'views.png').exists():
            return
        with torch.no_grad(), torch.random.fork_rng():
            task.seed_step(trainer.fit_loop.total_batch_idx)
            image, mask = task.augmented(batch)
        image = image * task.normalize.std[:, None, None] + task.normalize.mean[:, None, None]
        valid = torch.ones_like(mask[:, None], dtype=torch.bool)
        chips = [
            ChipPicture(*(part[index].cpu() for part in (image, valid, mask)))
            for index in range(min(_CHIPS_SHOWN, len(image)))
        ]
        self._draw(chips, task, self.folder / 'views.png')

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the folder, and forget the chips of before."""
        folder = run_folder(trainer)  # every rank has to ask
        self._evaluation = folder if trainer.is_global_zero and not trainer.sanity_checking else None
        self.chips = []

    on_test_start = on_validation_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the chips that have most classes."""
        if batch_idx < _BATCHES_SEARCHED and self._evaluation is not None:
            self.chips = _most_classes([*self.chips, *_pictures(pl_module, batch, outputs)], pl_module)

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the counts, and the pictures unless the run goes on."""
        self._write_evaluation(pl_module, 'val', pictures=trainer.state.fn != TrainerFn.FITTING)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write counts and pictures."""
        self._write_evaluation(pl_module, 'test', pictures=True)
        if self._evaluation is not None:
            print(f'Run folder: {self._evaluation}')

    def _write_evaluation(self, task: Any, stage: str, pictures: bool) -> None:
        if self._evaluation is None:
            return
        matrix, names = task.confusion.cpu(), task.class_names
        write_confusion(self._evaluation / 'confusion_matrix.csv', matrix, names)
        write_json(self._evaluation / f'metrics_{stage}.json', score_report(matrix, names))
        if pictures:
            self._write_pictures(self._evaluation, task)

    def _write_pictures(self, folder: Path, task: Any) -> None:
        if int(task.confusion.sum()):
            draw_confusion(folder / 'confusion_matrix.png', task.confusion.cpu(), task.class_names)
        if self.chips:
            self._draw(self.chips, task, folder / 'sample_predictions.png')

    @staticmethod
    def _draw(chips: Sequence[ChipPicture], task: Any, path: Path) -> None:
        bands = chips[0].image.shape[0]
        rgb = getattr(getattr(task.trainer, 'datamodule', None), 'rgb_index', None) or (0,)
        try:
            draw_chips(path, chips, task.class_names, rgb, task.ignore_index)
        except BandError as error:
            log.warning('%s was not drawn for %d bands: %s', path.name, bands, error)

    def _finish(self, pl_module: LightningModule) -> None:
        if self.folder is None or self.metrics is None:
            return
        task: Any = pl_module
        draw_curves(self.metrics, task.class_names, self.folder / 'curves.png')
        self._write_pictures(self.folder, task)
        print(f'Run folder: {self.folder}')


def _pictures(task: Any, batch: dict[str, Tensor], prediction: Tensor) -> list[ChipPicture]:
    label = task.labels(batch)
    image = task.reflectance(batch).float()
    valid = valid_pixels(batch['image'], batch.get('valid'))
    return [
        ChipPicture(*(part[index].cpu() for part in (image, valid, label, prediction)))
        for index in range(len(label))
        if (label[index] != task.ignore_index).any()
    ]


def _most_classes(chips: list[ChipPicture], task: Any) -> list[ChipPicture]:
    """Chips with most classes first; of equal ones the earlier."""

    def classes(chip: ChipPicture) -> int:
        return int((chip.label[chip.label != task.ignore_index].unique()).numel())

    return sorted(chips, key=classes, reverse=True)[:_CHIPS_SHOWN]
