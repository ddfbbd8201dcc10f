"""Maps of whole scenes from a network, in a stream from top to bottom.

Windows are integers on the scene's own grid all the way, so the map has its CRS, transform and size to the last digit.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from torch import Tensor

import torchgeo_msssl
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.open_datasets import block_cache
from torchgeo_msssl.geo.resumable import BLOCK, ResumableGeoTIFFs
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.user_cache import scene_key
from torchgeo_msssl.geo.write import GeoTIFFSpec
from torchgeo_msssl.prediction.background_io import WriteBehind, read_ahead
from torchgeo_msssl.prediction.qgis_style import Colors, class_colors, write_qml
from torchgeo_msssl.prediction.scenes import check_bands
from torchgeo_msssl.prediction.stitch import FinishedRows, RowBandAccumulator, Stitching, Tiling, reflect_indices
from torchgeo_msssl.progress import progress_bar

__all__ = (
    'KEY_TAG',
    'NODATA',
    'MapOptions',
    'Network',
    'Numbers',
    'PredictionPlan',
    'PredictionResult',
    'is_done',
    'key_of',
    'plan',
    'predict_scene',
    'read_mirrored',
)

log = logging.getLogger(__name__)

#: ``(image, valid, scale, offset)`` → logits (batch, class, height, width). The image is (batch, band, height, width)
#: in the scene's own dtype, valid (batch, 1, height, width) bool, scale and offset (batch, band) float32.
type Network = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Numbers = Literal['none', 'uint8', 'float32']
type _Pixels = tuple[NDArray[Any], NDArray[np.bool_]]

#: Class of pixels without data.
NODATA = 255
#: Probability 1 in files of uint8, of which 255 is nodata; the files declare the scale.
_ONE = 254
#: Tag with the hash of all that decides the map.
KEY_TAG = 'MSSSL_KEY'
#: Turns by 90° and whether mirrored, for each kind of test-time augmentation.
_VIEWS: dict[str, tuple[tuple[int, bool], ...]] = {
    'none': ((0, False),),
    'flips': ((0, False), (2, False), (0, True), (2, True)),
    'd4': tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}
#: Batches of windows that are read before the network asks for them.
_BATCHES_AHEAD = 2
#: What else is taken, in bytes: libraries that are loaded on first use, memory that the allocator keeps.
_OVERHEAD = 128 * 2**20
#: Memory for blocks that GDAL keeps, in bytes; its default is a share of the machine's.
_GDAL_CACHE = 256 * 2**20


@dataclass(frozen=True)
class MapOptions:
    """What is predicted, and what is written of it.

    Attributes:
        class_names: Names of the classes in order, 1 to 255.
        stitching: How windows become a map.
        colors: ``(red, green, blue)`` in 0–255 for each class; None chooses.
        tta: Mean over the image, its mirror images (``flips``), and its quarter turns too (``d4``).
        probabilities: Write ``<scene>_probabilities.tif`` with a band a class.
        confidence: Write ``<scene>_confidence.tif``, the probability of the class in the map.
        batch_size: Windows that the network is given at once.
        checkpoint: What identifies the network (a hash of its checkpoint); another one starts a map anew.

    Raises:
        ConfigurationError: If an option is out of its range.
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
        if not 1 <= len(self.class_names) <= NODATA:
            msg = (
                f'class_names: expected 1 to {NODATA} classes (uint8, {NODATA} is nodata), got {len(self.class_names)}.'
            )
            raise ConfigurationError(msg)
        if self.tta not in _VIEWS:
            raise ConfigurationError(f'tta: expected one of {", ".join(_VIEWS)}, got {self.tta!r}.')
        for name in ('probabilities', 'confidence'):
            if getattr(self, name) not in ('none', 'uint8', 'float32'):
                msg = f"{name}: expected 'none', 'uint8' or 'float32', got {getattr(self, name)!r}."
                raise ConfigurationError(msg)
        if self.batch_size < 1:
            raise ConfigurationError(f'batch_size: expected 1 or more, got {self.batch_size}.')


