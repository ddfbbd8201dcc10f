"""Class maps of scenes from a segmentation network."""

import json
import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.user_cache import scene_key
from torchgeo_msssl.geo.write import GeoTIFFSpec
from torchgeo_msssl.prediction.pipeline import (
    PredictionRun,
    WindowPredictor,
    content_key,
    key_of,
    run_prediction,
)
from torchgeo_msssl.prediction.qgis_style import Colors, class_colors, write_qml
from torchgeo_msssl.prediction.scenes import check_bands, read_mirrored
from torchgeo_msssl.prediction.stitch import FinishedRows, Stitching

__all__ = (
    'NODATA',
    'Chip',
    'ClassMap',
    'MapOptions',
    'Network',
    'Numbers',
    'PredictionResult',
    'map_files',
    'predict_scene',
)

log = logging.getLogger(__name__)

#: ``(image, valid, scale, offset)`` → logits (batch, class, height, width). The image is (batch, band, height, width)
#: in the dtype of the scene, valid (batch, 1, height, width) bool, scale and offset (batch, band) float32.
type Network = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Numbers = Literal['none', 'uint8', 'float32']
#: Image (band, height, width) in the dtype of the scene, and valid pixels (height, width).
type Chip = tuple[NDArray[Any], NDArray[np.bool_]]

#: Class of pixels without data.
NODATA = 255
#: Probability 1 in files of uint8, in which 255 is nodata; the files declare the scale.
_ONE = 254
#: Quarter turns and whether the image is mirrored, for each view of each test-time augmentation.
VIEWS: dict[str, tuple[tuple[int, bool], ...]] = {
    'none': ((0, False),),
    'flips': ((0, False), (2, False), (0, True), (2, True)),
    'd4': tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}


@dataclass(frozen=True)
class MapOptions:
    """What is predicted, and which files are written.

    Attributes:
        class_names: Names of the classes in order, 1 to 255.
        stitching: How windows are combined into a map.
        colors: ``(red, green, blue)`` in 0–255 for each class; None for default colors.
        tta: Test-time augmentation: mean over the image and its mirror images (``flips``), also its quarter turns
            (``d4``), or ``none``.
        probabilities: Type of ``<scene>_probabilities.tif``, which has one band per class.
        confidence: Type of ``<scene>_confidence.tif``, the probability of the mapped class.
        batch_size: Windows per forward pass.
        checkpoint: Identifies the network (a hash of its checkpoint); a map of another network is not resumed.

    Raises:
        ConfigurationError: If an option is out of range.
    """

    class_names: Sequence[str]
    stitching: Stitching
    colors: Colors | None = None
    tta: Literal['none', 'flips', 'd4'] = 'none'
    probabilities: Numbers = 'none'
    confidence: Numbers = 'none'
    batch_size: int = 4
    checkpoint: str = ''

    def __post_init__(self) -> None:
        """Check the options."""
        count = len(self.class_names)
        if not 1 <= count <= NODATA:
            msg = f'class_names: expected 1 to {NODATA} classes (uint8, {NODATA} is nodata), got {count}.'
            raise ConfigurationError(msg)
        if self.tta not in VIEWS:
            raise ConfigurationError(f'tta: expected one of {", ".join(VIEWS)}, got {self.tta!r}.')
        for name, value in (('probabilities', self.probabilities), ('confidence', self.confidence)):
            if value not in ('none', 'uint8', 'float32'):
                raise ConfigurationError(f"{name}: expected 'none', 'uint8' or 'float32', got {value!r}.")
        if self.batch_size < 1:
            raise ConfigurationError(f'batch_size: expected 1 or more, got {self.batch_size}.')

    @property
    def palette(self) -> Colors:
        """Color of each class."""
        return self.colors or class_colors(self.class_names)


@dataclass(frozen=True, kw_only=True)
class PredictionResult(PredictionRun):
    """Files of a scene and summary of the run.

    Attributes:
        path: The class map.
        probabilities: File of the probabilities, or None.
        confidence: File of the confidence, or None.
        counts: Pixels of each class in the rows of this run (class,); empty if skipped.
    """

    path: Path
    probabilities: Path | None
    confidence: Path | None
    counts: tuple[int, ...] = ()


