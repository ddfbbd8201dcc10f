"""A scene: one place at one time, whatever files it is kept in, read by window.

What a scene is (grid, band names, dtype, nodata, block layout) is gathered once from its files; pixels are
read by integer window from handles that belong to the reading process and thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from torchgeo_msssl.bands import Sensor, band_position, canonical_band_name, infer_sensor
from torchgeo_msssl.errors import BandError, MissingCRSError, SceneReadError
from torchgeo_msssl.geo.discover import date_of, find_files, group_files
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.handles import handle, open_raster

_COLOURS = {ColorInterp.red: 'red', ColorInterp.green: 'green', ColorInterp.blue: 'blue', ColorInterp.alpha: 'alpha'}


@dataclass(frozen=True)
class BandFile:
    """One file of a scene, as far as reading it needs to know.

    Attributes:
        path: Local or virtual path.
        grid: Its own pixel grid.
        names: Canonical name of each band in file order; ``alpha`` for an alpha band.
        dtype: NumPy dtype name that holds all its bands.
        nodata: Declared nodata value, or None.
        masked: Whether it has an alpha band or a mask (internal or ``.msk``).
        block_shape: ``(height, width)`` of the blocks it is stored in, in pixels.
        scales: GDAL's scale for each band (1 where none is declared).
        offsets: GDAL's offset for each band (0 where none is declared).
        tags: Dataset tags.
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
        nodata: Value of pixels without data: the files' own, else that of the sensor, else None.
    """

    name: str
    files: tuple[BandFile, ...]
    date: tuple[datetime, datetime] | None
    nodata: float | None

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

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that holds every band without loss."""
        return np.result_type(*(np.dtype(file.dtype) for file in self.files))

    @property
    def block_shape(self) -> tuple[int, int]:
        """``(height, width)`` of the blocks the finest band is stored in, in pixels."""
        return self.files[0].block_shape

    @property
    def always_valid(self) -> bool:
        """Whether no pixel inside the grid can lack data (no nodata value, no mask, integer dtype)."""
        return (
            self.nodata is None
            and not any(file.masked for file in self.files)
            and np.issubdtype(self.dtype, np.integer)
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

    def _read_inside(self, window: Window, bands: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        if len(self.files) == 1:
            image, valid = read_file(self.files[0], window, bands, self.grid)
        else:
            image = np.empty((len(bands), window.height, window.width), dtype=self.dtype)
            valid = np.ones((window.height, window.width), dtype=np.bool_)
            for i, band in enumerate(bands):
                plane, plane_valid = read_file(self.file_of(band), window, [band], self.grid)
                image[i] = plane[0]
                valid &= plane_valid
        return self.mask(image, valid)

    def mask(self, image: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Take the pixels that hold nodata or a non-finite number out of a mask.

        Args:
            image: Shape (band, height, width).
            valid: Shape (height, width).

        Returns:
            The image and the narrowed mask.
        """
        return image, valid & has_data(image, self.nodata)


def representable(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether a dtype can hold a value exactly (NaN counts for floats)."""
    if np.issubdtype(dtype, np.floating):
        return True
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
        valid &= np.isfinite(image).all(axis=0)
    if nodata is not None and np.isfinite(nodata) and representable(nodata, image.dtype):
        valid &= (image != np.asarray(nodata, dtype=image.dtype)).all(axis=0)
    return valid


def read_file(
    file: BandFile, window: Window, bands: Sequence[str], grid: PixelGrid
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read bands of one file on a grid that is its own, or a finer one of the same scene.

    Args:
        file: The file.
        window: Window on ``grid``, inside it.
        bands: Canonical names.
        grid: The scene's grid.

    Returns:
        ``(image, unmasked)``, shapes (band, height, width) and (height, width); unmasked knows alpha bands and
        mask files, not nodata values.

    Raises:
        BandError: If the file lacks a band.
        SceneReadError: If the file is damaged there.
    """
    missing = [band for band in bands if band not in file.names]
    if missing:
        msg = f'{file.path}: has no band {", ".join(missing)}; it has {", ".join(file.names)}.'
        raise BandError(msg)
    indexes = [file.index(band) for band in bands]
    source, resampling = window.to_rasterio(), Resampling.nearest
    if file.grid != grid:
        source, resampling = window_on(file.grid, grid, window), Resampling.bilinear
    shape = (window.height, window.width)
    dataset = handle(file.path)
    try:
        if file.masked and 'alpha' in file.names:
            image = dataset.read(
                [*indexes, file.index('alpha')], window=source, out_shape=(len(indexes) + 1, *shape),
                resampling=resampling,
            )  # fmt: skip
            return image[:-1], image[-1] > 0
        image = dataset.read(indexes, window=source, out_shape=(len(indexes), *shape), resampling=resampling)
        if file.masked:
            mask = dataset.read_masks(indexes[0], window=source, out_shape=shape, resampling=Resampling.nearest)
            return image, mask > 0
    except (RasterioError, OSError) as error:
        raise unreadable_error(file.path, window, error) from error
    return image, np.ones(shape, dtype=np.bool_)


def unreadable_error(path: str, window: Window, error: BaseException) -> SceneReadError:
    """The error for a damaged file, naming file and window."""
    cause = error.__cause__ or error
    return SceneReadError(
        f'{path}: cannot be read at {window} ({str(cause).splitlines()[0] if str(cause) else type(cause).__name__}); '
        'the file is damaged or was cut short: copy or download it again, or leave it out.'
    )


def window_on(target: PixelGrid, source: PixelGrid, window: Window) -> RasterioWindow:
    """The same ground as a window of ``source``, in (fractional) pixels of ``target``; both north up."""
    left, bottom, right, top = source.window_bounds(window)
    inverse = ~target.transform
    (col, row), (col_end, row_end) = inverse @ (left, top), inverse @ (right, bottom)
    col, row = max(col, 0.0), max(row, 0.0)
    return RasterioWindow(col, row, min(col_end, target.width) - col, min(row_end, target.height) - row)


def missing_bands_error(scene: Scene, missing: Sequence[str]) -> BandError:
    """The error for bands that a scene lacks, with the names there are."""
    return BandError(
        f'{scene.path}: has no band {", ".join(missing)}; it has {len(scene.bands)}: {", ".join(scene.bands)}. '
        'Choose among these with `bands`, or say with `sensor` what its unnamed bands are.'
    )


def find_scenes(paths: Any, sensor: Sensor | None = None) -> list[Scene]:
    """Open every scene at some paths, once, and note what it is.

    Args:
        paths: Files, folders or patterns, see :func:`~torchgeo_msssl.geo.discover.find_files`.
        sensor: Gives unnamed bands their names where the counts agree.

    Returns:
        Scenes in the order of their paths.

    Raises:
        ScenesNotFoundError: If nothing is there.
        MissingCRSError: If a scene has no CRS.
        BandError: If bands cannot be named.
        SceneReadError: If a file cannot be opened.
    """
    return [open_scene(name, files, sensor) for name, files in group_files(find_files(paths))]


def open_scene(name: str, files: str | dict[str, str], sensor: Sensor | None = None) -> Scene:
    """Note what a scene is, from the headers of its files.

    Args:
        name: Short name.
        files: The multi-band file, or single-band files by band name.
        sensor: Gives unnamed bands their names where the counts agree.

    Returns:
        The scene.

    Raises:
        MissingCRSError: If it has no CRS.
        BandError: If bands cannot be named.
        SceneReadError: If a file cannot be opened, or its band files do not lie on one place.
    """
    if isinstance(files, str):
        described = [describe_file(files, sensor)]
    elif len(files) == 1:
        (band, path), *_ = files.items()
        described = [describe_file(path, sensor, band)]
    else:
        described = [describe_file(path, sensor, band) for band, path in files.items()]
        _check_together(described)
        described.sort(key=lambda file: (file.grid.res, band_position(file.names[0])))
    first = described[0]
    nodata = first.nodata
    if nodata is None and not any(file.masked for file in described):
        names = [band for file in described for band in file.names]
        known = sensor or infer_sensor(names, name)
        nodata = known.nodata if known else None
    return Scene(name, tuple(described), date_of(first.path), nodata)


def describe_file(path: str, sensor: Sensor | None = None, band: str | None = None) -> BandFile:
    """Note what a raster file is, from its header.

    Args:
        path: Local or virtual path.
        sensor: Gives unnamed bands their names where the counts agree.
        band: Name of its only band, where the file's own name tells it.

    Returns:
        The description.

    Raises:
        MissingCRSError: If it has no CRS.
        BandError: If bands cannot be named.
        SceneReadError: If it cannot be opened.
    """
    with open_raster(path) as dataset:
        if dataset.crs is None:
            msg = (
                f'{path}: has no coordinate reference system, so it cannot be placed on the ground; '
                'assign one, for example with `gdal_edit.py -a_srs EPSG:32631`.'
            )
            raise MissingCRSError(msg)
        alpha = [interp == ColorInterp.alpha for interp in dataset.colorinterp]
        if band is not None and dataset.count - sum(alpha) == 1:
            names = tuple('alpha' if is_alpha else band for is_alpha in alpha)
        else:
            names = name_bands(dataset, sensor)
        spectral = [dtype for dtype, name in zip(dataset.dtypes, names, strict=True) if name != 'alpha']
        return BandFile(
            path=path,
            grid=PixelGrid(dataset.crs, dataset.transform, dataset.height, dataset.width),
            names=names,
            dtype=str(np.result_type(*(np.dtype(dtype) for dtype in spectral))),
            nodata=dataset.nodata,
            masked='alpha' in names or MaskFlags.per_dataset in dataset.mask_flag_enums[0],
            block_shape=dataset.block_shapes[0],
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
            tags=dict(dataset.tags()),
        )


def name_bands(dataset: DatasetReader, sensor: Sensor | None) -> tuple[str, ...]:
    """Name the bands of an open dataset.

    Names come from the band descriptions; else from the sensor's list where the counts agree; else, without a
    sensor, from red, green and blue colour interpretation, or ``band_1``, ``band_2``, ….

    Args:
        dataset: Open dataset.
        sensor: The sensor the user named, or None.

    Returns:
        Canonical names in file order, ``alpha`` for an alpha band.

    Raises:
        BandError: If a sensor was named and its band count differs, or two bands have one name.
    """
    alpha = [interp == ColorInterp.alpha for interp in dataset.colorinterp]
    spectral = [i for i in range(dataset.count) if not alpha[i]]
    if not spectral:
        raise BandError(f'{dataset.name}: has no band but alpha.')
    if all(dataset.descriptions[i] for i in spectral):
        found = [canonical_band_name(dataset.descriptions[i]) for i in spectral]
    elif sensor is not None and len(sensor.names) == len(spectral):
        found = list(sensor.names)
    elif sensor is not None:
        msg = (
            f'{dataset.name}: its {len(spectral)} bands have no names and sensor {sensor.name} has '
            f'{len(sensor.names)} ({", ".join(sensor.names)}); name them in the file (band descriptions) or choose '
            'the sensor that made it.'
        )
        raise BandError(msg)
    else:
        colours = [_COLOURS.get(dataset.colorinterp[i]) for i in spectral]
        found = [f'band_{n}' for n in range(1, len(spectral) + 1)]
        if sorted(filter(None, colours)) == ['blue', 'green', 'red'] and len(colours) in (3, 4):
            found = [colour or 'nir' for colour in colours]
    if len(set(found)) < len(found):
        twice = sorted({name for name in found if found.count(name) > 1})
        raise BandError(f'{dataset.name}: two bands are both called {", ".join(twice)}; rename one of them.')
    names = iter(found)
    return tuple('alpha' if is_alpha else next(names) for is_alpha in alpha)


def _check_together(files: Sequence[BandFile]) -> None:
    first = files[0]
    for file in files:
        if len([name for name in file.names if name != 'alpha']) != 1:
            msg = (
                f'{file.path}: has {len(file.names)} bands where its name says it is one band of a scene; '
                'give multi-band files a name that does not end in a band.'
            )
            raise BandError(msg)
        apart = max(abs(a - b) for a, b in zip(file.grid.bounds, first.grid.bounds, strict=True))
        if file.grid.crs != first.grid.crs or apart > max(*file.grid.res, *first.grid.res):
            msg = (
                f'{file.path} and {first.path}: are bands of one scene by their names, yet their CRS or extents differ '
                f'({file.grid.crs}, {file.grid.bounds} against {first.grid.crs}, {first.grid.bounds}).'
            )
            raise SceneReadError(msg)