@dataclass(frozen=True)
class PredictionResult:
    """What became of a scene.

    Attributes:
        path: The class map.
        probabilities: File of the probabilities, or None.
        confidence: File of the confidence, or None.
        skipped: Whether the files were there already.
        resumed_row: First pixel row that was not there from an interrupted run.
        windows: Windows that were looked at in this run.
        empty_windows: Those of them without data, for which the network was not asked.
        counts: Pixels of each class in the rows of this run, (class,); empty when skipped.
    """

    path: Path
    probabilities: Path | None
    confidence: Path | None
    skipped: bool = False
    resumed_row: int = 0
    windows: int = 0
    empty_windows: int = 0
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class PredictionPlan:
    """What a prediction is going to take.

    Attributes:
        scene: Name of the scene.
        windows: Number of windows; those without data cost next to nothing.
        window: ``(height, width)`` of a window, in pixels.
        blend: How windows become a map, and why.
        memory_bytes: Memory beside the network's own, at most about.
        disk_bytes: Disk for working and final files before compression, at most.
        seconds: Time, at most about, or None where no window was timed.
    """

    scene: str
    windows: int
    window: tuple[int, int]
    blend: str
    memory_bytes: int
    disk_bytes: int
    seconds: float | None = None

    def __str__(self) -> str:
        """The plan for people, in one line."""
        length = 'not timed' if self.seconds is None else f'at most about {self.seconds:,.0f} s'
        return (
            f'{self.scene}: {self.windows:,} windows of {self.window[0]} × {self.window[1]} pixels, {self.blend}; '
            f'memory {self.memory_bytes / 2**20:,.0f} MiB beside the network, disk at most '
            f'{self.disk_bytes / 2**20:,.0f} MiB; time {length}.'
        )


def plan(
    scene: Scene,
    bands: Sequence[str],
    options: MapOptions,
    network: Network | None = None,
    device: torch.device | str = 'cpu',
) -> PredictionPlan:
    """Estimate what a prediction is going to take.

    Args:
        scene: The scene.
        bands: Canonical names of the network's bands, in its order.
        options: What is predicted.
        network: Times one batch of zeros, if given.
        device: Where the network is.

    Returns:
        The estimate.

    Raises:
        BandError: If the scene lacks a band.
    """
    check_bands(scene, bands)
    grid, tiling, classes = scene.grid, _tiling(scene, options), len(options.class_names)
    pixels = tiling.rows.size * tiling.cols.size * options.batch_size
    views = len(_VIEWS[options.tta])
    band_of_windows = (4 * classes + 1) * tiling.rows.span * grid.width
    batch = pixels * ((2 + _BATCHES_AHEAD) * (len(bands) * scene.dtype.itemsize + 1) + 4 * classes * 3)
    per_pixel = sum(
        spec.count * np.dtype(spec.dtype).itemsize for spec in _layers(Path('map.tif'), options, {}).values()
    )
    # Rows that wait for a whole block or to be written, as they come and as they are written, with what they are made
    # of.
    block_rows = grid.width * BLOCK * (5 * per_pixel + 12) + 4 * tiling.rows.span * grid.width
    seconds = None
    if network is not None:
        start = time.perf_counter()
        shape = (options.batch_size, tiling.rows.size, tiling.cols.size)
        image = np.zeros((shape[0], len(bands), *shape[1:]), dtype=scene.dtype)
        ones, zeros = (1.0,) * len(bands), (0.0,) * len(bands)
        _probabilities(network, image, np.ones(shape, dtype=np.bool_), (ones, zeros), options, device)
        seconds = (time.perf_counter() - start) / options.batch_size * tiling.count
    # A working and a final file, and half of it again for the overviews.
    disk = round(2.5 * per_pixel * grid.height * grid.width)
    blend = f'{options.stitching.blend} ({options.stitching.reason or "as configured"}), {views} view(s) each'
    memory = band_of_windows + batch + block_rows + _GDAL_CACHE + _OVERHEAD
    return PredictionPlan(scene.name, tiling.count, (tiling.rows.size, tiling.cols.size), blend, memory, disk, seconds)


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
    """Predict a whole scene and write its class map as a cloud-optimised GeoTIFF.

    The memory does not depend on the scene's height. A run that is killed leaves nothing under the final name, and goes
    on from its last safe row of blocks when called again with the same options. A scene whose map is there already, of
    the same files, network and options, is skipped. Two processes must not work on one map.

    Args:
        network: From pixels to logits, in eval mode, see :data:`Network`; one channel of logits stands for two classes.
        scene: The scene.
        bands: Canonical names of the network's bands, in its order; the scene may have others, in any order.
        output: The class map, uint8 with nodata 255; other files are named after it.
        options: What is predicted, and what is written.
        scale: Reflectance per digital number of each band of this scene; None for 1.
        offset: Added to the digital number of each band first; None for 0.
        device: Where the network is.
        overwrite: Predict again what is there already.
        progress: Show a progress bar.
        every: Rows of blocks (of 256 pixels) after which the work is safe.

    Returns:
        What became of it.

    Raises:
        BandError: If the scene lacks a band.
        ConfigurationError: If the network's output does not fit the options, or is not finite.
        SceneReadError: If the scene is damaged.
        OutputError: If a file cannot be written.
    """
    check_bands(scene, bands)
    scale, offset = _each_band(scale, offset, bands)
    output = Path(output)
    key = _key(scene, bands, options, scale, offset)
    layers = _layers(output, options, {KEY_TAG: key})
    named = {path.stem.removeprefix(f'{output.stem}_'): path for path in layers if path != output}
    probabilities, confidence = named.get('probabilities'), named.get('confidence')
    if not overwrite and all(key_of(path) == key for path in layers):
        return PredictionResult(output, probabilities, confidence, skipped=True)
    with block_cache(_GDAL_CACHE), ResumableGeoTIFFs(scene.grid, layers, key, every) as files:
        run = _Run(network, scene, tuple(bands), options, (scale, offset), device)
        start = files.next_row
        if progress:
            with progress_bar(scene.name, total=max(run.windows_from(start), 1)) as advance:
                _predict_rows(run, files, start, lambda done: advance(done, 0.0))
        else:
            _predict_rows(run, files, start, lambda done: None)
        # Before the map, whose presence says that all is there.
        write_qml(output, options.class_names, options.colors or class_colors(options.class_names))
        files.publish()
    _remove_outdated(output, layers)
    counts = tuple(int(count) for count in run.counts)
    return PredictionResult(output, probabilities, confidence, False, start, run.windows, run.empty, counts)


