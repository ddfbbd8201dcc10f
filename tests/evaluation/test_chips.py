"""Labelled chips from rasters, folders and tables, and how they are parted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imsave

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.chips import ProbeChips, draw_labels, open_chips
from torchgeo_msssl.evaluation.probe_settings import ProbeData

Make = Callable[..., str]
BANDS = ('B02', 'B03')


@pytest.fixture
def folder(make_scene: Make) -> Path:
    """Twelve files in two folders of classes, each 500 m from the next."""
    rng = np.random.default_rng(0)
    for i in range(12):
        kind = 'dark' if i % 2 else 'bright'
        image = rng.integers(*((100, 200) if i % 2 else (2000, 3000)), (2, 20, 20)).astype(np.uint16)
        transform = Affine(10, 0, 600000 + 500 * i, 0, -10, 5000000)
        path = make_scene(f'chips/{kind}/T31TFJ_20210601_{i:02}.tif', image, names=BANDS, transform=transform)
    return Path(path).parents[1]


def ground(chips: ProbeChips) -> tuple[set[str], set[str]]:
    paths = [scene.path for scene in chips.data.scenes.scenes]
    return tuple({paths[query.scene] for query in part.queries} for part in (chips.train, chips.test))  # type: ignore


def test_a_folder_a_class(folder: Path) -> None:
    chips = open_chips(ProbeData(folder=str(folder), chip_size=16, block_size=100))
    assert chips.class_names == ('bright', 'dark')
    for part in (chips.train, chips.test):
        for query, label in zip(part.queries, part.labels, strict=True):
            scene = chips.data.scenes.scenes[query.scene]
            assert Path(scene.path).parent.name == chips.class_names[label]
            assert (query.window.row, query.window.col, query.window.height) == (2, 2, 16)  # the middle
            assert chips.data.scenes[query]['image'].float().mean().item() > 1000 or label == 1
    train, test = ground(chips)
    assert len(train | test) == 12
    assert not set(chips.blocks[0]) & set(chips.blocks[1])  # two files a block, on one side together
    assert len(chips.blocks[1]) == 6


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Forty images without a CRS in two folders of classes, the first of which is brighter."""
    rng = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / 'images' / ('dark' if i % 2 else 'bright') / f'{i:02}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        imsave(path, rng.integers(*((10, 100) if i % 2 else (150, 250)), (20, 20, 3)).astype(np.uint8))
    return tmp_path / 'images'


def test_images_by_class(images: Path) -> None:
    chips = open_chips(ProbeData(folder=str(images), chip_size=20, label_fraction=0.5, label_draws=3))
    assert chips.split == 'images'
    assert chips.class_names == ('bright', 'dark')
    train, test = ground(chips)
    assert not train & test
    assert len(train | test) == 40
    for part, blocks in zip((chips.train, chips.test), chips.blocks, strict=True):
        assert abs(int(part.labels.sum()) - 10) <= 1  # both classes by halves
        assert len(set(blocks.tolist())) == len(part.labels)  # each image is a block
    assert len(chips.draws) == 3
    assert len({tuple(draw) for draw in chips.draws}) == 3
    # the same images are held out wherever the folder lies, and where others are added
    moved = images.rename(images.with_name('moved'))
    assert {Path(path).name for path in ground(open_chips(ProbeData(folder=str(moved), chip_size=20)))[0]} == {
        Path(path).name for path in train
    }


def test_images_by_part_and_class(images: Path) -> None:
    for part in ('train', 'test'):
        for kind in ('dark', 'bright'):
            (images / part / kind).mkdir(parents=True)
            for path in sorted((images / kind).iterdir())[: 10 if part == 'train' else None]:
                path.rename(images / part / kind / path.name)
    for kind in ('dark', 'bright'):
        (images / kind).rmdir()
    chips = open_chips(ProbeData(folder=str(images), chip_size=20))
    assert chips.split == 'the column split'
    assert chips.class_names == ('bright', 'dark')
    for part, paths in zip(('train', 'test'), ground(chips), strict=True):
        assert {Path(path).parts[-3] for path in paths} == {part}
        assert len(paths) == 20


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.floats(0.01, 1), st.integers(0, 99))
def test_few_labels_of_each_class(labels: list[int], fraction: float, seed: int) -> None:
    found = np.array(labels)
    drawn = draw_labels(found, fraction, seed)
    assert len(set(drawn.tolist())) == len(drawn)
    for label, count in zip(*np.unique(found, return_counts=True), strict=True):
        assert (found[drawn] == label).sum() == max(1, round(fraction * count))
    assert set(draw_labels(found, fraction / 2, seed)) <= set(drawn)


