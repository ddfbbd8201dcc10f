"""Rasters written from top to bottom that survive being killed on the way.

Each lies beside its final place as ``.<name>.partial.tif``, with one ``.<name>.partial.json`` that says how many rows
are safe. GDAL writes the directory of a TIFF when it is closed, so the files are closed every few block rows; what is
in them then is never written again.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from xml.etree import ElementTree

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter
from rasterio.windows import Window as RasterioWindow

from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.grid import PixelGrid

__all__ = ('BLOCK', 'Layer', 'ResumableGeoTIFFs')

#: Rows and columns of a block of the working files.
BLOCK = 256
#: Rows and columns of a block of the final files; GDAL's default for a cloud-optimised GeoTIFF.
_FINAL_BLOCK = 512


@dataclass(frozen=True)
class Layer:
    """A raster to write.

    Attributes:
        path: Its final place.
        count: Number of bands.
        dtype: NumPy's name of its type.
        nodata: Value of pixels without data.
        names: A description for each band.
        categorical: Whether the values are classes: overviews hold the most frequent one, else the mean.
        colormap: Colour ``(red, green, blue)`` or with alpha, in 0–255, of each value.
        scale: What a value is to be multiplied with.
        categories: Names of the values from 0 on, which GDAL keeps in an ``.aux.xml`` file beside the raster.
        tags: Dataset tags.
    """

    path: Path
    count: int
    dtype: str
    nodata: float
    names: tuple[str, ...]
    categorical: bool = False
    colormap: Mapping[int, tuple[int, ...]] | None = None
    scale: float = 1.0
    categories: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def partial(self) -> Path:
        """The working file."""
        return self.path.with_name(f'.{self.path.stem}.partial.tif')


class ResumableGeoTIFFs:
    """Rasters on one grid that grow together, row by row, and are resumed together.

    Use it as a context manager; leaving it keeps what is safe, for another time, unless :meth:`publish` was called.
    """

    def __init__(self, grid: PixelGrid, layers: Sequence[Layer], key: str, every: int = 4) -> None:
        """Name the files; they are opened on entering the context.

        Args:
            grid: CRS, transform and size of all.
            layers: The rasters; the last one is published last and stands for them all.
            key: What identifies the content; work under another key is thrown away.
            every: Rows of blocks after which the files are closed and the work becomes safe.
        """
        self.grid, self.layers, self.key, self.every = grid, tuple(layers), key, every
        main = self.layers[-1].path
        self._record = main.with_name(f'.{main.stem}.partial.json')
        self._datasets: list[DatasetWriter] = []
        self._pending: list[list[NDArray[Any]]] = []
        self._safe = self._written = self._received = 0

    @property
    def next_row(self) -> int:
        """First row that is not safe yet, to go on from."""
        return self._safe

    def __enter__(self) -> Self:
        """Take up what an earlier run left, or begin.

        Returns:
            The files themselves; :attr:`next_row` says where to go on.

        Raises:
            OutputError: If the folder cannot be written.
        """
        self._safe = self._resumable_rows()
        if self._safe == 0:
            self._begin()
        self._written = self._received = self._safe
        self._pending = [[] for _ in self.layers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the files; rows that were not safe are computed again next time."""
        for dataset in self._datasets:
            with contextlib.suppress(RasterioError, CPLE_BaseError):
                dataset.close()
        self._datasets = []

    def write(self, first: int, rows: Sequence[NDArray[Any]]) -> None:
        """Take finished rows.

        Args:
            first: The first of them; they follow on each other, and those before :attr:`next_row` are passed over.
            rows: For each layer, (band, row, col); not kept as a view.

        Raises:
            OutputError: If the disk is full.
        """
        skip = max(self._safe - first, 0)
        count = rows[0].shape[1] - skip
        if count <= 0:
            return
        assert first + skip == self._received, f'expected row {self._received}, got {first + skip}'
        for pending, array in zip(self._pending, rows, strict=True):
            pending.append(array[:, skip:].copy())
        self._received += count
        at_end = self._received == self.grid.height
        whole = self._received if at_end else self._received // BLOCK * BLOCK
        if whole > self._written:
            self._write_blocks(whole)
            if at_end or (self._written - self._safe) // BLOCK >= self.every:
                self._make_safe()

    def _write_blocks(self, end: int) -> None:
        if not self._datasets:
            self._datasets = [self._open(layer) for layer in self.layers]
        window = RasterioWindow(0, self._written, self.grid.width, end - self._written)
        for layer, dataset, pending in zip(self.layers, self._datasets, self._pending, strict=True):
            rows = np.concatenate(pending, axis=1)
            with _gdal_errors(layer.path):
                dataset.write(rows[:, : end - self._written], window=window)
            pending[:] = [rows[:, end - self._written :].copy()]
        self._written = end

    def _make_safe(self) -> None:
        for layer, dataset in zip(self.layers, self._datasets, strict=True):
            with _gdal_errors(layer.path):
                dataset.close()
            _flush_to_disk(layer.partial)
        self._datasets = []
        self._safe = self._written
        self._note()

    def publish(self) -> None:
        """Turn the finished working files into cloud-optimised GeoTIFFs under their final names.

        Raises:
            OutputError: If a file cannot be written.
        """
        assert self._safe == self.grid.height, f'published after {self._safe} of {self.grid.height} rows'
        for layer in self.layers:
            with atomic_path(layer.path) as temporary, _gdal_errors(layer.path):
                rasterio.shutil.copy(layer.partial, temporary, driver='COG', **_cog_options(layer))
                _check_readable(temporary)
                if layer.categories:
                    _write_categories(temporary, layer.categories)
        # The record goes first: working files without one are nobody's, one without files would mislead.
        self._record.unlink(missing_ok=True)
        for layer in self.layers:
            _remove(layer.partial)

    def _resumable_rows(self) -> int:
        try:
            record = self._read_record()
            rows = int(record['next_row'])
            if record['key'] != self.key or not 0 < rows <= self.grid.height:
                return 0
            for layer in self.layers:
                with rasterio.open(layer.partial) as dataset:
                    if (dataset.height, dataset.width, dataset.count) != (*self._size, layer.count):
                        return 0
                    # The row that was written last is the one to be missing if anything is.
                    dataset.read(window=RasterioWindow(0, rows - 1, self.grid.width, 1))
        except (OSError, ValueError, KeyError, TypeError, RasterioError):
            return 0
        return rows

    @property
    def _size(self) -> tuple[int, int]:
        return self.grid.height, self.grid.width

    def _read_record(self) -> dict[str, Any]:
        record = json.loads(self._record.read_text(encoding='utf-8'))
        if not isinstance(record, dict):
            raise ValueError(f'{self._record}: expected a JSON object')
        return record

    def _clear(self) -> None:
        """Throw away work under another key, which may have had other layers."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            for name in self._read_record()['files']:
                if Path(name).name == name and name.endswith('.partial.tif'):
                    _remove(self._record.with_name(name))
        self._record.unlink(missing_ok=True)

    def _begin(self) -> None:
        self._clear()
        for layer in self.layers:
            try:
                layer.path.parent.mkdir(parents=True, exist_ok=True)
                _remove(layer.partial)
            except OSError as error:
                raise _unwritable(layer.path, error.strerror or str(error)) from error
            with _gdal_errors(layer.path), rasterio.open(layer.partial, 'w', **self._profile(layer)) as dataset:
                dataset.descriptions = layer.names
                if layer.colormap is not None:
                    dataset.write_colormap(1, dict(layer.colormap))
                if layer.scale != 1:
                    dataset.scales = (layer.scale,) * layer.count
                dataset.update_tags(**layer.tags)
        self._note()

    def _profile(self, layer: Layer) -> dict[str, Any]:
        return {
            'driver': 'GTiff', 'crs': self.grid.crs, 'transform': self.grid.transform, 'height': self.grid.height,
            'width': self.grid.width, 'count': layer.count, 'dtype': layer.dtype, 'nodata': layer.nodata,
            'tiled': True, 'blockxsize': BLOCK, 'blockysize': BLOCK, 'bigtiff': 'IF_SAFER', 'compress': 'zstd',
            'zstd_level': 1, 'interleave': 'band',
            # Blocks that were never written take no room; else the first closing would write them all.
            'sparse_ok': True,
        } | ({} if layer.colormap else {'photometric': 'MINISBLACK'})  # fmt: skip

    def _open(self, layer: Layer) -> DatasetWriter:
        with _gdal_errors(layer.path):
            return rasterio.open(layer.partial, 'r+')

    def _note(self) -> None:
        temporary = self._record.with_suffix('.tmp')
        try:
            files = [layer.partial.name for layer in self.layers]
            record = {'key': self.key, 'next_row': self._safe, 'files': files}
            temporary.write_text(json.dumps(record), encoding='utf-8')
            _flush_to_disk(temporary)
            temporary.replace(self._record)
        except OSError as error:
            raise _unwritable(self._record, error.strerror or str(error)) from error


def _cog_options(layer: Layer) -> dict[str, Any]:
    options: dict[str, Any] = {
        'compress': 'deflate',
        'blocksize': _FINAL_BLOCK,
        'bigtiff': 'IF_SAFER',
        'overviews': 'IGNORE_EXISTING',
        'overview_resampling': 'mode' if layer.categorical else 'average',
    }
    return options if layer.categorical else options | {'predictor': 'YES'}


def _write_categories(path: Path, names: Sequence[str]) -> None:
    root = ElementTree.Element('PAMDataset')
    categories = ElementTree.SubElement(ElementTree.SubElement(root, 'PAMRasterBand', band='1'), 'CategoryNames')
    for name in names:
        ElementTree.SubElement(categories, 'Category').text = name
    path.with_name(f'{path.name}.aux.xml').write_text(ElementTree.tostring(root, encoding='unicode'), encoding='utf-8')


@contextlib.contextmanager
def _gdal_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:  # copy() hands GDAL's own errors on
        raise _unwritable(path, str(error.__cause__ or error)) from error


def _unwritable(path: Path, reason: str) -> OutputError:
    return OutputError(f'{path} cannot be written ({reason}); choose another folder or make room there.')


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(f'{path.name}.aux.xml').unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    with path.open('rb+') as file:
        os.fsync(file.fileno())


def _check_readable(path: Path) -> None:
    # GDAL flushes its last blocks while closing and reports what fails there on the log alone.
    with rasterio.open(path) as dataset:
        dataset.read(window=RasterioWindow(dataset.width - 1, dataset.height - 1, 1, 1))
