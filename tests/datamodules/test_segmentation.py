"""Labelled chips: ground that is split, labels that are few, and what is said of them."""

import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from matplotlib.image import imread

from torchgeo_msssl.commands.trainer_options import spell_trainer_options
from torchgeo_msssl.datamodules import SegmentationDataModule
from torchgeo_msssl.errors import ConfigurationError, EmptyIntersectionError, MissingCRSError
from torchgeo_msssl.geo.ground.file import read_split
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.sample import SampleArea
from torchgeo_msssl.samplers.blocks import ground_blocks, ground_of

SIDE, BLOCK, CHIP = 128, 32, 16
LEFT, TOP = 500_000.0, 4_900_000.0
NAMES = ['soil', 'grass', 'vine']


def write(path: Path, array: np.ndarray, *, left: float = LEFT, nodata: float | None = None) -> str:
    array = array if array.ndim == 3 else array[None]
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        crs='EPSG:32631',
        transform=Affine(1, 0, left, 0, -1, TOP),
        nodata=nodata,
        height=array.shape[1],
        width=array.shape[2],
        count=array.shape[0],
        dtype=array.dtype,
    ) as file:
        if array.shape[0] == 3:
            file.descriptions = ('red', 'green', 'blue')
        file.write(array)
    return str(path)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_datasets()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """A scene of noise, whose mask has little grass and less vine."""
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, 40:60] = 1
    mask[70:74, 80:84] = 2
    image = write(tmp_path / 'scene.tif', rng.integers(1, 255, (3, SIDE, SIDE)).astype(np.uint8))
    return {'paths': image, 'labels': write(tmp_path / 'mask.tif', mask), 'class_names': NAMES}


def ready(files: dict[str, Any], stage: str = 'fit', **options: Any) -> SegmentationDataModule:
    options = {'chip_size': CHIP, 'block_size': BLOCK, 'batch_size': 4, 'chips_per_epoch': 16} | options
    module = SegmentationDataModule(**files, **options)
    module.setup(stage)
    return module


def blocks_of(module: SegmentationDataModule) -> set[bytes]:
    return {block.normalize().wkb for block in ground_blocks(module.scenes, BLOCK, module.regions['train'])}


# The split.


def test_no_pixel_of_a_test_chip_is_trained_on(files: dict[str, Any]) -> None:
    module = ready(files)
    module.setup('test')
    seen = {}
    for part, loader in (
        ('train', module.train_dataloader()),
        ('val', module.val_dataloader()),
        ('test', module.test_dataloader()),
    ):
        seen[part] = np.zeros((SIDE, SIDE), bool)
        for batch in loader:
            for row, col, height, width in batch['window'].tolist():
                seen[part][row : row + height, col : col + width] = True
    assert not (seen['train'] & seen['test']).any()
    assert not (seen['train'] & seen['val']).any()
    assert not (seen['val'] & seen['test']).any()
    # validation and test chips cover their ground: blocks are whole numbers of chips here
    for part in ('val', 'test'):
        assert seen[part].sum() == pytest.approx(module.regions[part].area)


def test_a_chip_has_the_pixels_of_its_mask(files: dict[str, Any]) -> None:
    module = ready(files)
    with rasterio.open(files['labels']) as dataset:
        mask = dataset.read(1)
    for batch in module.train_dataloader():
        for (row, col, height, width), label in zip(batch['window'].tolist(), batch['mask'].numpy(), strict=True):
            assert (label == mask[row : row + height, col : col + width]).all()


def test_small_shares_of_the_labels_lie_within_larger_ones(files: dict[str, Any]) -> None:
    shares = [blocks_of(ready(files, label_fraction=share)) for share in (0.1, 0.3, 0.6, 1.0)]
    assert [len(share) for share in shares] == [1, 3, 6, 10]  # of 16 blocks, 0.6 are for training
    assert all(small < large for small, large in itertools.pairwise(shares))
    assert blocks_of(ready(files, shots=3)) == shares[1]
    assert blocks_of(ready(files, shots=3, seed=1)) != shares[1]


