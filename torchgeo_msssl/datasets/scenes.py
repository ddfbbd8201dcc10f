"""Scenes as a TorchGeo dataset that returns the same pixels and takes a fraction of the time.

Two kinds of queries are understood. Plain spatiotemporal slices give exactly what TorchGeo's ``RasterDataset``
gives, through its own code where a warp or a merge is needed. A :class:`ChipQuery`, as this package's samplers
yield it, also names a scene and an integer window, which is read straight from the file.
"""

import itertools
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import not_
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
import torch
from numpy.typing import NDArray
from pyproj import CRS as PROJ_CRS
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.merge import copy_first, merge
from rasterio.transform import array_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import from_bounds
from torch import Tensor
from torch.utils.data import get_worker_info
from torchgeo.datasets import GeoDataset, RasterDataset, UnionDataset
from torchgeo.datasets.utils import GeoSlice, Sample

from torchgeo_msssl.bands import Sensor, canonical_band_name, get_sensor, infer_sensor
from torchgeo_msssl.errors import BandError, ConfigurationError, EmptyIntersectionError
from torchgeo_msssl.geo.block_reads import Target, read_windows
from torchgeo_msssl.geo.decoded_cache import Claim, DecodedScene, claim, decoded
from torchgeo_msssl.geo.eviction import parse_size
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.open_datasets import Signature, open_raster, pooled_dataset, signature_of
from torchgeo_msssl.geo.radiometry import Radiometry, radiometry
from torchgeo_msssl.geo.scene import Scene, missing_bands_error, read_file, representable, with_data
from torchgeo_msssl.geo.valid_counts import ValidCells, count_valid
from torchgeo_msssl.geo.warp import warp_scene

#: How far a query's edge may lie from a pixel edge to be read as an integer window, in pixels. TorchGeo resamples
#: such windows; in types this small the result rounds back to the pixel itself. Others have to fit exactly.
_SNAP = {'uint8': 1e-6, 'int8': 1e-6, 'uint16': 1e-6, 'int16': 1e-6}


#: Numbers in a tensor from which on copying it costs more than finding out whether that is needed.
_WORTH_A_LOOK = 4096

#: Decoded scenes that are mapped at a time: each takes two file descriptors, of usually 1,024.
_MOST_MAPS = 200


class ChipQuery(tuple[slice, slice, slice]):
    """Slices ``(x, y, t)`` that also say which window of which scene they are.

    It serves wherever TorchGeo takes a query; :class:`Scenes` reads the window itself.

    Attributes:
        scene: Index of the scene in :attr:`Scenes.scenes`.
        window: Window on that scene's grid.
        positive: Another chip that shows the same thing (another date, or next to it), or None.
    """

    scene: int
    window: Window
    positive: 'ChipQuery | None'

    def __new__(
        cls,
        slices: tuple[slice, slice, slice],
        scene: int = 0,
        window: Window = Window(0, 0, 0, 0),  # noqa: B008 (frozen)
        positive: 'ChipQuery | None' = None,
    ) -> 'ChipQuery':
        """Create a query from slices in the dataset's CRS."""
        query = super().__new__(cls, slices)
        query.scene = scene
        query.window = window
        query.positive = positive
        return query


