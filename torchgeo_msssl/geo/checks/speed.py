"""Measure the time to read random chips from a file, compared with tiles."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import rasterio
from rasterio.io import DatasetReader, MemoryFile
from rasterio.transform import from_origin

from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.open_datasets import close_datasets, open_raster, pooled_raster
from torchgeo_msssl.geo.scene import Scene

#: Side of a chip and of the area that the chips are read from, in pixels.
CHIP, AREA = 224, 640

#: Time after which no further chips are measured, in seconds.
_SECONDS = 1.0

#: Side of the tiles for comparison, in pixels.
TILE = 256


@dataclass(frozen=True)
class Speed:
    """Median CPU time to read a random chip.

    Attributes:
        own: Seconds from the file itself.
        tiled: Seconds from tiles of 256 pixels with deflate.
    """

    own: float
    tiled: float

    @property
    def factor(self) -> float:
        """Time from the file relative to the time from tiles."""
        return self.own / self.tiled

    def __str__(self) -> str:
        """Both times and the factor."""
        own, tiled = (f'{seconds * 1e3:.1f} ms' for seconds in (self.own, self.tiled))
        return f'{own} per chip, {tiled} from tiles: {self.factor:.1f} × as long'


def measure(path: str, indexes: Sequence[int], warped: Scene | None = None, chips: int = 16) -> Speed:
    """Read random chips from a file and from a tiled copy of part of it in memory.

    Both are opened again for each chip, so that no block is cached; the time to open them is not counted. CPU time is
    measured, which depends neither on other processes nor on the disk. After one second no further chips are read,
    except for the first three.

    Args:
        path: The file.
        indexes: Band indexes, from 1. If they are not all bands, the copy is band-interleaved.
        warped: Scene of this file alone that is warped as it is read: its chips are measured instead of the file's.
        chips: Number of chips.

    Returns:
        The median times.

    Raises:
        RasterioError, SceneReadError: If the file is damaged there.
    """

    def read_own(window: Window) -> float:
        if warped is None:
            return _seconds(open_raster(path), indexes, window)
        close_datasets()
        pooled_raster(path)  # the time to open it is not counted
        started = time.process_time()
        warped.read(window, [warped.files[0].names[index - 1] for index in indexes])
        return time.process_time() - started

    with open_raster(path) as dataset:
        area = _area(*dataset.shape) if warped is None else _area(warped.grid.height, warped.grid.width)
        return _compare(dataset, indexes, read_own, area, chips)


def _compare(
    dataset: DatasetReader, indexes: Sequence[int], read_own: Callable[[Window], float], area: Window, chips: int
) -> Speed:
    """Time the given reader in its area, and reading the middle of the file from a tiled copy."""
    middle = _area(*dataset.shape)
    profile = _tiled_profile(dataset, middle, len(indexes))
    own, tiled = [], []
    with MemoryFile() as memory:
        with memory.open(**profile) as copy:
            copy.write(dataset.read(indexes, window=middle.to_rasterio(), out_dtype=profile['dtype']))
        started = time.perf_counter()
        for ours, theirs in zip(_windows(area, chips), _windows(middle, chips), strict=True):
            inside = Window(theirs.row - middle.row, theirs.col - middle.col, theirs.height, theirs.width)
            own.append(read_own(ours))
            tiled.append(_seconds(rasterio.open(memory.name), None, inside))
            if len(own) >= 3 and time.perf_counter() - started > _SECONDS:
                break
    return Speed(statistics.median(own), statistics.median(tiled))


def _area(height: int, width: int) -> Window:
    """Return the approximate middle of a raster, with its origin on a tile edge, so that chips cut as many tiles."""
    rows, cols = min(AREA, height), min(AREA, width)
    return Window((height - rows) // 2 // TILE * TILE, (width - cols) // 2 // TILE * TILE, rows, cols)


def _tiled_profile(dataset: DatasetReader, area: Window, count: int) -> dict[str, object]:
    dtype = np.result_type(*dataset.dtypes)
    by_band = count < dataset.count or dataset.profile.get('interleave') == 'band'
    return {
        'driver': 'GTiff',
        'height': area.height,
        'width': area.width,
        'count': count,
        'dtype': dtype.name,
        'tiled': True,
        'blockxsize': TILE,
        'blockysize': TILE,
        'compress': 'deflate',
        'zlevel': 1,
        'predictor': 3 if dtype.kind == 'f' else 2,
        'interleave': 'band' if by_band else 'pixel',
        'photometric': 'MINISBLACK',
        'transform': from_origin(0, 0, 2, 2),  # rasterio warns of the identity
    }


def _windows(area: Window, number: int) -> list[Window]:
    rng = np.random.default_rng(0)
    height, width = min(CHIP, area.height), min(CHIP, area.width)
    return [
        Window(
            area.row + int(rng.integers(area.height - height + 1)),
            area.col + int(rng.integers(area.width - width + 1)),
            height,
            width,
        )
        for _ in range(number)
    ]


def _seconds(dataset: DatasetReader, indexes: Sequence[int] | None, window: Window) -> float:
    with dataset:
        started = time.process_time()
        dataset.read(indexes, window=window.to_rasterio())
        return time.process_time() - started
