"""Whatever an earlier run left in the output folder, the same command ends with what a first run writes."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from tests.marks import first_fast
from torchgeo_msssl.errors import ConfigurationError, OutputError, ValidDataError
from torchgeo_msssl.geo.chipping import folder as folder_module
from torchgeo_msssl.geo.chipping.folder import OutputFolder
from torchgeo_msssl.geo.chipping.progress_log import Header

CLASSES = ('vine',)


@pytest.fixture
def write(make_scene: Callable[..., str]) -> Callable[..., str]:
    """``write(name, seed, side)`` writes a scene."""

    def scene(name: str = 'ortho', seed: int = 0, side: int = 96, **how: Any) -> str:
        array = np.random.default_rng(seed).integers(1, 4000, (2, side, side)).astype(np.uint16)
        array[:, :20, :40] = 0
        blocks = {'tiled': True, 'blockxsize': 32, 'blockysize': 32}
        return make_scene(f'{name}.tif', array, names=['red', 'nir'], nodata=0, **blocks, **how)

    return scene


@pytest.fixture
def vines(tmp_path: Path) -> Callable[..., str]:
    """``vines(x)`` draws a vineyard that begins there."""

    def draw(x: float = 600100, name: str = 'vines') -> str:
        path = tmp_path / f'{name}.gpkg'
        frame = gpd.GeoDataFrame({'kind': ['vine']}, geometry=[shapely.box(x, 4999300, x + 400, 4999900)])
        frame.set_crs('EPSG:32631').to_file(path)
        return str(path)

    return draw


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``with stopped('manifest'): …``: Ctrl-C comes when everything but the manifest is done, or elsewhere."""
    places = {
        'survey': 'run.split_chips',
        'manifest': 'run.write_manifest',
        'finish': 'run.OutputFolder.finish',
        'clear': 'folder.OutputFolder._remove_but',
    }

    @contextmanager
    def stop(where: str) -> Iterator[None]:
        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(f'torchgeo_msssl.geo.chipping.{places[where]}', interrupt)
            with pytest.raises(KeyboardInterrupt):
                yield

    return stop


@pytest.fixture
def same(tmp_path: Path, contents: Any) -> Callable[[], bool]:
    """Whether ``chips`` is what was written into ``fresh``, byte by byte."""
    return lambda: contents(tmp_path / 'chips') == contents(tmp_path / 'fresh')


def aged(files: Iterable[Path]) -> list[Path]:
    """Date files back, so that those that are written again are told from the others."""
    files = sorted(files)
    for file in files:
        os.utime(file, (0, 0))
    return files


def is_old(file: Path) -> bool:
    """Whether a file is the one that was dated back."""
    return file.stat().st_mtime == 0


def test_nothing_is_lost_before_the_first_chip_is_cut(
    cut: Any, write: Any, stopped: Any, same: Any, tmp_path: Path
) -> None:
    path = write()
    for name in ('chips', 'fresh'):
        cut(path, name, chip_size=20)
    with stopped('survey'):
        cut(path, chip_size=20, overwrite=True, split='blocks', fractions=(0.5, 0.5), block_size=45)
    assert same()
    with pytest.raises(ConfigurationError, match='for 2 regions'):
        cut(path, chip_size=20, overwrite=True, split='blocks', fractions=(0.5, 0.5), block_size=20000)
    assert same()
    with pytest.raises(ValidDataError, match='none of the 1 chips is kept'):
        cut(path, chip_size=96, overwrite=True, virtual=True, min_valid=1.0)
    assert same()
    assert cut(path, chip_size=20).complete


