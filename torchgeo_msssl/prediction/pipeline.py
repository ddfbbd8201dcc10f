"""Prediction of a scene: read windows ahead, apply a network, accumulate rows, write behind.

Class maps, restored scenes and feature maps differ in what a :class:`WindowPredictor` reads, computes and renders; the
rest is :func:`run_prediction`. Windows are integers on the grid of the output, which therefore has the CRS, transform
and size of the scene to the last digit.
"""

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any, cast

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from torch import nn

import torchgeo_msssl
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.open_datasets import block_cache
from torchgeo_msssl.geo.resumable import ResumableGeoTIFFs
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.write import GeoTIFFSpec
from torchgeo_msssl.prediction.background_io import WriteBehind, read_ahead
from torchgeo_msssl.prediction.stitch import FinishedRows, RowBandAccumulator, Tiling
from torchgeo_msssl.progress import progress_bar

__all__ = (
    'KEY_TAG',
    'PredictionRun',
    'WindowPredictor',
    'content_key',
    'hash_weights',
    'is_complete',
    'key_of',
    'predict_rows',
    'run_prediction',
)

#: Tag with the hash of everything that determines the content of a file.
KEY_TAG = 'MSSSL_KEY'
#: Rows that are rendered at a time, and side of the blocks of the files, in pixels.
BLOCK = 256
#: Batches of windows that are read before the network needs them.
BATCHES_AHEAD = 2
#: Memory for GDAL's cache of decoded blocks, in bytes; its default is a share of the machine's memory.
GDAL_CACHE = 256 * 2**20


class WindowPredictor[Sample](ABC):
    """What a prediction reads, computes and renders, for one scene.

    Attributes:
        scene: The scene.
        grid: Grid of the output.
        tiling: Windows on that grid.
        channels: Channels of the network's output.
        batch_size: Windows per call of :meth:`apply`.
    """

    def __init__(self, scene: Scene, grid: PixelGrid, tiling: Tiling, channels: int, batch_size: int) -> None:
        """Set the attributes."""
        self.scene, self.grid, self.tiling = scene, grid, tiling
        self.channels, self.batch_size = channels, batch_size

    @abstractmethod
    def read(self, window: Window) -> tuple[Sample, NDArray[np.bool_]]:
        """Read a window; called from one thread, window by window in order.

        Args:
            window: Window on the output grid; it may reach beyond it.

        Returns:
            What :meth:`apply` needs, and the valid pixels (height, width).
        """

    @abstractmethod
    def apply(self, samples: Sequence[Sample]) -> NDArray[np.float32]:
        """Apply the network to windows.

        Args:
            samples: 1 to ``batch_size`` results of :meth:`read`, of which each has a valid pixel that counts.

        Returns:
            Output (window, channel, height, width), finite.
        """

    @abstractmethod
    def render(self, rows: FinishedRows) -> list[NDArray[Any]]:
        """Convert finished rows to the values of the files.

        Args:
            rows: Weighted means of the network's output; called from top to bottom, each row once.

        Returns:
            Values (band, row, col) for each file, in their order.
        """


@dataclass(frozen=True)
class PredictionRun:
    """Summary of a run.

    Attributes:
        skipped: Whether the files existed already.
        resumed_row: First row that an interrupted run had not completed.
        windows: Windows that were read in this run.
        empty_windows: Windows among them without data, to which the network was not applied.
    """

    skipped: bool = False
    resumed_row: int = 0
    windows: int = 0
    empty_windows: int = 0


def run_prediction(
    predictor: WindowPredictor[Any],
    files: Mapping[Path, GeoTIFFSpec],
    key: str,
    *,
    before_publish: Callable[[], object] = lambda: None,
    overwrite: bool = False,
    progress: bool = True,
    every: int = 4,
) -> PredictionRun:
    """Predict a scene and write the files as cloud-optimized GeoTIFFs.

    The memory does not depend on the height of the scene. A killed run leaves nothing under the final names and resumes
    from its last safe row of blocks when called again with the same key. Files that exist already under the same key
    are kept. Two processes must not write the same files.

    Args:
        predictor: What is read, computed and rendered.
        files: Specification of each file; the last one is published last.
        key: Identifies the content, see :func:`content_key`.
        before_publish: Called when all rows are complete and before the files appear.
        overwrite: Whether to predict again what exists already.
        progress: Whether to show a progress bar.
        every: Rows of blocks after which the work is safe.

    Returns:
        Summary of the run.

    Raises:
        ConfigurationError: If the network's output is not finite.
        SceneReadError: If the scene is damaged.
        OutputError: If a file cannot be written.
    """
    if not overwrite and is_complete(files, key):
        return PredictionRun(skipped=True)
    tags = {KEY_TAG: key, 'SOFTWARE': f'torchgeo_msssl {torchgeo_msssl.__version__}'}
    specs = {
        path: replace(spec, tags={**tags, **spec.tags}, blocksize=BLOCK, interleave='band')
        for path, spec in files.items()
    }
    with block_cache(GDAL_CACHE), ResumableGeoTIFFs(predictor.grid, specs, key, every) as writer:
        start = writer.next_row
        windows, empty = predict_rows(predictor, writer.write, start, progress)
        before_publish()
        writer.publish()
    return PredictionRun(False, start, windows, empty)


