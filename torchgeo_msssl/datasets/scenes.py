"""Scenes as a TorchGeo dataset with the pixels of ``RasterDataset`` in a fraction of the time.

There are two kinds of queries. Plain spatiotemporal slices return exactly what TorchGeo's ``RasterDataset`` returns. A
:class:`~torchgeo_msssl.datasets.ChipQuery`, which the samplers of this package yield, also has a scene and an integer
window, which is read directly from the file.
"""

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import not_
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from torch import Tensor
from torchgeo.datasets import GeoDataset, UnionDataset
from torchgeo.datasets.utils import GeoSlice, Sample

from torchgeo_msssl.bands import Sensor, get_sensor, infer_sensor
from torchgeo_msssl.datasets.batches import empty_tensor, merge_samples
from torchgeo_msssl.datasets.queries import ChipQuery
from torchgeo_msssl.datasets.slices import SliceDataset
from torchgeo_msssl.errors import ConfigurationError, MissingCRSError
from torchgeo_msssl.geo.bad_scenes import BadScenes, OnBadScene
from torchgeo_msssl.geo.band_choice import choose_bands
from torchgeo_msssl.geo.block_reads import Target, read_windows
from torchgeo_msssl.geo.decoded_cache import Claim, DecodedScene, claim, decoded
from torchgeo_msssl.geo.eviction import parse_size
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.open_datasets import Signature, signature_of
from torchgeo_msssl.geo.plain_images import are_plain
from torchgeo_msssl.geo.radiometry import Radiometry, radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.geo.valid_counts import ValidCells, count_valid
from torchgeo_msssl.geo.warp import warp_scene

log = logging.getLogger(__name__)

#: Maximum number of decoded scenes mapped at a time: each takes two of usually 1,024 file descriptors.
_MOST_MAPS = 200


