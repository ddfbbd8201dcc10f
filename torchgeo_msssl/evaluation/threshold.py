"""The dumb baseline of vegetation maps: a threshold on an index."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.datamodules.loader import ChipLoader
from torchgeo_msssl.errors import BandError, ConfigurationError, MSSSLError
from torchgeo_msssl.files import write_json
from torchgeo_msssl.tasks.confusion import class_scores
from torchgeo_msssl.tasks.run_folder import run_folder

log = logging.getLogger(__name__)

#: Indices are counted in so many steps from −2 to 2, which holds both of them.
_STEPS = 4000
_LOW, _HIGH = -2.0, 2.0
#: Wavelengths in nanometres, and how far a band may be from them.
_RED, _NIR, _NEAR = 665.0, 840.0, 60.0


@dataclass(frozen=True)
class Threshold:
    """A threshold on an index.

    Attributes:
        index: ``NDVI`` or ``ExG``.
        value: The threshold.
        above: Whether the class lies above it.
    """

    index: str
    value: float
    above: bool

    def __str__(self) -> str:
        """The rule, for people."""
        return f'{self.index} {">" if self.above else "≤"} {self.value:.3f}'


def find_bands(bands: Sequence[str], wavelengths: Sequence[float | None]) -> tuple[str, tuple[int, ...]]:
    """Choose the index that bands allow.

    Args:
        bands: Names of the bands.
        wavelengths: Central wavelength of each in nanometres, None where it is not known.

    Returns:
        ``('NDVI', (red, nir))``, or ``('ExG', (red, green, blue))`` where there is no near infrared: positions.

    Raises:
        BandError: If the bands allow neither.
    """
    known = {i: wavelength for i, wavelength in enumerate(wavelengths) if wavelength is not None}

    def nearest(aim: float) -> int | None:
        best = min(known, key=lambda i: abs(known[i] - aim), default=None)
        return best if best is not None and abs(known[best] - aim) <= _NEAR else None

    red, nir = nearest(_RED), nearest(_NIR)
    if red is not None and nir is not None and red != nir:
        return 'NDVI', (red, nir)
    if {'red', 'green', 'blue'} <= set(bands):
        return 'ExG', (bands.index('red'), bands.index('green'), bands.index('blue'))
    raise BandError(f'bands: {", ".join(bands)} allow neither NDVI (red, near infrared) nor ExG (red, green, blue).')


def vegetation_index(reflectance: Tensor, index: str, positions: Sequence[int]) -> Tensor:
    """Compute NDVI (Rouse et al. 1974) or excess green (Woebbecke et al. 1995, https://doi.org/10.13031/2013.27838).

    Args:
        reflectance: (batch, band, height, width).
        index: ``NDVI``: (nir − red) / (nir + red); ``ExG``: (2 green − red − blue) / (red + green + blue).
        positions: Of the bands, as :func:`find_bands` gives them.

    Returns:
        The index (batch, height, width), 0 where nothing is reflected.
    """
    parts = [reflectance[:, position] for position in positions]
    above, below = (
        (parts[1] - parts[0], parts[1] + parts[0])
        if index == 'NDVI'
        else (2 * parts[1] - parts[0] - parts[2], parts[0] + parts[1] + parts[2])
    )
    return torch.where(below.abs() > 1e-6, above / below.where(below.abs() > 1e-6, 1.0), 0.0)


def best_threshold(counts: NDArray[np.int64], index: str = 'NDVI') -> Threshold:
    """Find the threshold with the highest IoU.

    Args:
        counts: Pixels by class and step of the index, (2, step): others, then the class that is looked for.
        index: Its name.

    Returns:
        The threshold.
    """
    others, wanted = counts.astype(np.float64)
    found = []
    for above in (True, False):
        order = slice(None, None, -1) if above else slice(None)
        hit, miss = wanted[order].cumsum(), others[order].cumsum()
        iou = hit / np.maximum(wanted.sum() + miss, 1)
        best = int(iou.argmax())
        edge = _STEPS - 1 - best if above else best + 1
        found.append((iou[best], Threshold(index, _LOW + (_HIGH - _LOW) * edge / _STEPS, above)))
    return max(found, key=lambda pair: pair[0])[1]


class IndexBaseline(Callback):
    """Beside the scores of a test, prints those of a threshold on NDVI, or on excess green without near infrared.

    The threshold is the best one for the training pixels whose labels are used, the scores are those of the same test
    chips as the network's. They are also written to ``baseline.json`` in the run folder.
    """

    def __init__(self, class_name: str | None = None) -> None:
        """Choose the class.

        Args:
            class_name: Class that is looked for; None for the last one.
        """
        self.class_name = class_name

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the comparison."""
        task: Any = pl_module
        data = getattr(trainer, 'datamodule', None)
        folder = run_folder(trainer)  # not on rank 0 alone: the others would wait for it for ever
        if not trainer.is_global_zero or data is None or not hasattr(data, 'region_loader'):
            return
        try:
            wanted = self._position(task.class_names)
            index, positions = find_bands(data.bands, data.wavelengths)
            known = self._count(task, data.region_loader('train'), index, positions, wanted)
            tested = self._count(task, data.region_loader('test'), index, positions, wanted)
        except MSSSLError as error:  # that there is no baseline is no failure of the test
            log.warning('No baseline: %s', error)
            return
        threshold = best_threshold(known, index)
        hits = _confusion(tested, threshold)
        scores = {
            'network': {name: float(values[wanted]) for name, values in class_scores(task.confusion).items()},
            str(threshold): {name: float(values[1]) for name, values in class_scores(hits).items()},
            'everything': {'iou': float(tested[1].sum() / max(tested.sum(), 1))},
        }
        name = task.class_names[wanted]
        print(f'IoU of {name} on {int(tested.sum()):,} labelled test pixels:')
        for what, score in scores.items():
            print(f'  {what:<22} {score["iou"]:.3f}')
        if folder is not None:
            write_json(folder / 'baseline.json', {'class': name, 'threshold': asdict(threshold), 'scores': scores})

    def _position(self, names: Sequence[str]) -> int:
        if self.class_name is None:
            return len(names) - 1
        if self.class_name not in names:
            raise ConfigurationError(f'class_name: {self.class_name!r} is not one of {", ".join(names)}.')
        return names.index(self.class_name)

    @staticmethod
    @torch.no_grad()
    def _count(task: Any, loader: ChipLoader, index: str, positions: Sequence[int], wanted: int) -> NDArray[np.int64]:
        counts = np.zeros((2, _STEPS), dtype=np.int64)
        for cpu in loader:
            batch = {key: value.to(task.device) for key, value in cpu.items() if isinstance(value, Tensor)}
            label = task.labels(batch)
            values = vegetation_index(task.reflectance(batch), index, positions)
            step = ((values - _LOW) / (_HIGH - _LOW) * _STEPS).floor().clamp(0, _STEPS - 1).long()
            for row, here in enumerate(((label != wanted) & (label != task.ignore_index), label == wanted)):
                counts[row] += torch.bincount(step[here], minlength=_STEPS).cpu().numpy()
        return counts


def _confusion(counts: NDArray[np.int64], threshold: Threshold) -> Tensor:
    edge = round((threshold.value - _LOW) / (_HIGH - _LOW) * _STEPS)
    low, high = counts[:, :edge].sum(axis=1), counts[:, edge:].sum(axis=1)
    columns = (low, high) if threshold.above else (high, low)
    return torch.from_numpy(np.stack(columns, axis=1))
