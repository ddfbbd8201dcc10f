"""Plain spatiotemporal slices of scenes: the pixels of TorchGeo's ``RasterDataset``, to the last one.

A slice that coincides with the pixels of one scene is read as a window. Others go through TorchGeo's own functions,
which warp and merge.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import CRS as PROJ_CRS
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.merge import copy_first, merge
from rasterio.transform import array_bounds
from rasterio.vrt import WarpedVRT
from rasterio.windows import from_bounds
from torchgeo.datasets import RasterDataset
from torchgeo.datasets.utils import GeoSlice

from torchgeo_msssl.errors import EmptyIntersectionError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.nodata import representable, with_data
from torchgeo_msssl.geo.open_datasets import open_raster, pooled_dataset
from torchgeo_msssl.geo.radiometry import Radiometry
from torchgeo_msssl.geo.scene import Scene, read_file

#: Distance in pixels between the edge of a query and that of a pixel up to which an integer window is read. TorchGeo
#: resamples such windows; in types this small the result rounds back to the pixel itself. Others have to fit exactly.
_SNAP = {'uint8': 1e-6, 'int8': 1e-6, 'uint16': 1e-6, 'int16': 1e-6}


class SliceDataset(RasterDataset):
    """Index of scenes, with the queries of TorchGeo's ``RasterDataset``.

    Attributes:
        bands: Canonical names of the bands, in order.
        radiometry: Scale and offset of each scene.
    """

    bands: tuple[str, ...]
    radiometry: list[Radiometry]

    @property
    def resampling(self) -> Resampling:
        """Resampling that TorchGeo uses for images if pixels do not coincide."""
        return Resampling.bilinear

    def _index_scenes(self, scenes: Sequence[Scene], crs: CRS) -> None:
        """Build the index that TorchGeo builds, from headers only.

        Args:
            scenes: The scenes on their own grids.
            crs: CRS of the dataset.
        """
        self._native = scenes
        self._rio_crs = crs
        self._grids: list[PixelGrid | None] = []  # the grid TorchGeo would warp to, None if it would not warp
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
        """Return the grid that TorchGeo warps a file to, or None if it does not warp it."""
        if grid.is_north_up and grid.crs == crs:
            return None  # as the function below would, which takes a third of the time of opening the file
        transform, width, height, warps = self._compute_affine_warp_grid(
            grid.crs, grid.transform, grid.width, grid.height, crs
        )
        return PixelGrid(crs, transform, height, width) if warps else None

    @property
    def _crs_changed(self) -> bool:
        """Whether the dataset was given another CRS after construction, as an intersection or union does."""
        return self.index.crs is not self._boxes_crs and self.index.crs != self._boxes_crs

    def read_slices(self, index: GeoSlice) -> tuple[NDArray[Any], NDArray[np.bool_], int]:
        """Read the pixels that TorchGeo's ``RasterDataset`` returns for a query.

        Args:
            index: ``[xmin:xmax:xres, ymin:ymax:yres, tmin:tmax:tres]``.

        Returns:
            Image (band, height, width), its valid pixels (height, width), and the index of the uppermost scene.

        Raises:
            EmptyIntersectionError: If no scene meets the query.
            SceneReadError: If a file is damaged.
        """
        x, y, t = self._disambiguate_slice(index)
        hits = self._intersecting(x, y, t)
        if len(hits) == 0:
            raise EmptyIntersectionError(
                f'query: {index} meets none of the {len(self)} scene(s), whose bounds are {self.bounds}.'
            )
        first = self.radiometry[hits[0]]
        if any(self.radiometry[i].offset != first.offset or self.radiometry[i].scale != first.scale for i in hits):
            names = ', '.join(self._native[i].name for i in hits)
            warnings.warn(
                f'The query merges scenes of different scale or offset ({names}); narrow its time slice.', stacklevel=3
            )
        bounds = (x.start, y.start, x.stop, y.stop)
        read = self._single_window(hits, bounds, (x.step, y.step))
        image, valid = read if read is not None else self._merge(hits, bounds, (x.step, y.step))
        return image, valid, int(hits[0])

    def _intersecting(self, x: slice, y: slice, t: slice) -> NDArray[np.intp]:
        """Return the positions of the scenes that TorchGeo would read, in its order."""
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
        """Read a query whose pixels are those of one scene, or return None if a merge is needed."""
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
            return None  # GDAL considers only one of the two
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
        """Let rasterio merge the scenes, as TorchGeo does, and track which pixels came from a scene."""
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
        """Open a file as TorchGeo would: warped if its grid differs from that of the dataset."""
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
                    source,
                    crs=crs,
                    transform=transform,
                    height=height,
                    width=width,
                    src_crs=grid.crs,
                    src_transform=grid.transform,
                )

        return pooled_dataset(f'{path}|{crs.to_wkt()}', warp)


class _Bands:
    """An open dataset with other band numbers: one call of ``merge`` uses the same numbers for all files."""

    def __init__(self, dataset: DatasetReader, indexes: Sequence[int]) -> None:
        self._dataset = dataset
        self._indexes = indexes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def read(self, indexes: Sequence[int], **options: Any) -> NDArray[Any]:
        return self._dataset.read(indexes=[self._indexes[i - 1] for i in indexes], **options)


def _snap(window: Any, tolerance: float) -> Window | None:
    values = (window.row_off, window.col_off, window.height, window.width)
    whole = [round(value) for value in values]
    if any(abs(value - near) > tolerance for value, near in zip(values, whole, strict=True)):
        return None
    return Window(*whole)


def _with_data(scene: Scene, image: NDArray[Any], bands: Sequence[str]) -> NDArray[np.bool_]:
    declared = next((file.nodata for file in scene.files if file.nodata is not None), None)
    return with_data(image, bands, declared, scene.nodata)
