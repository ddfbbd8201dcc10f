"""What chip samplers share: seed, epoch, rank, and the place where they stopped."""

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


class ChipSampler(GeoSampler, DistributedSampler[Any]):
    """Yields chips of scenes; the queries of an epoch are a function of seed, epoch and position alone.

    It is a ``DistributedSampler`` so that Lightning leaves it as it is: every rank takes its own share by itself.
    """

    dataset: Scenes

    def __init__(
        self,
        dataset: Scenes,
        size: int | tuple[int, int],
        roi: BaseGeometry | None = None,
        seed: int | None = None,
    ) -> None:
        """Check the size and note the seed.

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
        """The region in the CRS of a scene, a hair larger so that chips on its border are inside it.

        Args:
            scene: Index in the dataset.

        Returns:
            The region prepared for many tests, or None where there is none.
        """
        if self._region is None:
            return None
        grid = self.dataset.scenes[scene].grid
        region = gpd.GeoSeries([self._region], crs=self.dataset.crs).to_crs(grid.crs.to_wkt()).iloc[0]
        region = region.buffer(1e-3 * min(grid.res), join_style='mitre')
        shapely.prepare(region)
        return region

    @staticmethod
    def ranks() -> tuple[int, int]:
        """This process's rank and the number of processes."""
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose chips come next.

        Args:
            epoch: Epoch, from 0; a new one starts at its first chip.
        """
        if epoch != self.epoch:
            self.epoch, self.start, self._resume = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """Seed, epoch and the number of chips of this rank that were already taken."""
        return {'seed': self.seed, 'epoch': self.epoch, 'start': self.start}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another sampler stopped.

        Args:
            state: What :meth:`state_dict` gave.
        """
        self.seed, self.epoch, self.start = int(state['seed']), int(state['epoch']), int(state['start'])
        self._resume = self.start

    def __iter__(self) -> Iterator[ChipQuery]:
        """Yield this rank's chips of the epoch, from the first one or from where a loaded state stopped.

        Once all are taken the next epoch comes. An iteration that was broken off leaves nothing behind.
        """
        # Lightning's sanity check takes two batches and drops the iterator: validation must not begin after them
        epoch, start = self.epoch, self._resume
        self.start, self._resume = start, 0
        for position, query in enumerate(self.draw(epoch, start), start=start + 1):
            self.start = position
            yield query
        self.set_epoch(epoch + 1)

    @abstractmethod
    def draw(self, epoch: int, start: int) -> Iterator[ChipQuery]:
        """Yield this rank's chips of an epoch from a position on.

        Args:
            epoch: Epoch, from 0.
            start: Chips to leave out at the beginning.

        Yields:
            Queries.
        """

    @abstractmethod
    def __len__(self) -> int:
        """Chips that one epoch gives this rank."""
