"""Maps of a trained task: what decides about their values besides the pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from torchgeo_msssl.errors import ConfigurationError, SceneReadError
from torchgeo_msssl.prediction.predict import MapSettings, map_scenes
from torchgeo_msssl.tasks import Segmentation

Make = Callable[..., str]
BANDS = ['B02', 'B03']


@pytest.fixture
def task(tmp_path: Path) -> Any:
    """A network with random weights that knows its bands."""
    torch.manual_seed(0)
    made = Segmentation('unet', 'resnet18', in_channels=2, num_classes=3)
    made._provenance = {'bands': BANDS, 'sensor': 'sentinel2_l2a'}
    made.normalize.set_statistics([0.1, 0.2], [0.05, 0.1], [1e-4] * 2, [0.0] * 2)
    (tmp_path / 'some.ckpt').write_bytes(b'what identifies it')
    return made.eval()


def mapped(task: Any, scene: str, folder: Path, **options: Any) -> np.ndarray:
    settings = MapSettings(str(folder), blend='hann', window=64, probabilities='float32')
    (result,) = map_scenes(task, scene, folder.parent / 'some.ckpt', settings, **options)
    assert result.probabilities is not None
    with rasterio.open(result.probabilities) as dataset:
        return dataset.read()


def test_the_offset_is_that_of_training_where_it_was_given(task: Any, make_scene: Make, tmp_path: Path) -> None:
    """With offset 0, harmonized pixels of 2023 equal those of 2021."""
    image = np.random.default_rng(0).integers(1000, 4000, (2, 70, 90)).astype(np.uint16)
    old = make_scene('T31TFJ_20210601.tif', image, names=BANDS)
    new = make_scene('T31TFJ_20230601.tif', image, names=BANDS)
    expected = mapped(task, old, tmp_path / 'old')
    assert np.array_equal(mapped(task, new, tmp_path / 'harmonized', offset=0), expected)
    assert np.abs(mapped(task, new, tmp_path / 'auto') - expected).max() > 1e-3


@pytest.mark.slow
def test_a_map_is_the_networks_answer(task: Any, make_scene: Make, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 4000, (2, 64, 64)).astype(np.uint16)
    scene = make_scene('T31TFJ_20210601.tif', image[::-1].copy(), names=BANDS[::-1])  # another order of bands
    settings = MapSettings(str(tmp_path / 'maps'), blend='crop', confidence='float32')
    (result,) = map_scenes(task, scene, tmp_path / 'some.ckpt', settings)
    with rasterio.open(result.path) as dataset:
        classes = dataset.read(1)
    padded = np.pad(image.astype(np.float32), ((0, 0), (320, 320), (320, 320)), mode='reflect')
    with torch.no_grad():
        logits = task(torch.from_numpy(padded * 1.0)[None], None, torch.full((1, 2), 1e-4), torch.zeros(1, 2))
    whole = logits[0, :, 320:384, 320:384].argmax(0).numpy()
    assert (classes == whole).all()


def test_a_smallest_area_needs_polygons() -> None:
    with pytest.raises(ConfigurationError, match='polygons: true'):
        MapSettings(min_area=1.0)


def test_shards_of_scenes_equal_one_run(task: Any, make_scene: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in 'abc':
        make_scene(f'scenes/{name}_20210601.tif', rng.integers(1, 4000, (2, 32, 32)).astype(np.uint16), names=BANDS)

    def files(folder: str, *shards: str | None) -> dict[str, bytes]:
        for shard in shards:
            settings = MapSettings(str(tmp_path / folder), blend='hann', window=32, shard=shard)
            map_scenes(task, str(tmp_path / 'scenes'), tmp_path / 'some.ckpt', settings)
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    one = files('one', None)
    assert {f'{name}_20210601.{suffix}' for name in 'abc' for suffix in ('qml', 'tif')} <= set(one)
    assert files('many', '2/4', '4/4', '1/4', '3/4') == one


def test_scenes_that_cannot_be_read_are_skipped_and_counted(
    task: Any, make_scene: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    image = np.random.default_rng(0).integers(1, 4000, (2, 32, 32)).astype(np.uint16)
    for name in 'abc':
        path = Path(make_scene(f'scenes/{name}_20210601.tif', image, names=BANDS, compress='deflate'))
    content = path.read_bytes()
    path.write_bytes(content[:1000] + b'\xff' * (len(content) - 2000) + content[-1000:])
    (tmp_path / 'scenes/a_20210601.tif').write_bytes(b'no image')
    settings = MapSettings(str(tmp_path / 'maps'), blend='hann', window=32)
    arguments = task, str(tmp_path / 'scenes'), tmp_path / 'some.ckpt', settings
    with pytest.raises(SceneReadError, match='a_20210601'):
        map_scenes(*arguments)
    (result,) = map_scenes(*arguments, on_bad_scene='skip')
    assert result.path.name == 'b_20210601.tif'
    assert 'Skipped 2 of 3 scene(s) that cannot be read' in capsys.readouterr().out
    assert 'c_20210601.tif: cannot be read at rows' in caplog.text
    assert [path.name for path in (tmp_path / 'maps').glob('*.tif')] == ['b_20210601.tif']
