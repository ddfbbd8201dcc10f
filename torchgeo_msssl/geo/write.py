"""Writing of GeoTIFFs that appear complete or not at all.

:class:`GeoTIFFSpec` says what is in a file. :func:`write_geotiff` writes an array, :class:`GeoTIFFWriter` window by
window, :func:`encode_geotiff` into memory; :class:`~torchgeo_msssl.geo.resumable.ResumableGeoTIFFs` writes from top to
bottom and resumes after the process was killed.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import DTypeLike, NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.io import DatasetWriter, MemoryFile

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.files import atomic_path, unwritable
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.nodata import representable

__all__ = (
    'Colormap',
    'GeoTIFFSpec',
    'GeoTIFFWriter',
    'check_readable',
    'copy_raster',
    'create',
    'describe',
    'encode_geotiff',
    'gdal_errors',
    'write_categories',
    'write_geotiff',
)

type Colormap = Mapping[int, tuple[int, ...]]

#: Real types that both GeoTIFF and NumPy support.
_DTYPES = ('uint8', 'int8', 'uint16', 'int16', 'uint32', 'int32', 'uint64', 'int64', 'float32', 'float64')
#: Creation option with the level of each compression. The fastest level with a predictor is smaller than the default
#: level without one, and several times faster.
_LEVELS = {'zstd': 'zstd_level', 'deflate': 'zlevel'}


@dataclass(frozen=True)
class GeoTIFFSpec:
    """Bands, values, metadata and storage of a GeoTIFF.

    Attributes:
        count: Number of bands.
        dtype: Type of the values.
        band_names: Description of each band; a band named ``alpha`` is marked as the alpha channel.
        nodata: Value of pixels without data.
        categorical: Whether values are classes: they are stored without a predictor, and overviews hold the most
            frequent value instead of the mean.
        colormap: Color ``(red, green, blue[, alpha])`` in 0–255 of each value, for one band of uint8 or uint16.
        colorinterp: Color interpretation of each band; empty for GDAL's default.
        scales: Factor that converts each band to physical values; empty where there is none.
        offsets: Summand that converts each band to physical values; empty where there is none.
        categories: Names of the values from 0 on, which GDAL keeps in an ``.aux.xml`` file next to the raster; not
            written into memory.
        tags: Dataset tags.
        compress: GDAL's name of the compression.
        blocksize: Side of a tile in pixels, a multiple of 16; or rows of a strip with ``tiled=False``.
        tiled: Whether the file has tiles instead of strips.
        interleave: Whether bands are stored together (``pixel``) or one after the other.

    Raises:
        ConfigurationError: If the options contradict each other.
    """

    count: int
    dtype: DTypeLike
    band_names: Sequence[str] = ()
    nodata: float | None = None
    categorical: bool = False
    colormap: Colormap | None = None
    colorinterp: Sequence[ColorInterp] = ()
    scales: Sequence[float] = ()
    offsets: Sequence[float] = ()
    categories: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    compress: str = 'zstd'
    blocksize: int = 256
    tiled: bool = True
    interleave: Literal['pixel', 'band'] = 'pixel'

    def __post_init__(self) -> None:
        """Check the options."""
        dtype = np.dtype(self.dtype)
        object.__setattr__(self, 'dtype', dtype)
        if dtype.name not in _DTYPES:
            msg = f'dtype: expected one of {", ".join(_DTYPES)}, got {dtype.name}; convert the values first.'
            raise ConfigurationError(msg)
        if self.band_names and len(self.band_names) != self.count:
            msg = f'band_names: expected one for each of {self.count} bands, got {list(self.band_names)}.'
            raise ConfigurationError(msg)
        if self.tiled and (self.blocksize < 16 or self.blocksize % 16):
            raise ConfigurationError(f'blocksize: expected a multiple of 16, got {self.blocksize}.')
        if self.colormap is not None and (self.count != 1 or dtype.name not in ('uint8', 'uint16')):
            msg = f'colormap: requires one band of uint8 or uint16, got {self.count} of {dtype.name}.'
            raise ConfigurationError(msg)
        if self.nodata is not None and not representable(self.nodata, dtype):
            msg = f'nodata: {self.nodata} does not fit into {dtype.name}; choose a value of that type.'
            raise ConfigurationError(msg)

    @property
    def creation_options(self) -> dict[str, Any]:
        """Bands, type and GDAL's creation options, for :func:`rasterio.open`."""
        dtype = np.dtype(self.dtype)
        options: dict[str, Any] = {
            'driver': 'GTiff',
            'count': self.count,
            'dtype': dtype.name,
            'nodata': self.nodata,
            'interleave': self.interleave,
            'compress': self.compress,
            'bigtiff': 'IF_SAFER',
            'blockysize': self.blocksize,
        }
        if self.tiled:
            options |= {'tiled': True, 'blockxsize': self.blocksize}
        if self.colormap is None:
            # Without this, GDAL takes the fourth of four uint8 bands for an alpha channel.
            options['photometric'] = 'MINISBLACK'
        compress = self.compress.lower()
        if compress in (*_LEVELS, 'lzw') and not self.categorical:
            options['predictor'] = 3 if dtype.kind == 'f' else 2
        if compress in _LEVELS:
            options[_LEVELS[compress]] = 1
        return options


