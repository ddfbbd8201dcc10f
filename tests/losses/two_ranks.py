"""Two processes that talk to each other, for losses that look across ranks."""

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

RANKS = 2


@cache
def _pool() -> ProcessPoolExecutor:
    """Two processes for the whole session: what costs time is importing torch in them."""
    return ProcessPoolExecutor(RANKS, mp_context=multiprocessing.get_context('spawn'))


def _on_rank(rank: int, meeting: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    torch.set_num_threads(1)
    distributed.init_process_group(
        'gloo', init_method=f'file://{meeting}', rank=rank, world_size=RANKS, timeout=timedelta(seconds=60)
    )
    try:
        return function(rank, *args)
    finally:
        distributed.destroy_process_group()


def run_two_ranks(function: Callable[..., Any], *args: Any) -> list[Any]:
    """Run ``function(rank, *args)`` in two processes of one gloo group.

    Args:
        function: Defined at the top of a test module, which the processes import; keep slow imports out of it.
        *args: What it is given besides the rank; pickled.

    Returns:
        What it returned on rank 0 and on rank 1; pickled.
    """
    # pytest loads test modules without making them importable, which the new processes need
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.syspath_prepend(Path(__file__).parents[2])
        meeting = str(Path(folder, 'meeting'))
        running = [_pool().submit(_on_rank, rank, meeting, function, args) for rank in range(RANKS)]
        return [future.result(timeout=120) for future in running]


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """Mean of a tensor over the ranks, as DDP takes it of gradients; for use within a function run on ranks.

    Args:
        tensor: Of the same shape on each rank.

    Returns:
        The mean, without gradient.
    """
    total = tensor.detach().clone()
    distributed.all_reduce(total)
    return total / RANKS
