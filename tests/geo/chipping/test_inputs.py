"""The files of scenes are named so that they are found again, and chips are no scenes."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.chipping.inputs import absolute, open_inputs
from torchgeo_msssl.geo.chipping.options import ChipOptions

OPTIONS = ChipOptions(chip_size=8)


@pytest.fixture
def folder(make_scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    array = np.ones((1, 16, 16), 'uint16')
    for name in ('B02', 'B03', 'notes', 'chips/images/B02', 'chips_2/image'):
        make_scene(f'day/{name}.tif', array, names=['B02'])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_files_of_each_scene_are_listed(folder: Path) -> None:
    inputs = open_inputs(['day/B0*.tif', 'day/chips_2'], ChipOptions(chip_size=8, bands=('B02',)))
    assert inputs.files == {
        'day': (f'{folder}/day/B02.tif', f'{folder}/day/B03.tif'),
        'image': (f'{folder}/day/chips_2/image.tif',),
    }
    assert inputs.sources == {'day': f'{folder}/day', 'image': f'{folder}/day/chips_2/image.tif'}


@pytest.mark.parametrize('linked', [False, True])
def test_what_lies_in_the_output_is_no_scene(folder: Path, linked: bool) -> None:
    output = Path('day/chips')
    if linked:
        os.symlink(folder / 'day', folder / 'link')
        output = folder / 'link/chips'
    names = {scene.name for scene in open_inputs(['day'], ChipOptions(chip_size=8, bands=('B02',)), output).scenes}
    assert names == {'day', 'notes', 'image'}
    assert len(open_inputs(['day'], ChipOptions(chip_size=8, bands=('B02',))).scenes) == 4
    with pytest.raises(ConfigurationError, match=r'^output: all scenes, such as day/B02.tif, lie in day;'):
        open_inputs(['day/*.tif'], OPTIONS, Path('day'))


def test_paths_that_hold_from_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', '/home/somebody')
    assert absolute('~/a.tif') == '/home/somebody/a.tif'
    assert absolute('day/../b.gpkg|layername=rows') == f'{folder}/b.gpkg|layername=rows'
    assert absolute('/vsizip/a.zip/b.tif') == '/vsizip/a.zip/b.tif'
    assert absolute('https://example.org/b.tif') == 'https://example.org/b.tif'