def predict_scene(
    network: Network,
    scene: Scene,
    bands: Sequence[str],
    output: str | os.PathLike[str],
    options: MapOptions,
    *,
    scale: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
    device: torch.device | str = 'cpu',
    overwrite: bool = False,
    progress: bool = True,
    every: int = 4,
) -> PredictionResult:
    """Predict a scene and write its class map with a QGIS style.

    See :func:`~torchgeo_msssl.prediction.pipeline.run_prediction` for memory, resuming and files that exist already.

    Args:
        network: From pixels to logits, in eval mode, see :data:`Network`; one channel of logits stands for two classes.
        scene: The scene.
        bands: Canonical names of the network's bands, in its order; the scene may have others, in any order.
        output: The class map, uint8 with nodata 255; other files are named after it.
        options: What is predicted and written.
        scale: Reflectance per digital number of each band of this scene; None for 1.
        offset: Digital number that is added to each band before scaling; None for 0.
        device: Device of the network.
        overwrite: Whether to predict again what exists already.
        progress: Whether to show a progress bar.
        every: Rows of blocks (of 256 pixels) after which the work is safe.

    Returns:
        The files and a summary of the run.

    Raises:
        BandError: If the scene lacks a band.
        ConfigurationError: If the network's output does not fit the options, or is not finite.
        SceneReadError: If the scene is damaged.
        OutputError: If a file cannot be written.
    """
    check_bands(scene, bands)
    radiometry = _per_band('scale', scale, 1.0, bands), _per_band('offset', offset, 0.0, bands)
    files = map_files(Path(output), options)
    *others, path = files
    predictor = ClassMap(network, scene, tuple(bands), options, radiometry, device)
    run = run_prediction(
        predictor,
        files,
        _key(scene, bands, options, radiometry),
        before_publish=lambda: write_qml(path, options.class_names, options.palette),
        overwrite=overwrite,
        progress=progress,
        every=every,
    )
    if not run.skipped:
        _remove_outdated(path, files)
    return PredictionResult(
        path=path,
        probabilities=next((other for other in others if other.stem.endswith('_probabilities')), None),
        confidence=next((other for other in others if other.stem.endswith('_confidence')), None),
        counts=() if run.skipped else tuple(predictor.counts.tolist()),
        **vars(run),
    )


def map_files(output: Path, options: MapOptions) -> dict[Path, GeoTIFFSpec]:
    """Describe the files of a scene.

    Args:
        output: The class map.
        options: What is predicted and written.

    Returns:
        Specification of each file; the class map is the last one.
    """
    names = tuple(options.class_names)
    tags = {'CLASS_NAMES': json.dumps(list(names))}
    files = {}
    kinds = {'probabilities': (options.probabilities, names), 'confidence': (options.confidence, ('confidence',))}
    for kind, (numbers, bands) in kinds.items():
        if numbers != 'none':
            nodata, scales = (NODATA, (1 / _ONE,) * len(bands)) if numbers == 'uint8' else (float('nan'), ())
            path = output.with_name(f'{output.stem}_{kind}.tif')
            files[path] = GeoTIFFSpec(len(bands), numbers, bands, nodata, scales=scales, tags=tags)
    colormap = {**{value: (*color, 255) for value, color in options.palette.items()}, NODATA: (0, 0, 0, 0)}
    files[output] = GeoTIFFSpec(
        1, 'uint8', ('class',), NODATA, categorical=True, colormap=colormap, categories=names, tags=tags
    )
    return files


def _per_band(name: str, values: Sequence[float] | None, default: float, bands: Sequence[str]) -> tuple[float, ...]:
    values = (default,) * len(bands) if values is None else tuple(values)
    if len(values) != len(bands):
        raise ConfigurationError(f'{name}: expected one value for each of {len(bands)} bands, got {len(values)}.')
    return values


def _key(
    scene: Scene, bands: Sequence[str], options: MapOptions, radiometry: tuple[Sequence[float], Sequence[float]]
) -> str:
    """Hash everything that determines the map; neither the batch size nor the reason of the stitching does."""
    settings = asdict(options)
    for name in ('batch_size', 'colors'):
        del settings[name]
    del settings['stitching']['reason']
    # The first number is the version of the meaning of maps: raise it when the same settings give other maps.
    return content_key(1, scene_key(scene, bands), settings, sorted(options.palette.items()), *radiometry)


def _remove_outdated(output: Path, written: Collection[Path]) -> None:
    """Remove probabilities and confidence that an earlier run wrote for a map that has been replaced."""
    for kind in ('probabilities', 'confidence'):
        path = output.with_name(f'{output.stem}_{kind}.tif')
        if path not in written and path.is_file() and key_of(path) is not None:
            path.unlink()
            log.info('Removed %s, which belonged to an earlier map.', path)


