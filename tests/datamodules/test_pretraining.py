"""The data module finds bands and statistics by itself, and hands out chips a task can use."""

import functools
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger
from numpy.typing import NDArray
from torchgeo.datamodules import BaseDataModule

from torchgeo_msssl.bands import SENSORS
from torchgeo_msssl.datamodules import PretrainingDataModule, sample_data, scene_reader
from torchgeo_msssl.errors import BandError, ChipSizeError, ConfigurationError, ScenesNotFoundError, ValidDataError
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.geo.sample import write_sample_area


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'cache'))
    seed_everything(0, verbose=False)
    yield
    close_datasets()


def write(
    path: Path, array: NDArray[Any], names: Sequence[str] = (), *, left: float = 500_000, nodata: float | None = None
) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = array.shape
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        crs='EPSG:32631',
        transform=Affine(10, 0, left, 0, -10, 4_900_000),
        height=height,
        width=width,
        count=bands,
        dtype=array.dtype,
        nodata=nodata,
    ) as file:
        if names:
            file.descriptions = tuple(names)
        file.write(array)
    return str(path)


def noise(bands: int = 3, height: int = 96, width: int = 128, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(1, 6000, (bands, height, width), dtype=np.uint16)


def ready(paths: Any, **options: Any) -> PretrainingDataModule:
    module = PretrainingDataModule(paths, **({'chip_size': 16, 'batch_size': 4} | options))
    module.setup('fit')
    return module


# Bands.


def test_bands_default_to_the_spectral_ones_of_the_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ('B1', 'B2', 'B3', 'B4', 'B8', 'B8A', 'QA60', 'probability', 'SCL')
    path = write(tmp_path / 'scene.tif', noise(9), names)
    with caplog.at_level(logging.INFO):
        module = ready(path)
    assert module.bands == ('B01', 'B02', 'B03', 'B04', 'B08', 'B8A')
    assert module.in_channels == 6
    assert module.sensor_name == 'sentinel2_l2a'
    assert module.rgb_index == (3, 2, 1)
    assert module.wavelengths == (442.7, 492.4, 559.8, 664.6, 832.8, 864.7)
    assert module.scale == pytest.approx((1e-4,) * 6)
    assert module.offset == (0,) * 6
    assert 'Left out QA60, probability, SCL' in caplog.text
    assert '1 scene(s), sensor sentinel2_l2a' in caplog.text
    batch = next(iter(module.train_dataloader()))
    assert batch['image'].shape == (4, 6, 16, 16)
    assert batch['image'].dtype == torch.uint16


def test_layers_that_are_named_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / 'scene.tif', noise(3), ('B02', 'B03', 'QA60'))
    assert PretrainingDataModule(path, bands=['QA60', 'B2']).bands == ('QA60', 'B02')
    with pytest.raises(BandError, match=r'scene.tif: has no band B08; it has 3: B02, B03, QA60'):
        _ = PretrainingDataModule(path, bands=['B08']).bands
    only = write(tmp_path / 'only.tif', noise(2), ('QA60', 'SCL'))
    with pytest.raises(BandError, match=r'only.tif has only QA60, SCL, none of which is a spectral band'):
        _ = PretrainingDataModule(only).bands


def test_a_sensor_names_bands_that_have_no_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / 'drone.tif', noise(5))
    module = PretrainingDataModule(path, sensor='micasense_rededge')
    assert module.bands == ('blue', 'green', 'red', 'rededge', 'nir')
    assert module.rgb_index == (2, 1, 0)
    assert module.scale[0] == pytest.approx(1 / 32768)
    with pytest.raises(BandError, match=r'its 5 bands have no names and sensor dji_mavic_3m has 4'):
        _ = PretrainingDataModule(path, sensor='dji_mavic_3m').bands
    with caplog.at_level(logging.WARNING):
        assert PretrainingDataModule(path).bands == tuple(f'band_{n}' for n in range(1, 6))
    assert 'set `sensor` to name them' in caplog.text


# Statistics.


