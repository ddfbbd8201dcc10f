"""Files land complete or not at all."""

import errno
import os
from pathlib import Path

import pytest

from torchgeo_msssl.errors import OutputError, SceneReadError, ScenesNotFoundError
from torchgeo_msssl.files import SIDECARS, atomic_path
from torchgeo_msssl.geo import write
from torchgeo_msssl.geo.discover import find_files


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
    with pytest.raises(OutputError, match=r'a cannot be written \(nothing was written\)'), atomic_path(tmp_path / 'a'):
        pass
    assert os.listdir(tmp_path) == []


def test_full_disk_is_an_output_error_and_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match='No space left'):
        write_half(tmp_path / 'a', OSError(errno.ENOSPC, 'No space left on device'))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('error', [SceneReadError('scene.tif is cut short'), FileNotFoundError(2, 'none', 'other.tif')])
def test_errors_about_other_files_pass_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as caught, atomic_path(tmp_path / 'a'):
        raise error
    assert caught.value is error


def test_there_is_one_of_it():
    assert write.atomic_path is atomic_path


def test_an_error_about_the_temporary_file_is_ours(tmp_path):
    with pytest.raises(OutputError, match=r'a\.tif .*\(No such file'), atomic_path(tmp_path / 'a.tif') as temporary:
        temporary.open()


def test_temporary_files_are_hidden_never_shared_and_no_scenes(tmp_path):
    target = tmp_path / 'scene.tif'
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        for path in (first, second):
            assert (path.parent, path.suffix, path.name[0]) == (tmp_path, '.tif', '.')
            path.write_text(path.name)
        with pytest.raises(ScenesNotFoundError):
            find_files(tmp_path)
        with pytest.raises(ScenesNotFoundError):
            find_files(tmp_path / '*.tif')
    assert target.read_text() == first.name


@pytest.mark.parametrize('suffix', SIDECARS)
def test_sidecars_follow_the_file_or_go_with_it(tmp_path, suffix):
    def write_both(name, error=None, sidecar=True):
        with atomic_path(tmp_path / name) as path:
            path.write_text('picture')
            if sidecar:
                path.with_name(f'{path.name}{suffix}').write_text('about it')
            if error:
                raise error

    write_both('a.png')
    assert sorted(os.listdir(tmp_path)) == ['a.png', f'a.png{suffix}']
    with pytest.raises(KeyError):
        write_both('b.png', KeyError())
    assert sorted(os.listdir(tmp_path)) == ['a.png', f'a.png{suffix}']
    write_both('a.png', sidecar=False)  # what was said of the old picture is not true of the new one
    assert os.listdir(tmp_path) == ['a.png']


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, 'fsync', lambda number: (order.append('fsync'), fsync(number))[1])
    monkeypatch.setattr(type(tmp_path), 'replace', lambda a, b: (order.append('replace'), replace(a, b))[1])
    with atomic_path(tmp_path / 'a') as temporary:
        temporary.write_text('x')
    assert order == ['fsync', 'replace']


def test_the_longest_name_that_a_folder_holds(tmp_path):
    target = tmp_path / f'{"n" * 251}.tif'
    with atomic_path(target) as temporary:
        temporary.write_text('x')
    assert target.read_text() == 'x'


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs named pipes')
def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(OutputError, match='it is not a regular file'), atomic_path(tmp_path / 'pipe'):
        pass
    assert (tmp_path / 'pipe').is_fifo()


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match='Permission denied'), atomic_path(tmp_path / 'x.json'):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_files_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    ordinary = tmp_path / 'ordinary'
    ordinary.touch()
    with atomic_path(tmp_path / 'private') as temporary:
        temporary.touch(mode=0o600)
    assert (tmp_path / 'private').stat().st_mode == ordinary.stat().st_mode
