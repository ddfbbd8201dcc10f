"""Whether paths are scenes or a folder of chips, and which options apply to which."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchgeo_msssl.datamodules import PretrainingDataModule, SegmentationDataModule
from torchgeo_msssl.datamodules.reader import reads_chips
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.run import chip_scenes
from torchgeo_msssl.geo.open_datasets import close_datasets

type Maker = Callable[..., str]

SIDE = 16
BANDS = ['B02', 'B03', 'B08']


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_datasets()


def image_of(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(500, 3000, (3, SIDE, SIDE)).astype(np.uint16)


@pytest.fixture
def folders(make_scene: Maker, tmp_path: Path) -> dict[str, str]:
    """The same 20 chips in every layout, with masks where the layout has them."""
    for i in range(20):
        name = f'T31TFJ_20210601_{i:05}_00000'
        for place in (f'flat/{name}.tif', f'images/images/{name}.tif', f'parts/train/images/{name}.tif'):
            make_scene(place, image_of(i), names=BANDS)
        make_scene(f'parts/train/masks/{name}.tif', (image_of(i)[0] > 1500).astype(np.uint8))
        make_scene(f'parts/val/images/{name}.tif', image_of(i), names=BANDS)
        make_scene(f'parts/val/masks/{name}.tif', (image_of(i)[0] > 1500).astype(np.uint8))
        (tmp_path / 'arrays').mkdir(exist_ok=True)
        np.save(tmp_path / 'arrays' / f'{name}.npy', image_of(i))
    large = np.concatenate([np.concatenate([image_of(i) for i in range(4)], axis=2)] * 5, axis=1)
    scene = make_scene('T31TFJ_20210601.tif', large, names=BANDS)
    chip_scenes([scene], tmp_path / 'manifest', ChipOptions(chip_size=SIDE), progress=False)
    names = ('flat', 'images', 'parts', 'arrays', 'manifest', 'T31TFJ_20210601.tif')
    return {name: str(tmp_path / name) for name in names}


@pytest.mark.parametrize(
    ('name', 'chips'),
    [
        ('manifest', True),
        ('images', True),
        ('parts', True),
        ('arrays', True),
        ('flat', False),
        ('T31TFJ_20210601.tif', False),
    ],
)
def test_a_folder_of_chips_is_recognized_by_its_content(
    folders: dict[str, str], name: str, chips: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert reads_chips(folders[name], 'auto') == chips
    (record,) = caplog.records
    kind, other = ('a folder of chips', 'scenes') if chips else ('scenes', 'chips')
    assert record.message == f'Reading {folders[name]} as {kind} (set reader to {other} if that is wrong).'
    for reader in ('scenes', 'chips'):
        assert reads_chips(folders[name], reader) == (reader == 'chips')  # type: ignore[arg-type]
    options: dict[str, Any] = {'channels': 'first', 'band_names': BANDS} if name == 'arrays' else {}
    module = PretrainingDataModule(folders[name], batch_size=4, **options)
    assert module.reads_chips == chips
    assert module.bands == tuple(BANDS)
    if chips:
        module.setup('fit')
        assert len(module.train_dataloader()) == 5
        with pytest.raises(ConfigurationError, match=r'scenes are needed, and .* is a folder of chips'):
            _ = module.scenes


def test_paths_that_are_no_one_folder_are_refused(folders: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r'chips are read from one folder, got 2 paths'):
        reads_chips([folders['parts'], folders['images']], 'auto')
    with pytest.raises(ConfigurationError, match="reader: expected 'auto', 'scenes' or 'chips', got 'tiles'"):
        reads_chips(None, 'tiles')  # type: ignore[arg-type]
    assert reads_chips(None, 'chips')
    assert not reads_chips(None, 'auto')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'min_valid': 0.5, 'crs': 'EPSG:4326'}, 'crs, min_valid: for scenes only, and paths .* as a folder of chips'),
        ({'positives': 'nearby'}, 'positives: for scenes only'),
        ({'labels': 'landcover.tif'}, 'labels: for scenes only'),
    ],
)
def test_options_of_scenes_are_refused_for_chips(folders: dict[str, str], options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _ = PretrainingDataModule(folders['images'], **options).bands


def test_options_of_chips_are_refused_for_scenes(folders: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r'channels, part: for a folder of chips only, and paths .* as scenes'):
        _ = PretrainingDataModule(folders['flat'], channels='first', part='all').bands
    with pytest.raises(ConfigurationError, match='split, class_balance: for scenes only'):
        _ = SegmentationDataModule(folders['parts'], split='scenes', class_balance=True, class_names=['a', 'b']).bands


def test_few_labels_of_chips_lie_within_more(folders: dict[str, str]) -> None:
    def used(**options: Any) -> set[int]:
        module = SegmentationDataModule(folders['parts'], class_names=['dark', 'bright'], batch_size=1, **options)
        module.setup('fit')
        covered = [int(batch['chip']) for batch in module.region_loader('train')]
        drawn = [int(batch['chip']) for _ in range(2) for batch in module.train_dataloader()]
        assert len(drawn) == 2 * len(covered)
        assert set(drawn) == set(covered)
        return set(covered)

    tenth, half = used(label_fraction=0.1), used(label_fraction=0.5)
    assert (len(tenth), len(half), len(used())) == (2, 10, 20)
    assert tenth < half
    assert used(shots=2) == tenth
    assert used(shots=2, seed=1) != tenth
    with pytest.raises(ConfigurationError, match='shots: expected at most the 20 training chips, got 21'):
        used(shots=21)