def test_statistics_are_those_of_the_valid_reflectances(tmp_path: Path) -> None:
    before, after = noise(2), noise(2, 64, 200, seed=1)
    before[:, :30, :40] = 0
    before[0, 50:60] = 0  # one band lacks data: the pixel counts for none
    paths = [
        write(tmp_path / 'S2_20210601T104031.tif', before, ('B02', 'B08'), nodata=0),
        write(tmp_path / 'S2_20230601T104031.tif', after, ('B02', 'B08'), left=600_000, nodata=0),
    ]
    module = ready(paths)
    values = [
        before[:, (before != 0).all(axis=0)].astype(np.float64) * 1e-4,
        (after.reshape(2, -1).astype(np.float64) - 1000) * 1e-4,
    ]
    pooled = np.concatenate(values, axis=1)
    np.testing.assert_allclose(module.mean, pooled.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(module.std, pooled.std(axis=1), rtol=1e-9)


def test_statistics_lie_beside_the_run_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'scene.tif', noise(), ('B02', 'B03', 'B04'))
    run = tmp_path / 'run'
    module = PretrainingDataModule(path, chip_size=16, batch_size=4)
    module.trainer = Trainer(logger=CSVLogger(run, name='', version=''), accelerator='cpu')
    module.setup('fit')
    found = json.loads((run / 'statistics.json').read_text())
    assert found['bands'] == ['B02', 'B03', 'B04']
    assert tuple(found['mean']) == module.mean
    assert tuple(found['std']) == module.std
    assert (found['pixels'], found['scenes'], found['unit']) == (96 * 128, 1, 'reflectance')

    def never(*args: Any, **options: Any) -> None:
        raise AssertionError('read through again')

    with monkeypatch.context() as patch:
        patch.setattr(scene_reader, 'scene_statistics', never)
        again = ready(path)
        assert (again.mean, again.std) == (module.mean, module.std)
        for kept in (tmp_path / 'cache' / 'statistics').iterdir():
            kept.write_text('{"bands": ["B02"')  # torn
        with pytest.raises(AssertionError, match='read through again'):
            ready(path)
    assert ready(path).mean == module.mean
    with monkeypatch.context() as patch:
        patch.setattr(scene_reader, 'scene_statistics', never)
        for options in ({'offset': -1000.0}, {'bands': ['B02']}):
            with pytest.raises(AssertionError, match='read through again'):
                ready(path, **options)
        write(tmp_path / 'scene.tif', noise(seed=9), ('B02', 'B03', 'B04'))
        with pytest.raises(AssertionError, match='read through again'):
            ready(path)


def test_a_run_without_a_logger_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / 'scene.tif', noise(), ('B02', 'B03', 'B04'))
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    module = PretrainingDataModule(path, chip_size=16, batch_size=4)
    module.trainer = Trainer(logger=False, accelerator='cpu')
    module.setup('fit')
    assert module.mean
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize('value', [3000, 0.1])
def test_a_constant_band_is_an_error_that_names_it(tmp_path: Path, value: float) -> None:
    array = noise().astype('uint16' if value > 1 else 'float32') / (1 if value > 1 else 6000)
    array = array.astype('uint16' if value > 1 else 'float32')
    array[1] = value
    path = write(tmp_path / 'scene.tif', array, ('B02', 'B03', 'B04'))
    with pytest.raises(BandError, match=r'B03 has one value everywhere.*`bands: \[B02, B04\]`'):
        ready(path)
    assert ready(path, bands=['B02', 'B04']).in_channels == 2


# The sample area.


def test_without_paths_the_sample_area_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sample_data, 'write_sample_area', functools.partial(write_sample_area, scale=0.1))
    folder = str(tmp_path / 'sample')
    module = ready(None, sample_dir=folder)
    assert f'generating the synthetic sample area in {folder}' in capsys.readouterr().out
    assert module.bands == SENSORS['sentinel2_l2a'].names
    assert len(module.scenes) == 8
    assert isinstance(module.labels, list)
    assert all(Path(label).is_file() for label in module.labels)
    assert next(iter(module.train_dataloader()))['image'].shape == (4, 12, 16, 16)

    def never(*args: Any) -> None:
        raise AssertionError('made again')

    monkeypatch.setattr(sample_data, 'write_sample_area', never)
    again = PretrainingDataModule(sample_dir=folder, labels='own.tif')
    assert again.in_channels == 12
    assert again.labels == 'own.tif'
    assert 'using the synthetic sample area' in capsys.readouterr().out


