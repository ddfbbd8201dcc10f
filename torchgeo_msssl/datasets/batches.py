"""Batches of samples, in one array where possible."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torchgeo.datasets.utils import Sample

#: Elements of a tensor above which a copy costs more than finding out whether it is needed.
_WORTH_CHECKING = 4096


def empty_tensor(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
    """Return an uninitialized tensor, in a worker of a data loader in shared memory.

    The main process maps shared memory instead of copying it. PyTorch's own ``default_collate`` allocates it with
    ``UntypedStorage._new_shared``, which has no public counterpart: ``share_memory_()`` copies. Without that function
    ordinary memory is returned, which the loader copies when it sends the batch.

    Args:
        shape: Shape.
        dtype: NumPy dtype.
    """
    new_shared = getattr(torch.UntypedStorage, '_new_shared', None)
    if get_worker_info() is None or new_shared is None:
        return torch.from_numpy(np.empty(shape, dtype))
    storage = new_shared(math.prod(shape) * dtype.itemsize)
    return torch.from_numpy(np.empty(0, dtype)).set_(storage).view(shape)


def collate(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Stack samples into a batch.

    Args:
        samples: Samples of one size.

    Returns:
        The keys that all samples have, stacked along a new first axis: without a copy if they lie in one array one
        after the other, as :class:`~torchgeo_msssl.datasets.Scenes` reads a batch.
    """
    keys = [key for key in samples[0] if all(key in sample for sample in samples)]
    return {key: _stacked([sample[key] for sample in samples]) for key in keys}


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    first, size = tensors[0], tensors[0].numel()
    if size < _WORTH_CHECKING:
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


def merge_samples(samples: Iterable[Sample]) -> Sample:
    """Merge samples of several datasets like TorchGeo's ``merge_samples``, for every dtype.

    Args:
        samples: Samples of one query.

    Returns:
        The larger value of each element.
    """
    merged: Sample = {}
    for sample in samples:
        for key, value in sample.items():
            old = merged.get(key)
            merged[key] = value if old is None else torch.from_numpy(np.maximum(old.numpy(), value.numpy()))
    return merged