class Scenes(SliceDataset):
    """Multispectral scenes, each one multi-band file or a set of single-band files.

    Samples hold ``image`` (band, height, width) in the files' dtype, ``valid`` (1, height, width) bool, ``scale``
    and ``offset`` (band,) that turn digital numbers into reflectance, ``bounds`` and ``transform`` as TorchGeo has
    them. Chips also hold ``scene`` (index) and ``window`` (row, col, height, width), int64.

    Attributes:
        plain: Whether the scenes are images without a CRS. They lie side by side, and no two share ground.
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
        on_bad_scene: OnBadScene = 'raise',
    ) -> None:
        """Find the scenes and read their headers; no pixel is read.

        Args:
            paths: Files, folders or patterns (``dir/*.tif``).
            bands: Bands to return, by name and in this order; None for all bands of the first scene.
            sensor: Name of a sensor (see :data:`torchgeo_msssl.bands.SENSORS`) if the files do not say.
            crs: CRS to bring every scene to (default: chips stay on the grid of their scene, and plain queries are in
                the CRS of the first scene).
            res: Pixel size to bring every scene to, in units of the CRS (default: as for ``crs``).
            cache: ``disk`` decodes each scene once to a memory map.
            cache_dir: Folder of the memory maps (default: in the user's cache folder).
            offset: Added to digital numbers before scaling; ``auto`` reads it from metadata or date.
            transforms: Applied to each sample.
            cache_size: Maximum size of that folder in bytes, or as text such as ``50GB``; the scenes used longest ago
                are removed first. None sets no limit.
            on_bad_scene: Whether a scene that cannot be opened, or whose file was cut short, is an error (``raise``),
                or is left out with a warning (``skip``).

        Raises:
            ScenesNotFoundError: If a path does not exist.
            MissingCRSError: If some scenes have a CRS and others do not, or images without one are to be warped.
            BandError: If bands are missing or cannot be named.
            SceneReadError: If a file cannot be opened.
            ConfigurationError: If ``cache`` is neither ``none`` nor ``disk``, or ``cache_size`` is not a size.
        """
        if cache not in ('none', 'disk'):
            raise ConfigurationError(f"cache: expected 'none' or 'disk', got {cache!r}.")
        # RasterDataset.__init__ opens every file through a warp and skips unreadable ones; what it sets is set here
        self.paths = paths if isinstance(paths, str | PathLike) else list(paths)
        self.transforms = transforms
        self.time_series = False
        self.cache = cache == 'disk'
        self.cache_dir = Path(cache_dir) if cache_dir is not None else None
        self._cache_limit = parse_size(cache_size) if cache_size is not None else None
        self._claim: Claim | None = None
        named = get_sensor(sensor) if sensor else None
        bad = BadScenes(on_bad_scene)
        native = find_scenes(self.paths, named, plain=True, bad=bad)
        if bad.errors:
            log.warning('%s', bad.summary(len(native) + len(bad.errors)))
        self.plain = are_plain(native)
        if self.plain and (crs is not None or res is not None):
            raise MissingCRSError(
                f'crs, res: {native[0].path} has no coordinate reference system to warp from; leave them out.'
            )
        self.sensor: Sensor | None = named or infer_sensor(native[0].bands, native[0].path)
        self.bands: tuple[str, ...] = choose_bands(native, bands)
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
        self._decoded: OrderedDict[int, tuple[list[Signature], DecodedScene]] = OrderedDict()
        self._cells: dict[int, ValidCells] = {}
        self._index_scenes(native, dst or native[0].grid.crs)
        self._res = size or (self._grids[0] or native[0].grid).res
        # used by TorchGeo's own methods
        self.separate_files = len(native[0].files) > 1
        self.band_indexes = [native[0].files[0].index(b) for b in self.bands] if not self.separate_files else None

    def __getstate__(self) -> dict[str, Any]:
        """Drop what worker processes build for themselves, such as memory maps."""
        return self.__dict__ | {'_decoded': OrderedDict(), '_cells': {}, '_claim': None}

    def __or__(self, other: GeoDataset) -> UnionDataset:
        """Take the union with another dataset.

        Args:
            other: Another dataset.

        Returns:
            The union; TorchGeo's own merge of samples does not support uint16.
        """
        return UnionDataset(self, other, collate_fn=merge_samples)

    def __ror__(self, other: GeoDataset) -> UnionDataset:
        """Take the union of another dataset with this one."""
        return UnionDataset(other, self, collate_fn=merge_samples)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of images, which is that of the files."""
        return torch.from_numpy(np.empty(0, dtype=self._dtype)).dtype

    def query(self, scene: int, window: Window, positive: ChipQuery | None = None) -> ChipQuery:
        """Make the query for a window of a scene.

        Args:
            scene: Index in :attr:`scenes`.
            window: Window on that scene's grid.
            positive: Query of its partner, or None.

        Returns:
            Slices in the dataset's CRS with scene and window.
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
            SceneReadError: If a file is damaged.
        """
        if isinstance(index, ChipQuery):
            return self.__getitems__([index])[0]
        sample = self._sample(index, *self.read_slices(index))
        return self.transforms(sample) if self.transforms is not None else sample

    def __getitems__(self, indices: Sequence[GeoSlice]) -> list[Sample]:
        """Read a batch, and blocks that its chips share once.

        Args:
            indices: Queries.

        Returns:
            Samples in the order of the queries. The images of chips of one size lie in one array, in which
            :func:`~torchgeo_msssl.datasets.batches.collate` finds the batch ready.
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
        """Read windows, grouped by scene."""
        if len({(query.window.height, query.window.width) for query in queries}) > 1:
            return [self._chips([query])[0] for query in queries]
        shape = queries[0].window.height, queries[0].window.width
        images = empty_tensor((len(queries), len(self.bands), *shape), self._dtype)
        valids = empty_tensor((len(queries), 1, *shape), np.dtype(np.bool_))
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
        """Return the samples of windows that were read; small tensors are built for all at once."""
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
        """Return the decoded form of a scene, which is built at first use.

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
        if before != now:  # the file was replaced
            known = self._claim = None
        if self._claim is None:
            self.claim_cache()
        if known is None:
            known = decoded(scene, self.bands, self.cache_dir, on_progress, self._cache_limit)
        known.record_use()
        self._decoded[i] = now, known  # most recently used last
        if len(self._decoded) > _MOST_MAPS:
            self._decoded.popitem(last=False)
        return known

    def claim_cache(self) -> None:
        """Claim space for the decoded scenes, so that none of them is removed for another.

        Raises:
            ConfigurationError: If they do not fit into ``cache_size``.
        """
        self._claim = claim(self.scenes, self.bands, self.cache_dir, self._cache_limit)

    def valid_cells(self, i: int, on_progress: Callable[[float], None] | None = None) -> ValidCells:
        """Return counts of valid pixels of a scene, which are built once by reading it.

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


def _as_torchgeo_reads(scene: Scene) -> Scene:
    """Return the scene with masked pixels filled if any can be masked."""
    return replace(scene, filled=True) if any(file.masked for file in scene.files) else scene
