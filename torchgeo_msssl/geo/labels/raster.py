"""Labels from mask rasters."""

import logging
from collections.abc import Iterable
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.datum import report_accuracy
from torchgeo_msssl.geo.discover import date_of, find_files
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.headers import describe_file
from torchgeo_msssl.geo.labels.classes import UNLABELLED, IgnoreIndex, resolve_classes, unlabelled_values
from torchgeo_msssl.geo.labels.options import LabelSettings
from torchgeo_msssl.geo.labels.source import Bounds, Footprint, LabelSource, Time, bounds_in, common_bounds
from torchgeo_msssl.geo.nodata import has_data
from torchgeo_msssl.geo.scene import BandFile, read_file
from torchgeo_msssl.geo.vector.burn import read_extent, set_outside
from torchgeo_msssl.geo.vector.files import vector_files
from torchgeo_msssl.geo.warp import read_warped

log = logging.getLogger(__name__)

#: Largest distance of two grids' pixels, in pixels, for them to be the same.
_SAME = 1e-3
#: Error that GDAL may make in placing a pixel, in pixels: so small that it computes each one (0 is refused), and the
#: same pixels come out in every window.
_EXACT = 1e-9


class RasterLabels(LabelSource):
    """Mask rasters, aligned to a grid by nearest neighbour where theirs is another.

    Where several have a date in their names and the dates differ, a mask holds for scenes of its own date. Where masks
    overlap, later files lie over earlier ones. Pixels are unlabelled where they hold nodata or NaN, where the file's
    mask says so, and where they hold ``ignore_index`` (with a list of class names) or a value without a class (with a
    mapping).

    Attributes:
        rasters: Headers of the files.
        dates: First and last moment of each, or None where dates do not matter.
    """

    def __init__(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        settings: LabelSettings | None = None,
        ignore_index: IgnoreIndex = UNLABELLED,
    ) -> None:
        """Read the headers.

        Args:
            paths: Files, folders or patterns.
            settings: Classes, background and extent; options of vectors must not be set. Without class names, each
                value below ``ignore_index`` is a class.
            ignore_index: Value of unlabelled pixels, or several of the rasters.

        Raises:
            ScenesNotFoundError: If nothing is at a path.
            MissingCRSError: If a raster has no CRS.
            SceneReadError: If a raster cannot be opened.
            ConfigurationError: If a raster has several bands, or the options do not suit.
        """
        settings = settings or LabelSettings()
        for option in ('column', 'missing_class', 'layer', 'buffer', 'priority', 'all_touched'):
            value = getattr(settings, option)
            if value and value != getattr(LabelSettings(), option):
                raise ConfigurationError(f'{option}: is for vector files, and the labels are rasters; leave it out.')
        self._is_named = settings.class_names is not None
        every = [str(i) for i in range(unlabelled_values(ignore_index)[0])]
        names = settings.class_names if settings.class_names is not None else every
        self.classes = resolve_classes(names, ignore_index, settings.background)
        self.class_names = self.classes.names
        self.ignore_index = self.classes.ignore_index
        self.background = bool(settings.background)
        self.extent = None if settings.extent is None else read_extent(settings.extent)
        self._extent_path = settings.extent
        self.rasters = [describe_file(path) for path in find_files(paths)]
        for raster in self.rasters:
            self._check(raster)
        dates = [date_of(raster.path) for raster in self.rasters]
        self.dates = dates if len(set(dates)) > 1 else None
        self._reported: set[str] = set()

    @property
    def files(self) -> tuple[str, ...]:
        """The rasters with their sidecars, and the files of the extent."""
        rasters = [file for raster in self.rasters for file in dict.fromkeys((raster.path, *raster.sources))]
        return tuple(rasters + ([] if self._extent_path is None else vector_files(self._extent_path)))

    @property
    def crs(self) -> CRS:
        """CRS of the first raster."""
        return self.rasters[0].grid.crs

    @property
    def res(self) -> tuple[float, float]:
        """Pixel size of the first raster, in units of its CRS."""
        return self.rasters[0].grid.res

    def bounds(self, crs: Any) -> Bounds:
        """Return ``(left, bottom, right, top)`` of all rasters in a CRS."""
        return common_bounds(footprint.bounds for footprint in self.footprints(crs))

    def footprints(self, crs: Any) -> list[Footprint]:
        """Return place and time of each raster, with bounds in a CRS."""
        wanted = CRS.from_user_input(crs)
        dates = self.dates or [None] * len(self.rasters)
        return [
            Footprint(raster.path, bounds_in(raster.grid, raster.grid.window, wanted), date)
            for raster, date in zip(self.rasters, dates, strict=True)
        ]

    def touches(self, grid: PixelGrid, time: Time | None = None) -> bool:
        """Return whether a raster of a time, and the surveyed ground, meet a grid.

        The log says once for each raster if its pixels are not those of the grid, or if it covers a part of it only.
        """
        found = self._rasters_at(grid, grid.window, time)
        for raster in found:
            self._report_alignment(raster, grid)
        return bool(found) and (self.extent is None or self.extent.touches(grid))

    def burn(self, grid: PixelGrid, window: Window, time: Time | None = None) -> NDArray[np.uint8]:
        """Return the classes of the pixels of a window, see :class:`LabelSource`."""
        fill = self.classes.background if self.background else self.ignore_index
        mask = np.full((window.height, window.width), fill, dtype=np.uint8)
        for raster in self._rasters_at(grid, window, time):
            offset = _offset(raster.grid, grid)
            values, labelled = _warped(raster, grid, window) if offset is None else _shifted(raster, window, offset)
            labelled &= has_data(values[None], raster.nodata)
            classes, labelled = self.classes.of_pixels(values, labelled, raster.path)
            mask[labelled] = classes[labelled]
        return set_outside(mask, self.extent, grid, window, self.ignore_index)

    def describe(self) -> str:
        """Return the number of rasters, for a report."""
        return f'{len(self.rasters)} mask raster(s), the first {self.rasters[0].path}.'

    def _check(self, raster: BandFile) -> None:
        bands = [name for name in raster.names if name != 'alpha']
        if len(bands) != 1:
            msg = f'{raster.path}: has {len(bands)} bands, and a mask has one, with class values; choose the mask.'
            raise ConfigurationError(msg)
        lost = None if raster.nodata is None else self.classes.of_value(raster.nodata)
        if self._is_named and lost is not None and not (self.background and lost == self.classes.background):
            log.warning(
                '%s: declares nodata %g, which would be class %r: those pixels are taken as unlabelled.',
                raster.path,
                raster.nodata,
                self.class_names[lost],
            )

    def _rasters_at(self, grid: PixelGrid, window: Window, time: Time | None) -> list[BandFile]:
        boxes: dict[CRS, Bounds] = {}
        found = []
        for i, raster in enumerate(self.rasters):
            date = None if self.dates is None else self.dates[i]
            if time is not None and date is not None and not (date[0] <= time.right and date[1] >= time.left):
                continue
            crs = raster.grid.crs
            if crs not in boxes:
                boxes[crs] = bounds_in(grid, window, crs)
            left, bottom, right, top = boxes[crs]
            own = raster.grid.bounds
            if left < own[2] and right > own[0] and bottom < own[3] and top > own[1]:
                found.append(raster)
        return found

    def _report_alignment(self, raster: BandFile, grid: PixelGrid) -> None:
        if raster.path in self._reported:
            return
        own, offset = raster.grid, _offset(raster.grid, grid)
        if offset is None:
            self._reported.add(raster.path)
            log.warning(
                '%s: its pixels (%s, %s) are not those of the image (%s, %s); it is aligned by nearest neighbour.',
                raster.path,
                own.crs,
                _size(own),
                grid.crs,
                _size(grid),
            )
            if own.crs != grid.crs:
                report_accuracy(raster.path, own.crs, grid)
            return
        image = Window(*offset, grid.height, grid.width)
        if image.intersection(own.window) != image:
            self._reported.add(raster.path)
            log.info(
                '%s: has %d × %d pixels and covers a part of the image of %d × %d; it is placed by its coordinates.',
                raster.path,
                own.height,
                own.width,
                grid.height,
                grid.width,
            )