def test_only_blocks_with_labels_are_chosen(files: dict[str, Any], tmp_path: Path) -> None:
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[:BLOCK] = 1
    files['labels'] = write(tmp_path / 'north.tif', mask)
    chosen = ready(files, shots=1).regions['train']
    assert chosen.bounds[1] == TOP - BLOCK  # the first row of blocks


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), shots=st.integers(1, 4))
def test_chosen_blocks_hold_every_class_of_the_training_ground(files: dict[str, Any], seed: int, shots: int) -> None:
    every = ready(files, seed=seed)
    chosen, more = (ready(files, seed=seed, shots=count) for count in (shots, shots + 1))
    assert blocks_of(chosen) < blocks_of(more) <= blocks_of(every)
    known = [
        module.labelled.labels.class_counts(module.scenes, module.regions['train'], False) for module in (every, chosen)
    ]  # type: ignore[union-attr]
    # a block with vine has soil too; two blocks are enough for grass besides
    assert shots == 1 or ((known[0] > 0) <= (known[1] > 0)).all()


def test_classes_that_too_few_blocks_cannot_hold_are_named(
    files: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, :32], mask[:, 96:] = 1, 2
    files['labels'] = write(tmp_path / 'thirds.tif', mask)
    ready(files, shots=2)
    assert 'shots: 2 of the training blocks cannot hold every class and lack' in caplog.text
    assert 'use at least 3.' in caplog.text
    caplog.clear()
    ready(files, shots=3)
    assert 'cannot hold' not in caplog.text


def test_a_block_whose_labels_lie_on_nodata_holds_nothing(files: dict[str, Any], tmp_path: Path) -> None:
    """Labels are looked up without pixels at first."""
    with rasterio.open(files['paths']) as dataset:
        image = dataset.read()
    image[:, :, 96:] = 0
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[:, 64:96], mask[:, 96:] = 0, 1
    files |= {'paths': write(tmp_path / 'dark.tif', image, nodata=0), 'labels': write(tmp_path / 'east.tif', mask)}
    chosen = ready(files, shots=1, min_valid=0.1).regions['train']
    assert chosen.bounds[::2] == (LEFT + 64, LEFT + 96)


