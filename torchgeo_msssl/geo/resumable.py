"""GeoTIFFs that are written from top to bottom and resumed after the process was killed.

Next to its final place each file grows as ``.<name>.partial.tif``; ``.<main>.partial.json`` records how many rows are
safe. GDAL writes the directory of a TIFF when it is closed, so the files are closed every few rows of blocks. Rows that
were recorded as safe are never written again.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter

from torchgeo_msssl.files import atomic_path, unwritable
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.write import GeoTIFFSpec, check_readable, copy_raster, create, gdal_errors, write_categories

__all__ = ('BLOCK', 'ResumableGeoTIFFs')

#: Rows and columns of a block of the partial files.
BLOCK = 256
#: Rows and columns of a block of the final files; GDAL's default for a cloud-optimized GeoTIFF.
_FINAL_BLOCK = 512


class ResumableGeoTIFFs:
    """Writer of GeoTIFFs on one grid that grow together, row by row, and are resumed together.

    Leaving the context keeps the safe rows for the next run, unless :meth:`publish` was called.
    """

    def __init__(self, grid: PixelGrid, files: Mapping[Path, GeoTIFFSpec], key: str, every: int = 4) -> None:
        """Create the writer; the files are opened on entering the context.

        Args:
            grid: CRS, transform and size of all files.
            files: Specification of each final file. The last one is published last, so that its presence says that all
                files are complete.
            key: Identifies the content; rows that were written under another key are discarded.
            every: Rows of blocks after which the files are closed and their rows become safe.
        """
        self.grid, self.files, self.key, self.every = grid, dict(files), key, every
        self._block = max(spec.blocksize for spec in self.files.values())
        main = list(self.files)[-1]
        self._record = main.with_name(f'.{main.stem}.partial.json')
        self._datasets: list[DatasetWriter] = []
        self._pending: list[list[NDArray[Any]]] = []
        self._safe = self._written = self._received = 0

    @property
    def next_row(self) -> int:
        """First row that is not safe yet, from which the caller continues."""
        return self._safe

    def __enter__(self) -> Self:
        """Resume the partial files of an earlier run, or create new ones.

        Returns:
            The writer itself; :attr:`next_row` says where to continue.

        Raises:
            OutputError: If the folder cannot be written.
        """
        self._safe = self._resumable_rows()
        if self._safe == 0:
            self._create()
        self._written = self._received = self._safe
        self._pending = [[] for _ in self.files]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the files; rows that are not safe are computed again by the next run."""
        for dataset in self._datasets:
            with contextlib.suppress(RasterioError):
                dataset.close()
        self._datasets = []

    def write(self, first: int, rows: Sequence[NDArray[Any]]) -> None:
        """Write finished rows, which must follow the ones written before.

        Args:
            first: Index of the first row; rows before :attr:`next_row` are skipped.
            rows: Values of each file (band, row, col); they are copied.

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
        complete = self._received if at_end else self._received // self._block * self._block
        if complete > self._written:
            self._write_blocks(complete)
            if at_end or (self._written - self._safe) // self._block >= self.every:
                self._make_safe()

    def _write_blocks(self, end: int) -> None:
        if not self._datasets:
            self._datasets = [self._open(path) for path in self.files]
        window = Window(self._written, 0, end - self._written, self.grid.width)
        for path, dataset, pending in zip(self.files, self._datasets, self._pending, strict=True):
            rows = np.concatenate(pending, axis=1)
            with gdal_errors(path):
                dataset.write(rows[:, : window.height], window=window.to_rasterio())
            pending[:] = [rows[:, window.height :].copy()]
        self._written = end

    def _make_safe(self) -> None:
        for path, dataset in zip(self.files, self._datasets, strict=True):
            with gdal_errors(path):
                dataset.close()
            _flush_to_disk(_partial(path))
        self._datasets = []
        self._safe = self._written
        self._write_record()

    def publish(self) -> None:
        """Convert the complete partial files to cloud-optimized GeoTIFFs under their final names.

        Raises:
            OutputError: If a file cannot be written.
        """
        assert self._safe == self.grid.height, f'published after {self._safe} of {self.grid.height} rows'
        for path, spec in self.files.items():
            with atomic_path(path) as temporary, gdal_errors(path):
                copy_raster(_partial(path), temporary, driver='COG', **_cog_options(spec))
                check_readable(temporary)
                write_categories(temporary, spec)
        # The record is removed first: a record without files would be wrong, files without a record are overwritten.
        self._record.unlink(missing_ok=True)
        for path in self.files:
            _remove(_partial(path))

    def _resumable_rows(self) -> int:
        try:
            record = self._read_record()
            rows = int(record['next_row'])
            if record['key'] != self.key or not 0 < rows <= self.grid.height:
                return 0
            for path, spec in self.files.items():
                with rasterio.open(_partial(path)) as dataset:
                    if (*dataset.shape, dataset.count) != (self.grid.height, self.grid.width, spec.count):
                        return 0
                    # If anything is missing, it is what was written last.
                    dataset.read(window=Window(rows - 1, 0, 1, self.grid.width).to_rasterio())
        except (OSError, ValueError, KeyError, TypeError, RasterioError):
            return 0
        return rows

    def _read_record(self) -> dict[str, Any]:
        record = json.loads(self._record.read_text(encoding='utf-8'))
        if not isinstance(record, dict):
            raise ValueError(f'{self._record}: expected a JSON object')
        return record

    def _discard(self) -> None:
        """Remove partial files that were written under another key, perhaps with other names."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            for name in self._read_record()['files']:
                if Path(name).name == name and name.endswith('.partial.tif'):
                    _remove(self._record.with_name(name))
        self._record.unlink(missing_ok=True)

    def _create(self) -> None:
        for path, spec in self.files.items():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._discard()
                _remove(_partial(path))
            except OSError as error:
                raise unwritable(path, error.strerror or str(error)) from error
            with gdal_errors(path):
                # Blocks that were never written take no space; otherwise the first closing would write them all.
                create(_partial(path), self.grid, spec, sparse_ok=True).close()
        self._write_record()

    def _open(self, path: Path) -> DatasetWriter:
        with gdal_errors(path):
            return rasterio.open(_partial(path), 'r+')

    def _write_record(self) -> None:
        temporary = self._record.with_suffix('.tmp')
        files = [_partial(path).name for path in self.files]
        record = {'key': self.key, 'next_row': self._safe, 'files': files}
        try:
            temporary.write_text(json.dumps(record), encoding='utf-8')
            _flush_to_disk(temporary)
            temporary.replace(self._record)
        except OSError as error:
            raise unwritable(self._record, error.strerror or str(error)) from error


def _partial(path: Path) -> Path:
    return path.with_name(f'.{path.stem}.partial.tif')


def _cog_options(spec: GeoTIFFSpec) -> dict[str, Any]:
    options: dict[str, Any] = {
        'compress': 'deflate',
        'blocksize': _FINAL_BLOCK,
        'bigtiff': 'IF_SAFER',
        'overviews': 'IGNORE_EXISTING',
        'overview_resampling': 'mode' if spec.categorical else 'average',
    }
    return options if spec.categorical else options | {'predictor': 'YES'}


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(f'{path.name}.aux.xml').unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    with path.open('rb+') as file:
        os.fsync(file.fileno())