def write_geotiff(
    path: str | os.PathLike[str],
    array: NDArray[Any],
    grid: PixelGrid,
    *,
    band_names: Sequence[str] = (),
    nodata: float | None = None,
    colormap: Colormap | None = None,
    tags: Mapping[str, str] | None = None,
    compress: str = 'zstd',
    blocksize: int = 256,
) -> None:
    """Write an array as one tiled GeoTIFF.

    Args:
        path: File to write; an existing one is replaced in one step.
        array: Values (band, height, width).
        grid: CRS, transform and size.
        band_names: See :class:`GeoTIFFSpec`, as for all that follow.
        nodata: Value of pixels without data.
        colormap: Color of each value; the values are then stored as classes.
        tags: Dataset tags.
        compress: GDAL's name of the compression.
        blocksize: Side of a tile in pixels.

    Raises:
        ConfigurationError: If the array, the grid and the options do not fit each other.
        OutputError: If the file cannot be written.
    """
    if array.ndim != 3:
        msg = f'{path}: expected an array (band, height, width), got the shape {array.shape}; add the band axis.'
        raise ConfigurationError(msg)
    spec = GeoTIFFSpec(
        count=array.shape[0],
        dtype=array.dtype,
        band_names=band_names,
        nodata=nodata,
        categorical=colormap is not None,
        colormap=colormap,
        tags=tags or {},
        compress=compress,
        blocksize=blocksize,
    )
    with GeoTIFFWriter(path, grid, spec) as writer:
        writer.write(array, grid.window)


