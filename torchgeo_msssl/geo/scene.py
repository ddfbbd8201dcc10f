"""Scenes, which are read by window.

A scene is one area at one time, in one file or in several. Its grid, band names, dtype, nodata value and block layout
come from the headers of the files, which are read once. Pixels are read by integer window.
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

from torchgeo_msssl.bands import band_position
from torchgeo_msssl.errors import BandError, ConfigurationError, SceneReadError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.nodata import representable, with_data
from torchgeo_msssl.geo.open_datasets import pooled_raster


@dataclass(frozen=True)
class BandFile:
    """Header of a file of a scene.

    Attributes:
        path: Local or virtual path.
        grid: Its pixel grid.
        names: Canonical name of each band in file order; ``alpha`` for an alpha band.
        dtype: Name of the NumPy dtype that holds all bands.
        nodata: Declared nodata value, or None (also if the dtype cannot represent it).
        masked: Whether it has an alpha band or a mask (internal or ``.msk``).
        block_shape: ``(height, width)`` of its blocks, in pixels.
        scales: GDAL's scale of each band, by default 1.
        offsets: GDAL's offset of each band, by default 0.
        tags: Dataset tags.
        sources: All files that decide the pixels: itself, sidecar files, the sources of a virtual raster.
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
        """Return the index of a band, from 1."""
        return self.names.index(band) + 1