def test_the_drone_scenes_of_the_sample_area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_data, 'write_sample_area', functools.partial(write_sample_area, scale=0.1))
    module = ready(None, sample_dir=str(tmp_path / 'sample'), sample='drone')
    assert module.bands == SENSORS['micasense_rededge'].names
    assert module.sensor_name == 'micasense_rededge'
    assert [Path(scene.path).stem for scene in module.scenes.scenes] == ['vineyard_a', 'vineyard_b']
    assert module.labels is None
    assert next(iter(module.train_dataloader()))['image'].shape == (4, 5, 16, 16)


# Validation.


def test_validation_chips_lie_on_other_ground(tmp_path: Path) -> None:
    paths = [write(tmp_path / f'S2_202104{day}.tif', noise(seed=day), ('B02', 'B03', 'B04')) for day in (11, 12)]
    module = ready(paths, val_fraction=0.25, block_size=32, chips_per_epoch=400, min_valid=0.5)
    seen = {}
    for name, loader in (('train', module.train_dataloader()), ('val', module.val_dataloader())):
        seen[name] = np.zeros((96, 128), dtype=bool)
        for batch in loader:
            for row, col, height, width in batch['window'].tolist():
                seen[name][row : row + height, col : col + width] = True
    assert not (seen['train'] & seen['val']).any()
    assert seen['val'].sum() == 3 * 32 * 32  # 3 of 12 blocks, on both dates
    assert seen['train'].sum() > 7 * 32 * 32
    assert len(module.val_dataloader()) == 2 * 3 * 4 / 4
    again = ready(paths, val_fraction=0.25, block_size=32, min_valid=0.5)
    windows = [torch.cat([batch['window'] for batch in one.val_dataloader()]) for one in (module, again)]
    assert torch.equal(*windows)


def test_without_a_fraction_all_ground_is_trained_on(tmp_path: Path) -> None:
    module = ready(write(tmp_path / 'scene.tif', noise(), ('B02', 'B03', 'B04')))
    windows = torch.cat([batch['window'] for batch in batches(module)])
    assert module.val_dataloader() == []
    assert len(windows) == 48


@pytest.mark.parametrize('fraction', [0.0, 0.5])
def test_lightning_takes_it_with_and_without_validation(
    tmp_path: Path, fraction: float, recwarn: pytest.WarningsRecorder
) -> None:
    module = PretrainingDataModule(
        write(tmp_path / 'scene.tif', noise(), ('B02', 'B03', 'B04')),
        chip_size=16,
        batch_size=4,
        chips_per_epoch=8,
        val_fraction=fraction,
        block_size=32,
    )
    counts = {'val': 0, 'train': 0}

    class Counts(LightningModule):
        def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
            counts['train'] += 1

        def configure_optimizers(self) -> None:
            return None

    class CountsBoth(Counts):
        def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
            counts['val'] += 1

    for task in (Counts(), CountsBoth()):
        Trainer(
            default_root_dir=tmp_path,
            max_epochs=1,
            logger=False,
            accelerator='cpu',
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        ).fit(task, datamodule=module)
    assert counts == {'train': 4, 'val': 6 if fraction else 0}
    assert not [one for one in recwarn if 'val_dataloader' in str(one.message)]


# Batches.


def batches(module: PretrainingDataModule, epoch: int = 0) -> list[dict[str, torch.Tensor]]:
    assert module.sampler is not None
    module.sampler.set_epoch(epoch)
    return list(module.train_dataloader())