def test_too_few_labelled_blocks_are_reported(
    files: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[:BLOCK] = 1
    files['labels'] = write(tmp_path / 'north.tif', mask)
    with pytest.raises(ConfigurationError, match='shots: 9 of 10 training blocks are wanted, and only'):
        ready(files, shots=9)
    ready(files, label_fraction=0.9)
    assert 'label_fraction: 9 of 10 training blocks' in caplog.text


def test_whole_scenes_are_held_out(files: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    images, masks = [], []
    for i in range(5):  # the third and the fourth overlap, and so stay together
        left = LEFT + 1000 * i - (970 if i == 3 else 0)
        image = rng.integers(1, 255, (3, 64, 64)).astype(np.uint8)
        images.append(write(tmp_path / f's{i}.tif', image, left=left))
        masks.append(write(tmp_path / f'm{i}.tif', np.ones((64, 64), np.uint8), left=left))
    files |= {'paths': images, 'labels': masks}
    module = ready(files, split='scenes', fractions=(0.6, 0.2, 0.2))
    counts = {
        part: sum(region.intersects(box) and region.covers(box) for box in module.scenes.index.geometry)
        for part, region in module.regions.items()
    }
    assert sum(counts.values()) == 5
    assert min(counts.values()) >= 1
    with pytest.raises(ConfigurationError, match='form 2 group'):
        ready(files | {'paths': images[1:4], 'labels': masks[1:4]}, split='scenes', fractions=(0.9, 0.05, 0.05))


def test_a_split_is_written_and_read_again(files: dict[str, Any], tmp_path: Path) -> None:
    options = {'chip_size': CHIP, 'block_size': BLOCK, 'batch_size': 4, 'chips_per_epoch': 16, 'label_fraction': 0.3}
    module = SegmentationDataModule(**files, **options)
    module.trainer = Trainer(logger=CSVLogger(tmp_path / 'run', name='', version=''), accelerator='cpu')
    module.setup('fit')
    written = tmp_path / 'run' / 'split.geojson'
    assert set(gpd.read_file(written)['split']) == {'train', 'val', 'test', 'train, label not used'}
    assert json.loads(written.read_text())['type'] == 'FeatureCollection'
    picture = imread(tmp_path / 'run' / 'split.png')
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 4  # four colours and paper
    again = read_split(written, ground_of(module.scenes))
    for part, region in module.regions.items():
        assert again[part].symmetric_difference(region).area < 1e-4 * region.area
    module.setup('test')
    places = [batch['window'].tolist() for batch in module.test_dataloader()]
    other = ready(files, 'test', split=str(written))
    assert [batch['window'].tolist() for batch in other.test_dataloader()] == places


def test_a_run_without_a_logger_writes_nothing(
    files: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    module = SegmentationDataModule(**files, chip_size=CHIP, block_size=BLOCK, batch_size=4, chips_per_epoch=16)
    module.trainer = Trainer(logger=False, accelerator='cpu')
    module.setup('fit')
    assert module.regions
    assert list(Path().iterdir()) == []


def frame(**columns: Any) -> gpd.GeoDataFrame:
    boxes = [shapely.box(LEFT + x, TOP - 128, LEFT + x + 40, TOP) for x in (0, 42, 84)]
    return gpd.GeoDataFrame(
        {'split': columns.pop('split', ['train', 'val', 'test'])},
        geometry=columns.pop('geometry', boxes),
        crs=columns.pop('crs', 'EPSG:32631'),
    )


@pytest.mark.parametrize(
    ('drawn', 'error', 'words'),
    [
        (frame().rename(columns={'split': 'part'}), ConfigurationError, 'no column split'),
        (frame(split=['train', 'val', 'rest']), ConfigurationError, 'says test'),
        (frame(crs=None), MissingCRSError, 'no CRS'),
        (frame(crs='EPSG:32633'), EmptyIntersectionError, 'lies on none'),
        (frame(geometry=[shapely.box(LEFT, TOP - 9, LEFT + 9, TOP)] * 3), ConfigurationError, 'overlap'),
    ],
)
def test_splits_that_do_not_suit(
    files: dict[str, Any], tmp_path: Path, drawn: gpd.GeoDataFrame, error: type[Exception], words: str
) -> None:
    path = tmp_path / 'split.gpkg'
    drawn.to_file(path)
    with pytest.raises(error, match=words):
        ready(files, split=str(path))


def test_a_split_that_is_no_file(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='neither blocks nor scenes'):
        ready(files, split='halves')
    (tmp_path / 'words.txt').write_text('left and right')
    with pytest.raises(ConfigurationError, match='no vector file'):
        ready(files, split=str(tmp_path / 'words.txt'))


# Classes.


@pytest.mark.slow
def test_rare_classes_are_shown_as_often_as_common_ones(files: dict[str, Any]) -> None:
    seeds = [seed for seed in range(9) if _has_vine(ready(files, seed=seed, chips_per_epoch=400))]
    module = ready(files, seed=seeds[0], chips_per_epoch=400, class_balance=True)
    with_vine = [bool((label == 2).any()) for batch in module.train_dataloader() for label in batch['mask'].numpy()]
    assert len(with_vine) == 400
    # a third is drawn for its vines; by chance alone it is the share that holds any
    plain = ready(files, seed=seeds[0], chips_per_epoch=400)
    by_chance = [bool((label == 2).any()) for batch in plain.train_dataloader() for label in batch['mask'].numpy()]
    assert np.mean(with_vine) == pytest.approx(1 / 3, abs=0.08)
    assert np.mean(by_chance) < 0.15


def _has_vine(module: SegmentationDataModule) -> bool:
    assert module.labelled is not None
    return bool(module.labelled.labels.class_counts(module.scenes, module.regions['train'], progress=False)[2])


@pytest.mark.slow
def test_balanced_chips_depend_on_seed_epoch_and_position_alone(files: dict[str, Any]) -> None:
    def places(module: SegmentationDataModule, epoch: int) -> list[Any]:
        loader = module.train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[union-attr]
        return [batch['window'].tolist() for batch in loader]

    first, second = (ready(files, class_balance=True) for _ in range(2))
    assert places(first, 3) == places(second, 3)
    assert places(first, 3) != places(second, 4)
    rest = ready(files, class_balance=True).train_dataloader()
    rest.load_state_dict({'epoch': 3, 'batches': 2, 'seed': first.train_dataloader().sampler.seed})  # type: ignore[union-attr]
    assert [batch['window'].tolist() for batch in rest] == places(first, 3)[2:]


def test_a_class_that_is_not_there_is_told_with_counts(
    files: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files['labels'] = write(tmp_path / 'bare.tif', np.ones((SIDE, SIDE), np.uint8))
    with caplog.at_level(logging.INFO, 'torchgeo_msssl'):
        ready(files)
    (warning,) = [record for record in caplog.records if 'No training pixel is' in record.message]
    assert warning.levelno == logging.WARNING
    assert 'soil, vine' in warning.message
    assert 'grass 10,240' in warning.message  # ten blocks of 32 × 32


def test_values_that_are_no_class_are_named(files: dict[str, Any], tmp_path: Path) -> None:
    files['labels'] = write(tmp_path / 'strange.tif', np.full((SIDE, SIDE), 7, np.uint8))
    with pytest.raises(ConfigurationError, match=r'value\(s\) 7'):
        ready(files)


def test_labels_elsewhere_are_refused(files: dict[str, Any], tmp_path: Path) -> None:
    files['labels'] = write(tmp_path / 'away.tif', np.ones((SIDE, SIDE), np.uint8), left=LEFT + 9000)
    with pytest.raises(EmptyIntersectionError, match='does not touch'):
        ready(files)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'label_fraction': 0.0}, 'label_fraction'),
        ({'shots': 0}, 'shots'),
        ({'shots': 2, 'label_fraction': 0.5}, 'shots'),
        ({'shots': 99}, 'training blocks'),
        ({'block_size': 8}, 'block_size'),
        ({'fractions': (0.5, 0.5, 0.0)}, 'fractions'),
        ({'labels': None}, 'labels'),
        ({'paths': None}, 'paths: the scenes of labels .*mask.tif are not given'),
    ],
)
def test_options_out_of_range(
    files: dict[str, Any], options: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {key: value for key, value in options.items() if key in files}
    with pytest.raises(ConfigurationError, match=words):
        ready(files | given, **{key: value for key, value in options.items() if key not in files})
    assert not (tmp_path / 'data').exists()  # the sample area is not generated in vain


@pytest.mark.parametrize(('sample', 'classes', 'bands'), [('landcover_l1', 7, 12), ('landcover_l2', 14, 12)])
def test_land_cover_of_the_sample_area(small_area: SampleArea, sample: Any, classes: int, bands: int) -> None:
    folder = str(small_area.directory)
    module = SegmentationDataModule(
        sample=sample, sample_dir=folder, chip_size=32, block_size=64, batch_size=2, chips_per_epoch=4
    )
    module.setup('fit')
    assert module.class_names is not None
    assert len(module.class_names) == classes
    assert module.in_channels == bands
    batch = next(iter(module.train_dataloader()))
    assert set(np.unique(batch['mask'])) <= {*range(classes), 255}


# Classes.


@pytest.mark.parametrize(
    ('spelled', 'background', 'names', 'values'),
    [
        ('vine=2', True, ['background', 'vine'], {0: 0, 1: 0, 2: 1}),
        ('{grown: [1, 2], soil: 0}', None, ['grown', 'soil'], {0: 1, 1: 0, 2: 0}),
        ('soil,grass,vine', None, NAMES, {0: 0, 1: 1, 2: 2}),
        ('vine=2,grass=1', None, ['vine', 'grass'], {0: 255, 1: 1, 2: 0}),
    ],
)
def test_class_names_are_a_list_or_a_mapping(
    files: dict[str, Any], spelled: str, background: bool | None, names: list[str], values: dict[int, int]
) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(SegmentationDataModule, 'data')
    arguments = [f'--data.paths={files["paths"]}', f'--data.labels={files["labels"]}', f'--data.class_names={spelled}']
    arguments += ['--data.chip_size=16', '--data.block_size=32', f'--data.background={json.dumps(background)}']
    selected = ['--data.class_path', 'SegmentationDataModule', *arguments]
    given = parser.parse_args(spell_trainer_options(selected)[2:])
    module = parser.instantiate_classes(given).data
    module.setup('validate')
    assert list(module.class_names) == names
    with rasterio.open(files['labels']) as file:
        source = file.read(1)
    grid = module.scenes.scenes[0].grid
    mask = module.labelled.labels.mask_for(grid, grid.window)
    for value, number in values.items():
        assert (mask[source == value] == number).all()
