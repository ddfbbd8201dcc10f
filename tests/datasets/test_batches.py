"""Batches are built without copies, and with them if they have to be."""

from typing import Any

import numpy as np
import pytest
import torch

from torchgeo_msssl.datasets import batches


def test_torch_still_has_the_private_function_that_workers_use() -> None:
    """Without it, batches are copied once more when a worker sends them: slower, and nothing else breaks."""
    storage = torch.UntypedStorage._new_shared(8)
    assert storage.is_shared()
    assert storage.nbytes() == 8


@pytest.mark.parametrize('private', [True, False])
def test_a_worker_allocates_shared_memory_if_it_can(private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, dtype = (2, 3, 5), np.dtype(np.uint16)
    assert not batches.empty_tensor(shape, dtype).is_shared()  # the main process needs none
    monkeypatch.setattr(batches, 'get_worker_info', lambda: object())
    if not private:
        monkeypatch.delattr(torch.storage._StorageBase, '_new_shared')
    tensor = batches.empty_tensor(shape, dtype)
    assert tensor.is_shared() == private
    assert (tensor.shape, tensor.dtype) == (shape, torch.uint16)
    assert tensor.is_contiguous()


@pytest.mark.parametrize('adjacent', [True, False])
def test_collate_stacks(adjacent: bool) -> None:
    images = torch.arange(4 * 64 * 64).reshape(4, 1, 64, 64)
    samples: list[dict[str, Any]] = [{'image': image, 'scene': torch.tensor(i)} for i, image in enumerate(images)]
    order = range(4) if adjacent else (2, 0, 1, 3)
    batch = batches.collate([samples[i] for i in order])
    assert torch.equal(batch['image'], images[list(order)])
    assert (batch['image'].data_ptr() == images.data_ptr()) == adjacent
    assert batch['scene'].tolist() == list(order)
