"""Labels and repeated bands among scenes are named, and not trained on."""

from pathlib import Path

import numpy as np
import pytest

from torchgeo_msssl.errors import BandError, SceneReadError
from torchgeo_msssl.geo.band_choice import choose_bands, spectral_bands
from torchgeo_msssl.geo.chipping.inputs import open_inputs
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.doctor import examine
from torchgeo_msssl.geo.headers import find_scenes

NAMES = ('B02', 'B03', 'B04', 'B08')


@pytest.fixture
def stack(random_array) -> np.ndarray:
    return random_array((4, 96, 96))


@pytest.mark.parametrize('name', ['a_labels.tif', 'z_labels.tif'])
@pytest.mark.parametrize('bands', [None, NAMES])
def test_labels_among_scenes_are_named_by_every_reader(make_scene, tmp_path, stack, name: str, bands) -> None:
    make_scene(tmp_path / 'm.tif', stack, names=NAMES)
    mask = (stack[:1] > 5000).astype(np.uint8)
    path = make_scene(tmp_path / name, mask)
    scenes = find_scenes(tmp_path)
    with pytest.raises(BandError, match=f'paths: {path} looks like labels .* choose the scenes with a quoted pattern'):
        choose_bands(scenes, bands or spectral_bands(scenes[0].bands, scenes[0].path))
    with pytest.raises(BandError, match=f'paths: {path} looks like labels'):
        open_inputs([str(tmp_path)], ChipOptions(chip_size=32, bands=bands))
    (found,) = [finding for finding in examine(tmp_path, measured=False) if finding.severity == 'error']
    assert (found.topic, found.files) == ('labels_among_scenes', (path,))


def test_bands_that_are_no_labels_are_refused_as_before(make_scene, tmp_path, stack) -> None:
    make_scene(tmp_path / 'm.tif', stack, names=NAMES)
    make_scene(tmp_path / 'z.tif', stack[:1])
    with pytest.raises(BandError, match=r'm\.tif has B02, B03, B04, B08, and .*z\.tif has band_1'):
        choose_bands(find_scenes(tmp_path), None)


def write_bands(make_scene, folder: Path, stack: np.ndarray, prefix: str = '', names=NAMES) -> None:
    for name in names:
        make_scene(folder / f'{prefix}{name}.tif', stack[NAMES.index(name)])


@pytest.mark.parametrize('prefix', ['', 'm_', 'S2_'])
def test_bands_next_to_their_stack_are_read_once(make_scene, tmp_path, stack, prefix: str, caplog) -> None:
    path = make_scene(tmp_path / 'm.tif', stack, names=NAMES)
    write_bands(make_scene, tmp_path, stack, prefix)
    assert [scene.path for scene in find_scenes(tmp_path)] == [path]
    assert 'hold the same bands of the same ground; the pixels are read once, from m.tif' in caplog.text
    assert open_inputs([str(tmp_path)], ChipOptions(chip_size=32)).sources == {'m': path}
    (found,) = [finding for finding in examine(tmp_path, measured=False) if finding.topic == 'repeated_bands']
    assert len(found.files) == 4
    assert found.detail == path


def test_the_scene_with_more_bands_is_kept(make_scene, tmp_path, stack) -> None:
    make_scene(tmp_path / 'm.tif', stack[:3], names=NAMES[:3])
    write_bands(make_scene, tmp_path, stack)
    (scene,) = find_scenes(tmp_path)
    assert scene.bands == NAMES
    assert len(scene.files) == 4


def test_other_pixels_dates_and_places_stay_scenes(make_scene, tmp_path, stack) -> None:
    make_scene(tmp_path / 'a/m_20240601.tif', stack, names=NAMES)
    write_bands(make_scene, tmp_path / 'a', stack, '20240701_')
    make_scene(tmp_path / 'b/m.tif', stack, names=NAMES)
    write_bands(make_scene, tmp_path / 'b', stack[:, ::-1].copy())
    assert len(find_scenes(tmp_path)) == 4


def test_an_unnamed_mask_that_comes_first_is_named_too(make_scene, tmp_path, stack) -> None:
    path = make_scene(tmp_path / 'a_mask.tif', (stack[:1] > 5000).astype(np.uint8))
    make_scene(tmp_path / 'ortho.tif', stack)
    with pytest.raises(BandError, match=f'paths: {path} looks like labels'):
        choose_bands(find_scenes(tmp_path), None)


def test_equal_nodata_is_no_repetition(make_scene, tmp_path, stack) -> None:
    stack[:, 10:86, 10:86] = 0  # the middle, which is compared
    make_scene(tmp_path / 'm.tif', stack, names=NAMES, nodata=0)
    write_bands(make_scene, tmp_path, stack[:, ::-1].copy())
    assert len(find_scenes(tmp_path)) == 2


def test_a_damaged_band_is_left_to_its_reader(make_scene, tmp_path, stack, monkeypatch) -> None:
    make_scene(tmp_path / 'm.tif', stack, names=NAMES)
    write_bands(make_scene, tmp_path, stack)

    def fail(*_: object) -> None:
        raise SceneReadError('the block cannot be decoded')

    monkeypatch.setattr('torchgeo_msssl.geo.foreign_files.read_file', fail)
    assert len(find_scenes(tmp_path)) == 2


def test_few_values_in_a_band_of_a_scene_are_no_labels(make_scene, tmp_path, stack) -> None:
    write_bands(make_scene, tmp_path, stack)
    make_scene(tmp_path / 'B10.tif', np.full((1, 96, 96), 3, dtype=np.uint16))
    topics = [finding.topic for finding in examine(tmp_path, measured=False) if finding.severity == 'error']
    assert 'labels_among_scenes' not in topics