def test_the_disk_cache_gives_the_same_batches(tmp_path: Path) -> None:
    array = noise()
    array[:, 20:40, 30:50] = 0
    path = write(tmp_path / 'scene.tif', array, ('B02', 'B03', 'B04'), nodata=0)
    plain, cached = ready(path), ready(path, cache='disk', cache_dir=str(tmp_path / 'decoded'))
    assert list((tmp_path / 'decoded').iterdir())
    for a, b in zip(batches(plain), batches(cached), strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('positives', ['same', 'temporal', 'nearby'])
def test_a_batch_holds_what_a_task_needs(tmp_path: Path, positives: Any) -> None:
    paths = [write(tmp_path / f'S2_202104{day}.tif', noise(seed=day), ('B02', 'B03', 'B04')) for day in (11, 12)]
    module = ready(paths, positives=positives)
    batch = next(iter(module.train_dataloader()))
    assert ('positive' in batch) == (positives != 'same')
    if 'positive' in batch:
        assert batch['positive'].shape == batch['image'].shape
        assert batch['positive_valid'].shape == (4, 1, 16, 16)
    assert batch['scale'].shape == batch['offset'].shape == (4, 3)
    assert isinstance(module, BaseDataModule)
    assert module.on_after_batch_transfer(batch, 0) is batch


def test_chips_are_described_by_file_and_window(tmp_path: Path) -> None:
    paths = [write(tmp_path / f'{k}.tif', noise(seed=k), left=500_000 + 5000 * k) for k in range(2)]
    module = ready(paths)
    batch = next(iter(module.train_dataloader()))
    told = module.describe_chips(batch)
    assert len(told) == 4
    for text, scene, (row, col, height, width) in zip(
        told, batch['scene'].tolist(), batch['window'].tolist(), strict=True
    ):
        assert text == f'{paths[scene]} (rows {row}:{row + height}, columns {col}:{col + width})'


def test_scenes_of_two_dtypes_make_one_batch(tmp_path: Path) -> None:
    names = ('B02', 'B03', 'B04')
    reflectance = (noise(seed=1) * 1e-4).astype('float32')
    paths = [
        write(tmp_path / 'a.tif', noise(), names),
        write(tmp_path / 'b.tif', reflectance, names, left=600_000),
    ]
    module = ready(paths, chips_per_epoch=40)
    for batch in batches(module):
        assert batch['image'].dtype == torch.float32
        values = (batch['image'] + batch['offset'][:, :, None, None]) * batch['scale'][:, :, None, None]
        assert 0.2 < values.mean() < 0.4  # reflectance of both


# Errors.


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'chip_size': 0}, ConfigurationError, 'chip_size: expected at least 1, got 0'),
        ({'batch_size': 0}, ConfigurationError, 'batch_size: expected at least 1, got 0'),
        ({'num_workers': -1}, ConfigurationError, 'num_workers: expected at least 0, got -1'),
        ({'chips_per_epoch': 3}, ConfigurationError, 'chips_per_epoch: expected at least batch_size 4 chips, got 3'),
        ({'batch_size': 400}, ConfigurationError, 'an epoch has 48 chips, fewer than batch_size 400'),
        ({'chip_size': 500}, ChipSizeError, r'500×500 pixels is larger than every scene; .*scene.tif, has 96×128'),
        ({'min_valid': 2.0}, ConfigurationError, 'min_valid'),
        ({'val_fraction': 1.0}, ConfigurationError, 'val_fraction: expected 0 or more and below 1, got 1.0'),
        ({'val_fraction': 0.5, 'block_size': 8}, ConfigurationError, 'block_size: expected at least chip_size 16'),
        ({'val_fraction': 0.5, 'block_size': 10**6}, ConfigurationError, 'use smaller blocks'),
        ({'positives': 'temporal'}, ValidDataError, 'temporal needs scenes'),
        ({'sensor': 'eye'}, BandError, "sensor: unknown sensor 'eye'; choose one of sentinel2_l1c"),
    ],
)
def test_errors_name_the_option(tmp_path: Path, options: dict[str, Any], error: type, message: str) -> None:
    path = write(tmp_path / 'scene.tif', noise(), ('B02', 'B03', 'B04'))
    with pytest.raises(error, match=message):
        ready(path, **options)


def test_a_path_without_scenes_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenesNotFoundError, match=r'nowhere'):
        ready(str(tmp_path / 'nowhere' / '*.tif'))