class GeoTIFFWriter:
    """Writer of a GeoTIFF, window by window, that publishes the file when its context ends without an exception.

    An exception inside the context leaves no file behind and an existing file untouched. Windows that follow the tiles
    (multiples of ``blocksize``) are compressed once; others cost time and space, since a tile is written again with
    each of its parts. Pixels that are never written hold ``nodata`` (or 0).
    """

    def __init__(self, path: str | os.PathLike[str], grid: PixelGrid, spec: GeoTIFFSpec) -> None:
        """Create the writer; the file is opened on entering the context.

        Args:
            path: File to write.
            grid: CRS, transform and size.
            spec: Bands, values, metadata and storage.
        """
        self.path = Path(path)
        self.grid = grid
        self.spec = spec
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
            array: Values (band, height, width) of the file's type.
            window: Where they belong, inside the grid.

        Raises:
            ConfigurationError: If shape or type differ from the specification, or the window leaves the grid.
            OutputError: If GDAL cannot write.
        """
        assert self._dataset is not None, 'GeoTIFFWriter.write must be called inside its with block'
        expected = (self.spec.count, window.height, window.width)
        if array.shape != expected or array.dtype != self.spec.dtype:
            msg = (
                f'{self.path}: expected {self.spec.dtype} values of the shape {expected} for {window}, '
                f'got {array.dtype} of {array.shape}.'
            )
            raise ConfigurationError(msg)
        if self.grid.window.intersection(window) != window:
            msg = f'{self.path}: {window} leaves the grid of {self.grid.height} × {self.grid.width} pixels; crop first.'
            raise ConfigurationError(msg)
        with gdal_errors(self.path):
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
            with gdal_errors(self.path):
                dataset = create(temporary, self.grid, self.spec)
            try:
                yield dataset
                with gdal_errors(self.path):
                    dataset.close()
                    check_readable(temporary)
                    write_categories(temporary, self.spec)
            finally:
                # The exception that is already propagating must not be replaced by one from closing.
                with contextlib.suppress(RasterioError):
                    dataset.close()


def encode_geotiff(
    array: NDArray[Any], grid: PixelGrid, spec: GeoTIFFSpec, mask: NDArray[np.bool_] | None = None
) -> bytes:
    """Encode an array as a GeoTIFF in memory.

    Args:
        array: Values (band, height, width).
        grid: CRS, transform and size.
        spec: Bands, values, metadata and storage.
        mask: Valid pixels (height, width), written as the file's mask; None for no mask.

    Returns:
        Content of the file.
    """
    with MemoryFile() as memory:
        with create(memory, grid, spec) as dataset:
            dataset.write(array)
            if mask is not None:
                dataset.write_mask(mask)
        return bytes(memory.getbuffer())


def create(target: Path | MemoryFile, grid: PixelGrid, spec: GeoTIFFSpec, **options: Any) -> DatasetWriter:
    """Create a GeoTIFF with its metadata and without pixels.

    Args:
        target: Path or memory to write to.
        grid: CRS, transform and size.
        spec: Bands, values, metadata and storage.
        **options: Further creation options of GDAL.

    Returns:
        The open dataset.

    Raises:
        RasterioError: If GDAL cannot write.
    """
    options |= spec.creation_options | {
        'crs': grid.crs if grid.is_georeferenced else None,
        'transform': grid.transform if grid.is_georeferenced else None,
        'height': grid.height,
        'width': grid.width,
    }
    dataset = target.open(**options) if isinstance(target, MemoryFile) else rasterio.open(target, 'w', **options)
    try:
        describe(dataset, spec)
    except BaseException:
        dataset.close()
        raise
    return dataset


def describe(dataset: DatasetWriter, spec: GeoTIFFSpec) -> None:
    """Write the names, colors, scales and tags of a specification.

    Args:
        dataset: Open dataset.
        spec: Its specification.
    """
    if spec.band_names:
        dataset.descriptions = tuple(spec.band_names)
    if spec.colorinterp:
        dataset.colorinterp = tuple(spec.colorinterp)
    elif 'alpha' in spec.band_names:
        interpretation = list(dataset.colorinterp)
        interpretation[list(spec.band_names).index('alpha')] = ColorInterp.alpha
        dataset.colorinterp = interpretation
    if spec.colormap is not None:
        dataset.write_colormap(1, dict(spec.colormap))
    if spec.scales:
        dataset.scales = tuple(spec.scales)
    if spec.offsets:
        dataset.offsets = tuple(spec.offsets)
    if spec.tags:
        dataset.update_tags(**spec.tags)


def write_categories(path: Path, spec: GeoTIFFSpec) -> None:
    """Write the names of a specification's values to the sidecar in which GDAL looks for them.

    Args:
        path: The GeoTIFF.
        spec: Its specification; without ``categories``, nothing is written.
    """
    if not spec.categories:
        return
    root = ElementTree.Element('PAMDataset')
    names = ElementTree.SubElement(ElementTree.SubElement(root, 'PAMRasterBand', band='1'), 'CategoryNames')
    for category in spec.categories:
        ElementTree.SubElement(names, 'Category').text = category
    path.with_name(f'{path.name}.aux.xml').write_text(ElementTree.tostring(root, encoding='unicode'), encoding='utf-8')


@contextlib.contextmanager
def gdal_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Convert exceptions of rasterio to :class:`OutputError`.

    Args:
        path: File that is being written.

    Yields:
        Nothing.

    Raises:
        OutputError: If the block raises an exception of rasterio.
    """
    try:
        yield
    except RasterioError as error:
        raise unwritable(path, str(error.__cause__ or error)) from error


def copy_raster(source: Any, target: str | os.PathLike[str], driver: str, **options: Any) -> None:
    """Copy a raster with GDAL's CreateCopy.

    :func:`rasterio.shutil.copy` raises GDAL's own exceptions, which have no public base class.

    Args:
        source: Path or open dataset.
        target: File to write.
        driver: GDAL's name of the format.
        **options: Creation options of GDAL.

    Raises:
        RasterioError: If the source cannot be read or the target cannot be written.
    """
    try:
        rasterio.shutil.copy(source, target, driver=driver, **options)
    except RasterioError:
        raise
    except Exception as error:  # the call runs nothing but GDAL
        raise RasterioIOError(str(error)) from error


def check_readable(path: str | os.PathLike[str]) -> None:
    """Read the last pixel of a file that was just written.

    GDAL flushes the last blocks while it closes a file, and reports failures of that only in its log.

    Args:
        path: The file.

    Raises:
        RasterioError: If the file cannot be read.
    """
    with rasterio.open(path) as dataset:
        row, col = (side - 1 for side in dataset.shape)
        dataset.read(window=Window(row, col, 1, 1).to_rasterio())
