"""Mask rasters, as classes of pixels on any grid."""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.discover import date_of, find_files
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.headers import describe_file
from torchgeo_msssl.geo.labels.classes import check_classes
from torchgeo_msssl.geo.scene import BandFile, read_file
from torchgeo_msssl.geo.vector.burn import GeometryIndex, set_outside
from torchgeo_msssl.geo.warp import read_warped

log = logging.getLogger(__name__)

type Bounds = tuple[float, float, float, float]

#: How far pixels of two grids may be apart, in pixels, to be taken for the same.
_SAME = 1e-3
#: Error that GDAL may make in placing a pixel, in pixels: so small that it computes each one (0 is refused), and the
#: same pixels come out in whatever window.
_EXACT = 1e-9
#: Values listed in a message.
_LISTED = 10


class MaskRasters:
    """Label rasters, brought onto any grid by nearest neighbour where theirs is another.

    Where several have a date in their names and the dates differ, a mask holds for scenes of its own date.

    Attributes:
        files: What the rasters are, later over earlier.
        dates: First and last moment of each, or None where dates do not matter.
    """

    def __init__(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        class_names: Sequence[str],
        ignore_index: int = 255,
        background: bool = False,
        extent: GeometryIndex | None = None,
    ) -> None:
        """Read the headers.

        Args:
            paths: Files, folders or patterns.
            class_names: Names; the index is the value.
            ignore_index: Value of unlabelled pixels; so are read: this value, nodata, what is masked, NaN.
            background: Whether unlabelled ground is class 0 instead.
            extent: Ground outside of which everything is unlabelled, or None.

        Raises:
            ScenesNotFoundError: If nothing is at a path.
            MissingCRSError: If a raster has no CRS.
            SceneReadError: If a raster cannot be opened.
            ConfigurationError: If a raster has several bands.
        """
        self.class_names = check_classes(class_names, ignore_index)
        self.ignore_index = ignore_index
        self.background = background
        self.extent = extent
        self.files = [describe_file(path) for path in find_files(paths)]
        for file in self.files:
            bands = [name for name in file.names if name != 'alpha']
            if len(bands) != 1:
                msg = f'{file.path}: has {len(bands)} bands, and a mask has one, with class values; choose the mask.'
                raise ConfigurationError(msg)
            if file.nodata is not None and 0 <= file.nodata < len(self.class_names) and not background:
                log.warning(
                    '%s: declares nodata %g, which would be class %r: those pixels are taken as unlabelled.',
                    file.path,
                    file.nodata,
                    self.class_names[int(file.nodata)],
                )
        dates = [date_of(file.path) for file in self.files]
        self.dates = dates if len(set(dates)) > 1 else None
        self._said: set[str] = set()

    @property
    def crs(self) -> CRS:
        """CRS of the first raster."""
        return self.files[0].grid.crs

    def bounds(self, crs: Any) -> Bounds:
        """``(left, bottom, right, top)`` of all rasters in a CRS."""
        boxes = [bounds_in(file.grid, file.grid.window, CRS.from_user_input(crs)) for file in self.files]
        lefts, bottoms, rights, tops = zip(*boxes, strict=True)
        return min(lefts), min(bottoms), max(rights), max(tops)

    def touches(self, grid: PixelGrid, time: Any | None = None) -> bool:
        """Whether any raster of that time, and the surveyed ground where it is given, meets a grid.

        It is said here, once for each raster, if pixels do not coincide or the raster covers a part of the grid only.
        """
        files = self._files_at(grid, grid.window, time)
        for file in files:
            self._say(file, grid)
        return bool(files) and (self.extent is None or self.extent.touches(grid))

    def burn(self, grid: PixelGrid, window: Window, time: Any | None = None) -> NDArray[np.uint8]:
        """Classes of the pixels of a window.

        Args:
            grid: Pixel grid in any CRS.
            window: Window on it; it may reach outside.
            time: Interval of which the masks have to be, or None for all.

        Returns:
            Shape (height, width), ``ignore_index`` where nothing is known.

        Raises:
            ConfigurationError: If a raster holds a value that is no class.
            SceneReadError: If a raster is damaged there.
        """
        fill = 0 if self.background else self.ignore_index
        mask = np.full((window.height, window.width), fill, dtype=np.uint8)
        for file in self._files_at(grid, window, time):
            offset = _offset(file.grid, grid)
            values, labelled = _warped(file, grid, window) if offset is None else _shifted(file, window, offset)
            classes, labelled = self._classes(file, values, labelled)
            mask[labelled] = classes[labelled]
            if offset is None:
                self._say(file, grid)
        return set_outside(mask, self.extent, grid, window, self.ignore_index)

    def _classes(
        self, file: BandFile, values: NDArray[Any], labelled: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        labelled = labelled & np.isfinite(values) & (values != self.ignore_index)
        if file.nodata is not None:
            labelled &= values != file.nodata
        known = (values >= 0) & (values < len(self.class_names)) & (values == np.floor(values))
        if (labelled & ~known).any():
            strange = [f'{value:g}' for value in np.unique(values[labelled & ~known])]
            more = f' and {len(strange) - _LISTED} more' if len(strange) > _LISTED else ''
            msg = (
                f'{file.path}: holds the value(s) {", ".join(strange[:_LISTED])}{more}, and the classes '
                f'({", ".join(self.class_names)}) have 0 to {len(self.class_names) - 1}; name these values too, recode '
                f'the mask, or mark what is unlabelled with {self.ignore_index}.'
            )
            raise ConfigurationError(msg)
        return np.where(labelled, values, 0).astype(np.uint8), labelled

    def _files_at(self, grid: PixelGrid, window: Window, time: Any | None) -> list[BandFile]:
        boxes: dict[CRS, Bounds] = {}
        found = []
        for i, file in enumerate(self.files):
            date = self.dates[i] if self.dates is not None and time is not None else None
            if date is not None and not _overlaps(date, time):
                continue
            crs = file.grid.crs
            if crs not in boxes:
                boxes[crs] = bounds_in(grid, window, crs)
            left, bottom, right, top = boxes[crs]
            own = file.grid.bounds
            if left < own[2] and right > own[0] and bottom < own[3] and top > own[1]:
                found.append(file)
        return found

    def _say(self, file: BandFile, grid: PixelGrid) -> None:
        if file.path in self._said:
            return
        offset = _offset(file.grid, grid)
        if offset is None:
            self._said.add(file.path)
            log.warning(
                '%s: its pixels (%s, %s) are not those of the image (%s, %s); it is aligned by nearest neighbour.',
                file.path,
                file.grid.crs,
                _size(file.grid),
                grid.crs,
                _size(grid),
            )
        elif Window(*offset, grid.height, grid.width).intersection(file.grid.window) != Window(
            *offset, grid.height, grid.width
        ):
            self._said.add(file.path)
            log.info(
                '%s: has %d × %d pixels and covers a part of the image of %d × %d; it is placed by its coordinates.',
                file.path,
                file.grid.height,
                file.grid.width,
                grid.height,
                grid.width,
            )


def _size(grid: PixelGrid) -> str:
    return ' × '.join(f'{side:.6g}' for side in grid.res)


def _offset(own: PixelGrid, other: PixelGrid) -> tuple[int, int] | None:
    """``(row, col)`` of another grid's first pixel on a grid, or None where their pixels do not coincide."""
    if own.crs != other.crs:
        return None
    between = ~own.transform @ other.transform
    drift = (
        max(abs(between.a - 1), abs(between.d)) * other.width + max(abs(between.e - 1), abs(between.b)) * other.height
    )
    row, col = round(between.f), round(between.c)
    return (row, col) if drift < _SAME and max(abs(between.f - row), abs(between.c - col)) < _SAME else None


def _shifted(file: BandFile, window: Window, offset: tuple[int, int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels of a raster on a grid whose pixels coincide with its own."""
    source = Window(window.row + offset[0], window.col + offset[1], window.height, window.width)
    values = np.zeros((window.height, window.width), dtype=file.dtype)
    labelled = np.zeros(values.shape, dtype=np.bool_)
    inside = source.intersection(file.grid.window)
    if inside is not None:
        rows = slice(inside.row - source.row, inside.row - source.row + inside.height)
        cols = slice(inside.col - source.col, inside.col - source.col + inside.width)
        pixels, labelled[rows, cols] = read_file(file, inside, [_band(file)], file.grid)
        values[rows, cols] = pixels[0]
    return values, labelled


def _warped(file: BandFile, grid: PixelGrid, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Pixels of a raster on another grid: each takes the value under its centre."""
    pixels, covered = read_warped(file, grid, window, [_band(file)], _EXACT)
    return pixels[0], covered


def _band(file: BandFile) -> str:
    return next(name for name in file.names if name != 'alpha')


def bounds_in(grid: PixelGrid, window: Window, crs: CRS) -> Bounds:
    """Bounds of a window in another CRS.

    Args:
        grid: Pixel grid.
        window: Window on it.
        crs: The CRS wanted.

    Returns:
        ``(left, bottom, right, top)``.
    """
    bounds = grid.window_bounds(window)
    if grid.crs == crs:
        return bounds
    left, bottom, right, top = transform_bounds(grid.crs, crs, *bounds)
    return left, bottom, right, top


def _overlaps(date: tuple[datetime, datetime], time: Any) -> bool:
    return bool(pd.Timestamp(date[0]) <= time.right and pd.Timestamp(date[1]) >= time.left)
