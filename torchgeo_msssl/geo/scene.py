"""A scene: one place at one time, whatever files it is kept in, read by window.

What a scene is (grid, band names, dtype, nodata, block layout) is gathered once from its files; pixels are
read by integer window from handles that belong to the reading process and thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

from torchgeo_msssl.bands import band_position, is_auxiliary
from torchgeo_msssl.errors import BandError, SceneReadError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.open_datasets import pooled_raster


@dataclass(frozen=True)
class BandFile:
    """One file of a scene, as far as reading it needs to know.

    Attributes:
        path: Local or virtual path.
        grid: Its own pixel grid.
        names: Canonical name of each band in file order; ``alpha`` for an alpha band.
        dtype: NumPy dtype name that holds all its bands.
        nodata: Declared nodata value, or None (also where its dtype cannot hold what is declared).
        masked: Whether it has an alpha band or a mask (internal or ``.msk``).
        block_shape: ``(height, width)`` of the blocks it is stored in, in pixels.
        scales: GDAL's scale for each band (1 where none is declared).
        offsets: GDAL's offset for each band (0 where none is declared).
        tags: Dataset tags.
        sources: Every file whose content decides the pixels: itself, its sidecars, the sources of a virtual raster.
    """

    path: str
    grid: PixelGrid
    names: tuple[str, ...]
    dtype: str
    nodata: float | None
    masked: bool
    block_shape: tuple[int, int]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    tags: dict[str, str] = field(hash=False, compare=False)
    sources: tuple[str, ...] = ()

    def index(self, band: str) -> int:
        """GDAL's number (from 1) of a band."""
        return self.names.index(band) + 1