def test_a_table_with_a_split(folder: Path) -> None:
    files = sorted(folder.rglob('*.tif'))
    table = pd.DataFrame(
        {
            'path': [path.relative_to(folder).as_posix() for path in files],
            'label': [path.parent.name for path in files],
            'split': ['train', 'train', 'test', 'val'] * 3,
        }
    )
    table.to_csv(folder / 'chips.csv', index=False)
    chips = open_chips(ProbeData(csv=str(folder / 'chips.csv'), chip_size=20))
    train, test = ground(chips)
    assert train == {str(folder / path) for path in table['path'][table['split'] == 'train']}
    assert test == {str(folder / path) for path in table['path'][table['split'] == 'test']}
    assert chips.split == 'the column split'
    named = open_chips(ProbeData(csv=str(folder / 'chips.csv'), chip_size=20, test_scenes=['*_0[0-3].tif', '*_11']))
    assert {Path(path).stem[-2:] for path in ground(named)[1]} == {'00', '01', '02', '03', '11'}


def test_most_chips(folder: Path) -> None:
    chips = [open_chips(ProbeData(folder=str(folder), chip_size=20, block_size=60, max_chips=4)) for _ in range(2)]
    assert [len(part.labels) for part in (chips[0].train, chips[0].test)] == [4, 4]
    assert ground(chips[0]) == ground(chips[1])
    assert not set.intersection(*ground(chips[0]))


def test_rasters_by_blocks_and_by_scenes(tiles: tuple[list[str], str]) -> None:
    options: dict[str, Any] = {'paths': tiles[0], 'labels': tiles[1], 'chip_size': 16, 'block_size': 32}
    chips = open_chips(ProbeData(**options))
    assert chips.class_names == ('1', '2')
    assert not set(chips.blocks[0]) & set(chips.blocks[1])
    assert {query.scene for query in chips.test.queries} == {0, 1, 2, 3}
    assert chips.split == 'blocks of 32×32 pixels'
    named = open_chips(ProbeData(**options, test_scenes='*_20210701_*', class_names=['none', 'low', 'high']))
    assert named.class_names == ('low', 'high')
    dates = [
        {chips.data.scenes.scenes[query.scene].path.split('_')[-2] for query in part.queries}
        for part in (named.train, named.test)
    ]
    assert dates == [{'20210601'}, {'20210701'}]
    # one place has one block on every date
    assert set(named.blocks[0]) == set(named.blocks[1])


