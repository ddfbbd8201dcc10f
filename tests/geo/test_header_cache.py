"""Cached headers are those of the files."""

import json
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from torchgeo_msssl.bands import get_sensor
from torchgeo_msssl.geo import header_cache, headers
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.scene import Scene


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(header_cache, 'MANY', 2)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose headers are read."""
    names: list[str] = []
    original = headers.describe_file

    def recorded(path: str, *arguments: Any) -> Any:
        names.append(Path(path).name)
        return original(path, *arguments)

    monkeypatch.setattr(headers, 'describe_file', recorded)
    return names


def age(folder: Path) -> None:
    """Files that have just been written are not cached."""
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))


@pytest.fixture
def folder(tmp_path: Path, make_scene: Callable[..., str], random_array: Callable[..., Any]) -> Path:
    """Scenes of many kinds."""
    array = random_array((2, 20, 30))
    make_scene('many/plain.tif', array)
    make_scene('many/named_20240601.tif', array, names=['B02', 'B03'], tags={'PROCESSING_BASELINE': '05.10'})
    make_scene('many/nan.tif', array.astype('float32'), nodata=np.nan)
    make_scene('many/fill.tif', array.astype('float64'), nodata=-9999.5, crs='EPSG:4326', res=0.0321)
    make_scene('many/alpha.tif', random_array((4, 20, 30), 'uint8'), alpha=True)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        make_scene('many/masked.tif', array, mask=array[0] > 60)
    make_scene('many/local.tif', array, crs='+proj=tmerc +lat_0=47 +lon_0=3.3 +k=0.9 +x_0=7')
    make_scene('many/T31_B02.tif', array[:1])
    make_scene('many/T31_B03.tif', array[1:, ::2, ::2], res=20)
    age(tmp_path / 'many')
    return tmp_path / 'many'


def described(scenes: list[Scene]) -> list[list[Any]]:
    """All properties of scenes, as text where equal numbers may differ."""
    return [
        [scene.name, scene.date, repr(scene.nodata), scene.always_valid, str(scene.grid.crs)]
        + [repr(getattr(file, field.name)) for file in scene.files for field in fields(file)]
        for scene in scenes
    ]


def test_a_second_opening_reads_no_header(folder: Path, opened: list[str]) -> None:
    first = find_scenes(folder)
    assert len(opened) == 9
    opened.clear()
    second = find_scenes(folder)
    assert not opened
    assert described(second) == described(first)
    assert [scene.grid for scene in second] == [scene.grid for scene in first]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(b.read(b.grid.window, b.bands)[0], a.read(a.grid.window, a.bands)[0])
    relative = find_scenes(os.path.relpath(folder))
    assert not opened
    assert relative[0].path == os.path.join(os.path.relpath(folder), 'T31_B02.tif')


@pytest.mark.parametrize(
    'change', ['rewritten', 'touched', 'new mask', 'NEW MASK', 'world file', 'mask gone', 'other sensor']
)
def test_what_changed_is_read_again(folder: Path, opened: list[str], make_scene, random_array, change: str) -> None:
    find_scenes(folder)
    opened.clear()
    sensor = None
    match change:
        case 'rewritten':
            make_scene('many/plain.tif', random_array((3, 20, 30)))
        case 'touched':
            os.utime(folder / 'plain.tif', (2e9, 2e9))
        case 'new mask':
            (folder / 'plain.tif.msk').write_bytes((folder / 'masked.tif.msk').read_bytes())
        case 'NEW MASK':  # GDAL finds it whatever its case
            (folder / 'PLAIN.TIF.MSK').write_bytes((folder / 'masked.tif.msk').read_bytes())
        case 'world file':
            (folder / 'plain.tfw').write_text('1\n0\n0\n-1\n0\n0\n')
        case 'mask gone':
            (folder / 'masked.tif.msk').unlink()
        case 'other sensor':
            sensor = get_sensor('micasense_rededge')
    if sensor is not None:
        find_scenes([folder / 'plain.tif', folder / 'alpha.tif'])
        assert not opened
        with pytest.raises(headers.BandError):
            find_scenes([folder / 'plain.tif', folder / 'alpha.tif'], sensor)
        return
    again = find_scenes(folder)
    assert opened == ['masked.tif' if change == 'mask gone' else 'plain.tif']
    masked, plain = (next(scene for scene in again if scene.name == name) for name in ('masked', 'plain'))
    assert masked.files[0].masked is (change != 'mask gone')
    assert plain.files[0].masked is (change.lower() == 'new mask')
    assert len(plain.bands) == (3 if change == 'rewritten' else 2)


def test_a_file_that_has_just_been_written_is_not_cached(
    folder: Path, opened: list[str], make_scene, random_array
) -> None:
    """It may be written again within the same tick of the clock."""
    make_scene('many/plain.tif', random_array((3, 20, 30)))
    find_scenes(folder)
    opened.clear()
    find_scenes(folder)
    assert opened == ['plain.tif']


@pytest.mark.parametrize(
    'content', ['', '{', '[]', '{"key": 1}', 'no dtype', 'other version', 'no crs', 'wrong crs', 'text for numbers']
)
def test_a_damaged_or_foreign_cache_is_ignored(folder: Path, opened: list[str], content: str) -> None:
    first = find_scenes(folder)
    (path,) = (folder.parent / 'cache' / 'headers').iterdir()
    found = json.loads(path.read_text())
    match content:
        case 'no dtype':
            del found['files']['plain.tif']['dtype']
        case 'other version':
            found['key'][0] = 99
        case 'no crs':
            found['files']['plain.tif']['crs'] = 99
        case 'wrong crs':
            for entry in found['files'].values():
                entry['crs'] = 'nowhere'
        case 'text for numbers':
            found['files']['plain.tif']['transform'] = 'abcdef'
        case _:
            found = None
    path.write_text(content if found is None else json.dumps(found))
    opened.clear()
    assert described(find_scenes(folder)) == described(first)
    assert 'plain.tif' in opened
    opened.clear()
    find_scenes(folder)
    assert not opened  # it was written again


def test_of_similar_files_one_is_opened(tmp_path: Path, opened: list[str], make_scene, random_array) -> None:
    tiled = {'tiled': True, 'blockxsize': 16, 'blockysize': 16}
    for k in range(5):
        make_scene(f'similar/{k}.tif', random_array((2, 20 + k, 30)), **tiled)
    make_scene('similar/5.tif', random_array((2, 20, 30)), nodata=7, **tiled)
    (tmp_path / 'similar' / '3.tif.aux.xml').write_text('<PAMDataset/>')
    age(tmp_path / 'similar')
    first = find_scenes(tmp_path / 'similar')
    assert opened == ['0.tif', '3.tif', '5.tif']
    opened.clear()
    assert described(find_scenes(tmp_path / 'similar')) == described(first)
    assert not opened
    assert [scene.grid.height for scene in first] == [20, 21, 22, 23, 24, 20]
    assert [scene.nodata for scene in first] == [None] * 5 + [7]


def test_few_files_are_not_cached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_cache, 'MANY', 50)
    find_scenes(folder)
    assert not (folder.parent / 'cache').exists()


def test_a_cache_that_cannot_be_written_gives_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder.parent / 'file').touch()
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(folder.parent / 'file'))
    assert len(find_scenes(folder)) == 8
    assert 'will be read again next time' in caplog.text