def content_key(*parts: Any) -> str:
    """Hash everything that determines the content of the files.

    Args:
        *parts: Plain values; the first one is the version of the meaning of the rest.

    Returns:
        Hexadecimal SHA-256.
    """
    return hashlib.sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()


def hash_weights(module: nn.Module) -> str:
    """Hash the parameters and buffers of a module, for :func:`content_key`.

    Args:
        module: The module.

    Returns:
        Hexadecimal SHA-256.
    """
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


def key_of(path: Path) -> str | None:
    """Read the key under which a file was written.

    Args:
        path: The file; it need not exist.

    Returns:
        The key, or None if there is no file of this package.
    """
    try:
        with rasterio.open(path) as dataset:
            return cast(str | None, dataset.tags().get(KEY_TAG))
    except RasterioError:
        return None


def is_complete(files: Mapping[Path, GeoTIFFSpec], key: str) -> bool:
    """Return whether all files exist under a key.

    Args:
        files: The files.
        key: See :func:`content_key`.
    """
    return all(key_of(path) == key for path in files)


def predict_rows(
    predictor: WindowPredictor[Any],
    write: Callable[[int, list[NDArray[Any]]], None],
    start: int = 0,
    progress: bool = True,
) -> tuple[int, int]:
    """Predict the rows of a scene, and pass on what is rendered from top to bottom.

    Args:
        predictor: What is read, computed and rendered.
        write: Called in a thread of its own with the first of some rows and what was rendered of them.
        start: First row to predict.
        progress: Whether to show a progress bar.

    Returns:
        Numbers of windows and of empty ones.

    Raises:
        ConfigurationError: If the network's output is not finite.
        SceneReadError: If the scene is damaged.
    """
    if start >= predictor.grid.height:
        return 0, 0
    rows, cols = predictor.tiling.rows, predictor.tiling.cols
    accumulator = RowBandAccumulator(predictor.tiling, predictor.channels, predictor.tiling.first_row_of(start))
    places = list(product(range(accumulator.index, len(rows.starts)), range(len(cols.starts))))
    done = empty = 0
    with (
        _progress(predictor.scene.name, len(places), progress) as advance,
        ThreadPoolExecutor(1, 'reader') as reader,
        contextlib.closing(
            read_ahead(
                reader,
                lambda place: predictor.read(predictor.tiling.window(*place)),
                places,
                BATCHES_AHEAD * predictor.batch_size,
            )
        ) as windows,
        WriteBehind() as behind,
    ):
        while accumulator.index < len(rows.starts):
            for has_data in _predict_row(predictor, accumulator, windows):
                done, empty = done + 1, empty + (not has_data)
                advance(done, 0.0)
            for part in _portions(accumulator.finished(), start):
                behind.call(write, part.first, predictor.render(part))
            accumulator.shift()
    return done, empty


def _predict_row[Sample](
    predictor: WindowPredictor[Sample],
    accumulator: RowBandAccumulator,
    windows: Iterator[tuple[Sample, NDArray[np.bool_]]],
) -> Iterator[bool]:
    """Predict a row of windows in batches; yield, after each window, whether it has data."""
    rows, cols = predictor.tiling.rows, predictor.tiling.cols
    counted = slice(rows.lead, rows.lead + rows.span), slice(cols.lead, cols.lead + cols.span)
    batch: list[tuple[int, Sample, NDArray[np.bool_]]] = []

    def flush() -> None:
        outputs = predictor.apply([sample for _, sample, _ in batch])
        if not np.isfinite(outputs).all():
            msg = (
                f'{predictor.scene.path}: the network gives NaN or infinity in the row of windows that begins at row '
                f'{rows.starts[accumulator.index]}; check its weights, and that valid pixels are in range.'
            )
            raise ConfigurationError(msg)
        for (col, _, valid), output in zip(batch, outputs, strict=True):
            accumulator.add(col, output, valid)
        batch.clear()

    for col, (sample, valid) in enumerate(islice(windows, len(cols.starts))):
        has_data = bool(valid[counted].any())
        if has_data:
            batch.append((col, sample, valid))
        else:
            accumulator.add(col, None, valid)
        if len(batch) == predictor.batch_size:
            flush()
        yield has_data
    if batch:
        flush()


def _portions(rows: FinishedRows, start: int) -> Iterator[FinishedRows]:
    """Cut rows into portions, so that what is rendered stays small, and drop those before the start.

    The rows before the start are on disk already, and incomplete here.
    """
    for row in range(max(start - rows.first, 0), len(rows.valid), BLOCK):
        part = slice(row, row + BLOCK)
        yield FinishedRows(rows.first + row, rows.values[:, part], rows.valid[part])


@contextlib.contextmanager
def _progress(name: str, total: int, shown: bool) -> Iterator[Callable[[int, float], None]]:
    if not shown:
        yield lambda piece, fraction: None
        return
    with progress_bar(name, total) as advance:
        yield advance
