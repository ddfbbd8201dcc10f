"""Base class of the chip samplers: seed, epoch, rank and position."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import geopandas as gpd
import pandas as pd
import shapely
import torch
from shapely.geometry.base import BaseGeometry
from torch import distributed
from torch.utils.data import DistributedSampler
from torchgeo.samplers import GeoSampler

from torchgeo_msssl.datasets.queries import ChipQuery
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.vector.antimeridian import cut_at_antimeridian


class ChipSampler(GeoSampler, DistributedSampler[Any]):
    """Yields chips of scenes; the queries of an epoch depend on seed, epoch and position only.

    It is a ``DistributedSampler`` so that Lightning does not wrap it: every rank selects its own share.
    """

    dataset: Scenes

    def __init__(
        self,
        dataset: Scenes,
        size: int | tuple[int, int],
        roi: BaseGeometry | None = None,
        seed: int | None = None,
    ) -> None:
        """Check the size.

        Args:
            dataset: Scenes to sample from.
            size: Chip size in pixels, one side or ``(height, width)``.
            roi: Chips lie wholly inside this region (in the dataset's CRS).
            seed: Seed; None for that of ``seed_everything`` (torch's initial seed).

        Raises:
            ConfigurationError: If the size is not positive.
        """
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1:
            raise ConfigurationError(f'size: expected at least 1 pixel, got {size}.')
        self.dataset = dataset
        self.size = (int(height), int(width))
        self.index = dataset.index
        self.res = dataset.res
        x, y, t = dataset.bounds
        self.roi = roi if roi is not None else shapely.box(x.start, y.start, x.stop, y.stop)
        self.toi = pd.Interval(t.start, t.stop)
        self._region = roi
        self.seed = torch.initial_seed() if seed is None else seed
        self.epoch = 0
        self.start = 0
        self._resume = 0

    def region_of(self, scene: int) -> BaseGeometry | None:
        """Return the region in the CRS of a scene, slightly larger so that chips on its border are inside.

        Args:
            scene: Index in the dataset.

        Returns:
            The prepared region, or None without a region.
        """
        if self._region is None:
            return None
        grid = self.dataset.scenes[scene].grid
        series = gpd.GeoSeries([self._region], crs=self.dataset.crs)
        placed = series.to_crs(grid.crs.to_wkt())
        if placed.crs != series.crs:
            placed[:] = cut_at_antimeridian(placed.to_numpy(), placed.crs)[0]
        region = placed.iloc[0].buffer(1e-3 * min(grid.res), join_style='mitre')
        shapely.prepare(region)
        return region

    @staticmethod
    def ranks() -> tuple[int, int]:
        """Return the rank of this process and the number of processes."""
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose chips come next.

        Args:
            epoch: Epoch, from 0; another epoch starts at its first chip.
        """
        if epoch != self.epoch:
            self.epoch, self.start, self._resume = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """Return seed, epoch and the number of chips of this rank that were already drawn."""
        return {'seed': self.seed, 'epoch': self.epoch, 'start': self.start}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume where another sampler stopped.

        Args:
            state: Result of :meth:`state_dict`.
        """
        self.seed, self.epoch, self.start = int(state['seed']), int(state['epoch']), int(state['start'])
        self._resume = self.start

    def __iter__(self) -> Iterator[Any]:
        """Yield this rank's chips of the epoch, from the first one or from the position of a loaded state.

        The next epoch follows when all are drawn. An interrupted iteration leaves no state behind.
        """
        # Lightning's sanity check draws two batches and drops the iterator: validation must start at the first chip
        epoch, start = self.epoch, self._resume
        self.start, self._resume = start, 0
        for position, query in enumerate(self.draw(epoch, start), start=start + 1):
            self.start = position
            yield query
        self.set_epoch(epoch + 1)

    @abstractmethod
    def draw(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield this rank's chips of an epoch from a position on.

        Args:
            epoch: Epoch, from 0.
            start: Chips to skip at the beginning.

        Yields:
            Queries.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Return the chips of one epoch on this rank."""


class FixedSampler(ChipSampler):
    """Yields the same windows in every epoch.

    Attributes:
        places: Index of the scene, and window, of each chip.
    """

    def __init__(self, dataset: Scenes, size: int | tuple[int, int], roi: BaseGeometry | None, all_ranks: bool) -> None:
        """Start without windows.

        Args:
            dataset: Scenes to sample from.
            size: Chip size in pixels, one side or ``(height, width)``.
            roi: Region (in the dataset's CRS), or None.
            all_ranks: Give every rank of a distributed run all windows instead of its share.

        Raises:
            ConfigurationError: If the size is not positive.
        """
        super().__init__(dataset, size, roi, seed=0)
        self._all_ranks = all_ranks
        self.places: list[tuple[int, Window]] = []

    def draw(self, epoch: int, start: int) -> Iterator[ChipQuery]:
        """Yield this rank's windows."""
        rank, world = (0, 1) if self._all_ranks else self.ranks()
        for scene, window in self.places[rank::world][start:]:
            yield self.dataset.query(scene, window)

    def __len__(self) -> int:
        """Return the windows of this rank."""
        rank, world = (0, 1) if self._all_ranks else self.ranks()
        return len(range(rank, len(self.places), world))