@pytest.mark.parametrize('overwrite', [False, True])
@pytest.mark.parametrize('where', first_fast(['manifest', 'clear', 'finish']))
def test_a_run_that_is_killed_while_it_replaces_another(
    cut: Any, write: Any, stopped: Any, same: Any, tmp_path: Path, where: str, overwrite: bool
) -> None:
    path = write()
    cut([path, write('other')], chip_size=20, split='blocks', fractions=(0.5, 0.5), block_size=45)
    cut(path, 'fresh', chip_size=30)
    with stopped(where):
        cut(path, chip_size=30, overwrite=True)
    assert not (tmp_path / 'chips/summary.json').exists()
    cut(path, chip_size=30, overwrite=overwrite)
    assert same()
    assert sorted(os.listdir(tmp_path / 'chips')) == sorted(os.listdir(tmp_path / 'fresh'))


def test_empty_folders_and_unfinished_files_are_nobodys(cut: Any, write: Any, same: Any, tmp_path: Path) -> None:
    path = write()
    cut(path, 'fresh', chip_size=30)
    (tmp_path / 'chips/images').mkdir(parents=True)
    (tmp_path / 'chips/images/.ortho_00000_00000.tif.17.part').write_bytes(b'x')
    (tmp_path / 'chips/..chips.journal.17.part').write_bytes(b'x')
    cut(path, chip_size=30)
    assert same()


def test_a_disk_that_is_full_at_once(
    cut: Any, write: Any, same: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    cut(path, 'fresh', chip_size=30)

    def full(*_: Any) -> None:
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr('torchgeo_msssl.geo.chipping.write.write_all', full)
        with pytest.raises(OutputError, match=r'\.chips\.journal: cannot be written \(No space left'):
            cut(path, chip_size=30)
    cut(path, chip_size=30)
    assert same()


@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='a limit on the size of files is a matter of POSIX')
def test_a_disk_that_is_full_when_the_journal_grows(write: Any, full_disk: Any, tmp_path: Path) -> None:
    asked = [write(), '--output', str(tmp_path / 'chips'), '--chip_size', '8', '--num_workers', '1']
    result = full_disk(4000, *asked)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f'error: {tmp_path}/chips cannot be written (File too large)')
    assert 'Traceback' not in result.stderr


def test_two_runs_at_once(cut: Any, write: Any, tmp_path: Path) -> None:
    path = write()
    with OutputFolder(tmp_path / 'chips', Header({}, {}, {}), (), ()) as first:
        first.begin((), (), ())
        with pytest.raises(OutputError, match=r'chips is being written by another run of `chip`; wait'):
            cut(path, chip_size=30, overwrite=True)
    cut(path, chip_size=30, overwrite=True)


def test_files_of_others_stay(cut: Any, write: Any, vines: Any, same: Any, tmp_path: Path) -> None:
    path, labels = write(), {'labels': (vines(),), 'class_names': CLASSES}
    cut(path, chip_size=30, **labels)
    others = [
        tmp_path / 'chips' / name
        for name in (
            'images/mine.tif',
            'masks/my_handdrawn.tif',
            'images/ortho_1_2.tif',
            'images/.mine.part',
            'masks/neighbour_00000_00030.tif',
            'notes.txt',
        )
    ]
    for file in others:
        file.write_text('mine')
    cut(path, chip_size=40, overwrite=True)
    for file in others:
        assert file.read_text() == 'mine'
        file.unlink()
    cut(path, 'fresh', chip_size=40)
    assert same()


@pytest.mark.parametrize('what', first_fast(['vectors', 'raster', 'extent']))
@pytest.mark.parametrize('complete', [False, True])
def test_labels_that_change(
    cut: Any, write: Any, vines: Any, stopped: Any, same: Any, make_scene: Any, what: str, complete: bool
) -> None:
    path = write()

    def labels(again: bool) -> dict[str, Any]:
        if what == 'raster':
            mask = make_scene('mask.tif', np.full((96, 96), again, np.uint8))
            return {'labels': (mask,), 'class_names': ('background', 'vine')}
        if what == 'extent':
            return {
                'labels': (vines(),),
                'class_names': CLASSES,
                'extent': vines(600200 if again else 600100, 'extent'),
            }
        return {'labels': (vines(600200 if again else 600100),), 'class_names': CLASSES}

    asked = {'chip_size': 30, **labels(False)}
    if complete:
        cut(path, **asked)
    else:
        with stopped('manifest'):
            cut(path, **asked)
    assert labels(True)['labels'] == asked['labels']
    assert not cut(path, **asked).complete
    cut(path, 'fresh', **asked)
    assert same()