@dataclass(frozen=True)
class Scene:
    """One place at one time on one pixel grid.

    Attributes:
        name: Short name (the file's stem, or what its band files have in common).
        files: The files, one for a multi-band scene; the one with the finest pixels first.
        date: First and last moment its name can mean, or None.
        nodata: Value of pixels without data: that of the first file which declares one, else that of the sensor (it
            then holds for spectral bands only), else None.
        filled: Whether pixels under a mask or alpha band come as the nodata value, 0 without one, as TorchGeo gives
            them; else as they are stored.
    """

    name: str
    files: tuple[BandFile, ...]
    date: tuple[datetime, datetime] | None
    nodata: float | None
    filled: bool = field(default=False, kw_only=True)

    @property
    def grid(self) -> PixelGrid:
        """The pixel grid chips are cut on: that of the finest band."""
        return self.files[0].grid

    @property
    def path(self) -> str:
        """The file that stands for the scene in messages and indexes."""
        return self.files[0].path

    @property
    def bands(self) -> tuple[str, ...]:
        """Canonical band names in order, without alpha."""
        names = [name for file in self.files for name in file.names if name != 'alpha']
        return tuple(sorted(names, key=band_position) if len(self.files) > 1 else names)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that holds every band without loss."""
        return np.result_type(*(np.dtype(file.dtype) for file in self.files))

    @property
    def block_shape(self) -> tuple[int, int]:
        """``(height, width)`` of the blocks the finest band is stored in, in pixels."""
        return self.files[0].block_shape

    @property
    def is_stored(self) -> bool:
        """Whether a pixel is the same in whichever window it is read, and comes in blocks of :attr:`block_shape`.

        A scene on another grid than its files' is not: GDAL warps each window a little differently.
        """
        return type(self) is Scene

    @cached_property
    def always_valid(self) -> bool:
        """Whether no pixel inside the grid can lack data.

        So it is without nodata values and masks, with integers, and with every file reaching all over the grid.
        """
        return self.nodata is None and all(
            file.nodata is None
            and not file.masked
            and np.issubdtype(np.dtype(file.dtype), np.integer)
            and _reaches_over(file.grid, self.grid)
            for file in self.files
        )

    def file_of(self, band: str) -> BandFile:
        """The file that holds a band.

        Args:
            band: Canonical name.

        Returns:
            The file.

        Raises:
            BandError: If no file of the scene has it.
        """
        for file in self.files:
            if band in file.names:
                return file
        raise missing_bands_error(self, [band])

    def file_of_path(self, path: str) -> BandFile:
        """The file at a path, which must be one of the scene's."""
        return next(file for file in self.files if file.path == path)

    def read(self, window: Window, bands: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window in the files' own dtype, with the pixels that have data.

        Args:
            window: Window on :attr:`grid`; it may reach outside.
            bands: Canonical names, in the order wanted.

        Returns:
            ``(image, valid)``: image of shape (band, height, width); valid of shape (height, width), true where
            every band has data. Outside the grid the image holds the nodata value (0 without one) and valid is
            false. A coarser band is brought onto the grid bilinearly.

        Raises:
            BandError: If a band is missing.
            SceneReadError: If the file is damaged there; the message names file and window.
        """
        fill = self.nodata if self.nodata is not None and representable(self.nodata, self.dtype) else 0
        inside = window.intersection(self.grid.window)
        if inside == window:
            return self._read_inside(window, bands)
        image = np.full((len(bands), window.height, window.width), fill, dtype=self.dtype)
        valid = np.zeros((window.height, window.width), dtype=np.bool_)
        if inside is not None:
            rows = slice(inside.row - window.row, inside.row - window.row + inside.height)
            cols = slice(inside.col - window.col, inside.col - window.col + inside.width)
            image[:, rows, cols], valid[rows, cols] = self._read_inside(inside, bands)
        return image, valid

    def read_into(self, window: Window, bands: Sequence[str], image: NDArray[Any], valid: NDArray[np.bool_]) -> None:
        """Read a window inside the grid into arrays that are there already, such as their places in a batch.

        Args:
            window: Window inside :attr:`grid`.
            bands: Canonical names, in the order wanted.
            image: Takes the pixels, shape (band, height, width), of a dtype that holds those of the scene.
            valid: Takes what :meth:`read` tells, shape (height, width).

        Raises:
            BandError: If a band is missing.
            SceneReadError: If the file is damaged there.
        """
        if self.is_stored and len(self.files) == 1 and image.dtype == self.dtype and image.flags.c_contiguous:
            valid[...] = self._read_only_file(window, bands, image)
        else:
            image[...], valid[...] = self._read_inside(window, bands)

    def _read_only_file(self, window: Window, bands: Sequence[str], image: NDArray[Any]) -> NDArray[np.bool_]:
        (file,) = self.files
        missing = [band for band in bands if band not in file.names]
        if missing:
            raise missing_bands_error(self, missing)
        _, valid = read_file(file, window, bands, self.grid, out=image, fill=self.filled)
        return valid if self.always_valid else valid & with_data(image, bands, file.nodata, self.nodata)

    def _read_inside(self, window: Window, bands: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        image = np.empty((len(bands), window.height, window.width), dtype=self.dtype)
        if len(self.files) == 1:
            return image, self._read_only_file(window, bands, image)
        valid = np.ones((window.height, window.width), dtype=np.bool_)
        for file, positions in self._by_file(bands):
            wanted = [bands[i] for i in positions]
            if file.grid == self.grid:
                pixels, file_valid = read_file(file, window, wanted, self.grid, fill=self.filled)
                file_valid &= with_data(pixels, wanted, file.nodata, self.nodata)
            else:
                pixels, file_valid = self._interpolate(file, window, wanted)
            image[positions] = pixels
            valid &= file_valid
        return image, valid

    def _by_file(self, bands: Sequence[str]) -> list[tuple[BandFile, list[int]]]:
        """Each file that holds some of the bands, with their positions."""
        files = [self.file_of(band) for band in bands]
        return [(file, [i for i, f in enumerate(files) if f is file]) for file in self.files if file in files]

    def _interpolate(
        self, file: BandFile, window: Window, bands: Sequence[str]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Bring bands of a file on another grid onto this one, bilinearly.

        A pixel is valid where all those it is mixed from are, so that no nodata value ever seeps into data.
        """
        rows, cols = _mixtures(file.grid, self.grid, window)
        row, row_end = int(rows.first.min()), int(rows.second.max()) + 1
        col, col_end = int(cols.first.min()), int(cols.second.max()) + 1
        source = Window(row, col, row_end - row, col_end - col)
        coarse, ok = read_file(file, source, bands, file.grid)
        ok &= with_data(coarse, bands, file.nodata, self.nodata)
        down = _mix(coarse.astype(np.float64), rows, row, axis=1)
        mixed = _mix(down, cols, col, axis=2)
        if np.issubdtype(coarse.dtype, np.integer):
            mixed = np.floor(mixed + 0.5)
        valid = ok[rows.first - row] & ok[rows.second - row]
        valid = valid[:, cols.first - col] & valid[:, cols.second - col]
        valid &= rows.inside[:, None] & cols.inside[None, :]
        # What is not valid may be NaN or a mixture with nodata; a definite value cannot be mistaken for data.
        fill = file.nodata if file.nodata is not None else (self.nodata if self.nodata is not None else 0)
        mixed[:, ~valid] = fill if representable(fill, coarse.dtype) else 0
        return mixed.astype(coarse.dtype), valid


@dataclass(frozen=True)
class _Mixture:
    """Which two source pixels each target pixel along an axis is mixed from, and the share of the second."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    share: NDArray[np.float64]
    inside: NDArray[np.bool_]


def _mixtures(source: PixelGrid, target: PixelGrid, window: Window) -> tuple[_Mixture, _Mixture]:
    """Bilinear weights along rows and columns for a window of ``target``; both grids turned alike."""
    between = ~source.transform @ target.transform
    rows = between.e * (window.row + np.arange(window.height) + 0.5) + between.f
    cols = between.a * (window.col + np.arange(window.width) + 0.5) + between.c
    return _mixture(rows, source.height), _mixture(cols, source.width)


def _mixture(centres: NDArray[np.float64], extent: int) -> _Mixture:
    """Weights for target centres at these positions (pixel edges are whole numbers) of an axis of that length."""
    inside = (centres > -1e-6) & (centres < extent + 1e-6)
    place = np.clip(centres - 0.5, 0, extent - 1)
    first = np.floor(place + 1e-6).astype(np.int64)
    share = place - first
    share[share < 1e-6] = 0.0  # rounding of the geotransform mixes nothing
    second = np.where(share > 0, first + 1, first)
    return _Mixture(first, second, share, inside)


def _mix(image: NDArray[np.float64], how: _Mixture, start: int, axis: int) -> NDArray[np.float64]:
    shape = [1, 1, 1]
    shape[axis] = -1
    share = how.share.reshape(shape)
    first, second = image.take(how.first - start, axis=axis), image.take(how.second - start, axis=axis)
    with np.errstate(invalid='ignore', over='ignore'):  # of pixels that are not valid
        return first * (1 - share) + second * share


def _reaches_over(grid: PixelGrid, other: PixelGrid) -> bool:
    """Whether a grid covers another one, to a thousandth of its pixels."""
    slack = 1e-3 * max(grid.res)
    left, bottom, right, top = grid.bounds
    west, south, east, north = other.bounds
    return left <= west + slack and bottom <= south + slack and right >= east - slack and top >= north - slack


def representable(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether a dtype can hold a value: integers exactly, floats within their range (NaN counts)."""
    if np.issubdtype(dtype, np.floating):
        return not np.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    info = np.iinfo(dtype)
    return bool(np.isfinite(value) and float(value).is_integer() and info.min <= value <= info.max)


def has_data(image: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Find the pixels that hold neither nodata nor a non-finite number in any band.

    Args:
        image: Shape (band, height, width).
        nodata: Nodata value, or None.

    Returns:
        Shape (height, width).
    """
    valid = np.ones(image.shape[1:], dtype=np.bool_)
    if np.issubdtype(image.dtype, np.floating):
        _keep_where_all(valid, np.isfinite(image))
    if nodata is not None and np.isfinite(nodata) and representable(nodata, image.dtype):
        value = np.asarray(nodata, dtype=image.dtype)
        if not (image.size and image.min() > value):  # most windows lie above it, which is found out soonest
            _keep_where_all(valid, image != value)
    return valid


def _keep_where_all(valid: NDArray[np.bool_], good: NDArray[np.bool_]) -> None:
    """Clear what is not good in every band; most windows are good all over, which is found out much sooner."""
    if not good.all():
        valid &= good.all(axis=0)


def with_data(
    image: NDArray[Any], bands: Sequence[str], declared: float | None, assumed: float | None
) -> NDArray[np.bool_]:
    """Find the pixels that hold data in every band.

    Args:
        image: Shape (band, height, width).
        bands: Canonical names of the bands.
        declared: Nodata value that the file declares, or None.
        assumed: Nodata value that the scene goes by where the file declares none (that of its sensor). It says nothing
            about quality layers: 0 in QA60 is no gap.

    Returns:
        Shape (height, width).
    """
    if declared is not None:
        return has_data(image, declared)
    spectral = [i for i, band in enumerate(bands) if not is_auxiliary(band)]
    if len(spectral) == len(bands):  # picking bands out copies them
        return has_data(image, assumed)
    return has_data(image, None) & has_data(image[spectral], assumed)


def read_file(
    file: BandFile,
    window: Window,
    bands: Sequence[str],
    grid: PixelGrid,
    out: NDArray[Any] | None = None,
    fill: bool = False,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read bands of one file on its own grid.

    Args:
        file: The file.
        window: Window inside its grid.
        bands: Canonical names.
        grid: The grid that the window is on; anything but the file's own is a mistake of the caller.
        out: Takes the pixels instead of a new array: contiguous, in the file's dtype.
        fill: Whether masked pixels come as the nodata value, 0 without one, instead of as they are stored.

    Returns:
        ``(image, unmasked)``, shapes (band, height, width) and (height, width); unmasked knows alpha bands and
        mask files, not nodata values.

    Raises:
        BandError: If the file lacks a band.
        SceneReadError: If the file is damaged there.
    """
    assert file.grid == grid, f'{file.path}: a window of another grid'
    missing = [band for band in bands if band not in file.names]
    if missing:
        msg = f'{file.path}: has no band {", ".join(missing)}; it has {", ".join(file.names)}.'
        raise BandError(msg)
    indexes = [file.index(band) for band in bands]
    source = window.to_rasterio()
    try:
        dataset = pooled_raster(file.path)
        if len(set(dataset.dtypes)) == 1:
            image = dataset.read(indexes, window=source, out=out)
        else:  # a virtual raster
            image = np.stack([dataset.read(index, window=source) for index in indexes]).astype(file.dtype, copy=False)
            if out is not None:
                out[...] = image
                image = out
        unmasked = np.ones(image.shape[1:], dtype=np.bool_)
        if 'alpha' in file.names:
            unmasked &= dataset.read(file.index('alpha'), window=source) > 0
            if fill and file.nodata is None:  # where there is a nodata value, GDAL goes by it and not by the alpha band
                np.copyto(image, 0, where=~unmasked)
        elif file.masked:
            shared = MaskFlags.per_dataset in dataset.mask_flag_enums[indexes[0] - 1]
            masks = dataset.read_masks(indexes[:1] if shared else indexes, window=source)
            unmasked &= (masks > 0).all(axis=0)
            if fill:
                np.copyto(image, file.nodata or 0, where=masks == 0, casting='unsafe')
    except (RasterioError, OSError) as error:  # the handle's error too: the file may be gone by now
        raise unreadable_error(file.path, window, error) from error
    return image, unmasked


def unreadable_error(path: str, window: Window, error: BaseException) -> SceneReadError:
    """The error for a damaged file, naming file and window."""
    cause = error.__cause__ or error
    return SceneReadError(
        f'{path}: cannot be read at {window} ({str(cause).splitlines()[0] if str(cause) else type(cause).__name__}); '
        'the file is damaged or was cut short: copy or download it again, or leave it out.'
    )


def missing_bands_error(scene: Scene, missing: Sequence[str]) -> BandError:
    """The error for bands that a scene lacks, with the names there are."""
    return BandError(
        f'{scene.path}: has no band {", ".join(missing)}; it has {len(scene.bands)}: {", ".join(scene.bands)}. '
        'Choose among these with `bands`, or say with `sensor` what its unnamed bands are.'
    )