def is_done(
    scene: Scene,
    bands: Sequence[str],
    output: str | os.PathLike[str],
    options: MapOptions,
    *,
    scale: Sequence[float] | None = None,
    offset: Sequence[float] | None = None,
) -> bool:
    """Whether the map of a scene is there already, made of the same files with the same network and options.

    Args:
        scene: The scene.
        bands: Canonical names of the network's bands, in its order.
        output: The class map.
        options: What would be predicted.
        scale: As for :func:`predict_scene`.
        offset: As for :func:`predict_scene`.

    Returns:
        Whether nothing is left to do.
    """
    scale, offset = _each_band(scale, offset, bands)
    key = _key(scene, bands, options, scale, offset)
    return all(key_of(path) == key for path in _layers(Path(output), options, {}))


def read_mirrored(scene: Scene, window: Window, bands: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a window of a scene, mirrored at its edges wherever the window reaches beyond them.

    Args:
        scene: The scene.
        window: Any window; the scene may be smaller than it.
        bands: Canonical names, in the order wanted.

    Returns:
        ``(image, valid)``, (band, height, width) in the scene's dtype and (height, width).

    Raises:
        BandError: If a band is missing.
        SceneReadError: If the scene is damaged.
    """
    grid = scene.grid
    if window.intersection(grid.window) == window:
        return scene.read(window, bands)
    rows = reflect_indices(window.row, window.height, grid.height)
    cols = reflect_indices(window.col, window.width, grid.width)
    row, col = int(rows.min()), int(cols.min())
    source = Window(row, col, int(rows.max()) - row + 1, int(cols.max()) - col + 1)
    image, valid = scene.read(source, bands)
    place = np.ix_(rows - row, cols - col)
    return image[(slice(None), *place)], valid[place]


def _each_band(
    scale: Sequence[float] | None, offset: Sequence[float] | None, bands: Sequence[str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A scale and an offset for each band: what was given, else 1 and 0."""
    scale = tuple(scale) if scale is not None else (1.0,) * len(bands)
    offset = tuple(offset) if offset is not None else (0.0,) * len(bands)
    if not len(scale) == len(offset) == len(bands):
        msg = f'scale, offset: expected one value for each of {len(bands)} bands, got {len(scale)} and {len(offset)}.'
        raise ConfigurationError(msg)
    return scale, offset


def _remove_outdated(output: Path, written: Collection[Path]) -> None:
    """Take away what an earlier run wrote beside a map that is another one now."""
    for kind in ('probabilities', 'confidence'):
        path = output.with_name(f'{output.stem}_{kind}.tif')
        if path not in written and path.is_file() and key_of(path) is not None:
            path.unlink()
            log.info('Removed %s: it was of another map.', path)


def _tiling(scene: Scene, options: MapOptions) -> Tiling:
    return options.stitching.tiling(scene.grid.height, scene.grid.width)


def _layers(output: Path, options: MapOptions, tags: dict[str, str]) -> dict[Path, GeoTIFFSpec]:
    """The files to write, the class map last."""
    names = tuple(options.class_names)
    tags = tags | {'CLASS_NAMES': json.dumps(list(names)), 'SOFTWARE': f'torchgeo_msssl {torchgeo_msssl.__version__}'}
    layers = {}
    kinds = {'probabilities': (options.probabilities, names), 'confidence': (options.confidence, ('confidence',))}
    for kind, (numbers, bands) in kinds.items():
        if numbers != 'none':
            nodata, scales = (NODATA, (1 / _ONE,) * len(bands)) if numbers == 'uint8' else (float('nan'), ())
            layers[output.with_name(f'{output.stem}_{kind}.tif')] = GeoTIFFSpec(
                len(bands),
                numbers,
                bands,
                nodata,
                scales=scales,
                tags=tags,
                blocksize=BLOCK,
                interleave='band',
            )
    colors = options.colors or class_colors(names)
    colormap = {**{value: (*color, 255) for value, color in colors.items()}, NODATA: (0, 0, 0, 0)}
    layers[output] = GeoTIFFSpec(
        1,
        'uint8',
        ('class',),
        NODATA,
        categorical=True,
        colormap=colormap,
        categories=names,
        tags=tags,
        blocksize=BLOCK,
        interleave='band',
    )
    return layers


def _key(
    scene: Scene, bands: Sequence[str], options: MapOptions, scale: Sequence[float], offset: Sequence[float]
) -> str:
    """Hash of all that decides the map; the batch size changes nothing, nor do words."""
    settings = asdict(options)
    for name in ('batch_size', 'colors'):
        del settings[name]
    del settings['stitching']['reason']
    colors = sorted((options.colors or class_colors(options.class_names)).items())
    # The number is of the meaning of maps: raise it when the same settings give another one.
    text = json.dumps([1, scene_key(scene, bands), settings, colors, list(scale), list(offset)], default=list)
    return hashlib.sha256(text.encode()).hexdigest()


def key_of(path: Path) -> str | None:
    """Read what decided a file that was written here.

    Args:
        path: The file; it need not exist.

    Returns:
        The hash, or None where there is no file of ours.
    """
    try:
        with rasterio.open(path) as dataset:
            return cast(str | None, dataset.tags().get(KEY_TAG))
    except RasterioError:
        return None


class _Run:
    """One scene on its way through a network."""

    def __init__(
        self,
        network: Network,
        scene: Scene,
        bands: tuple[str, ...],
        options: MapOptions,
        radiometry: tuple[tuple[float, ...], tuple[float, ...]],
        device: torch.device | str,
    ) -> None:
        self.network, self.scene, self.bands, self.options = network, scene, bands, options
        self.radiometry, self.device = radiometry, device
        self.tiling = _tiling(scene, options)
        self.windows = self.empty = 0
        self.counts = np.zeros(len(options.class_names), dtype=np.int64)

    def windows_from(self, row: int) -> int:
        """Number of windows that a prediction from a pixel row on needs."""
        if row >= self.scene.grid.height:
            return 0
        return (len(self.tiling.rows.starts) - self.tiling.first_row_of(row)) * len(self.tiling.cols.starts)

    def read(self, place: tuple[int, int]) -> _Pixels:
        """Read a window.

        Args:
            place: Index of its row of windows and of its column of windows.

        Returns:
            ``(image, valid)``, (band, height, width) and (height, width).
        """
        return read_mirrored(self.scene, self.tiling.window(*place), self.bands)

    def row_of_windows(self, accumulator: RowBandAccumulator, windows: Iterator[_Pixels]) -> Iterator[int]:
        """Predict all windows of a row, batch by batch, into an accumulator.

        Args:
            accumulator: At the row wanted.
            windows: The windows of the scene, in order, the next one being the first of the row.

        Yields:
            After each window that was looked at, 1.
        """
        batch: list[tuple[int, NDArray[Any], NDArray[np.bool_]]] = []
        for col, (image, valid) in enumerate(islice(windows, len(self.tiling.cols.starts))):
            self.windows += 1
            if self._counted(valid).any():
                batch.append((col, image, valid))
            else:
                self.empty += 1
                accumulator.add(col, None, valid)
            if len(batch) == self.options.batch_size:
                self._predict(batch, accumulator)
                batch = []
            yield 1
        if batch:
            self._predict(batch, accumulator)

    def _counted(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        rows, cols = self.tiling.rows, self.tiling.cols
        return valid[rows.lead : rows.lead + rows.span, cols.lead : cols.lead + cols.span]

    def _predict(
        self, batch: list[tuple[int, NDArray[Any], NDArray[np.bool_]]], accumulator: RowBandAccumulator
    ) -> None:
        image = np.stack([entry[1] for entry in batch])
        valid = np.stack([entry[2] for entry in batch])
        predicted = _probabilities(self.network, image, valid, self.radiometry, self.options, self.device)
        if not np.isfinite(predicted).all():
            msg = (
                f'{self.scene.path}: the network gives NaN or infinity in the row of windows that begins at pixel row '
                f'{self.tiling.rows.starts[accumulator.index]}; check its weights, and that valid pixels are in range.'
            )
            raise ConfigurationError(msg)
        for (col, _, mask), probabilities in zip(batch, predicted, strict=True):
            accumulator.add(col, probabilities, mask)


def _predict_rows(run: _Run, files: ResumableGeoTIFFs, start: int, on_window: Callable[[int], None]) -> None:
    if start >= run.scene.grid.height:
        return
    tiling = run.tiling
    accumulator = RowBandAccumulator(tiling, len(run.options.class_names), tiling.first_row_of(start))
    places = product(range(accumulator.index, len(tiling.rows.starts)), range(len(tiling.cols.starts)))
    done = 0
    with (
        ThreadPoolExecutor(1, 'reader') as reader,
        closing(read_ahead(reader, run.read, places, _BATCHES_AHEAD * run.options.batch_size)) as windows,
        WriteBehind() as writer,
    ):
        while accumulator.index < len(tiling.rows.starts):
            for one in run.row_of_windows(accumulator, windows):
                done += one
                on_window(done)
            rows = accumulator.finished()
            # In portions, so that what is made of them stays small against the rows themselves.
            for row in range(0, len(rows.valid), BLOCK):
                part = slice(row, row + BLOCK)
                portion = FinishedRows(rows.first + row, rows.probabilities[:, part], rows.valid[part])
                arrays = _rendered(portion, run.options)
                # Rows before the start are on disk already, and incomplete here.
                fresh = arrays[-1][0, max(start - portion.first, 0) :]
                run.counts += np.bincount(fresh.ravel(), minlength=NODATA + 1)[: len(run.counts)]
                writer.call(files.write, portion.first, arrays)
            accumulator.shift()


def _rendered(rows: FinishedRows, options: MapOptions) -> list[NDArray[Any]]:
    """Pixels of the layers, (band, row, col) each, in their order."""
    best, certainty = _best(rows.probabilities)
    arrays = []
    if options.probabilities != 'none':
        arrays.append(_numbers(rows.probabilities, rows.valid, options.probabilities))
    if options.confidence != 'none':
        arrays.append(_numbers(certainty[None], rows.valid, options.confidence))
    arrays.append(np.where(rows.valid, best, np.uint8(NODATA))[None])
    return arrays


def _best(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Most probable class, the first of equals, with its probability, (row, col) each.

    Class by class, since NumPy's ``argmax`` over the first axis makes a copy of all.
    """
    certainty = probabilities[0].copy()
    best = np.zeros(certainty.shape, dtype=np.uint8)
    for number, plane in enumerate(probabilities[1:], start=1):
        best[plane > certainty] = number
        np.maximum(certainty, plane, out=certainty)
    return best, certainty


def _numbers(values: NDArray[np.float32], valid: NDArray[np.bool_], kind: Numbers) -> NDArray[Any]:
    # Sums of products of weights are 1 to rounding only.
    values = values.clip(0, 1)
    if kind == 'float32':
        return np.where(valid, values, np.float32(np.nan))
    return np.where(valid, np.rint(values * _ONE), NODATA).astype(np.uint8)


def _probabilities(
    network: Network,
    image: NDArray[Any],
    valid: NDArray[np.bool_],
    radiometry: tuple[Sequence[float], Sequence[float]],
    options: MapOptions,
    device: torch.device | str,
) -> NDArray[np.float32]:
    """Class probabilities (batch, class, height, width), the mean over the views."""
    scale, offset = (
        torch.tensor(values, dtype=torch.float32, device=device).expand(len(image), -1) for values in radiometry
    )
    views = _VIEWS[options.tta]
    total: Tensor | None = None
    for turns, mirrored in views:
        # In NumPy, since torch turns no uint16.
        pixels, mask = (_viewed(array, turns, mirrored) for array in (image, valid[:, None]))
        with torch.inference_mode():
            logits = network(torch.from_numpy(pixels).to(device), torch.from_numpy(mask).to(device), scale, offset)
            _check_logits(logits, pixels, len(options.class_names))
            probabilities = _softmax(logits.float(), len(options.class_names))
            restored = torch.rot90(probabilities.flip(-1) if mirrored else probabilities, -turns, (-2, -1))
            total = restored if total is None else total + restored
    assert total is not None
    result: NDArray[np.float32] = (total / len(views) if len(views) > 1 else total).cpu().numpy()
    return result


def _viewed(array: NDArray[Any], turns: int, mirrored: bool) -> NDArray[Any]:
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
