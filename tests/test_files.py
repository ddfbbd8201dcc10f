import errno
import os

import pytest

from torchgeo_msssl.errors import OutputError, SceneReadError
from torchgeo_msssl.files import atomic_path


def write_half(target, error):
    with atomic_path(target) as temporary:
        temporary.write_text('half')
        raise error


def test_file_lands_with_its_suffix_and_nothing_else(tmp_path):
    target = tmp_path / 'new' / 'folder' / 'map.tif'
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == '.tif'
        assert not temporary.exists()
        temporary.write_text('complete')
        assert not target.exists()
    assert target.read_text() == 'complete'
    assert os.listdir(target.parent) == ['map.tif']


def test_failure_keeps_the_old_file_and_removes_the_new(tmp_path):
    target = tmp_path / 'a.txt'
    target.write_text('old')
    with pytest.raises(KeyboardInterrupt):
        write_half(target, KeyboardInterrupt())
    assert target.read_text() == 'old'
    assert os.listdir(tmp_path) == ['a.txt']


def test_new_file_replaces_the_old(tmp_path):
    target = tmp_path / 'a.txt'
    target.write_text('old and longer')
    with atomic_path(str(target)) as temporary:
        temporary.write_text('new')
    assert target.read_text() == 'new'


@pytest.mark.parametrize('blocker', ['file as parent', 'folder as target'])
def test_unwritable_target_is_said_before_any_work(tmp_path, blocker):
    target = tmp_path / 'x' / 'out.bin'
    if blocker == 'file as parent':
        (tmp_path / 'x').write_text('')
    else:
        target.mkdir(parents=True)
    entered = False
    with pytest.raises(OutputError, match=r'out\.bin cannot be written'), atomic_path(target):
        entered = True
    assert not entered


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(OutputError, match='cannot be written'), atomic_path(tmp_path / 'a'):
        pass


def test_full_disk_is_an_output_error_and_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match='No space left'):
        write_half(tmp_path / 'a', OSError(errno.ENOSPC, 'No space left on device'))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('error', [SceneReadError('scene.tif is cut short'), FileNotFoundError(2, 'none', 'other.tif')])
def test_errors_about_other_files_pass_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as caught, atomic_path(tmp_path / 'a'):
        raise error
    assert caught.value is error
