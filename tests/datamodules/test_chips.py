"""What a task is told of chips, and the order in which it gets them."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from torchgeo_msssl.datamodules import PretrainingDataModule, SegmentationDataModule
from torchgeo_msssl.datamodules.chip_statistics import chip_statistics, manifest_statistics
from torchgeo_msssl.datamodules.folder_reader import FolderReader
from torchgeo_msssl.datamodules.sample_data import sample_chips
from torchgeo_msssl.datasets import Chips
from torchgeo_msssl.errors import BandError, ConfigurationError, MSSSLError, ValidDataError
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.run import chip_scenes
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.sample import SampleArea, sample_area
from torchgeo_msssl.samplers.base import ChipSampler

type Maker = Callable[..., str]

SIDE = 16
BANDS = ['B02', 'B03', 'B08']
NAMES = ['soil', 'vine']
COUNTS = {'train': 20, 'val': 5, 'test': 3}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_datasets()


def image_of(part: str, i: int) -> np.ndarray:
    image = np.random.default_rng([i, len(part)]).integers(500, 3000, (3, SIDE, SIDE)).astype(np.uint16)
    image[:, : i % 4] = 0
    return image


@pytest.fixture
def root(make_scene: Maker, tmp_path: Path) -> str:
    """Chips in three parts, with masks, of a Sentinel-2 scene without an offset."""
    for part, count in COUNTS.items():
        for i in range(count):
            place = f'{part}/{{}}/T31TFJ_20210601_{i:05}_00000.tif'
            make_scene(f'chips/{place.format("images")}', image_of(part, i), names=BANDS, nodata=0)
            mask = np.random.default_rng(i).integers(0, 2, (SIDE, SIDE)).astype(np.uint8)
            make_scene(f'chips/{place.format("masks")}', mask)
    return str(tmp_path / 'chips')


def ready(root: str, stage: str = 'fit', **options: Any) -> PretrainingDataModule:
    module = PretrainingDataModule(root, reader='chips', **({'batch_size': 4} | options))
    module.setup(stage)
    return module


def labelled(root: str, stage: str = 'fit', **options: Any) -> SegmentationDataModule:
    module = SegmentationDataModule(root, class_names=NAMES, reader='chips', **({'batch_size': 4} | options))
    module.setup(stage)
    return module


def chips_of(batches: Any) -> list[int]:
    return [chip for batch in batches for chip in batch['chip'].tolist()]


def chips_in(module: PretrainingDataModule | SegmentationDataModule, part: str) -> Chips:
    assert isinstance(module.reader, FolderReader)
    return module.reader.chips(part)


def numbers(batches: Any) -> list[list[int]]:
    return [batch['chip'].tolist() for batch in batches]


def test_a_task_is_told_what_the_chips_are(root: str) -> None:
    module = ready(root, bands=['B8', 'B2'])
    assert module.bands == ('B08', 'B02')
    assert (module.in_channels, module.chip_size, module.sensor_name) == (2, SIDE, 'sentinel2_l2a')
    assert module.wavelengths == (832.8, 492.4)
    assert module.scale == (1e-4, 1e-4)
    assert module.offset == (0, 0)
    assert module.rgb_index == (1, 1, 0)
    batch = next(iter(module.train_dataloader()))
    assert batch['image'].shape == (4, 2, SIDE, SIDE)
    assert batch['image'].dtype == torch.uint16
    assert 'mask' not in batch
    assert module.describe_chips(batch)[0].endswith(f'{int(batch["chip"][0]):05}_00000.tif (rows 0:16, columns 0:16)')


def test_statistics_are_those_of_the_valid_training_pixels(root: str) -> None:
    module = ready(root)
    pixels = np.concatenate([image_of('train', i)[:, i % 4 :].reshape(3, -1) for i in range(20)], axis=1) * 1e-4
    assert module.mean == pytest.approx(pixels.mean(axis=1), rel=1e-12)
    assert module.std == pytest.approx(pixels.std(axis=1), rel=1e-12)


def test_the_manifest_brings_statistics_and_classes(make_scene: Maker, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(500, 3000, (3, 96, 96)).astype(np.uint16)
    image[:, :20] = 0
    earlier = make_scene('T31TFJ_20210601.tif', image, names=BANDS, nodata=0)
    mask = make_scene('mask.tif', np.random.default_rng(1).integers(0, 2, (96, 96)).astype(np.uint8))
    labels = {'labels': (mask,), 'class_names': ['soil', 'vine']}
    options: dict[str, Any] = {'chip_size': 16, 'stride': 16, **labels, 'min_valid': 0}
    chip_scenes([earlier], tmp_path / 'out', ChipOptions(**options), progress=False)
    module = ready(str(tmp_path / 'out'), bands=['B08', 'B03'])
    found = manifest_statistics(chips_in(module, 'train'))
    assert found is not None
    pixels = image[[2, 1], 20:].reshape(2, -1) * 1e-4
    assert module.mean == pytest.approx(pixels.mean(axis=1), rel=1e-9)
    assert module.std == pytest.approx(pixels.std(axis=1), rel=1e-9)
    streamed, _ = chip_statistics(chips_in(module, 'train'))
    assert streamed.count == found[0].count
    assert streamed.mean == pytest.approx(found[0].mean)

    # digital numbers of scenes before and after the offset have no common mean: reflectance is measured
    later = make_scene('T31TFJ_20220601.tif', image[:, :, ::-1] + 1000 * (image[:, :, ::-1] > 0), names=BANDS, nodata=0)
    chip_scenes([earlier, later], tmp_path / 'both', ChipOptions(**options), progress=False)
    mixed = ready(str(tmp_path / 'both'), bands=['B08', 'B03'])
    assert manifest_statistics(chips_in(mixed, 'train')) is None
    assert mixed.mean == pytest.approx(pixels.mean(axis=1), rel=1e-9)
    assert mixed.std == pytest.approx(pixels.std(axis=1), rel=1e-9)

    split: dict[str, Any] = {'split': 'blocks', 'fractions': (0.5, 0.5), 'block_size': 33}
    chip_scenes([earlier], tmp_path / 'split', ChipOptions(**options, **split), progress=False)
    module = SegmentationDataModule(str(tmp_path / 'split'), batch_size=1)
    module.setup('fit')
    assert module.class_names == ('soil', 'vine')
    streamed, _ = chip_statistics(chips_in(module, 'train'))
    assert module.mean == pytest.approx(tuple(streamed.mean))
    whole = ready(str(tmp_path / 'split'), part='all')
    assert manifest_statistics(chips_in(whole, 'train')) is None  # those of the manifest are of the training part
    with pytest.raises(ConfigurationError, match='there are no test chips'):
        module.setup('test')


def test_without_a_root_chips_are_cut_out_of_the_sample_area(small_area: SampleArea, tmp_path: Path) -> None:
    shutil.copytree(small_area.directory, tmp_path, ignore=shutil.ignore_patterns('chips'), dirs_exist_ok=True)
    module = SegmentationDataModule(sample_dir=str(tmp_path), reader='chips', batch_size=2)
    module.setup('fit')
    module.setup('test')
    assert (module.sensor_name, module.class_names) == ('micasense_rededge', ('background', 'vine'))
    assert min(len(chips_in(module, part)) for part in COUNTS) > 0
    assert {0, 1} <= {value for batch in module.train_dataloader() for value in batch['mask'].unique().tolist()}
    summary = tmp_path / 'chips' / 'drone' / 'summary.json'
    written = summary.stat().st_mtime_ns
    area = sample_area(tmp_path)
    assert area is not None
    assert sample_chips(area, 'drone') == str(summary.parent)
    assert summary.stat().st_mtime_ns == written
    (tmp_path / 'sample.json').touch()  # another area
    sample_chips(area, 'drone')
    assert summary.stat().st_mtime_ns > written
    content = json.loads(summary.read_text())
    summary.write_text(json.dumps(content | {'format': content['format'] - 1}))  # of an earlier version
    again = SegmentationDataModule(sample_dir=str(tmp_path), reader='chips', batch_size=2)
    assert again.class_names == ('background', 'vine')
    assert json.loads(summary.read_text())['format'] == content['format']


def test_each_part_has_its_chips(root: str) -> None:
    module = labelled(root)
    module.setup('test')
    assert module.class_names == tuple(NAMES)
    assert len(numbers(module.train_dataloader())) == 5
    assert numbers(module.val_dataloader()) == [[0, 1, 2, 3], [4]]
    assert numbers(module.test_dataloader()) == [[0, 1, 2]]
    (batch,) = module.test_dataloader()
    for i in range(3):
        assert (batch['image'][i].numpy() == image_of('test', i)).all()
        mask = np.random.default_rng(i).integers(0, 2, (SIDE, SIDE))
        mask[: i % 4] = 255  # where the image has no data
        assert (batch['mask'][i].numpy() == mask).all()
    assert chips_of(module.region_loader('train')) == list(range(20))


def test_windows_are_cut_at_random_for_training_and_side_by_side_for_validation(root: str) -> None:
    module = labelled(root, chip_size=8)
    assert module.chip_size == 8
    batches = list(module.train_dataloader())
    assert all(batch['image'].shape == (4, 3, 8, 8) == (*batch['mask'].shape[:1], 3, 8, 8) for batch in batches)
    assert len({tuple(window) for batch in batches for window in batch['window'][:, :2].tolist()}) > 10
    assert len(module.val_dataloader().sampler) == 5 * 4


def test_pretraining_takes_all_chips_where_they_are_not_divided(root: str) -> None:
    assert len(chips_in(ready(f'{root}/train'), 'train')) == 20
    assert len(chips_in(ready(root, part='all'), 'train')) == 28
    module = ready(root)
    assert len(chips_in(module, 'train')) == 20
    assert module.val_dataloader() == []
    assert numbers(ready(root, val_fraction=0.2).val_dataloader()) == [[0, 1, 2, 3], [4]]


def test_the_order_is_one_of_seed_and_epoch_alone(root: str) -> None:
    torch.manual_seed(5)
    epochs = [numbers(load) for load in [ready(root).train_dataloader()] for _ in range(2)]
    assert sorted(chip for batch in epochs[0] for chip in batch) == list(range(20))
    assert epochs[0] != epochs[1]
    torch.manual_seed(5)
    assert numbers(ready(root, num_workers=2).train_dataloader()) == epochs[0]
    torch.manual_seed(6)
    assert numbers(ready(root).train_dataloader()) != epochs[0]


class Looks(LightningModule):
    """Trains a number, and notes the chips it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[Any] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append((batch['chip'].tolist(), batch['window'].tolist()))
        return self.weight**2

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def train(root: str, folder: Path, steps: int, checkpoint: Path | None = None, seed: int = 1, **options: Any) -> Any:
    torch.manual_seed(seed)
    looks = Looks()
    trainer = Trainer(
        accelerator='cpu',
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(folder, filename='last', every_n_train_steps=1, enable_version_counter=False)],
        max_steps=steps,
        max_epochs=-1,
    )
    module = PretrainingDataModule(root, batch_size=4, chip_size=8, **options)
    trainer.fit(looks, datamodule=module, ckpt_path=checkpoint, weights_only=True)
    return looks.seen