class Scenes(RasterDataset):
    """Multispectral scenes, each one multi-band file or a set of single-band files.

    Samples hold ``image`` (band, height, width) in the files' dtype, ``valid`` (1, height, width) bool, ``scale``
    and ``offset`` (band,) that turn digital numbers into reflectance, ``bounds`` and ``transform`` as TorchGeo has
    them. Chips also hold ``scene`` (index) and ``window`` (row, col, height, width), int64.
    """

    def __init__(
        self,
        paths: str | PathLike[str] | Iterable[str | PathLike[str]],
        bands: Sequence[str] | None = None,
        sensor: str | None = None,
        crs: Any | None = None,
        res: float | tuple[float, float] | None = None,
        cache: Literal['none', 'disk'] = 'none',
        cache_dir: str | PathLike[str] | None = None,
        offset: float | Literal['auto'] = 'auto',
        transforms: Callable[[Sample], Sample] | None = None,
        cache_size: int | str | None = None,
    ) -> None:
        """Find the scenes and note what they are; no pixel is read.

        Args:
            paths: Files, folders or patterns (``dir/*.tif``).
            bands: Bands to return, by name and in this order; None for all that the first scene has.
            sensor: Name of a sensor (see :data:`torchgeo_msssl.bands.SENSORS`), where the files do not tell.
            crs: CRS to bring every scene to (default: chips stay on their scene's own grid, and plain queries are
                in the CRS of the first scene).
            res: Pixel size to bring every scene to, in units of the CRS (default: likewise).
            cache: ``disk`` decodes each scene once to a memory map.
            cache_dir: Folder for that (default: in the user's cache folder).
            offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
            transforms: Applied to each sample.
            cache_size: Most that decoded scenes may take in that folder, as bytes or text such as ``50GB``; those that
                were used longest ago make room, and None sets no limit.

        Raises:
            ScenesNotFoundError: If nothing is at a path.
            MissingCRSError: If a scene has no CRS.
            BandError: If bands are missing or cannot be named.
            SceneReadError: If a file cannot be opened.
            ConfigurationError: If ``cache`` is neither ``none`` nor ``disk``, or ``cache_size`` is no size.
        """
        if cache not in ('none', 'disk'):
            raise ConfigurationError(f"cache: expected 'none' or 'disk', got {cache!r}.")
        # RasterDataset.__init__ opens every file through a warp and skips unreadable ones: everything it sets
        # is set here instead.
        self.paths = paths if isinstance(paths, str | PathLike) else list(paths)
        self.transforms = transforms
        self.time_series = False
        self.cache = cache == 'disk'
        self.cache_dir = Path(cache_dir) if cache_dir is not None else None
        self._cache_limit = parse_size(cache_size) if cache_size is not None else None
        self._claim: Claim | None = None
        named = get_sensor(sensor) if sensor else None
        native = find_scenes(self.paths, named)
        self.sensor: Sensor | None = named or infer_sensor(native[0].bands, native[0].path)
        self.bands: tuple[str, ...] = _choose_bands(native, bands)
        dst = CRS.from_user_input(crs) if crs is not None else None
        size = (float(res), float(res)) if isinstance(res, int | float) else res
        self.scenes: list[Scene] = [
            warp_scene(scene, dst or (native[0].grid.crs if size else scene.grid.crs), size)
            if dst or size or not scene.grid.is_north_up
            else _as_torchgeo_reads(scene)
            for scene in native
        ]
        self.radiometry: list[Radiometry] = [radiometry(scene, self.bands, self.sensor, offset) for scene in native]
        self._dtype = np.result_type(*(scene.dtype for scene in native))
        self._scale = torch.tensor([how.scale for how in self.radiometry], dtype=torch.float32)
        self._offset = torch.tensor([how.offset for how in self.radiometry], dtype=torch.float32)
        self._native = native
        self._decoded: OrderedDict[int, tuple[list[Signature], DecodedScene]] = OrderedDict()
        self._cells: dict[int, ValidCells] = {}
        self._index_files(dst or native[0].grid.crs)
        self._res = size or (self._grids[0] or native[0].grid).res
        # what TorchGeo's own methods look at
        self.separate_files = len(native[0].files) > 1
        self.band_indexes = [native[0].files[0].index(b) for b in self.bands] if not self.separate_files else None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made again where it is needed: worker processes map decoded scenes themselves."""
        return self.__dict__ | {'_decoded': OrderedDict(), '_cells': {}, '_claim': None}

    def __or__(self, other: GeoDataset) -> UnionDataset:
        """Take the union with another dataset.

        Args:
            other: Another dataset.

        Returns:
            The union; TorchGeo's own way of merging samples knows no uint16.
        """
        return UnionDataset(self, other, collate_fn=_merge_samples)

    def __ror__(self, other: GeoDataset) -> UnionDataset:
        """The union of another dataset with this one."""
        return UnionDataset(other, self, collate_fn=_merge_samples)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of images: that of the files, undivided and unrounded."""
        return torch.from_numpy(np.empty(0, dtype=self._dtype)).dtype

    @property
    def resampling(self) -> Resampling:
        """What TorchGeo uses for images where pixels do not coincide."""
        return Resampling.bilinear

    def _index_files(self, crs: CRS) -> None:
        """Build the index that TorchGeo builds, from headers alone."""
        self._rio_crs = crs
        self._grids: list[PixelGrid | None] = []  # the grid TorchGeo would warp to, None where it would not
        boxes, times = [], []
        for scene in self._native:
            grid = scene.grid
            target = self._warp_grid(grid, crs)
            self._grids.append(target)
            boxes.append(array_bounds(target.height, target.width, target.transform) if target else grid.bounds)
            start, stop = scene.date or (self.mint, self.maxt)
            times.append((pd.Timestamp(start), pd.Timestamp(stop)))
        index = pd.IntervalIndex.from_tuples(times, closed='both', name='datetime')
        with rasterio.Env(OSR_WKT_FORMAT='WKT2_2018'):
            proj = PROJ_CRS.from_user_input(crs)
        data = {'filepath': [scene.path for scene in self._native]}
        self.index = gpd.GeoDataFrame(data, index=index, geometry=[shapely.box(*box) for box in boxes], crs=proj)
        self._boxes = np.array(boxes, dtype=np.float64)
        self._boxes_crs = self.index.crs

    def _warp_grid(self, grid: PixelGrid, crs: CRS) -> PixelGrid | None:
        """The grid that TorchGeo warps a file to, or None where it leaves it as it is."""
        if grid.is_north_up and grid.crs == crs:
            return None  # what the function below says too, after a third of the time that opening the file took
        transform, width, height, warps = self._compute_affine_warp_grid(
            grid.crs, grid.transform, grid.width, grid.height, crs
        )
        return PixelGrid(crs, transform, height, width) if warps else None

    @property
    def _crs_changed(self) -> bool:
        """Whether the dataset was given another CRS after it was made, as an intersection or union does."""
        return self.index.crs is not self._boxes_crs and self.index.crs != self._boxes_crs

    def query(self, scene: int, window: Window, positive: ChipQuery | None = None) -> ChipQuery:
        """Make the query for a window of a scene.

        Args:
            scene: Index in :attr:`scenes`.
            window: Window on that scene's grid.
            positive: Its partner, if any.

        Returns:
            Slices in the dataset's CRS that carry scene and window.
        """
        grid = self.scenes[scene].grid
        left, bottom, right, top = grid.window_bounds(window)
        crs = CRS.from_user_input(self.crs) if self._crs_changed else self._rio_crs
        if grid.crs != crs:
            left, bottom, right, top = transform_bounds(grid.crs, crs, left, bottom, right, top)
        interval = self.index.index[scene]
        slices = (
            slice(left, right, self.res[0]),
            slice(bottom, top, self.res[1]),
            slice(interval.left, interval.right, 1),
        )
        return ChipQuery(slices, scene, window, positive)

    def __getitem__(self, index: GeoSlice) -> Sample:
        """Read the pixels of a query.

        Args:
            index: ``[xmin:xmax:xres, ymin:ymax:yres, tmin:tmax:tres]``, or a :class:`ChipQuery`.

        Returns:
            The sample, see the class. A chip with a partner also has ``positive``, ``positive_valid``,
            ``positive_scale`` and ``positive_offset``.

        Raises:
            EmptyIntersectionError: If no scene meets the query.
            SceneReadError: If a file is damaged; file and window are named.
        """
        if isinstance(index, ChipQuery):
            return self.__getitems__([index])[0]
        sample = self._slices(index)
        return self.transforms(sample) if self.transforms is not None else sample

    def __getitems__(self, indices: Sequence[GeoSlice]) -> list[Sample]:
        """Read a batch; what its chips have in common is read once.

        Args:
            indices: Queries.

        Returns:
            Samples in the order of the queries. The images of chips of one size lie in one array, in which
            :func:`collate` finds the batch ready.
        """
        chips = [index for index in indices if isinstance(index, ChipQuery)]
        if len(chips) < len(indices):
            return [self[index] for index in indices]
        partners = [chip.positive for chip in chips if chip.positive is not None]
        samples = self._chips([*chips, *partners])
        others = iter(samples[len(chips) :])
        for chip, sample in zip(chips, samples, strict=False):
            if chip.positive is not None:
                partner = next(others)
                sample['positive'] = partner['image']
                for key in ('valid', 'scale', 'offset'):
                    sample[f'positive_{key}'] = partner[key]
        wanted = samples[: len(chips)]
        return [self.transforms(sample) for sample in wanted] if self.transforms is not None else wanted

    def _chips(self, queries: Sequence[ChipQuery]) -> list[Sample]:
        """Read windows, those of one scene together."""
        if len({(query.window.height, query.window.width) for query in queries}) > 1:
            return [self._chips([query])[0] for query in queries]
        shape = queries[0].window.height, queries[0].window.width
        images = _room((len(queries), len(self.bands), *shape), self._dtype)
        valids = _room((len(queries), 1, *shape), np.dtype(np.bool_))
        by_scene: dict[int, list[int]] = {}
        for k, query in enumerate(queries):
            by_scene.setdefault(query.scene, []).append(k)
        for i, mine in sorted(by_scene.items()):
            places = [(images[k].numpy(), valids[k, 0].numpy()) for k in mine]
            self._read_scene(i, [queries[k].window for k in mine], places)
        return self._samples(queries, images, valids)

    def _read_scene(self, i: int, windows: Sequence[Window], places: Sequence[Target]) -> None:
        scene = self.scenes[i]
        inside = [window.intersection(scene.grid.window) == window for window in windows]
        for window, (image, valid) in itertools.compress(zip(windows, places, strict=True), map(not_, inside)):
            image[...], valid[...] = scene.read(window, self.bands)
        windows, places = list(itertools.compress(windows, inside)), list(itertools.compress(places, inside))
        if not self.cache:
            read_windows(scene, windows, self.bands, places)
        elif windows:
            decoded_scene = self.decode(i)
            for window, place in zip(windows, places, strict=True):
                decoded_scene.read_into(window, *place)

    def _samples(self, queries: Sequence[ChipQuery], images: Tensor, valids: Tensor) -> list[Sample]:
        """Samples of windows that were read; what is small is made for all of them at once."""
        numbers, bounds, transforms, windows = [], [], [], []
        for query in queries:
            (x, y, t), window = query, query.window
            numbers.append(query.scene)
            windows.append((window.row, window.col, window.height, window.width))
            times = (t.start.timestamp(), t.stop.timestamp(), t.step)
            bounds.append((x.start, x.stop, x.step, y.start, y.stop, y.step, *times))
            transforms.append((x.step, 0.0, x.start, 0.0, -y.step, y.stop, 0.0, 0.0, 1.0))
        scene = torch.tensor(numbers)
        columns = {
            'image': images,
            'valid': valids,
            'scale': self._scale[scene],
            'offset': self._offset[scene],
            'bounds': torch.tensor(bounds),
            'transform': torch.tensor(transforms),
            'scene': scene,
            'window': torch.tensor(windows),
        }
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def decode(self, i: int, on_progress: Callable[[float], None] | None = None) -> DecodedScene:
        """The decoded form of a scene, built where it is not there yet.

        Args:
            i: Index in :attr:`scenes`.
            on_progress: Called with the fraction done.

        Returns:
            The memory-mapped scene.

        Raises:
            ConfigurationError: If the scenes do not fit into ``cache_size``.
            OutputError: If the cache cannot be written.
        """
        scene = self.scenes[i]
        now = [signature_of(file.path) for file in scene.files]
        before, known = self._decoded.pop(i, (now, None))
        if before != now:  # another file has taken the path since
            known = self._claim = None
        if self._claim is None:
            self.claim_cache()
        if known is None:
            known = decoded(scene, self.bands, self.cache_dir, on_progress, self._cache_limit)
        known.record_use()
        self._decoded[i] = now, known  # the last one is the one used last
        if len(self._decoded) > _MOST_MAPS:
            self._decoded.popitem(last=False)
        return known

    def claim_cache(self) -> None:
        """Say that the decoded scenes are wanted, so that none of them makes room for another.

        Raises:
            ConfigurationError: If they do not fit into ``cache_size``.
        """
        self._claim = claim(self.scenes, self.bands, self.cache_dir, self._cache_limit)

    def valid_cells(self, i: int, on_progress: Callable[[float], None] | None = None) -> ValidCells:
        """Counts of valid pixels of a scene, made once by reading it through.

        Args:
            i: Index in :attr:`scenes`.
            on_progress: Called with the fraction done.

        Returns:
            The counts.
        """
        if i not in self._cells:
            self._cells[i] = count_valid(self.scenes[i], self.bands, on_progress)
        return self._cells[i]

    def _sample(self, index: GeoSlice, image: NDArray[Any], valid: NDArray[np.bool_], scene: int) -> Sample:
        x, y, _ = self._disambiguate_slice(index)
        return {
            'image': torch.from_numpy(image.astype(self._dtype, copy=False)),
            'valid': torch.from_numpy(valid[None]),
            'scale': self._scale[scene].clone(),
            'offset': self._offset[scene].clone(),
            'bounds': self._slice_to_tensor(index),
            'transform': torch.tensor(rasterio.transform.from_origin(x.start, y.stop, x.step, y.step)),
        }

    # Plain queries: TorchGeo's answer, to the last pixel.

    def _slices(self, index: GeoSlice) -> Sample:
        x, y, t = self._disambiguate_slice(index)
        hits = self._intersecting(x, y, t)
        if len(hits) == 0:
            msg = f'query: {index} meets none of the {len(self)} scene(s), whose bounds are {self.bounds}.'
            raise EmptyIntersectionError(msg)
        first = self.radiometry[hits[0]]
        if any(self.radiometry[i].offset != first.offset or self.radiometry[i].scale != first.scale for i in hits):
            names = ', '.join(self.scenes[i].name for i in hits)
            warnings.warn(
                f'The query merges scenes of different scale or offset ({names}); narrow its time slice.', stacklevel=3
            )
        bounds = (x.start, y.start, x.stop, y.stop)
        read = self._single_window(hits, bounds, (x.step, y.step))
        image, valid = read if read is not None else self._merge(hits, bounds, (x.step, y.step))
        return self._sample(index, image, valid, int(hits[0]))

    def _intersecting(self, x: slice, y: slice, t: slice) -> NDArray[np.intp]:
        """Positions of the scenes that TorchGeo would read, in its order."""
        in_time = np.flatnonzero(self.index.index.overlaps(pd.Interval(t.start, t.stop)))[:: t.step]
        if self._crs_changed:
            box = shapely.box(x.start, y.start, x.stop, y.stop)
            return in_time[self.index.geometry.iloc[in_time].intersects(box).to_numpy()]
        left, bottom, right, top = self._boxes[in_time].T
        meets = (left <= x.stop) & (right >= x.start) & (bottom <= y.stop) & (top >= y.start)
        return in_time[meets]

    def _single_window(
        self, hits: NDArray[np.intp], bounds: tuple[float, float, float, float], res: tuple[float, float]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
        """Read a query whose pixels are those of one scene, or return None where a merge is needed."""
        if self._crs_changed:
            return None
        left, bottom, right, top = self._boxes[hits].T
        inside = np.flatnonzero((left < bounds[2]) & (right > bounds[0]) & (bottom < bounds[3]) & (top > bounds[1]))
        if len(inside) != 1:
            return None
        i = int(hits[inside[0]])
        scene, grid = self._native[i], self._native[i].grid
        if self._grids[i] is not None or len(scene.files) > 1:
            return None
        if scene.nodata is not None and 'alpha' in scene.files[0].names:
            return None  # GDAL looks at one of the two alone
        # the same arithmetic as rasterio.merge, so that the same windows come out
        shape = (round((bounds[3] - bounds[1]) / res[1]), round((bounds[2] - bounds[0]) / res[0]))
        box = grid.bounds
        shared = (max(bounds[0], box[0]), max(bounds[1], box[1]), min(bounds[2], box[2]), min(bounds[3], box[3]))
        out = rasterio.transform.from_origin(bounds[0], bounds[3], *res)
        tolerance = _SNAP.get(scene.files[0].dtype, 0.0)
        source, target = _snap(from_bounds(*shared, grid.transform), tolerance), _snap(from_bounds(*shared, out), 1e-6)
        if source is None or target is None or (source.height, source.width) != (target.height, target.width):
            return None
        first = self._native[hits[0]].files[0]
        image = np.zeros((len(self.bands), *shape), dtype=first.dtype)
        if first.nodata is not None and representable(first.nodata, image.dtype):
            image[:] = first.nodata
        valid = np.zeros(shape, dtype=np.bool_)
        pixels, unmasked = read_file(scene.files[0], source, self.bands, grid)
        rows = slice(target.row, target.row + target.height)
        cols = slice(target.col, target.col + target.width)
        np.copyto(image[:, rows, cols], pixels, where=unmasked, casting='unsafe')
        valid[rows, cols] = unmasked & _with_data(scene, pixels, self.bands)
        return image, valid

    def _merge(
        self, hits: NDArray[np.intp], bounds: tuple[float, float, float, float], res: tuple[float, float]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Let rasterio merge the scenes, as TorchGeo does, and note which pixels came from a scene."""
        shape = (round((bounds[3] - bounds[1]) / res[1]), round((bounds[2] - bounds[0]) / res[0]))
        planes, valid = [], np.ones(shape, dtype=np.bool_)
        separate = any(len(self._native[i].files) > 1 for i in hits)
        for bands in [(band,) for band in self.bands] if separate else [self.bands]:
            files = [self._native[i].file_of(bands[0]) for i in hits]
            covered = np.zeros((len(bands), *shape), dtype=np.bool_)

            def copy(
                merged: NDArray[Any],
                new: NDArray[Any],
                merged_mask: NDArray[np.bool_],
                new_mask: NDArray[np.bool_],
                index: int = 0,
                roff: int = 0,
                coff: int = 0,
                covered: NDArray[np.bool_] = covered,
            ) -> None:
                copy_first(merged, new, merged_mask, new_mask)
                covered[:, roff : roff + new.shape[1], coff : coff + new.shape[2]] |= ~new_mask

            sources = [
                _Bands(self._handle(file.path, int(i)), [file.index(band) for band in bands])
                for file, i in zip(files, hits, strict=True)
            ]
            indexes = list(range(1, len(bands) + 1))
            plane, _ = merge(sources, bounds=bounds, res=res, indexes=indexes, resampling=self.resampling, method=copy)
            planes.append(plane)
            valid &= covered.all(axis=0)
        image = np.concatenate(planes)
        return image, valid & _with_data(self._native[hits[0]], image, self.bands)

    def _handle(self, path: str, i: int) -> DatasetReader:
        """Open a file as TorchGeo would: warped where its grid is not the dataset's."""
        crs = CRS.from_user_input(self.crs)
        grid = self._native[i].file_of_path(path).grid
        transform, width, height, warps = self._compute_affine_warp_grid(
            grid.crs, grid.transform, grid.width, grid.height, crs
        )
        if not warps:
            return pooled_dataset(path, lambda: open_raster(path))

        def warp() -> DatasetReader:
            with open_raster(path) as source:
                return WarpedVRT(
                    source, crs=crs, transform=transform, height=height, width=width,
                    src_crs=grid.crs, src_transform=grid.transform,
                )  # fmt: skip

        return pooled_dataset(f'{path}|{crs.to_wkt()}', warp)


class _Bands:
    """An open dataset whose bands are numbered anew, since one call of merge takes one numbering for all files."""

    def __init__(self, dataset: DatasetReader, indexes: Sequence[int]) -> None:
        self._dataset = dataset
        self._indexes = indexes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def read(self, indexes: Sequence[int], **options: Any) -> NDArray[Any]:
        return self._dataset.read(indexes=[self._indexes[i - 1] for i in indexes], **options)


def _as_torchgeo_reads(scene: Scene) -> Scene:
    """The scene with masked pixels filled, where any can be masked."""
    return replace(scene, filled=True) if any(file.masked for file in scene.files) else scene


def _snap(window: Any, tolerance: float) -> Window | None:
    values = (window.row_off, window.col_off, window.height, window.width)
    whole = [round(value) for value in values]
    if any(abs(value - near) > tolerance for value, near in zip(values, whole, strict=True)):
        return None
    return Window(*whole)


def _with_data(scene: Scene, image: NDArray[Any], bands: Sequence[str]) -> NDArray[np.bool_]:
    declared = next((file.nodata for file in scene.files if file.nodata is not None), None)
    return with_data(image, bands, declared, scene.nodata)


def _merge_samples(samples: Iterable[Sample]) -> Sample:
    """TorchGeo's ``merge_samples`` (the larger value wins) for every dtype."""
    merged: Sample = {}
    for sample in samples:
        for key, value in sample.items():
            old = merged.get(key)
            merged[key] = value if old is None else torch.from_numpy(np.maximum(old.numpy(), value.numpy()))
    return merged


def _choose_bands(scenes: Sequence[Scene], bands: Sequence[str] | None) -> tuple[str, ...]:
    chosen = tuple(canonical_band_name(band) for band in bands) if bands else scenes[0].bands
    if len(set(chosen)) < len(chosen):
        raise BandError(f'bands: {", ".join(chosen)} names a band twice.')
    for scene in scenes:
        missing = [band for band in chosen if band not in scene.bands]
        if missing and not bands:
            common = [band for band in chosen if all(band in other.bands for other in scenes)]
            advice = f'choose those that all have, with `bands: [{", ".join(common)}]`' if common else 'read them apart'
            raise BandError(
                f'bands: {scenes[0].path} has {", ".join(chosen)}, and {scene.path} has {", ".join(scene.bands)}; '
                f'{advice}.'
            )
        if missing:
            raise missing_bands_error(scene, missing)
    return chosen


def collate(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Stack samples into a batch.

    Args:
        samples: Samples of one size.

    Returns:
        The keys that all samples have, stacked along a new first axis: without a copy where they lie in one array
        one after the other, as :class:`Scenes` reads a batch.
    """
    keys = [key for key in samples[0] if all(key in sample for sample in samples)]
    return {key: _stacked([sample[key] for sample in samples]) for key in keys}


def _room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """An empty tensor; in a worker of a loader, where the main process can map it, so that it is not copied there."""
    if get_worker_info() is None:
        return torch.from_numpy(np.empty(shape, dtype))
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)  # as torch's own collate does
    return torch.from_numpy(np.empty(0, dtype)).set_(storage).view(shape)


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    first, size = tensors[0], tensors[0].numel()
    if size < _WORTH_A_LOOK:
        return torch.stack(list(tensors))
    storage, start = first.untyped_storage().data_ptr(), first.storage_offset()
    ready = len(tensors) > 1 and all(
        tensor.is_contiguous()
        and tensor.untyped_storage().data_ptr() == storage
        and tensor.storage_offset() == start + k * size
        and tensor.shape == first.shape
        and tensor.dtype == first.dtype
        for k, tensor in enumerate(tensors)
    )
    if not ready:
        return torch.stack(list(tensors))
    return first.as_strided((len(tensors), *first.shape), (size, *first.stride()))
