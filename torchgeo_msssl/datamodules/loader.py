"""Data loader that resumes within an epoch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from torchgeo_msssl.geo.open_datasets import divide_block_cache
from torchgeo_msssl.samplers.base import ChipSampler


@dataclass(frozen=True)
class _WorkerStart:
    """Start of a worker: share GDAL's block cache.

    Attributes:
        workers: Number of workers.
        then: The ``worker_init_fn`` of the loader, or None.
    """

    workers: int
    then: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        divide_block_cache(self.workers)
        if self.then is not None:
            self.then(worker)


class ChipLoader(DataLoader[Any]):
    """A ``DataLoader`` over a :class:`ChipSampler` that tracks its epoch and the batches it has yielded.

    Lightning saves :meth:`state_dict` with each checkpoint. Batches prefetched by workers do not count.
    """

    def __init__(self, sampler: ChipSampler, dataset: Any = None, **kwargs: Any) -> None:
        """Initialize from a sampler, a dataset (default: the sampler's) and the keyword arguments of ``DataLoader``."""
        super().__init__(dataset if dataset is not None else sampler.dataset, sampler=sampler, **kwargs)
        self._chips = sampler
        self._epoch = sampler.epoch
        self._yielded = 0
        self._skip = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches of the epoch that the sampler is at."""
        # this is a generator: nothing below runs before the first batch is drawn, when the epoch is known
        # a state applies to its own epoch only: Lightning may leave an epoch early and continue with the next
        skip = self._skip if self._chips.epoch == self._epoch else 0
        self._epoch, self._yielded, self._skip = self._chips.epoch, skip, 0
        assert self.batch_size is not None
        start = self._yielded * self.batch_size
        self._chips.load_state_dict({'seed': self._chips.seed, 'epoch': self._epoch, 'start': start})
        # not earlier: Lightning does not set its own worker_init_fn if there is one already
        if self.num_workers and not isinstance(self.worker_init_fn, _WorkerStart):
            self.worker_init_fn = _WorkerStart(self.num_workers, self.worker_init_fn)
        for batch in super().__iter__():
            self._yielded += 1
            yield batch
        self._epoch, self._yielded = self._chips.epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, the batches yielded in it, and the seed of the chips."""
        return {'epoch': self._epoch, 'batches': self._yielded, 'seed': self._chips.seed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the batches that another loader yielded.

        Args:
            state: Result of :meth:`state_dict`.
        """
        finished, self._skip = divmod(int(state['batches']), max(len(self), 1))
        self._epoch = int(state['epoch']) + finished
        self._chips.load_state_dict({'seed': int(state['seed']), 'epoch': self._epoch, 'start': 0})