@pytest.mark.parametrize(('stop', 'workers'), [(3, 0), (7, 2)])
def test_a_resumed_run_sees_the_rest_of_the_epoch(root: str, tmp_path: Path, stop: int, workers: int) -> None:
    whole = train(root, tmp_path / 'whole', 12)
    assert train(root, tmp_path / 'cut', stop, num_workers=workers) == whole[:stop]
    rest = train(root, tmp_path / 'on', 12, tmp_path / 'cut' / 'last.ckpt', seed=2, num_workers=workers)
    assert rest == whole[stop:]


def test_ranks_see_other_chips(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for rank in range(2):
        monkeypatch.setattr(ChipSampler, 'ranks', staticmethod(lambda rank=rank: (rank, 2)))
        torch.manual_seed(0)
        shares.append(chips_of(ready(root, batch_size=5).train_dataloader()))
    assert sorted(shares[0] + shares[1]) == list(range(20))


@pytest.mark.parametrize(
    ('options', 'error', 'told'),
    [
        ({'batch_size': 0}, ConfigurationError, 'batch_size: expected at least 1, got 0'),
        ({'chip_size': 0}, ConfigurationError, 'chip_size: expected at least 1, got 0'),
        ({'batch_size': 30}, ConfigurationError, 'an epoch has 20 chips, fewer than batch_size 30'),
        ({'chips_per_epoch': 3}, ConfigurationError, 'chips_per_epoch: expected at least batch_size 4 chips, got 3'),
        ({'bands': ['B04']}, BandError, 'has no band B04'),
        ({'chip_size': 17}, MSSSLError, 'larger than the chips'),
    ],
)
def test_options_that_do_not_suit(root: str, options: dict[str, Any], error: type[MSSSLError], told: str) -> None:
    with pytest.raises(error, match=told):
        ready(root, **options)


def test_layers_that_are_no_bands_are_left_out(make_scene: Maker, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 99, (3, 8, 8)).astype(np.uint16)
    make_scene('chips/one.tif', image, names=['B02', 'SCL', 'B03'])
    module = ready(str(tmp_path / 'chips'), batch_size=1)
    assert module.bands == ('B02', 'B03')
    assert torch.equal(next(iter(module.train_dataloader()))['image'][0], torch.from_numpy(image[[0, 2]]))
    assert ready(str(tmp_path / 'chips'), batch_size=1, bands=['SCL', 'B03']).bands == ('SCL', 'B03')


def test_chips_that_do_not_suit(root: str, make_scene: Maker, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='val_fraction: nothing is held out for validation'):
        PretrainingDataModule(root).setup('validate')
    with pytest.raises(ConfigurationError, match=r'there are no val chips in .*/train'):
        labelled(f'{root}/train')
    flat = make_scene('flat/one.tif', np.zeros((3, SIDE, SIDE), np.uint16), names=BANDS, nodata=0)
    with pytest.raises(ValidDataError, match=r'no pixel of the 1 chips in .* has data in all of B02, B03, B08'):
        ready(str(Path(flat).parent), batch_size=1)
    with pytest.raises(ConfigurationError, match=r'/flat have no masks'):
        labelled(str(Path(flat).parent))
    make_scene('flat/one.tif', np.ones((3, SIDE, SIDE + 1), np.uint16), names=BANDS)
    with pytest.raises(BandError, match='B02, B03, B08 has one value everywhere'):
        ready(str(Path(flat).parent), batch_size=1)
    module = PretrainingDataModule(str(Path(flat).parent), reader='chips')
    with pytest.raises(ConfigurationError, match='chip_size: the chips have 16 × 17 pixels; set it to 16'):
        _ = module.chip_size
    for i in range(COUNTS['val']):
        make_scene(f'chips/val/images/T31TFJ_20210601_{i:05}_00000.tif', np.ones((3, 8, 8), np.uint16), names=BANDS)
    with pytest.raises(ConfigurationError, match=r'the val chips .* have 8 × 8 pixels of B02.* train chips 16 × 16'):
        labelled(root)