def _size(grid: PixelGrid) -> str:
    return ' × '.join(f'{side:.6g}' for side in grid.res)


def _offset(own: PixelGrid, other: PixelGrid) -> tuple[int, int] | None:
    """Return ``(row, col)`` of another grid's first pixel on a grid, or None where their pixels do not coincide."""
    if own.crs != other.crs:
        return None
    between = ~own.transform @ other.transform
    drift = (
        max(abs(between.a - 1), abs(between.d)) * other.width + max(abs(between.e - 1), abs(between.b)) * other.height
    )
    row, col = round(between.f), round(between.c)
    return (row, col) if drift < _SAME and max(abs(between.f - row), abs(between.c - col)) < _SAME else None


def _shifted(raster: BandFile, window: Window, offset: tuple[int, int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a window of a grid whose pixels coincide with those of a raster."""
    source = Window(window.row + offset[0], window.col + offset[1], window.height, window.width)
    values = np.zeros((window.height, window.width), dtype=raster.dtype)
    labelled = np.zeros(values.shape, dtype=np.bool_)
    inside = source.intersection(raster.grid.window)
    if inside is not None:
        rows = slice(inside.row - source.row, inside.row - source.row + inside.height)
        cols = slice(inside.col - source.col, inside.col - source.col + inside.width)
        pixels, labelled[rows, cols] = read_file(raster, inside, [_band(raster)], raster.grid)
        values[rows, cols] = pixels[0]
    return values, labelled


def _warped(raster: BandFile, grid: PixelGrid, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a window of another grid: each pixel takes the value under its centre."""
    pixels, covered = read_warped(raster, grid, window, [_band(raster)], _EXACT)
    return pixels[0], covered


def _band(raster: BandFile) -> str:
    return next(name for name in raster.names if name != 'alpha')
