"""Scenes that cannot be read are an error, or are left out and counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from torchgeo_msssl.__main__ import main
from torchgeo_msssl.datamodules import PretrainingDataModule
from torchgeo_msssl.errors import SceneReadError
from torchgeo_msssl.geo.bad_scenes import BadScenes
from torchgeo_msssl.geo.headers import find_scenes, own_scenes
from torchgeo_msssl.shards import Shard

pytestmark = pytest.mark.usefixtures('own_place')


def damage(path: Path) -> None:
    """Overwrite the middle of a file, where pixels are."""
    content = path.read_bytes()
    start, stop = len(content) * 2 // 5, len(content) * 3 // 5
    path.write_bytes(content[:start] + bytes(255 for _ in range(start, stop)) + content[stop:])


@pytest.fixture
def folder(make_scene: Callable[..., str], random_array: Any, tmp_path: Path) -> str:
    """Scenes a to d: b is no GeoTIFF, c is cut short, and a block of d is damaged."""
    for name in 'abcd':
        layout = {'tiled': True, 'blockxsize': 16, 'blockysize': 16, 'compress': 'deflate'}
        make_scene(f'scenes/{name}.tif', random_array((2, 48, 64)), names=['red', 'nir'], **layout)
    scenes = tmp_path / 'scenes'
    content = (scenes / 'c.tif').read_bytes()
    (scenes / 'b.tif').write_bytes(b'no image')
    (scenes / 'c.tif').write_bytes(content[: len(content) * 2 // 3])
    damage(scenes / 'd.tif')
    return str(scenes)


def test_scenes_that_cannot_be_opened(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SceneReadError, match=r'b\.tif'):
        find_scenes(folder)
    bad = BadScenes('skip')
    assert [scene.name for scene in find_scenes(folder, bad=bad)] == ['a', 'd']
    assert [Path(record.args[0].args[0].split(':')[0]).name for record in caplog.records] == ['b.tif', 'c.tif']  # type: ignore[union-attr, index, union-attr]
    assert bad.summary(4) == 'Skipped 2 of 4 scene(s) that cannot be read (on_bad_scene: skip).'
    with pytest.raises(SceneReadError, match=r'b\.tif'):
        find_scenes(f'{folder}/b.tif', bad=BadScenes('skip'))


def test_a_bad_scene_does_not_change_the_shards_of_others(folder: str) -> None:
    scenes = find_scenes(folder, bad=BadScenes('skip'))
    assert [[scene.name for scene in own_scenes(scenes, folder, Shard(i, 4))] for i in (1, 2, 3, 4)] == [
        ['a'],
        [],
        [],
        ['d'],
    ]


def test_a_data_module_leaves_them_out(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    data = PretrainingDataModule(folder, chip_size=16, batch_size=2, on_bad_scene='skip')
    assert [scene.name for scene in data.scenes.scenes] == ['a', 'd']
    assert 'Skipped 2 of 4 scene(s)' in caplog.text


@pytest.mark.parametrize('shards', [0, 2])
def test_statistics_of_the_others(folder: str, shards: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['statistics', folder]) == 1
    assert not list(Path().glob('statistics*'))
    assert main(['statistics', f'{folder}/a.tif', '--output', 'alone.yaml']) == 0
    command = ['statistics', folder, '--on_bad_scene', 'skip']
    capsys.readouterr()
    for index in range(1, shards + 1):
        assert main([*command, '--shard', f'{index}/{shards}']) == 0
    assert main([*command, *(['--merge'] if shards else [])]) == 0
    assert 'Skipped 3 of 4 scene(s)' in capsys.readouterr().out
    assert Path('statistics.yaml').read_bytes() == Path('alone.yaml').read_bytes()


def test_statistics_of_floats(make_scene: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    array = np.random.default_rng(0).random((1, 32, 32), np.float32)
    good, bad = (make_scene(f'{name}.tif', array, names=['red'], compress='deflate') for name in ('good', 'bad'))
    damage(Path(bad))
    assert main(['statistics', good, bad]) == 1
    assert 'bad.tif: cannot be read at rows' in capsys.readouterr().err
    assert main(['statistics', good, bad, '--on_bad_scene', 'skip']) == 0
    assert [Path(scene['path']).name for scene in yaml.safe_load(Path('statistics.yaml').read_text())['scenes']] == [
        'good.tif'
    ]


def test_chips_of_the_others(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ['chip', folder, '--output', 'chips', '--chip_size', '16', '--num_workers', '1']
    assert main(command) == 1
    captured = capsys.readouterr()
    assert captured.err.count('error: ') == 3
    assert main([*command, '--on_bad_scene', 'skip']) == 0
    captured = capsys.readouterr()
    assert 'Skipped 3 of 4 scene(s)' in captured.out
    assert 'd.tif: cannot be read at rows' in captured.err
    assert {path.name[0] for path in Path('chips/images').iterdir()} == {'a'}