@pytest.mark.parametrize('complete', [False, True])
@pytest.mark.parametrize('virtual', [False, True])
def test_a_scene_that_is_replaced(
    cut: Any, write: Any, stopped: Any, same: Any, tmp_path: Path, complete: bool, virtual: bool
) -> None:
    paths = [write(), write('other')]
    asked = {'chip_size': 20, 'virtual': virtual}
    if complete:
        assert not cut(paths, **asked).complete
        assert cut(paths, **asked).complete
    else:
        with stopped('manifest'):
            cut(paths, **asked)
    others = aged(tmp_path.glob('chips/images/other*'))
    write(seed=1, side=60)
    assert not cut(paths, **asked).complete
    assert all(map(is_old, others))
    assert bool(others) != virtual
    cut(paths, 'fresh', **asked)
    assert same()


def test_bands_that_are_those_of_the_first_scene(cut: Any, write: Any, same: Any, make_scene: Any) -> None:
    paths = [write('a'), write('b')]
    cut(paths, chip_size=20)
    make_scene('a.tif', np.ones((2, 96, 96), np.uint16), names=['nir', 'red'], nodata=0)
    cut(paths, chip_size=20)
    cut(paths, 'fresh', chip_size=20)
    assert same()


def test_a_mask_is_put_beside_a_scene(cut: Any, write: Any, same: Any, make_scene: Any) -> None:
    path = write()
    cut(path, chip_size=20, min_valid=0.5)
    make_scene('ortho.tif.msk', np.tri(96, dtype=np.uint8) * 255)
    assert not cut(path, chip_size=20, min_valid=0.5).complete
    cut(path, 'fresh', chip_size=20, min_valid=0.5)
    assert same()


def test_chips_that_are_lost(cut: Any, write: Any, vines: Any, same: Any, tmp_path: Path) -> None:
    path, labels = write(), {'labels': (vines(),), 'class_names': CLASSES}
    for name in ('chips', 'fresh'):
        cut(path, name, chip_size=30, **labels)
    images = aged((tmp_path / 'chips/images').iterdir())
    images[2].unlink()
    (tmp_path / 'chips/masks' / images[5].name).unlink()
    assert not cut(path, chip_size=30, **labels).complete
    assert [file for file in images if not is_old(file)] == [images[2], images[5]]
    assert same()
    (tmp_path / 'chips/chips.parquet').unlink()
    cut(path, chip_size=30, **labels)
    assert same()
    (tmp_path / 'chips/.chips.journal').write_text('')  # as after a power cut
    assert not cut(path, chip_size=30, **labels).complete
    assert same()


@pytest.mark.parametrize('whole_before', [False, True])
def test_a_scene_that_is_mended(
    cut: Any, write: Any, same: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_before: bool
) -> None:
    # so few that they lie at other distances with one scene than with two
    monkeypatch.setattr('torchgeo_msssl.geo.chipping.run._SAMPLED', 4000)
    paths = [write('a'), write('b')]
    cut(paths, 'fresh', chip_size=20)
    if whole_before:
        cut(paths, chip_size=20)
    whole, times = Path(paths[1]).read_bytes(), os.stat(paths[1])
    Path(paths[1]).write_bytes(whole[:100])
    assert list(cut(paths, chip_size=20).failed) == ['b']
    assert not list(tmp_path.glob('chips/images/b_*'))
    Path(paths[1]).write_bytes(whole)
    os.utime(paths[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not cut(paths, chip_size=20).failed
    assert same()


def test_what_is_done_of_other_scenes_stays(cut: Any, write: Any, tmp_path: Path) -> None:
    paths = [write('a'), write('b')]
    cut(paths, chip_size=20)
    others = aged(tmp_path.glob('chips/images/a_*'))
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:100])
    assert list(cut(paths, chip_size=20).failed) == ['b']
    assert sorted((tmp_path / 'chips/images').iterdir()) == others
    assert all(map(is_old, others))


