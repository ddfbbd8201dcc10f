"""A folder that several processes cut in shards is that of a single run, byte by byte."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchgeo_msssl.datasets.chip_folders import is_chip_folder
from torchgeo_msssl.datasets.chip_manifest import read_manifest
from torchgeo_msssl.errors import ConfigurationError, OutputError
from torchgeo_msssl.geo.chipping.folder import OutputFolder
from torchgeo_msssl.geo.chipping.progress_log import Header
from torchgeo_msssl.shards import Shard


@pytest.fixture
def scenes(make_scene: Callable[..., str], random_array: Any) -> list[str]:
    """A large scene with a part without data, and a small one."""
    large = random_array((2, 96, 128))
    large[:, :, 70:] = 0
    return [
        make_scene(name, array, names=['red', 'nir'], nodata=0)
        for name, array in (('a.tif', large), ('b.tif', random_array((2, 40, 32))))
    ]


@pytest.fixture
def mask(make_scene: Callable[..., str]) -> str:
    return make_scene('mask/mask.tif', np.random.default_rng(1).integers(0, 2, (96, 128)).astype(np.uint8))


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'keep_empty': 0.5, 'masks': True},
        pytest.param(
            {'split': 'blocks', 'block_size': 40, 'fractions': (0.6, 0.2, 0.2), 'gap': 0, 'masks': True},
            marks=pytest.mark.slow,
        ),
    ],
    ids=['plain', 'masks', 'split'],
)
def test_shards_equal_one_run(
    cut: Any, contents: Any, scenes: list[str], mask: str, tmp_path: Path, options: dict[str, Any]
) -> None:
    options = {'chip_size': 16, 'min_valid': 0.5, **options}
    if options.pop('masks', False):
        options |= {'labels': (mask,), 'class_names': ('other', 'vine')}
    cut(scenes, output='one', **options)
    for index in (2, 3, 1):
        report = cut(scenes, shard=Shard(index, 3), **options)
        assert 'run the same command without --shard' in report.lines('chips')[1]
    assert is_chip_folder(tmp_path / 'chips')
    with pytest.raises(ConfigurationError, match='holds shards of `chip` without a manifest'):
        read_manifest(str(tmp_path / 'chips'))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / 'chips').rglob('*.tif')}
    cut(scenes, **options)
    assert contents(tmp_path / 'chips') == contents(tmp_path / 'one')
    assert all(path.stat().st_mtime_ns == time for path, time in written.items() if path.exists()), 'was cut again'
    assert cut(scenes, shard=Shard(1, 3), **options).complete


def test_a_missing_shard_is_cut_by_the_last_run(cut: Any, contents: Any, scenes: list[str], tmp_path: Path) -> None:
    cut(scenes, output='one', chip_size=16)
    cut(scenes, chip_size=16, shard=Shard(2, 2))
    next((tmp_path / 'chips/images').iterdir()).unlink()
    cut(scenes, chip_size=16)
    assert contents(tmp_path / 'chips') == contents(tmp_path / 'one')


def test_shards_of_other_options_are_refused(cut: Any, scenes: list[str]) -> None:
    cut(scenes, chip_size=16, shard=Shard(1, 2))
    for shard in (Shard(1, 2), None):
        with pytest.raises(ConfigurationError, match='holds chips cut with other chip_size'):
            cut(scenes, chip_size=32, shard=shard)


def test_only_different_shards_run_at_the_same_time(cut: Any, scenes: list[str], tmp_path: Path) -> None:
    folder = tmp_path / 'chips'
    with OutputFolder(folder, Header({}, {}, {}), (), (), Shard(1, 2)) as first:
        first.begin((), (), ())
        with OutputFolder(folder, Header({}, {}, {}), (), (), Shard(2, 2)) as second:
            second.begin((), (), ())
        for shard in (Shard(1, 2), None):
            with (
                pytest.raises(OutputError, match='is being written by another run'),
                OutputFolder(folder, Header({}, {}, {}), (), (), shard) as other,
            ):
                other.begin((), (), ())
    shutil.rmtree(folder)
    cut(scenes, chip_size=16)


def test_more_shards_than_chips(cut: Any, contents: Any, scenes: list[str], tmp_path: Path) -> None:
    cut(scenes[1], output='one', chip_size=32)
    for index in range(1, 6):
        cut(scenes[1], chip_size=32, shard=Shard(index, 5))
    cut(scenes[1], chip_size=32)
    assert contents(tmp_path / 'chips') == contents(tmp_path / 'one')
