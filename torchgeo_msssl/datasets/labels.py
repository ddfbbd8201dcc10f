"""Labels of scenes as masks on any pixel grid.

They come from mask rasters, or from polygons and lines that are burned on the fly. Where nobody said what the ground
is, a mask holds ``ignore_index``: unlabelled is not background.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from os import PathLike, fspath
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
import torch
from numpy.typing import NDArray
from pyproj import CRS as PROJ_CRS
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from shapely.geometry.base import BaseGeometry
from torch.utils.data import Dataset
from torchgeo.datasets import GeoDataset, RasterDataset
from torchgeo.datasets.utils import GeoSlice, Sample

from torchgeo_msssl.datasets.scenes import ChipQuery, Scenes
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError
from torchgeo_msssl.geo.discover import date_of, find_files
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.headers import describe_file
from torchgeo_msssl.geo.rasterize import (
    GeometryIndex,
    VectorLabels,
    check_classes,
    is_vector,
    no_place_in_common,
    read_extent,
    region_index,
    set_outside,
)
from torchgeo_msssl.geo.scene import BandFile, Scene, read_file
from torchgeo_msssl.geo.valid import streaming_windows
from torchgeo_msssl.geo.warp import read_warped
from torchgeo_msssl.progress import progress_bar

log = logging.getLogger(__name__)

type Bounds = tuple[float, float, float, float]

#: How far pixels of two grids may be apart, in pixels, to be taken for the same.
_SAME = 1e-3
#: Error that GDAL may make in placing a pixel, in pixels: so small that it computes each one (0 is refused), and the
#: same pixels come out in whatever window.
_EXACT = 1e-9
#: Pixels of a window in which classes are counted, about.
_COUNTED_AT_ONCE = 1_000_000
#: Values and names listed in a message.
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
        boxes = [_bounds_in(file.grid, file.grid.window, CRS.from_user_input(crs)) for file in self.files]
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
                f'{file.path}: holds the value(s) {", ".join(strange[:_LISTED])}{more}, and class_names '
                f'({", ".join(self.class_names)}) has 0 to {len(self.class_names) - 1}; add the names, recode the '
                f'mask, or mark what is unlabelled with ignore_index ({self.ignore_index}).'
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
                boxes[crs] = _bounds_in(grid, window, crs)
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


def _bounds_in(grid: PixelGrid, window: Window, crs: CRS) -> Bounds:
    bounds = grid.window_bounds(window)
    if grid.crs == crs:
        return bounds
    left, bottom, right, top = transform_bounds(grid.crs, crs, *bounds)
    return left, bottom, right, top


def _overlaps(date: tuple[datetime, datetime], time: Any) -> bool:
    return bool(pd.Timestamp(date[0]) <= time.right and pd.Timestamp(date[1]) >= time.left)


def _no_progress(piece: int, fraction: float) -> None:
    """Show nothing."""


class Labels(GeoDataset):
    """Masks of classes on the grid of whatever they are asked for.

    Plain queries give samples with ``mask`` (height, width) int64, as TorchGeo's tasks take it, ``bounds`` and
    ``transform``, so that ``scenes & labels`` is TorchGeo's own intersection. :class:`LabelledScenes` also knows where
    the image has no data, and takes the chips of this package's samplers.

    Attributes:
        class_names: Names; the index is the value.
        ignore_index: Value of unlabelled pixels.
        source: Where the labels come from.
    """

    def __init__(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        class_names: Sequence[str],
        label_column: str | None = None,
        layer: str | None = None,
        buffer: float = 0.0,
        background: bool | None = None,
        label_extent: str | PathLike[str] | None = None,
        ignore_index: int = 255,
        priority: Sequence[str] = (),
        all_touched: bool = False,
        crs: Any | None = None,
        res: float | tuple[float, float] | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        """Find the labels; vectors are read, of rasters the headers.

        Args:
            paths: Mask rasters (files, folders, patterns), or vector files (GeoPackage, GeoJSON, Shapefile,
                FlatGeobuf, GeoParquet).
            class_names: Names; the index is the value.
            label_column: Vectors: column with the class, as name or number, see
                :class:`~torchgeo_msssl.geo.rasterize.VectorLabels`.
            layer: Vectors: layer of each file.
            buffer: Vectors: metres by which lines and points are widened to each side.
            background: Whether ground without a label is class 0 (True) or unlabelled (False). For vectors without
                ``label_extent`` it has to be said unless class 0 is drawn; for rasters None means False.
            label_extent: Polygons of the surveyed ground; outside of it everything is unlabelled.
            ignore_index: Value of unlabelled pixels.
            priority: Vectors: classes that go on top, the last one uppermost.
            all_touched: Vectors: burn every pixel that is touched.
            crs: CRS of plain queries (default: that of the first file). An intersection sets it.
            res: Pixel size of plain queries, in units of the CRS (default: that of the first raster; vectors have
                none). An intersection sets it.
            transforms: Applied to each sample.

        Raises:
            ScenesNotFoundError: If nothing is at a path.
            SceneReadError: If a file cannot be read.
            MissingCRSError: If a file has no CRS.
            ConfigurationError: If the options do not fit the files or each other; the message says which.
        """
        self.paths = paths if isinstance(paths, str | PathLike) else list(paths)
        self.transforms = transforms
        listed = [self.paths] if isinstance(self.paths, str | PathLike) else self.paths
        vectors = [is_vector(path) for path in listed]
        if any(vectors) and not all(vectors):
            msg = f'labels: {fspath(listed[0])} and others are rasters and vectors; give one kind.'
            raise ConfigurationError(msg)
        self.source: VectorLabels | MaskRasters
        if any(vectors):
            self.source = VectorLabels(
                self.paths, class_names, label_column, layer, buffer, background, label_extent, ignore_index,
                priority, all_touched,
            )  # fmt: skip
        else:
            for option, given in {
                'label_column': label_column, 'layer': layer, 'buffer': buffer, 'priority': priority,
                'all_touched': all_touched,
            }.items():  # fmt: skip
                if given:
                    raise ConfigurationError(
                        f'{option}: is for vector files, and the labels are rasters; leave it out.'
                    )
            extent = read_extent(label_extent) if label_extent is not None else None
            self.source = MaskRasters(self.paths, class_names, ignore_index, bool(background), extent)
        self.class_names = self.source.class_names
        self.ignore_index = ignore_index
        self._index_files(crs, res)

    def mask_for(self, grid: PixelGrid, window: Window, time: Any | None = None) -> NDArray[np.uint8]:
        """Classes of the pixels of a window.

        Args:
            grid: Pixel grid in any CRS.
            window: Window on it; it may reach outside.
            time: Interval of the image (pandas), where masks differ by date; None for masks of any date.

        Returns:
            Shape (height, width), ``ignore_index`` where nothing is known. Windows of one grid fit together to the
            mask of the whole grid, pixel for pixel.

        Raises:
            ConfigurationError: If a mask raster holds a value that is no class.
            SceneReadError: If a mask raster is damaged there.
        """
        if isinstance(self.source, MaskRasters):
            return self.source.burn(grid, window, time)
        return self.source.burn(grid, window)

    def __getitem__(self, index: GeoSlice) -> Sample:
        """The mask of a query.

        Args:
            index: ``[xmin:xmax:xres, ymin:ymax:yres, tmin:tmax:tres]``, or a :class:`ChipQuery` of scenes that are on
                the grid of their dataset.

        Returns:
            The sample, see the class.

        Raises:
            EmptyIntersectionError: If no label file meets the query.
            ConfigurationError: If the query has no pixel size, or is a chip on another grid than its slices.
        """
        x, y, t = self._disambiguate_slice(index)
        if min(x.step, y.step) <= 0:
            raise ConfigurationError('res: vector labels have no pixel size; give one, or a step in the query.')
        time = pd.Interval(t.start, t.stop)
        here = self.index.index.overlaps(time) & self.index.intersects(shapely.box(x.start, y.start, x.stop, y.stop))
        if not here.any():
            msg = f'query: {index} meets none of the labels, whose bounds are {self.bounds}.'
            raise EmptyIntersectionError(msg)
        shape = (round((y.stop - y.start) / y.step), round((x.stop - x.start) / x.step))
        if isinstance(index, ChipQuery) and shape != (index.window.height, index.window.width):
            msg = (
                f'query: the chip has {index.window.height} × {index.window.width} pixels on its scene and '
                f'{shape[0]} × {shape[1]} in the dataset, so the scene is on another grid; use LabelledScenes.'
            )
            raise ConfigurationError(msg)
        grid = PixelGrid(CRS.from_user_input(self.crs), from_origin(x.start, y.stop, x.step, y.step), *shape)
        sample: Sample = {
            'mask': torch.from_numpy(self.mask_for(grid, grid.window, time).astype(np.int64)),
            'bounds': self._slice_to_tensor(index),
            'transform': torch.tensor(grid.transform),
        }
        return self.transforms(sample) if self.transforms is not None else sample

    def check(self, scenes: Scenes) -> None:
        """Make sure that the labels lie on the scenes; scenes without any are named in the log.

        Args:
            scenes: The images.

        Raises:
            EmptyIntersectionError: If they touch no scene; the files and both bounds are named.
        """
        bare = [
            scene.path
            for i, scene in enumerate(scenes.scenes)
            if not (
                self.source.touches(scene.grid, scenes.index.index[i])
                if isinstance(self.source, MaskRasters)
                else self.source.touches(scene.grid)
            )
        ]
        first = scenes.scenes[0]
        if len(bare) == len(scenes.scenes):
            if isinstance(self.source, MaskRasters):
                if self.source.dates is not None and any(self.source.touches(s.grid) for s in scenes.scenes):
                    msg = (
                        f'labels: the dates in the names of the masks ({self._file}, …) are none of those of the '
                        f'images ({first.path}, …); rename them, or keep one date only.'
                    )
                    raise EmptyIntersectionError(msg)
                raise no_place_in_common(self._file, self.source.bounds, self.source.crs, first.path, first.grid)
            drawn = self.source.geometries
            if self.source.extent is not None and any(drawn.touches(s.grid) for s in scenes.scenes):
                drawn = self.source.extent
            raise no_place_in_common(self._file, drawn.bounds, drawn.crs, first.path, first.grid)
        if bare:
            more = ', …' if len(bare) > _LISTED else ''
            log.warning(
                'labels: %d of %d scenes have none: %s%s.',
                len(bare),
                len(scenes.scenes),
                ', '.join(bare[:_LISTED]),
                more,
            )

    def class_counts(
        self, scenes: Scenes, region: BaseGeometry | None = None, progress: bool = True
    ) -> NDArray[np.int64]:
        """Count the labelled pixels of each class where the scenes have data, window by window.

        Args:
            scenes: The images; each one counts, also where they show one place on several dates.
            region: Count inside it only (in the scenes' CRS), by pixel centres.
            progress: Whether to show a progress bar.

        Returns:
            Pixels, shape (class,); 0 for a class that does not occur.

        Raises:
            EmptyIntersectionError: If the labels touch no scene, or (without a region) label no pixel that has data.
            ConfigurationError: If a mask raster holds a value that is no class.
            SceneReadError: If a file is damaged.
        """
        self.check(scenes)
        inside = region_index(region, scenes.crs) if region is not None else None
        counts = np.zeros(len(self.class_names), dtype=np.int64)
        bar = progress_bar('Counting classes', total=len(scenes.scenes)) if progress else nullcontext(_no_progress)
        with bar as advance:
            for i in range(len(scenes.scenes)):
                counts += self._count(scenes, i, inside, partial(advance, i))
        if region is None and not counts.any():
            msg = (
                f'labels: {self._file} touches the scenes (the first is {scenes.scenes[0].path}), yet labels no pixel '
                'that has data: its geometries miss every pixel centre, or lie where the images or the surveyed '
                'ground end; check both in a GIS.'
            )
            raise EmptyIntersectionError(msg)
        return counts

    def _count(
        self, scenes: Scenes, i: int, inside: GeometryIndex | None, advance: Callable[[float], None]
    ) -> NDArray[np.int64]:
        scene, time = scenes.scenes[i], scenes.index.index[i]
        counts = np.zeros(len(self.class_names), dtype=np.int64)
        windows = streaming_windows(scene, _COUNTED_AT_ONCE)
        for done, window in enumerate(windows, start=1):
            counts += np.bincount(self._labelled(scenes, scene, window, time, inside), minlength=len(counts))
            advance(done / len(windows))
        return counts

    def is_labelled(self, scenes: Scenes, region: BaseGeometry) -> bool:
        """Whether a region holds a labelled pixel with data; only windows that it touches are read, up to the first.

        Args:
            scenes: The images.
            region: Polygon in the scenes' CRS; pixels count by their centres.

        Returns:
            Whether there is one.

        Raises:
            ConfigurationError: If a mask raster holds a value that is no class.
            SceneReadError: If a file is damaged.
        """
        inside = region_index(region, scenes.crs)
        return any(
            len(self._labelled(scenes, scene, window, time, inside)) > 0
            for scene, time in zip(scenes.scenes, scenes.index.index, strict=True)
            for window in streaming_windows(scene, _COUNTED_AT_ONCE)
            if inside.touches(scene.grid.cut(window))
        )

    def _labelled(
        self, scenes: Scenes, scene: Scene, window: Window, time: Any, inside: GeometryIndex | None
    ) -> NDArray[np.uint8]:
        """Classes of the labelled pixels of a window that have data."""
        mask = self.mask_for(scene.grid, window, time)
        set_outside(mask, inside, scene.grid, window, self.ignore_index)
        if not scene.always_valid and (mask != self.ignore_index).any():
            _, valid = scene.read(window, scenes.bands)
            mask[~valid] = self.ignore_index
        return mask[mask != self.ignore_index]

    @property
    def _file(self) -> str:
        """The file that stands for the labels in messages."""
        return self.source.paths[0] if isinstance(self.source, VectorLabels) else self.source.files[0].path

    def _index_files(self, crs: Any | None, res: float | tuple[float, float] | None) -> None:
        """Build the index that TorchGeo looks at."""
        source = self.source
        always = (pd.Timestamp(RasterDataset.mint), pd.Timestamp(RasterDataset.maxt))
        if isinstance(source, VectorLabels):
            known = source.extent or source.geometries
            wanted = CRS.from_user_input(crs if crs is not None else known.crs)
            files, boxes, times = [self._file], [known.bounds(wanted)], [always]
            own_res = (0.0, 0.0)
        else:
            wanted = CRS.from_user_input(crs) if crs is not None else source.crs
            files = [file.path for file in source.files]
            boxes = [_bounds_in(file.grid, file.grid.window, wanted) for file in source.files]
            dates = source.dates or [None] * len(files)
            times = [(pd.Timestamp(date[0]), pd.Timestamp(date[1])) if date else always for date in dates]
            own_res = source.files[0].grid.res
        with rasterio.Env(OSR_WKT_FORMAT='WKT2_2018'):
            proj = PROJ_CRS.from_user_input(wanted)
        index = pd.IntervalIndex.from_tuples(times, closed='both', name='datetime')
        shapes = [shapely.box(*box) for box in boxes]
        self.index = gpd.GeoDataFrame({'filepath': files}, index=index, geometry=shapes, crs=proj)
        self._res = own_res if res is None else (float(res), float(res)) if isinstance(res, int | float) else res


class LabelledScenes(Dataset[Sample]):
    """Scenes with their masks: chips for training, validation and test.

    Samples are those of :class:`Scenes` with ``mask`` (height, width), int64, which holds ``ignore_index`` where the
    image has no data. Use it with a sampler of the scenes.

    Attributes:
        scenes: The images.
        labels: The labels.
    """

    def __init__(self, scenes: Scenes, labels: Labels, transforms: Callable[[Sample], Sample] | None = None) -> None:
        """Check that the labels lie on the scenes.

        Args:
            scenes: The images; transforms of their own see no mask.
            labels: The labels, in any CRS.
            transforms: Applied to each sample with its mask.

        Raises:
            EmptyIntersectionError: If they have no place in common.
        """
        self.scenes = scenes
        self.labels = labels
        self.transforms = transforms
        labels.check(scenes)

    def __len__(self) -> int:
        """Number of scenes, as TorchGeo counts; samplers say how many chips there are."""
        return len(self.scenes)

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Read the pixels of a query and their classes.

        Args:
            index: A :class:`ChipQuery`, or plain slices.

        Returns:
            The sample, see the class.

        Raises:
            EmptyIntersectionError: If no scene meets the query.
            SceneReadError: If a file is damaged.
            ConfigurationError: If a mask raster holds a value that is no class.
        """
        return self._labelled(index, self.scenes[index])

    def __getitems__(self, indices: Sequence[GeoSlice]) -> list[Sample]:
        """Read a batch, neighbours one after the other.

        Args:
            indices: Queries.

        Returns:
            Samples in the order of the queries.
        """
        samples = self.scenes.__getitems__(indices)
        return [self._labelled(index, sample) for index, sample in zip(indices, samples, strict=True)]

    def _labelled(self, index: GeoSlice, sample: Sample) -> Sample:
        if isinstance(index, ChipQuery):
            grid, window = self.scenes.scenes[index.scene].grid, index.window
            time = self.scenes.index.index[index.scene]
        else:
            x, y, t = self.scenes._disambiguate_slice(index)
            height, width = sample['image'].shape[-2:]
            transform = from_origin(x.start, y.stop, x.step, y.step)
            grid = PixelGrid(CRS.from_user_input(self.scenes.crs), transform, height, width)
            window, time = grid.window, pd.Interval(t.start, t.stop)
        mask = self.labels.mask_for(grid, window, time)
        mask[~sample['valid'][0].numpy()] = self.labels.ignore_index
        sample['mask'] = torch.from_numpy(mask.astype(np.int64))
        return self.transforms(sample) if self.transforms is not None else sample
