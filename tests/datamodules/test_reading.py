"""Options of data modules that make reading faster change what is read only as far as they say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from torchgeo_msssl.datamodules.pretraining import PretrainingDataModule
from torchgeo_msssl.datamodules.segmentation import SegmentationDataModule
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.open_datasets import close_datasets


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'cache'))
    yield
    close_datasets()


@pytest.fixture
def scene(tmp_path: Path) -> str:
    array = np.random.default_rng(0).integers(1, 5000, (2, 300, 320), dtype=np.uint16)
    path = tmp_path / 'scene.tif'
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        crs='EPSG:32631',
        transform=Affine(10, 0, 5e5, 0, -10, 4.9e6),
        height=300,
        width=320,
        count=2,
        dtype='uint16',
        tiled=True,
        blockxsize=64,
        blockysize=64,
    ) as file:
        file.write(array)
    return str(path)


def module(scene: str, **options: Any) -> PretrainingDataModule:
    options = {'chip_size': 32, 'chips_per_epoch': 32, 'batch_size': 8} | options
    made = PretrainingDataModule([scene], **options)
    made.setup('fit')
    assert made.sampler is not None
    made.sampler.seed = 5
    return made


def test_decoded_scenes_give_the_same_batches(scene: str, tmp_path: Path) -> None:
    plain, decoded = module(scene), module(scene, cache='disk', cache_dir=str(tmp_path / 'd'), cache_size='10MB')
    for want, got in zip(plain.train_dataloader(), decoded.train_dataloader(), strict=True):
        assert want['image'].dtype == torch.uint16
        assert all(torch.equal(want[key].float(), got[key].float()) for key in want)
    assert len(list((tmp_path / 'd').iterdir())) == 1


def test_several_chips_a_read_and_going_on(scene: str) -> None:
    whole = [batch['window'].tolist() for batch in module(scene, chips_per_read=4).train_dataloader()]
    assert len(whole) == 4
    for windows in whole:
        for k in (0, 4):
            rows, cols = ([window[axis] for window in windows[k : k + 4]] for axis in (0, 1))
            assert max(rows) - min(rows) < 3 * 64
            assert max(cols) - min(cols) < 3 * 64
    loader = module(scene, chips_per_read=4).train_dataloader()
    loader.load_state_dict({'epoch': 0, 'batches': 1, 'seed': 5})
    assert [batch['window'].tolist() for batch in loader] == whole[1:]


def test_options_out_of_range(scene: str) -> None:
    with pytest.raises(ConfigurationError, match='chips_per_read: expected 1 to batch_size 8 chips, got 9'):
        module(scene, chips_per_read=9)
    with pytest.raises(ConfigurationError, match='cache_size: expected bytes or text'):
        module(scene, cache_size='much')
    with pytest.raises(ConfigurationError, match='chips_per_read: chips drawn by class'):
        SegmentationDataModule(chips_per_read=2, class_balance=True)
    with pytest.raises(ConfigurationError, match=r'cache_size: 1 scene\(s\) need'):
        _ = PretrainingDataModule([scene], cache='disk', cache_size='100kB').bands  # before anything is computed


@pytest.mark.parametrize('cuda', [True, False])
def test_batches_are_pinned_where_there_is_a_gpu(scene: str, monkeypatch: pytest.MonkeyPatch, cuda: bool) -> None:
    made = module(scene)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    assert made.train_dataloader().pin_memory is cuda
