"""How long random chips take from a file, against the same pixels in tiles."""

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

#: Side of a chip and of the area that chips are cut from, in pixels.
CHIP, AREA = 224, 640

#: Side of the tiles that a file is measured against.
TILE = 256


@dataclass(frozen=True)
class Speed:
    """Median processor time of a random chip.

    Attributes:
        own: From the file itself, seconds.
        tiled: From tiles of 256 pixels with deflate, seconds.
    """

    own: float
    tiled: float

    @property
    def factor(self) -> float:
        """How many times as long the file takes."""
        return self.own / self.tiled

    def __str__(self) -> str:
        """Both times and the factor, as people read them."""
        return (
            f'{self.own * 1e3:.1f} ms a chip against {self.tiled * 1e3:.1f} ms from tiles, {self.factor:.1f} × as long'
        )


def measure(path: str, indexes: Sequence[int], chips: int = 16, seconds: float = 1.0) -> Speed:
    """Read random chips from a file and from a tiled copy of an area of it, in memory.

    Both are opened anew for each chip, so that no block is decoded already; opening is not counted. What is told is the
    processor's time: what else the machine does, and how fast its disk is, do not matter.

    Args:
        path: The file.
        indexes: GDAL's numbers of the bands wanted; where they are not all, the copy keeps each band apart.
        chips: Number of chips.
        seconds: Time after which no further chip is read; there are three in any case.

    Returns:
        The median times.

    Raises:
        RasterioError: If the file is damaged in the area.
    """

    def read_own(window: Window) -> float:
        return _seconds(open_raster(path), indexes, window)

    with open_raster(path) as dataset:
        return _compare(dataset, indexes, read_own, _area(*dataset.shape), chips, seconds)


def measure_turned(path: str, scene: Scene, bands: Sequence[str], chips: int = 16, seconds: float = 1.0) -> Speed:
    """The same for a scene that is warped as it is read, against unwarped pixels in tiles.

    Args:
        path: Its file.
        scene: The scene on the grid that it is brought to.
        bands: Canonical names of the bands wanted.
        chips: Number of chips.
        seconds: Time after which no further chip is read; there are three in any case.

    Returns:
        The median times.

    Raises:
        SceneReadError: If the file is damaged in the area.
    """

    def read_own(window: Window) -> float:
        close_datasets()
        pooled_raster(path)  # opening is not counted
        started = time.process_time()
        scene.read(window, bands)
        return time.process_time() - started

    with open_raster(path) as dataset:
        indexes = [scene.file_of_path(path).index(band) for band in bands]
        return _compare(dataset, indexes, read_own, _area(scene.grid.height, scene.grid.width), chips, seconds)


def _compare(
    dataset: DatasetReader,
    indexes: Sequence[int],
    read_own: Callable[[Window], float],
    area: Window,
    chips: int,
    seconds: float,
) -> Speed:
    """Time chips of an area read one way, and chips of the middle of a file read from a tiled copy of it."""
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
            if len(own) >= 3 and time.perf_counter() - started > seconds:
                break
    return Speed(statistics.median(own), statistics.median(tiled))


def _area(height: int, width: int) -> Window:
    """The middle of a raster of this size, about; its origin is one of tiles, so that chips lie alike on both."""
    rows, cols = min(AREA, height), min(AREA, width)
    return Window((height - rows) // 2 // TILE * TILE, (width - cols) // 2 // TILE * TILE, rows, cols)


def _tiled_profile(dataset: DatasetReader, area: Window, count: int) -> dict[str, object]:
    dtype = np.result_type(*dataset.dtypes)
    by_band = count < dataset.count or dataset.profile.get('interleave') == 'band'
    return {
        'driver': 'GTiff', 'height': area.height, 'width': area.width, 'count': count, 'dtype': dtype.name,
        'tiled': True, 'blockxsize': TILE, 'blockysize': TILE, 'compress': 'deflate', 'zlevel': 1,
        'predictor': 3 if dtype.kind == 'f' else 2, 'interleave': 'band' if by_band else 'pixel',
        'photometric': 'MINISBLACK', 'transform': from_origin(0, 0, 2, 2),  # no identity: rasterio would warn
    }  # fmt: skip


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
