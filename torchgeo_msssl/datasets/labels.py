"""Labels of scenes, as TorchGeo datasets.

Labels come from mask rasters, or from polygons and lines that are burned on the fly. Unlabelled pixels hold
``ignore_index``; unlabelled is not background.
"""

import copy
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from os import PathLike
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
from shapely.geometry.base import BaseGeometry
from torch.utils.data import Dataset
from torchgeo.datasets import GeoDataset, RasterDataset
from torchgeo.datasets.utils import GeoSlice, Sample

from torchgeo_msssl.datasets.queries import ChipQuery
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.labels.classes import UNLABELLED, ClassNames, IgnoreIndex
from torchgeo_msssl.geo.labels.open import open_labels
from torchgeo_msssl.geo.labels.options import MissingClass
from torchgeo_msssl.geo.labels.source import unlabelled_scenes
from torchgeo_msssl.geo.plain_images import require_crs
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.valid_counts import streaming_windows
from torchgeo_msssl.geo.vector.burn import GeometryIndex, region_index, set_outside
from torchgeo_msssl.progress import progress_bar

log = logging.getLogger(__name__)

#: Approximate number of pixels of the windows in which classes are counted.
_COUNTED_AT_ONCE = 1_000_000
#: Names listed in a message.
_LISTED = 10


def _no_progress(piece: int, fraction: float) -> None:
    """Show nothing."""


class Labels(GeoDataset):
    """Class masks on the grid of a query.

    Samples have ``mask`` (height, width) int64, ``bounds`` and ``transform``, so that ``scenes & labels`` is TorchGeo's
    own intersection. :class:`LabelledScenes` also masks pixels without image data, and reads the chips of this
    package's samplers.

    Attributes:
        class_names: Class names; the index is the value.
        ignore_index: Value of unlabelled pixels.
        source: The labels.
    """

    def __init__(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        class_names: ClassNames | None = None,
        column: str | None = None,
        layer: str | None = None,
        buffer: float = 0.0,
        background: bool | None = None,
        extent: str | PathLike[str] | None = None,
        ignore_index: IgnoreIndex = UNLABELLED,
        priority: Sequence[str] = (),
        all_touched: bool = False,
        missing_class: MissingClass = 'refuse',
        crs: Any | None = None,
        res: float | tuple[float, float] | None = None,
        transforms: Callable[[Sample], Sample] | None = None,
    ) -> None:
        """Find the labels; vectors are read, of rasters the headers.

        Args:
            paths: Labels, see :func:`~torchgeo_msssl.geo.labels.open.open_labels` for this and the options to
                ``all_touched``.
            class_names: A list of names, whose index is the value, or a mapping of names to values of the source, such
                as ``{forest: 2, built: [8, 9]}``.
            column: Vectors: column with the class.
            layer: Vectors: layer of each file.
            buffer: Vectors: metres by which lines and points are widened to each side.
            background: Whether ground without a label is the background class, else it is unlabelled. Default: true
                for vectors, unless class 0 is drawn.
            extent: Polygons of the surveyed ground; outside of it everything is unlabelled.
            ignore_index: Value of unlabelled pixels, or values of the labels that mean unlabelled.
            priority: Vectors: classes that lie on top of the others, the uppermost first.
            all_touched: Vectors: burn every pixel that is touched.
            missing_class: Vectors: whether geometries without a class are refused, or unlabelled.
            crs: CRS of plain queries (default: that of the first file). An intersection sets it.
            res: Pixel size of plain queries, in units of the CRS (default: that of the first raster; vectors have
                none). An intersection sets it.
            transforms: Applied to each sample.

        Raises:
            ScenesNotFoundError: If nothing is at a path.
            SceneReadError: If a file cannot be read.
            MissingCRSError: If a file has no CRS.
            ConfigurationError: If the options do not fit the files or each other.
        """
        self.paths = paths if isinstance(paths, str | PathLike) else list(paths)
        self.transforms = transforms
        self.source = open_labels(
            self.paths,
            class_names,
            column=column,
            layer=layer,
            buffer=buffer,
            background=background,
            extent=extent,
            ignore_index=ignore_index,
            priority=priority,
            all_touched=all_touched,
            missing_class=missing_class,
        )
        self.class_names = self.source.class_names
        self.ignore_index = self.source.ignore_index
        if background is None and extent is None and self.source.background:
            log.info(
                'Ground outside the geometries of %s is the background class; set background to false if it is '
                'unlabelled, or extent to the outline of the surveyed ground.',
                self.source.files[0],
            )
        self._index_files(crs, res)

    def mask_for(self, grid: PixelGrid, window: Window, time: Any | None = None) -> NDArray[np.uint8]:
        """Return the classes of the pixels of a window.

        Windows of one grid fit together to the mask of the whole grid, pixel for pixel.

        Args:
            grid: Pixel grid in any CRS.
            window: Window on it; it may reach outside.
            time: Interval of the image, where masks differ by date; None for masks of any date.

        Returns:
            Shape (height, width), ``ignore_index`` where nothing is known.

        Raises:
            ConfigurationError: If a mask raster holds a value that is no class.
            SceneReadError: If a mask raster is damaged there.
        """
        return self.source.burn(grid, window, time)

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Return the mask of a query.

        Args:
            index: ``[xmin:xmax:xres, ymin:ymax:yres, tmin:tmax:tres]``, or a :class:`ChipQuery` of scenes that are on
                the grid of their dataset.

        Returns:
            The sample, see the class.

        Raises:
            EmptyIntersectionError: If no label file intersects the query.
            ConfigurationError: If the query has no pixel size, or is a chip on another grid than its slices.
        """
        x, y, t = self._disambiguate_slice(index)
        if min(x.step, y.step) <= 0:
            raise ConfigurationError('res: vector labels have no pixel size; give one, or a step in the query.')
        time = pd.Interval(t.start, t.stop)
        here = self.index.index.overlaps(time) & self.index.intersects(shapely.box(x.start, y.start, x.stop, y.stop))
        if not here.any():
            msg = f'query: {index} intersects none of the labels, whose bounds are {self.bounds}.'
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
        """Check that the labels lie on the scenes; scenes without labels are logged.

        Args:
            scenes: The images.

        Raises:
            MissingCRSError: If the scenes have no CRS.
            EmptyIntersectionError: If they touch no scene.
        """
        require_crs(scenes.scenes, 'labels')
        bare = [scene.path for scene in unlabelled_scenes(self.source, scenes.scenes)]
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
            scenes: The images; overlapping scenes are counted separately.
            region: Region in the scenes' CRS to count in, by pixel centres; None for everywhere.
            progress: Whether to show a progress bar.

        Returns:
            Number of pixels, shape (class,).

        Raises:
            EmptyIntersectionError: If the labels touch no scene, or (without a region) label no pixel with data.
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
                f'labels: {self.source.files[0]} touches the scenes (the first is {scenes.scenes[0].path}), yet labels '
                'no pixel that has data: its geometries miss every pixel centre, or lie where the images or the '
                'surveyed ground end; check both in a GIS.'
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
        """Return whether a region contains a labelled pixel with data, reading up to the first one.

        Args:
            scenes: The images.
            region: Polygon in the scenes' CRS; it contains pixels by their centres.

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
        """Return the classes of the labelled pixels of a window that have data."""
        mask = self.mask_for(scene.grid, window, time)
        set_outside(mask, inside, scene.grid, window, self.ignore_index)
        if not scene.always_valid and (mask != self.ignore_index).any():
            _, valid = scene.read(window, scenes.bands)
            mask[~valid] = self.ignore_index
        return mask[mask != self.ignore_index]

    def _index_files(self, crs: Any | None, res: float | tuple[float, float] | None) -> None:
        """Build the index of TorchGeo's datasets."""
        wanted = CRS.from_user_input(crs) if crs is not None else self.source.crs
        always = (RasterDataset.mint, RasterDataset.maxt)
        footprints = self.source.footprints(wanted)
        times = [tuple(map(pd.Timestamp, footprint.date or always)) for footprint in footprints]
        index = pd.IntervalIndex.from_tuples(times, closed='both', name='datetime')
        with rasterio.Env(OSR_WKT_FORMAT='WKT2_2018'):
            proj = PROJ_CRS.from_user_input(wanted)
        self.index = gpd.GeoDataFrame(
            {'filepath': [footprint.path for footprint in footprints]},
            index=index,
            geometry=[shapely.box(*footprint.bounds) for footprint in footprints],
            crs=proj,
        )
        self._res = (
            self.source.res if res is None else (float(res), float(res)) if isinstance(res, int | float) else res
        )


