"""Files are found, grouped into scenes, and dated by their names."""

import datetime
import os
from pathlib import Path

import pytest

from torchgeo_msssl.errors import BandError, ScenesNotFoundError
from torchgeo_msssl.geo.discover import date_of, find_files, group_files


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lay empty files out in the working folder."""
    monkeypatch.chdir(tmp_path)

    def lay(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return lay


def test_folders_are_searched_to_the_bottom_for_rasters_alone(tree) -> None:
    tree(
        'a/x.tif',
        'a/deep/er/y.TIFF',
        'a/z.jp2',
        'a/v.vrt',
        'a/notes.txt',
        'a/x.tif.aux.xml',
        'a/x.tif.msk',
        'a/.x.0123.tif',
        'a/.hidden/x.tif',
        'b.tif',
    )
    assert find_files('a') == ['a/deep/er/y.TIFF', 'a/v.vrt', 'a/x.tif', 'a/z.jp2']


@pytest.mark.parametrize(
    ('pattern', 'found'),
    [
        ('*.tif', ['b.tif']),
        ('**/*.tif', ['a/x.tif', 'b.tif']),
        ('a/*', ['a/sub/y.tif', 'a/x.tif']),
        ('a/x.*', ['a/x.tif']),
        ('*', ['a/sub/y.tif', 'a/x.tif', 'b.tif']),
        ('a/*.dat', ['a/raw.dat']),
        ('a/su?', ['a/sub/y.tif']),
    ],
)
def test_patterns(tree, pattern: str, found: list[str]) -> None:
    tree('a/x.tif', 'a/x.tif.msk', 'a/x.tfw', 'a/raw.dat', 'a/sub/y.tif', 'b.tif', '.b.0a.tif')
    if pattern == '**/*.tif':
        found = ['a/sub/y.tif', *found]
    assert find_files(pattern) == sorted(found)


def test_a_file_is_taken_once_however_often_it_is_named(tree) -> None:
    folder = tree('a/x.tif', 'a/y.tif')
    given = ['a/y.tif', 'a', './a/x.tif', str(folder / 'a' / 'y.tif'), Path('a'), 'a/*.tif']
    assert [Path(file).name for file in sorted(find_files(given), key=os.path.basename)] == ['x.tif', 'y.tif']


def test_any_file_that_is_named_itself_is_taken(tree) -> None:
    tree('scene.dat', 'odd [1].tif', 'a/T31UFT_20240601T104031_SCL_20m.jp2')
    given = ['scene.dat', 'odd [1].tif', 'a/T31UFT_20240601T104031_SCL_20m.jp2']
    assert find_files(given) == sorted(given)


def test_home_and_remote_paths(tree, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree('scenes/x.tif')
    monkeypatch.setenv('HOME', str(folder))
    assert find_files('~/scenes') == [str(folder / 'scenes/x.tif')]
    assert find_files('~/scenes/x.tif') == [str(folder / 'scenes/x.tif')]
    remote = ['/vsis3/bucket/x.tif', 'https://host/y.tif']
    assert find_files(remote) == remote


@pytest.mark.parametrize('path', ['nowhere', 'nowhere/*.tif', 'texts', '', 'texts/*'])
def test_nothing_there_is_one_sentence_with_the_path(tree, path: str) -> None:
    tree('texts/readme.txt', 'x.tif')
    with pytest.raises(ScenesNotFoundError) as caught:
        find_files(['x.tif', path])
    assert repr(path) in str(caught.value)
    assert '\n' not in str(caught.value)
    assert str(caught.value).startswith('paths: no raster file')


def test_an_empty_list() -> None:
    with pytest.raises(ScenesNotFoundError, match='the list of scenes is empty'):
        find_files([])


def test_layers_of_products_that_are_no_bands_are_left_out_of_folders(tree) -> None:
    image = 'p.SAFE/GRANULE/L2A/IMG_DATA'
    stem = 'T31UFT_20240601T104031'
    bands = [f'{image}/R10m/{stem}_B02_10m.jp2', f'{image}/R20m/{stem}_B11_20m.jp2']
    tree(
        *bands,
        f'{image}/R10m/{stem}_TCI_10m.jp2',
        f'{image}/R20m/{stem}_SCL_20m.jp2',
        f'{image}/R10m/{stem}_AOT_10m.jp2',
        f'{image}/R10m/{stem}_WVP_10m.jp2',
        'p.SAFE/GRANULE/L2A/QI_DATA/MSK_DETFOO_B02.jp2',
        'p.SAFE/GRANULE/L2A/QI_DATA/MSK_CLDPRB_20m.jp2',
        f'p.SAFE/GRANULE/L2A/QI_DATA/{stem}_PVI.jp2',
        'hls/HLS.S30.T31UFT.2024153T104031.v2.0.B02.tif',
        'hls/HLS.S30.T31UFT.2024153T104031.v2.0.Fmask.tif',
        'landsat/LC08_L2SP_197026_20210101_20210308_02_T1_SR_B4.TIF',
        'landsat/LC08_L2SP_197026_20210101_20210308_02_T1_ST_B10.TIF',
        'landsat/LC08_L2SP_197026_20210101_20210308_02_T1_QA_PIXEL.TIF',
        'planet/20220101_101010_00_2415_3B_AnalyticMS_SR.tif',
        'planet/20220101_101010_00_2415_3B_udm2.tif',
        'masks/SCL.tif',
    )
    assert find_files('landsat') == ['landsat/LC08_L2SP_197026_20210101_20210308_02_T1_SR_B4.TIF']
    assert find_files('planet') == ['planet/20220101_101010_00_2415_3B_AnalyticMS_SR.tif']
    assert find_files('p.SAFE') == bands
    assert find_files('*.SAFE') == bands
    assert find_files('hls') == ['hls/HLS.S30.T31UFT.2024153T104031.v2.0.B02.tif']
    assert find_files('masks') == ['masks/SCL.tif']  # where there is nothing else, these are meant


def test_single_band_files_of_one_folder_are_one_scene() -> None:
    files = ['2024-06-01/B02.tif', '2024-06-01/B8A.tif', '2024-06-01/b11.tif', '2024-06-04/B02.tif']
    assert group_files(files) == [
        ('2024-06-01', {'B02': files[0], 'B8A': files[1], 'B11': files[2]}),
        ('2024-06-04', {'B02': files[3]}),
    ]


def test_products_with_a_folder_for_each_resolution() -> None:
    stem = 'T31UFT_20240601T104031'
    files = [
        f'IMG_DATA/R10m/{stem}_B02_10m.jp2',
        f'IMG_DATA/R20m/{stem}_B02_20m.jp2',
        f'IMG_DATA/R20m/{stem}_B05_20m.jp2',
        f'IMG_DATA/R60m/{stem}_B02_60m.jp2',
        f'IMG_DATA/R60m/{stem}_B05_60m.jp2',
        f'IMG_DATA/R60m/{stem}_B09_60m.jp2',
    ]
    found = [(stem, {'B02': files[0], 'B05': files[2], 'B09': files[5]})]
    assert group_files(files) == found
    bands = group_files(files[::-1])
    assert [(name, dict(sorted(files.items()))) for name, files in bands] == found  # the order decides nothing
    short = [f'IMG_DATA/{folder}/B02.jp2' for folder in ('R100m', 'R20m')]
    assert group_files(short) == [('IMG_DATA', {'B02': short[1]})]


@pytest.mark.parametrize(
    ('files', 'scenes'),
    [
        (
            ['ortho_red.tif', 'ortho_nir.tif', 'ortho_red_edge.tif'],
            [('ortho', {'red': 'ortho_red.tif', 'nir': 'ortho_nir.tif', 'rededge': 'ortho_red_edge.tif'})],
        ),
        (
            ['HLS.S30.T31UFT.2024153T104031.v2.0.B02.tif', 'HLS.S30.T31UFT.2024153T104031.v2.0.B8A.tif'],
            [
                (
                    'HLS.S30.T31UFT.2024153T104031.v2.0',
                    {
                        'B02': 'HLS.S30.T31UFT.2024153T104031.v2.0.B02.tif',
                        'B8A': 'HLS.S30.T31UFT.2024153T104031.v2.0.B8A.tif',
                    },
                )
            ],
        ),
        (
            ['covered.tif', 'B14.tif', 'B0.tif', 'climb02.tif', 'shared.tif'],
            [
                ('covered', 'covered.tif'),
                ('B14', 'B14.tif'),
                ('B0', 'B0.tif'),
                ('climb02', 'climb02.tif'),
                ('shared', 'shared.tif'),
            ],
        ),
        (['a/x.tif', 'a/x.jp2', 'b/x.tif'], [('x', 'a/x.tif'), ('x', 'a/x.jp2'), ('x', 'b/x.tif')]),
        (['s-B02.tif', 's-B03.tif', 's.tif'], [('s', {'B02': 's-B02.tif', 'B03': 's-B03.tif'}), ('s', 's.tif')]),
        (['s.tif', 's_B02.tif'], [('s', 's.tif'), ('s', {'B02': 's_B02.tif'})]),
        (['T31_B02.jp2', 'T31_B02_10m.jp2'], [('T31', {'B02': 'T31_B02.jp2'}), ('T31', {'B02': 'T31_B02_10m.jp2'})]),
    ],
)
def test_grouping_loses_no_file(files: list[str], scenes: list[tuple[str, object]]) -> None:
    assert group_files(files) == scenes


@pytest.mark.parametrize('files', [['s_B2.tif', 's_B02.tif'], ['B02_10m.jp2', 'B02_10m.tif']])
def test_one_band_twice_is_an_error_with_both_files(files: list[str]) -> None:
    with pytest.raises(BandError, match=rf'{files[0]} and {files[1]}: are band B02 of the same scene'):
        group_files(files)


DAY = (datetime.datetime(2024, 6, 1), datetime.datetime(2024, 6, 1, 23, 59, 59, 999999))
SECOND = (datetime.datetime(2024, 6, 1, 10, 40, 31), datetime.datetime(2024, 6, 1, 10, 40, 31, 999999))


@pytest.mark.parametrize(
    ('path', 'date'),
    [
        ('2024-06-01.tif', DAY),
        ('ortho_20240601_north.tif', DAY),
        ('2024_06_01/B02.tif', DAY),
        ('T31UFT_20240601T104031_B02_10m.jp2', SECOND),
        ('ortho_20240601_104031.tif', SECOND),
        ('S2A_MSIL2A_20240601T104031_N0510_R008_T31UFT_20240602T120000.tif', SECOND),
        ('HLS.S30.T31UFT.2024153T104031.v2.0.B02.tif', SECOND),
        ('20231231/20240601.tif', DAY),
        ('20241399_20240601.tif', DAY),
        ('plot_120240601.tif', None),
        ('20240230.tif', None),
        ('ortho.tif', None),
        ('3024-06-01.tif', None),
    ],
)
def test_dates(path: str, date: tuple[datetime.datetime, datetime.datetime] | None) -> None:
    assert date_of(path) == date


def test_links_are_followed_once_and_never_in_circles(tree) -> None:
    tree('elsewhere/2023/x.tif', 'scenes/y.tif')
    os.symlink('../elsewhere/2023', 'scenes/a_link')
    os.symlink('../elsewhere/2023', 'scenes/another_link')
    os.symlink('..', 'elsewhere/2023/circle')
    assert find_files('scenes') == ['scenes/a_link/x.tif', 'scenes/y.tif']