def test_an_output_inside_the_scenes(cut: Any, write: Any, tmp_path: Path, contents: Any) -> None:
    path = Path(write('scenes/ortho'))
    asked = {'paths': str(path.parent), 'output': 'scenes/chips', 'chip_size': 30}
    cut(**asked)
    before = contents(tmp_path / 'scenes')
    assert cut(**asked).complete
    cut(**asked, overwrite=True)
    assert contents(tmp_path / 'scenes') == before


def test_outputs_that_cannot_be_written(cut: Any, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write()
    (tmp_path / 'file').write_text('mine')
    for output in ('file', 'file/below', 'file/below/it'):
        with pytest.raises(OutputError, match=r'file.* cannot be written \(.*file is not a folder\)'):
            cut(path, output, chip_size=30, split='blocks', fractions=(0.5, 0.5), block_size=70)
    cut(path, chip_size=30)
    monkeypatch.setattr(folder_module.os, 'access', lambda *_: False)  # the superuser may write everywhere
    with pytest.raises(OutputError, match=r'new cannot be written \(no permission to write into'):
        cut(path, 'new', chip_size=30)
    assert cut(path, chip_size=30).complete

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, 'Read-only file system', 'images')

    monkeypatch.undo()
    for name in ('mkdir', 'unlink'):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, refuse)
            with pytest.raises(OutputError, match=r'images cannot be written \(Read-only file system\)'):
                cut(path, chip_size=40, overwrite=True)


def test_less_can_be_asked_for_where_nothing_was_kept(cut: Any, write: Any, same: Any, tmp_path: Path) -> None:
    path = write()
    with pytest.raises(ValidDataError, match='use smaller values'):
        cut(path, chip_size=96, min_valid=1.0)
    assert not (tmp_path / 'chips').exists()
    cut(path, chip_size=96)
    cut(path, 'fresh', chip_size=96)
    assert same()


def test_labels_are_the_same_from_elsewhere(
    cut: Any, write: Any, vines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    vines(), vines(600200, 'extent')
    (tmp_path / 'below').mkdir()
    monkeypatch.chdir(tmp_path)
    asked = {'chip_size': 30, 'labels': ('vines.gpkg',), 'class_names': CLASSES, 'extent': 'extent.gpkg'}
    cut(path, **asked)
    monkeypatch.chdir(tmp_path / 'below')
    asked |= {'labels': ('../vines.gpkg',), 'extent': str(tmp_path / 'extent.gpkg')}
    assert cut(path, **asked).complete


@pytest.mark.parametrize('content', ['{}', 'text', '[1, 2]'])
def test_a_summary_of_others(cut: Any, write: Any, tmp_path: Path, content: str) -> None:
    (tmp_path / 'chips').mkdir()
    (tmp_path / 'chips/summary.json').write_text(content)
    with pytest.raises(ConfigurationError, match='holds files that `chip` did not write'):
        cut(write(), chip_size=30, overwrite=True)
    assert (tmp_path / 'chips/summary.json').read_text() == content


def test_windows_that_cannot_be_read_are_counted(cut: Any, write: Any, same: Any) -> None:
    paths = [write(name, compress='deflate') for name in ('good', 'bad')]
    with open(paths[1], 'rb+') as file:
        file.seek(os.path.getsize(paths[1]) * 11 // 18)  # the last block of the second row of three
        file.write(b'\xff' * 200)
    report = cut(paths, chip_size=16, min_valid=0.9)
    assert list(report.failed) == ['bad']
    counts = report.counts
    assert counts['unreadable'] == 36
    assert counts['windows'] == 72 == sum(number for name, number in counts.items() if name != 'windows')
    assert '36 in scenes that cannot be read' in report.lines('chips')[0]
    cut(paths, 'fresh', chip_size=16, min_valid=0.9, num_workers=2)
    assert same()