class LabelledScenes(Dataset[Sample]):
    """Scenes with their masks, for training, validation and test.

    Samples are those of :class:`Scenes` with ``mask`` (height, width) int64, which holds ``ignore_index`` where the
    image has no data. Use it with a sampler of the scenes.

    Attributes:
        scenes: The images.
        labels: The labels.
    """

    def __init__(self, scenes: Scenes, labels: Labels, transforms: Callable[[Sample], Sample] | None = None) -> None:
        """Check that the labels lie on the scenes.

        Args:
            scenes: The images; their own transforms do not get the mask.
            labels: The labels, in any CRS.
            transforms: Applied to each sample with its mask.

        Raises:
            EmptyIntersectionError: If they touch no scene.
        """
        self.scenes = scenes
        self.labels = labels
        self.transforms = transforms
        self._region: GeometryIndex | None = None
        self._context = 0
        labels.check(scenes)

    def inside(self, region: BaseGeometry, context: int = 0) -> 'LabelledScenes':
        """Return the same scenes with labels inside a region only.

        Args:
            region: Region in the scenes' CRS; it contains pixels by their centres.
            context: Pixels along the edges of each chip that are unlabelled too.

        Returns:
            A dataset that shares the files with this one.
        """
        narrowed = copy.copy(self)
        narrowed._region, narrowed._context = region_index(region, self.scenes.crs), context
        return narrowed

    def __len__(self) -> int:
        """Return the number of scenes, as TorchGeo does; samplers know the number of chips."""
        return len(self.scenes)

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Read the pixels of a query and their classes.

        Args:
            index: A :class:`ChipQuery`, or plain slices.

        Returns:
            The sample, see the class.

        Raises:
            EmptyIntersectionError: If no scene intersects the query.
            SceneReadError: If a file is damaged.
            ConfigurationError: If a mask raster holds a value that is no class.
        """
        return self._labelled(index, self.scenes[index])

    def __getitems__(self, indices: Sequence[GeoSlice]) -> list[Sample]:
        """Read a batch; samples are in the order of the queries."""
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
        set_outside(mask, self._region, grid, window, self.labels.ignore_index)
        _clear_edges(mask, self._context, self.labels.ignore_index)
        sample['mask'] = torch.from_numpy(mask.astype(np.int64))
        return self.transforms(sample) if self.transforms is not None else sample


def _clear_edges(mask: NDArray[np.uint8], width: int, value: int) -> None:
    """Set the pixels along the edges of a mask to a value."""
    if width:
        mask[:width], mask[-width:], mask[:, :width], mask[:, -width:] = (value,) * 4
