"""Units and pixel sizes of scenes against those of the training."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine

from tests.real_data import DATA
from torchgeo_msssl.bands import SENSORS, Sensor
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.band_statistics.moments import scene_statistics
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.radiometry import Radiometry, radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.prediction.predict import MapSettings, map_scenes
from torchgeo_msssl.prediction.training_comparison import check_reflectance, compare_with_training
from torchgeo_msssl.tasks import Segmentation

Make = Callable[..., str]
BANDS = ('B02', 'B03', 'B04', 'B08', 'B11')
#: Vegetation: dark in the visible bands, bright in near infrared.
MEAN, STD = (0.04, 0.07, 0.06, 0.30, 0.20), (0.02, 0.02, 0.03, 0.08, 0.06)
#: Dense forest, the darkest and most uniform training data.
FOREST = ((0.02, 0.03, 0.02, 0.25, 0.10), (0.003, 0.004, 0.003, 0.03, 0.01))


def open_scene(make_scene: Make, image: np.ndarray, bands: Sequence[str] = BANDS, res: float = 10) -> Scene:
    transform = Affine(res, 0, 500000, 0, -res, 5000000)
    (scene,) = find_scenes(make_scene('scene.tif', image, names=bands, transform=transform))
    return scene


def pixels(level: Sequence[float], noise: float, side: int = 90) -> np.ndarray:
    """Reflectance (band, side, side) around a level, with relative noise."""
    draws = np.random.default_rng(0).normal(1, noise, (len(level), side, side))
    return np.clip(np.array(level)[:, None, None] * draws, 0, None)


def plain(factor: float = 1.0) -> Radiometry:
    return Radiometry((factor,) * len(BANDS), (0.0,) * len(BANDS), 'the test')


@pytest.mark.parametrize(
    ('level', 'noise'),
    [
        (MEAN, 0.3),
        ([1.1] * 5, 0.02),  # clouds everywhere
        ([1.0, 1.0, 0.98, 0.95, 0.1], 0.05),  # snow
        ([0.03, 0.02, 0.01, 0.004, 0.001], 0.1),  # water
        ([0.01, 0.008, 0.006, 0.02, 0.01], 0.2),  # cast shadow
        ([0.0] * 5, 0.0),  # a border whose nodata value is not declared
    ],
)
@pytest.mark.parametrize('trained', [(MEAN, STD), FOREST])
def test_other_ground_passes(
    make_scene: Make, level: Sequence[float], noise: float, trained: tuple[Sequence[float], Sequence[float]]
) -> None:
    counts = np.round(pixels(level, noise) * 1e4).astype(np.uint16)
    check_reflectance(open_scene(make_scene, counts), BANDS, plain(1e-4), *trained)


@pytest.mark.parametrize('factor', [255, 1e4, 32768, 1 / 255, 1e-4])
@pytest.mark.parametrize('level', [MEAN, FOREST[0]])
def test_other_units_are_refused(make_scene: Make, factor: float, level: Sequence[float]) -> None:
    scene = open_scene(make_scene, pixels(level, 0.3).astype(np.float32))
    with pytest.raises(ConfigurationError, match=r'scene\.tif has another unit .* B\d\d reaches .* \(the test\)'):
        check_reflectance(scene, BANDS, plain(factor), MEAN, STD)


def test_blocks_lie_all_over_the_scene(make_scene: Make) -> None:
    image = np.zeros((5, 400, 400), np.float32)
    image[:, 300:, 300:] = 2000
    with pytest.raises(ConfigurationError, match='reaches 2000'):
        check_reflectance(open_scene(make_scene, image), BANDS, plain(), MEAN, STD)


def test_pixel_size(make_scene: Make, caplog: pytest.LogCaptureFixture) -> None:
    scene = open_scene(make_scene, pixels(MEAN, 0.1).astype(np.float32), res=20)
    caplog.set_level(logging.INFO, 'torchgeo_msssl')
    known = SENSORS['sentinel2_l2a']

    def messages(size: float | None) -> str:
        caplog.clear()
        metadata = EncoderMetadata('test', 'resnet18', BANDS, mean=MEAN, std=STD, pixel_size=size)
        compare_with_training(scene, BANDS, known, 'auto', metadata)
        return caplog.text

    assert 'reflectance by sentinel2_l2a: the values are already reflectance' in messages(None)
    assert 'WARNING' not in messages(None)
    assert 'WARNING' not in messages(14)
    assert 'has pixels of 20 m, and the network was trained on pixels of 10 m' in messages(10)
    assert '`res`' in messages(60)


@pytest.mark.parametrize('trained_on_counts', [True, False])
def test_counts_and_reflectance_are_not_mixed(make_scene: Make, tmp_path: Path, trained_on_counts: bool) -> None:
    """A sensor that is unknown has no scale: a network of counts refuses reflectance and the reverse."""
    task = Segmentation('unet', 'resnet18', in_channels=5, num_classes=2)
    names = ['one', 'two', 'three', 'four', 'five']
    task._provenance = {'bands': names, 'sensor': None, 'pixel_size': 10.0}
    unit = 1e4 if trained_on_counts else 1.0
    task.normalize.set_statistics([m * unit for m in MEAN], [s * unit for s in STD], [1.0] * 5, [0.0] * 5)
    (tmp_path / 'some.ckpt').write_bytes(b'')
    image = pixels(MEAN, 0.3, 40) * (1.0 if trained_on_counts else 1e4)
    scene = make_scene('scene.tif', image.astype(np.float32), names=names)
    settings = {'blend': 'hann', 'window': 64, 'output': str(tmp_path / 'maps')}
    with pytest.raises(ConfigurationError, match='--check_radiometry false'):
        map_scenes(task, scene, tmp_path / 'some.ckpt', MapSettings(**settings))
    assert not (tmp_path / 'maps').exists()
    map_scenes(task, scene, tmp_path / 'some.ckpt', MapSettings(**settings, check_radiometry=False))
    assert (tmp_path / 'maps' / 'scene.tif').is_file()


def test_pixel_size_travels_with_the_metadata() -> None:
    task = Segmentation('unet', 'resnet18', in_channels=2, num_classes=2)
    task.restore_provenance({'bands': ['B02', 'B03'], 'pixel_size': 0.5})
    assert EncoderMetadata.from_dict(task.metadata().to_dict()).pixel_size == 0.5
    assert torch.equal(task.normalize.mean, torch.zeros(2))


def statistics(scene: Scene, bands: Sequence[str], sensor: Sensor | None) -> tuple[list[float], list[float]]:
    found = scene_statistics([scene], bands, [radiometry(scene, bands, sensor)])
    return list(found.mean), list(found.std)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason='real data are not available')
def test_real_scenes() -> None:
    """All dates and places of Sentinel-2 suit each other, cloudy ones too, and none suits its own counts."""
    found = []
    for name, sensor in (
        ('s2_timeseries_lahinch/S2', SENSORS['sentinel2_l1c']),
        ('s2_demmin_fields/sentinel2_fields.tif', SENSORS['sentinel2_l2a']),
    ):
        found += [(scene, sensor) for scene in find_scenes(DATA / name, sensor)]
    bands = ('B04', 'B03', 'B02', 'B08')
    trained = [statistics(scene, bands, sensor) for scene, sensor in found]
    for scene, sensor in found:
        how = radiometry(scene, bands, sensor)
        for mean, std in trained:
            check_reflectance(scene, bands, how, mean, std)
            for factor in (1e4, 1e-4):
                other = Radiometry(tuple(factor * value for value in how.scale), how.offset, 'the test')
                with pytest.raises(ConfigurationError, match='another unit'):
                    check_reflectance(scene, bands, other, mean, std)
