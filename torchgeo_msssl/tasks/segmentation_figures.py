"""Reports and figures of a segmentation: scores, confusion matrix, chips with labels and predictions."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.tasks.confusion import CLASS_SCORES, accuracy, class_scores, mean_iou
from torchgeo_msssl.transforms.pictures import contact_sheet

_GRAY, _WRONG, _RIGHT = (np.array(color, np.uint8) for color in ((128,) * 3, (214, 39, 40), (235,) * 3))


def score_report(matrix: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Collect all scores.

    Args:
        matrix: Counts (label, prediction).
        names: Class names.

    Returns:
        ``mean_iou``, ``accuracy``, ``pixels``, and under ``classes`` the scores and the number of labelled pixels of
        each class.
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
    """Write counts as CSV: one row per label, one column per prediction.

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


def draw_confusion(path: Path, matrix: Tensor, names: Sequence[str], unit: str = 'pixels') -> None:
    """Draw a confusion matrix with counts, and the percentage of each label's pixels as shades and numbers.

    Args:
        path: PNG to write.
        matrix: Counts (label, prediction).
        names: Class names.
        unit: Name of what was counted.

    Raises:
        OutputError: If the file cannot be written.
    """
    counts = matrix.cpu().numpy()
    labelled = counts.sum(axis=1, keepdims=True)
    fraction = np.divide(counts, labelled, out=np.full(counts.shape, np.nan), where=labelled > 0)
    side = max(4.0, 1.0 * len(names) + 2)
    figure = Figure(figsize=(side + 1, side), layout='constrained')
    axes = figure.subplots()
    image = axes.imshow(fraction, vmin=0, vmax=1, cmap='Blues')
    axes.set_xticks(range(len(names)), list(names), rotation=45, ha='right')
    axes.set_yticks(range(len(names)), list(names))
    axes.set_xlabel('prediction')
    axes.set_ylabel('label')
    for (row, column), count in np.ndenumerate(counts):
        if labelled[row, 0]:
            color = 'white' if fraction[row, column] > 0.5 else 'black'
            text = f'{fraction[row, column]:.1%}\n{count:,}'
            axes.text(column, row, text, ha='center', va='center', color=color, fontsize=8)
    figure.colorbar(image, ax=axes, label=f"fraction of the label's {unit}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def class_colors(num_classes: int) -> NDArray[np.uint8]:
    """Return distinguishable colors, the same for the same number of classes.

    Args:
        num_classes: Number of classes.

    Returns:
        Colors (class, 3).
    """
    if num_classes == 2:  # background and foreground
        return np.array([(222, 203, 164), (44, 120, 60)], np.uint8)
    if num_classes <= 20:
        colors = matplotlib.colormaps['tab10' if num_classes <= 10 else 'tab20'](range(num_classes))
    else:
        colors = matplotlib.colormaps['turbo'](np.linspace(0, 1, num_classes))
    return np.rint(np.asarray(colors)[:, :3] * 255).astype(np.uint8)


@dataclass(frozen=True)
class ChipPicture:
    """A chip with its label and optionally its prediction, on the CPU.

    Attributes:
        image: Reflectance (band, height, width).
        valid: Valid pixels (1, height, width), bool.
        label: Classes (height, width), or ``ignore_index``.
        prediction: Classes (height, width), or a larger number where there is none; None for all.
    """

    image: Tensor
    valid: Tensor
    label: Tensor
    prediction: Tensor | None = None


def draw_chips(
    path: Path, chips: Sequence[ChipPicture], names: Sequence[str], rgb_index: Sequence[int], ignore_index: int
) -> None:
    """Draw one row per chip: image, label and optionally prediction and errors.

    Args:
        path: PNG to write.
        chips: The chips.
        names: Class names.
        rgb_index: Bands drawn red, green and blue, or one band drawn in gray.
        ignore_index: Label that is drawn in gray.

    Raises:
        OutputError: If the file cannot be written.
    """
    colors = class_colors(len(names))
    titles = ['image', 'label'] + (['prediction', 'errors'] if chips[0].prediction is not None else [])
    figure = Figure(figsize=(2.5 * len(titles), 2.5 * len(chips) + 0.8), layout='constrained')
    grid = figure.subplots(len(chips), len(titles), squeeze=False)
    for row, chip in zip(grid, chips, strict=True):
        for axes, title, picture in zip(row, titles, _panels(chip, colors, rgb_index, ignore_index), strict=True):
            axes.imshow(picture, interpolation='nearest')
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
    legend = [Patch(color=_hex(color), label=name) for color, name in zip(colors, names, strict=True)]
    legend.append(Patch(color=_hex(_GRAY), label='not labelled, no data'))
    if len(titles) > 2:
        legend.append(Patch(color=_hex(_WRONG), label='error'))
    figure.legend(handles=legend, loc='outside lower center', ncols=min(5, len(legend)), fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _hex(color: NDArray[np.uint8]) -> str:
    return '#' + ''.join(f'{part:02x}' for part in color.tolist())


def _panels(
    chip: ChipPicture, colors: NDArray[np.uint8], rgb_index: Sequence[int], ignore_index: int
) -> list[NDArray[np.uint8]]:
    image = chip.image[None]
    photo = contact_sheet(image, [], rgb_index, chip.valid[None], rows=1, separator=0)
    label = chip.label.numpy()
    known = label != ignore_index
    panels = [photo, _paint_classes(label, known, colors)]
    if chip.prediction is not None:
        prediction = chip.prediction.numpy()
        errors = np.where((prediction == label)[..., None], _RIGHT, _WRONG)
        errors[~known] = _GRAY
        mapped = chip.valid[0].numpy() & (prediction < len(colors))  # a map of the test ground ends there
        panels += [_paint_classes(prediction, mapped, colors), errors]
    return panels


def _paint_classes(classes: NDArray[Any], shown: NDArray[np.bool_], colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = colors[np.where(shown, classes, 0)]
    picture[~shown] = _GRAY
    return picture


def metric_name(class_name: str) -> str:
    """Return the name of a class as part of a metric's name: all but letters and digits become ``_``."""
    return ''.join(letter if letter.isalnum() else '_' for letter in class_name)