@dataclass(frozen=True)
class Scene:
    """One area at one time on one pixel grid.

    Attributes:
        name: Short name: the stem of the file, or the common part of the names of band files.
        files: The files, the one with the finest pixels first.
        date: First and last moment that the name can mean, or None.
        nodata: Nodata value of the first file that declares one, or else of the sensor (for spectral bands only), or
            else None.
        filled: Whether masked pixels are read as the nodata value (0 without one), like in TorchGeo; otherwise they are
            read as they are stored.
    """

    name: str
    files: tuple[BandFile, ...]
    date: tuple[datetime, datetime] | None
    nodata: float | None
    filled: bool = field(default=False, kw_only=True)

    @property
    def grid(self) -> PixelGrid:
        """The pixel grid of chips: that of the finest band."""
        return self.files[0].grid

    @property
    def path(self) -> str:
        """The file that represents the scene in messages and indexes."""
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
        """``(height, width)`` of the blocks of the finest band, in pixels."""
        return self.files[0].block_shape

    @property
    def is_stored(self) -> bool:
        """Whether pixels are stored in blocks of :attr:`block_shape` and do not depend on the window.

        Warped scenes are not, since GDAL warps every window slightly differently.
        """
        return type(self) is Scene

    @cached_property
    def always_valid(self) -> bool:
        """Whether all pixels inside the grid have data.

        This is known for integers without nodata values and masks, if every file covers the whole grid.
        """
        return self.nodata is None and all(
            file.nodata is None
            and not file.masked
            and np.issubdtype(np.dtype(file.dtype), np.integer)
            and _covers(file.grid, self.grid)
            for file in self.files
        )

    def file_of(self, band: str) -> BandFile:
        """Return the file with a band.

        Args:
            band: Canonical name.

        Raises:
            BandError: If no file of the scene has it.
        """
        for file in self.files:
            if band in file.names:
                return file
        raise missing_bands_error(self, [band])

    def file_of_path(self, path: str) -> BandFile:
        """Return the file of the scene with a path."""
        return next(file for file in self.files if file.path == path)

    def read(self, window: Window, bands: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window in the dtype of the files, with the mask of pixels that have data.

        Args:
            window: Window on :attr:`grid`, which may extend beyond it.
            bands: Canonical names, in the order of the result.

        Returns:
            ``(image, valid)``: image of shape (band, height, width), and mask of shape (height, width), true if all
            bands have data. Outside the grid the image has the nodata value (0 without one) and the mask is false.
            Coarser bands are interpolated bilinearly.

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
        """Read a window inside the grid into arrays, such as parts of a batch.

        Args:
            window: Window inside :attr:`grid`.
            bands: Canonical names, in the order of the array.
            image: Array for the pixels, shape (band, height, width), of a dtype that holds those of the scene.
            valid: Array for the mask of pixels with data, shape (height, width).

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
        """Return each file with some of the bands, with their positions."""
        files = [self.file_of(band) for band in bands]
        return [(file, [i for i, f in enumerate(files) if f is file]) for file in self.files if file in files]

    def _interpolate(
        self, file: BandFile, window: Window, bands: Sequence[str]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Interpolate bands of a file on another grid bilinearly onto this one.

        A pixel is valid if all pixels that contribute to it are, so nodata values never affect data.
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
        # invalid pixels may be NaN or mixed with nodata, so they get a defined value
        fill = file.nodata if file.nodata is not None else (self.nodata if self.nodata is not None else 0)
        mixed[:, ~valid] = fill if representable(fill, coarse.dtype) else 0
        return mixed.astype(coarse.dtype), valid


@dataclass(frozen=True)
class _Mixture:
    """The two source pixels of each target pixel along an axis, and the weight of the second."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    weight: NDArray[np.float64]
    inside: NDArray[np.bool_]


def _mixtures(source: PixelGrid, target: PixelGrid, window: Window) -> tuple[_Mixture, _Mixture]:
    """Return bilinear weights along rows and columns of a window of ``target``; both grids have the same rotation."""
    between = ~source.transform @ target.transform
    rows = between.e * (window.row + np.arange(window.height) + 0.5) + between.f
    cols = between.a * (window.col + np.arange(window.width) + 0.5) + between.c
    return _mixture(rows, source.height), _mixture(cols, source.width)


def _mixture(centres: NDArray[np.float64], extent: int) -> _Mixture:
    """Return the weights of target centres at positions on a source axis (integers are pixel edges)."""
    inside = (centres > -1e-6) & (centres < extent + 1e-6)
    place = np.clip(centres - 0.5, 0, extent - 1)
    first = np.floor(place + 1e-6).astype(np.int64)
    weight = place - first
    weight[weight < 1e-6] = 0.0  # differences from rounding in the geotransform
    second = np.where(weight > 0, first + 1, first)
    return _Mixture(first, second, weight, inside)


def _mix(image: NDArray[np.float64], how: _Mixture, start: int, axis: int) -> NDArray[np.float64]:
    shape = [1, 1, 1]
    shape[axis] = -1
    weight = how.weight.reshape(shape)
    first, second = image.take(how.first - start, axis=axis), image.take(how.second - start, axis=axis)
    with np.errstate(invalid='ignore', over='ignore'):  # from invalid pixels
        return first * (1 - weight) + second * weight


def _covers(grid: PixelGrid, other: PixelGrid) -> bool:
    """Whether a grid covers another one, with a tolerance of a thousandth of a pixel."""
    slack = 1e-3 * max(grid.res)
    left, bottom, right, top = grid.bounds
    west, south, east, north = other.bounds
    return left <= west + slack and bottom <= south + slack and right >= east - slack and top >= north - slack


def check_names(scenes: Sequence[Scene], suffix: str, option: str) -> None:
    """Check that no two scenes would be written to the same file.

    Args:
        scenes: The scenes.
        suffix: What follows the scene's name in the name of a file.
        option: Option that names the scenes.

    Raises:
        ConfigurationError: If two scenes have the same name.
    """
    seen: dict[str, Scene] = {}
    for scene in scenes:
        other = seen.setdefault(scene.name, scene)
        if other is not scene:
            raise ConfigurationError(
                f'{option}: {other.path} and {scene.path} would both become {scene.name}{suffix}; give them in two '
                'runs with two folders (output).'
            )


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
        grid: The grid of the window, which has to be that of the file.
        out: Array for the pixels, contiguous and of the file's dtype, instead of a new one.
        fill: Whether masked pixels are read as the nodata value (0 without one) instead of as they are stored.

    Returns:
        ``(image, unmasked)``, shapes (band, height, width) and (height, width). The mask considers alpha bands and
        stored masks, but not nodata values.

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
            if fill and file.nodata is None:  # with a nodata value, GDAL ignores the alpha band
                np.copyto(image, 0, where=~unmasked)
        elif file.masked:
            shared = MaskFlags.per_dataset in dataset.mask_flag_enums[indexes[0] - 1]
            masks = dataset.read_masks(indexes[:1] if shared else indexes, window=source)
            unmasked &= (masks > 0).all(axis=0)
            if fill:
                np.copyto(image, file.nodata or 0, where=masks == 0, casting='unsafe')
    except (RasterioError, OSError) as error:  # also if the file no longer exists
        raise unreadable_error(file.path, window, error) from error
    return image, unmasked


def unreadable_error(path: str, window: Window, error: BaseException) -> SceneReadError:
    """Return the error for a damaged file, with file and window."""
    cause = error.__cause__ or error
    return SceneReadError(
        f'{path}: cannot be read at {window} ({str(cause).splitlines()[0] if str(cause) else type(cause).__name__}); '
        'the file is damaged or truncated: copy or download it again, or leave it out.'
    )


def missing_bands_error(scene: Scene, missing: Sequence[str]) -> BandError:
    """Return the error for bands that a scene lacks, with the names of those it has."""
    return BandError(
        f'{scene.path}: has no band {", ".join(missing)}; it has {len(scene.bands)}: {", ".join(scene.bands)}. '
        'Choose some of these with `bands`, or name unnamed bands with `sensor`.'
    )