def test_classes_by_values(tiles: tuple[list[str], str]) -> None:
    options: dict[str, Any] = {'paths': tiles[0], 'labels': tiles[1], 'chip_size': 16, 'block_size': 32}
    plain = open_chips(ProbeData(**options))
    turned = open_chips(ProbeData(**options, class_names={'high': [2], 'low': [1, 7]}))
    assert turned.class_names == ('high', 'low')
    np.testing.assert_array_equal(turned.test.labels, 1 - plain.test.labels)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'paths': 'a', 'folder': 'b'}, 'one of paths'),
        ({'fractions': (0.5, 0.6)}, 'fractions'),
        ({'purity': 0.0}, 'purity'),
        ({'block_size': 16}, 'block_size'),
        ({'max_chips': 1}, 'max_chips'),
        ({'label_fraction': 0.0}, 'label_fraction: expected a fraction above 0'),
        ({'label_draws': 2}, 'label_draws: expected 1, or more with a label_fraction below 1'),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ProbeData(**options)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'test_scenes': '2022*'}, "'2022\\*' matches none of the scenes"),
        ({'test_scenes': '*'}, 'leaves no training chip'),
        ({'class_names': ['only']}, 'holds the value'),
        ({'class_names': {'a': [1], 'b': [1]}}, 'the value 1 belongs to'),
        ({'class_names': {'a': [1, 2]}}, 'are all a'),
    ],
)
def test_labels_that_make_no_probe_are_refused(
    tiles: tuple[list[str], str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_chips(ProbeData(paths=tiles[0], labels=tiles[1], chip_size=16, block_size=32, **options))


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='there is no file'):
        open_chips(ProbeData(csv=str(tmp_path / 'x.csv')))
    (tmp_path / 'x.csv').write_text('path,class\na.tif,1\n')
    with pytest.raises(ConfigurationError, match='add label'):
        open_chips(ProbeData(csv=str(tmp_path / 'x.csv')))
    (tmp_path / 'x.csv').write_text('path,label\na.tif,\n')
    with pytest.raises(ConfigurationError, match='without a path or a label'):
        open_chips(ProbeData(csv=str(tmp_path / 'x.csv')))
    (tmp_path / 'x.csv').write_text('path,label\n')
    with pytest.raises(ConfigurationError, match='no rows'):
        open_chips(ProbeData(csv=str(tmp_path / 'x.csv')))
    for content in (b'', b'\xff\xfe\x00', b'path,label\n"a'):
        (tmp_path / 'x.csv').write_bytes(content)
        with pytest.raises(ConfigurationError, match='cannot be read as CSV'):
            open_chips(ProbeData(csv=str(tmp_path / 'x.csv')))
    with pytest.raises(ConfigurationError, match='ROOT/CLASS'):
        open_chips(ProbeData(folder=str(tmp_path)))


def table_of(folder: Path, rows: list[tuple[str, ...]]) -> ProbeData:
    columns = ('path', 'label', 'split')[: len(rows[0])]
    pd.DataFrame(rows, columns=columns).to_csv(folder / 'chips.csv', index=False)
    return ProbeData(csv=str(folder / 'chips.csv'), chip_size=16, block_size=100)


def test_rows_that_are_no_chip_are_refused(folder: Path) -> None:
    rows = [(path.relative_to(folder).as_posix(), path.parent.name) for path in sorted(folder.rglob('*.tif'))]
    for more, message in (((rows[0][0], 'other'), 'appears twice'), (('dark', 'a'), 'is not a file')):
        with pytest.raises(ConfigurationError, match=message):
            open_chips(table_of(folder, [*rows, more]))
    with pytest.raises(ConfigurationError, match='at most the 20×20 pixels'):
        open_chips(ProbeData(folder=str(folder), chip_size=21))


def test_links_are_chips_and_any_name_is_a_class(folder: Path, tmp_path: Path) -> None:
    for i, path in enumerate(sorted(folder.rglob('*.tif'))):
        link = tmp_path / 'links' / ('None' if i % 2 else 'NA') / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    assert open_chips(ProbeData(folder=str(tmp_path / 'links'), chip_size=16)).class_names == ('NA', 'None')
    rows = [(str(path), 'None' if i % 2 else 'NA') for i, path in enumerate(sorted(folder.rglob('*.tif')))]
    assert open_chips(table_of(tmp_path, rows)).class_names == ('NA', 'None')


def test_no_chip_is_learnt_from_on_ground_that_is_tested_on(make_scene: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Files that overlap by half, in a row, two to a block."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        image = rng.integers(100, 3000, (2, 16, 16)).astype(np.uint16)
        transform = Affine(10, 0, 600000 + 80 * i, 0, -10, 5000000)
        path = make_scene(f'c{i:02}.tif', image, names=BANDS, transform=transform)
        rows.append((path, 'ab'[i % 2], 'train' if i % 3 else 'test'))
    folder = Path(path).parent
    with caplog.at_level('INFO', logger='torchgeo_msssl'):
        chips = open_chips(replace(table_of(folder, [row[:2] for row in rows]), block_size=32))
    grounds = [
        shapely.union_all([shapely.box(x.start, y.start, x.stop, y.stop) for x, y, _ in part.queries])
        for part in (chips.train, chips.test)
    ]
    assert grounds[0].intersection(grounds[1]).area == 0
    left = 24 - len(chips.train.labels) - len(chips.test.labels)
    assert left > 0
    assert f'{left} of {left + len(chips.train.labels)} training chips' in caplog.text
    for options in (table_of(folder, rows), replace(table_of(folder, rows), test_scenes='c0*')):
        caplog.clear()
        with caplog.at_level('WARNING', logger='torchgeo_msssl'):
            open_chips(options)
        assert 'training chips show ground of test chips' in caplog.text