class ClassMap(WindowPredictor[Chip]):
    """Classes of one scene; the arguments are those of :func:`predict_scene`."""

    def __init__(
        self,
        network: Network,
        scene: Scene,
        bands: tuple[str, ...],
        options: MapOptions,
        radiometry: tuple[tuple[float, ...], tuple[float, ...]],
        device: torch.device | str,
    ) -> None:
        tiling = options.stitching.tiling(scene.grid.height, scene.grid.width)
        super().__init__(scene, scene.grid, tiling, len(options.class_names), options.batch_size)
        self.network, self.bands, self.options = network, bands, options
        self.radiometry, self.device = radiometry, device
        self.counts = np.zeros(len(options.class_names), dtype=np.int64)

    def read(self, window: Window) -> tuple[Chip, NDArray[np.bool_]]:
        """Read a window, mirrored beyond the edges of the scene."""
        image, valid = read_mirrored(self.scene, window, self.bands)
        return (image, valid), valid

    def apply(self, samples: Sequence[Chip]) -> NDArray[np.float32]:
        """Compute the class probabilities of windows."""
        image, valid = (np.stack(arrays) for arrays in zip(*samples, strict=True))
        return predict_probabilities(self.network, image, valid, self.radiometry, self.options, self.device)

    def render(self, rows: FinishedRows) -> list[NDArray[Any]]:
        """Return probabilities and confidence where requested, then the classes."""
        options, (best, certainty) = self.options, _best(rows.values)
        arrays = []
        if options.probabilities != 'none':
            arrays.append(_to_numbers(rows.values, rows.valid, options.probabilities))
        if options.confidence != 'none':
            arrays.append(_to_numbers(certainty[None], rows.valid, options.confidence))
        classes = np.where(rows.valid, best, np.uint8(NODATA))
        self.counts += np.bincount(classes.ravel(), minlength=NODATA + 1)[: len(self.counts)]
        return [*arrays, classes[None]]


def _best(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the most probable class, the first of equals, and its probability (row, col).

    It compares class by class, since NumPy's ``argmax`` over the first axis copies the array.
    """
    certainty = probabilities[0].copy()
    best = np.zeros(certainty.shape, dtype=np.uint8)
    for number, plane in enumerate(probabilities[1:], start=1):
        best[plane > certainty] = number
        np.maximum(certainty, plane, out=certainty)
    return best, certainty


def _to_numbers(values: NDArray[np.float32], valid: NDArray[np.bool_], kind: Numbers) -> NDArray[Any]:
    # Sums of products of weights equal 1 up to rounding.
    values = values.clip(0, 1)
    if kind == 'float32':
        return np.where(valid, values, np.float32(np.nan))
    return np.where(valid, np.rint(values * _ONE), NODATA).astype(np.uint8)


def predict_probabilities(
    network: Network,
    image: NDArray[Any],
    valid: NDArray[np.bool_],
    radiometry: tuple[Sequence[float], Sequence[float]],
    options: MapOptions,
    device: torch.device | str,
) -> NDArray[np.float32]:
    """Predict class probabilities, averaged over the views of the test-time augmentation.

    Args:
        network: From pixels to logits.
        image: Digital numbers (batch, band, height, width).
        valid: Valid pixels (batch, height, width).
        radiometry: Scale and offset of each band.
        options: Classes and test-time augmentation.
        device: Device of the network.

    Returns:
        Probabilities (batch, class, height, width).

    Raises:
        ConfigurationError: If the logits do not fit the classes.
    """
    scale, offset = (
        torch.tensor(values, dtype=torch.float32, device=device).expand(len(image), -1) for values in radiometry
    )
    views, classes = VIEWS[options.tta], len(options.class_names)
    total: Tensor | None = None
    for turns, mirrored in views:
        # In NumPy, since torch cannot rotate uint16.
        pixels, mask = (_view(array, turns, mirrored) for array in (image, valid[:, None]))
        with torch.inference_mode():
            logits = network(torch.from_numpy(pixels).to(device), torch.from_numpy(mask).to(device), scale, offset)
            _check_logits(logits, pixels, classes)
            probabilities = _softmax(logits.float(), classes)
            restored = torch.rot90(probabilities.flip(-1) if mirrored else probabilities, -turns, (-2, -1))
            total = restored if total is None else total + restored
    assert total is not None
    result: NDArray[np.float32] = (total / len(views) if len(views) > 1 else total).cpu().numpy()
    return result


def _view(array: NDArray[Any], turns: int, mirrored: bool) -> NDArray[Any]:
    turned = np.rot90(array, turns, (-2, -1))
    return np.ascontiguousarray(np.flip(turned, -1) if mirrored else turned)


def _softmax(logits: Tensor, classes: int) -> Tensor:
    if classes == 2 and logits.shape[1] == 1:
        second = logits.sigmoid()
        return torch.cat([1 - second, second], dim=1)
    return logits.softmax(dim=1)


def _check_logits(logits: Tensor, image: NDArray[Any], classes: int) -> None:
    expected = (len(image), classes, *image.shape[-2:])
    if logits.shape != expected and not (classes == 2 and logits.shape == (len(image), 1, *image.shape[-2:])):
        raise ConfigurationError(f'The network must give logits of the shape {expected}, got {tuple(logits.shape)}.')
