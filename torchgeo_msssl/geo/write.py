"""GeoTIFFs that land complete or not at all."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import DTypeLike, NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter

from torchgeo_msssl.errors import ConfigurationError, OutputError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.grid import PixelGrid, Window

__all__ = ('Colormap', 'GeoTIFFWriter', 'write_geotiff')

type Colormap = Mapping[int, tuple[int, int, int] | tuple[int, int, int, int]]

#: Real types that GeoTIFF and GDAL can hold.
_DTYPES = ('uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'uint64', 'int64', 'float32', 'float64')


def write_geotiff(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    grid: PixelGrid,
    *,
    band_names: Sequence[str] | None = None,
    nodata: float | None = None,
    colormap: Colormap | None = None,
    tags: Mapping[str, str] | None = None,
    compress: str = 'zstd',
    blocksize: int = 256,
    overviews: bool = False,
) -> None:
    """Write an array that is in memory as one tiled GeoTIFF.

    Args:
        path: File to write; an older one is replaced in one step.
        array: Values ``(band, height, width)``.
        grid: CRS, transform and size.
        band_names: One description a band; a band named ``alpha`` is marked as the alpha channel.
        nodata: Value of pixels without data.
        colormap: Colour ``(red, green, blue[, alpha])`` in 0–255 of each value, for one band of uint8 or uint16.
        tags: Dataset tags.
        compress: GDAL's name of the compression.
        blocksize: Side of a tile, in pixels, a multiple of 16.
        overviews: Whether to add reduced copies (2, 4, …) down to one tile: of the most frequent value where there is
            a colormap, else of the mean.

    Raises:
        ConfigurationError: If the array, the grid and the options do not fit each other.
        OutputError: If the file cannot be written.
    """
    if array.ndim != 3:
        msg = f'{path}: expected an array (band, height, width), got the shape {array.shape}; add the band axis.'
        raise ConfigurationError(msg)
    writer = GeoTIFFWriter(
        path,
        grid,
        count=array.shape[0],
        dtype=array.dtype,
        band_names=band_names,
        nodata=nodata,
        colormap=colormap,
        tags=tags,
        compress=compress,
        blocksize=blocksize,
        overviews=overviews,
    )
    with writer:
        writer.write(array, grid.window)


class GeoTIFFWriter:
    """A tiled GeoTIFF written window by window that appears under its name when all went well.

    Use it as a context manager; an exception inside leaves nothing behind and an older file untouched. Windows
    that follow the tiles (multiples of ``blocksize``) are compressed once; others cost time and space, since a
    tile is written again with each of its parts. What is never written holds ``nodata`` (or 0).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        grid: PixelGrid,
        *,
        count: int,
        dtype: DTypeLike,
        band_names: Sequence[str] | None = None,
        nodata: float | None = None,
        colormap: Colormap | None = None,
        tags: Mapping[str, str] | None = None,
        compress: str = 'zstd',
        blocksize: int = 256,
        overviews: bool = False,
    ) -> None:
        """Check the options; the file is opened on entering the context.

        Args:
            path: File to write.
            grid: CRS, transform and size.
            count: Number of bands.
            dtype: Type of the values.
            band_names: One description a band; a band named ``alpha`` is marked as the alpha channel.
            nodata: Value of pixels without data.
            colormap: Colour of each value, for one band of uint8 or uint16.
            tags: Dataset tags.
            compress: GDAL's name of the compression.
            blocksize: Side of a tile, in pixels, a multiple of 16.
            overviews: Whether to add reduced copies at the end (the most frequent value where there is a colormap,
                else the mean).

        Raises:
            ConfigurationError: If the options do not fit each other.
        """
        self.path = Path(path)
        self.grid = grid
        self.count = count
        self.dtype = np.dtype(dtype)
        if self.dtype.name not in _DTYPES:
            msg = f'{path}: expected values of one of {", ".join(_DTYPES)}, got {self.dtype.name}; convert them first.'
            raise ConfigurationError(msg)
        if band_names is not None and len(band_names) != count:
            msg = f'{path}: expected one name for each of {count} bands, got {len(band_names)}: {list(band_names)}.'
            raise ConfigurationError(msg)
        if blocksize < 16 or blocksize % 16:
            msg = f'{path}: expected a blocksize that is a multiple of 16, got {blocksize}.'
            raise ConfigurationError(msg)
        if colormap is not None and (count != 1 or self.dtype.name not in ('uint8', 'uint16')):
            msg = f'{path}: a colormap needs one band of uint8 or uint16, got {count} of {self.dtype.name}.'
            raise ConfigurationError(msg)
        if nodata is not None and not _holds(self.dtype, nodata):
            msg = f'{path}: nodata {nodata} does not fit into {self.dtype.name}; choose a value of that type.'
            raise ConfigurationError(msg)
        self._names = tuple(band_names or ())
        self._colormap, self._tags, self._overviews = colormap, dict(tags or {}), overviews
        self._profile = _profile(grid, count, self.dtype, nodata, compress, blocksize)
        self._dataset: DatasetWriter | None = None

    def __enter__(self) -> Self:
        """Open the temporary file.

        Returns:
            The writer itself.

        Raises:
            OutputError: If the folder cannot be written or GDAL refuses the options.
        """
        self._context = self._opened()
        self._dataset = self._context.__enter__()
        return self

    def write(self, array: NDArray[Any], window: Window) -> None:
        """Write one window.

        Args:
            array: Values ``(band, height, width)`` of the writer's type.
            window: Where they go, inside the grid.

        Raises:
            ConfigurationError: If shape or type differ from what was announced, or the window leaves the grid.
            OutputError: If GDAL cannot write.
        """
        assert self._dataset is not None, 'GeoTIFFWriter.write is for use inside its with block'
        expected = (self.count, window.height, window.width)
        if array.shape != expected or array.dtype != self.dtype:
            msg = (
                f'{self.path}: expected {self.dtype.name} values of the shape {expected} for {window}, '
                f'got {array.dtype} of {array.shape}.'
            )
            raise ConfigurationError(msg)
        if self.grid.window.intersection(window) != window:
            msg = f'{self.path}: {window} leave the grid of {self.grid.height} × {self.grid.width} pixels; crop first.'
            raise ConfigurationError(msg)
        with _gdal_errors(self.path):
            self._dataset.write(array, window=window.to_rasterio())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Publish the file, or remove it after an exception.

        Args:
            kind: Type of the exception, if any.
            error: The exception.
            traceback: Its traceback.

        Raises:
            OutputError: If the last blocks cannot be written.
        """
        self._dataset = None
        self._context.__exit__(kind, error, traceback)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[DatasetWriter]:
        with atomic_path(self.path) as temporary:
            with _gdal_errors(self.path):
                dataset = rasterio.open(temporary, 'w', **self._profile)
            try:
                with _gdal_errors(self.path):
                    _describe(dataset, self._names, self._colormap, self._tags)
                yield dataset
                with _gdal_errors(self.path):
                    if self._overviews:
                        _build_overviews(dataset, categorical=self._colormap is not None)
                    dataset.close()
                    _check_readable(temporary)
            finally:
                # Whatever went wrong is on its way up already; what closing says about it would only hide it.
                with contextlib.suppress(RasterioError):
                    dataset.close()


@contextlib.contextmanager
def _gdal_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except RasterioError as error:
        reason = str(error.__cause__ or error)
        msg = f'{path}: GDAL could not write it ({reason}); check the free space and the options of the file.'
        raise OutputError(msg) from error


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    if dtype.kind == 'f':
        return not np.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    limits = np.iinfo(dtype)
    return float(value).is_integer() and int(limits.min) <= value <= int(limits.max)


def _profile(
    grid: PixelGrid, count: int, dtype: np.dtype[Any], nodata: float | None, compress: str, blocksize: int
) -> dict[str, Any]:
    profile: dict[str, Any] = {
        'driver': 'GTiff', 'crs': grid.crs, 'transform': grid.transform, 'height': grid.height, 'width': grid.width,
        'count': count, 'dtype': dtype.name, 'nodata': nodata, 'compress': compress, 'bigtiff': 'IF_SAFER',
        'tiled': True, 'blockxsize': blocksize, 'blockysize': blocksize,
        # Without this GDAL takes the fourth of four uint8 bands for an alpha channel.
        'photometric': 'MINISBLACK',
    }  # fmt: skip
    if compress.lower() in ('zstd', 'deflate', 'lzw'):
        profile['predictor'] = 3 if dtype.kind == 'f' else 2
    if compress.lower() == 'zstd':
        profile['zstd_level'] = 1
    return profile


def _describe(dataset: DatasetWriter, names: tuple[str, ...], colormap: Colormap | None, tags: dict[str, str]) -> None:
    if names:
        dataset.descriptions = names
    if 'alpha' in names:
        interpretation = list(dataset.colorinterp)
        interpretation[names.index('alpha')] = ColorInterp.alpha
        dataset.colorinterp = interpretation
    if colormap is not None:
        dataset.write_colormap(1, dict(colormap))
    if tags:
        dataset.update_tags(**tags)


def _build_overviews(dataset: DatasetWriter, *, categorical: bool) -> None:
    block = dataset.block_shapes[0][0]
    longest = max(dataset.shape)
    factors: list[int] = []
    while longest > block:
        factors.append(2 ** (len(factors) + 1))
        longest = -(-longest // 2)
    if factors:
        dataset.build_overviews(factors, Resampling.mode if categorical else Resampling.average)


def _check_readable(path: Path) -> None:
    # GDAL flushes its last blocks while closing and reports what fails there on the log alone.
    with rasterio.open(path) as dataset:
        row, col = (side - 1 for side in dataset.shape)
        dataset.read(window=Window(row, col, 1, 1).to_rasterio())
