"""A folder of chips is the scene again, whoever wrote it and however often that was broken off."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

from tests.geo.drawings import vector_labels
from tests.marks import first_fast
from torchgeo_msssl.errors import (
    ChipSizeError,
    ConfigurationError,
    EmptyIntersectionError,
    MissingCRSError,
    SceneReadError,
    ScenesNotFoundError,
    ValidDataError,
)
from torchgeo_msssl.geo.chipping.run import chip_scenes
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.warp import warp_scene

UTM = 'EPSG:32631'
CLASSES = ('background', 'vine', 'grass')


@pytest.fixture
def scene(make_scene: Callable[..., str], random_array: Any) -> str:
    array = random_array((3, 150, 210))
    array[:, :, 190:] = 0
    return make_scene(
        'ortho.tif', array, names=['red', 'green', 'nir'], nodata=0, tiled=True, blockxsize=64, blockysize=64
    )


@pytest.fixture
def mask(make_scene: Callable[..., str]) -> str:
    classes = np.random.default_rng(1).integers(0, 3, (150, 210)).astype(np.uint8)
    classes[:70, :70] = 0
    classes[100:, :] = 255
    return make_scene('mask.tif', classes, nodata=255)


@pytest.fixture
def vines(tmp_path: Path) -> str:
    shapes = [shapely.box(600100, 4998900, 600600, 4999900), shapely.Point(601500, 4999300).buffer(400)]
    path = tmp_path / 'vines.gpkg'
    gpd.GeoDataFrame({'kind': ['vine', 'grass']}, geometry=shapes, crs=UTM).to_crs('EPSG:4326').to_file(path)
    return str(path)


@pytest.mark.parametrize('edge', ['pad', 'shift'])
@pytest.mark.parametrize(('size', 'stride'), [(64, 64), (64, 40), (48, 31), (200, 200)])
def test_the_chips_are_the_scene(
    cut: Any, reassemble: Any, scene: str, tmp_path: Path, edge: str, size: int, stride: int
) -> None:
    if size > 150 and edge == 'shift':
        pytest.skip('refused')
    cut(scene, chip_size=size, stride=stride, edge=edge)
    with rasterio.open(scene) as whole:
        np.testing.assert_array_equal(reassemble(tmp_path / 'chips', 'ortho', whole.shape), whole.read())
        frame = gpd.read_parquet(tmp_path / 'chips' / 'chips.parquet')
        assert frame.crs == UTM
        for chip in frame.itertuples():
            with rasterio.open(tmp_path / 'chips' / chip.image) as file:
                for corner in ((0, 0), (file.width, file.height)):
                    x, y = ~whole.transform @ (file.transform @ corner)
                    assert (x - chip.col, y - chip.row) == pytest.approx(corner, abs=1e-6)
                assert shapely.box(*file.bounds).equals(chip.geometry)
                assert file.descriptions == whole.descriptions
                assert (file.dtypes, file.nodatavals) == (whole.dtypes, whole.nodatavals)
                assert (file.read_masks(1) > 0).mean() == chip.valid_fraction
    assert json.loads((tmp_path / 'chips/summary.json').read_text())['counts']['chips'] == len(frame)


def test_masks_are_the_mask_of_the_scene(cut: Any, reassemble: Any, scene: str, mask: str, tmp_path: Path) -> None:
    cut(scene, chip_size=64, stride=50, labels=(mask,), class_names=CLASSES)
    with rasterio.open(mask) as file:
        whole = file.read()
    np.testing.assert_array_equal(reassemble(tmp_path / 'chips', 'ortho', whole.shape, 'mask'), whole)
    frame = gpd.read_parquet(tmp_path / 'chips' / 'chips.parquet')
    first = frame[(frame['row'] == 50) & (frame['col'] == 100)].iloc[0]
    part = whole[0, 50:114, 100:164]
    for value, name in enumerate(['background', 'vine', 'grass']):
        assert first[f'fraction_{name}'] == (part == value).mean()


def test_vectors_are_burned_as_over_the_whole_scene(
    cut: Any, reassemble: Any, scene: str, vines: str, tmp_path: Path
) -> None:
    cut(scene, chip_size=64, edge='shift', labels=(vines,), class_names=CLASSES, column='kind')
    (whole,) = find_scenes(scene)
    expected = vector_labels(vines, ['background', 'vine', 'grass'], 'kind', background=True).burn(
        whole.grid, whole.grid.window
    )
    assert set(np.unique(expected)) == {0, 1, 2}
    found = reassemble(tmp_path / 'chips', 'ortho', expected.shape, 'mask')[0]
    np.testing.assert_array_equal(found, expected)
    entry = json.loads((tmp_path / 'chips/summary.json').read_text())
    assert entry['labels']['class_names'] == ['background', 'vine', 'grass']
    assert entry['labels']['background'] is True


def test_scenes_no_label_touches_are_unlabelled(cut: Any, scene: str, vines: str, make_scene: Any, tmp_path: Path):
    far = make_scene(
        'far.tif',
        np.ones((3, 64, 64), 'uint16'),
        names=['red', 'green', 'nir'],
        nodata=0,
        transform=Affine(10, 0, 700000, 0, -10, 5000000),
    )
    cut([scene, far], chip_size=64, labels=(vines,), class_names=CLASSES, column='kind')
    with rasterio.open(tmp_path / 'chips/masks/far_00000_00000.tif') as file:
        assert (file.read() == 255).all()
    assert json.loads((tmp_path / 'chips/summary.json').read_text())['labels']['unlabelled_scenes'] == ['far']


def test_chips_with_too_little_in_them_are_left_out(cut: Any, scene: str, mask: str, tmp_path: Path) -> None:
    labels = {'labels': (mask,), 'class_names': CLASSES}
    report = cut(scene, chip_size=50, min_valid=0.85, min_labelled=0.5, keep_empty=0.0, **labels)
    frame = gpd.read_parquet(tmp_path / 'chips' / 'chips.parquet')
    # of 3 × 5 windows the last column has 40 of 50 columns inside and less with data, the last row is unlabelled,
    # and the first window shows background alone
    assert sorted(zip(frame['row'], frame['col'], strict=True)) == [
        (row, col) for row in (0, 50) for col in (0, 50, 100) if (row, col) != (0, 0)
    ]
    counts = report.counts
    assert (counts['windows'], counts['chips'], counts['empty']) == (15, 5, 1)
    assert counts['too_little_data'] + counts['too_few_labels'] == 9


@pytest.mark.parametrize('how', [{}, {'split': 'blocks', 'fractions': (1.0, 0.0)}, {'virtual': True}])
@pytest.mark.parametrize('size', [16, 30])
def test_classes_are_those_of_pixels_with_data(
    cut: Any, reassemble: Any, make_scene: Any, tmp_path: Path, how: dict[str, Any], size: int
) -> None:
    array = np.ones((1, 90, 90), 'uint16')
    array[:, :40], array[:, 70:, 60:] = 0, 0  # frames, as of a flight
    path = make_scene('ortho.tif', array, names=['red'], nodata=0)
    classes = np.random.default_rng(0).integers(0, 3, (90, 90)).astype(np.uint8)
    labels = {'labels': (make_scene('mask.tif', classes),), 'class_names': CLASSES}
    cut(path, chip_size=size, **labels, block_size=61, **how)
    frame = gpd.read_parquet(tmp_path / 'chips' / 'chips.parquet')
    total = np.zeros(3, int)
    for chip in frame.itertuples():
        place = slice(chip.row, chip.row + size), slice(chip.col, chip.col + size)
        inside = classes[place][array[0][place] > 0]
        counts = np.bincount(inside, minlength=3)
        assert [chip.fraction_background, chip.fraction_vine, chip.fraction_grass] == (counts / size**2).tolist()
        assert chip.valid_fraction == inside.size / size**2
        total += counts
    assert len(frame) == (-(-90 // size)) ** 2
    entry = json.loads((tmp_path / 'chips/summary.json').read_text())
    (part,) = entry['splits'].values()
    assert [part['classes'][name]['pixels'] for name in ('background', 'vine', 'grass')] == total.tolist()
    if not how:  # what is written is the mask of the scene all the same
        np.testing.assert_array_equal(reassemble(tmp_path / 'chips', 'ortho', (90, 90), 'mask')[0], classes)


@pytest.mark.parametrize('virtual', [False, True])
def test_ground_without_data_is_not_labelled(cut: Any, make_scene: Any, tmp_path: Path, virtual: bool) -> None:
    array = np.zeros((1, 64, 96), 'uint16')
    array[:, :32, 32:] = 1
    path = make_scene('ortho.tif', array, names=['red'], nodata=0)
    classes = np.ones((64, 96), 'uint8')
    classes[:, 64:] = 0
    labels = {'labels': (make_scene('mask.tif', classes),), 'class_names': CLASSES}
    report = cut(path, chip_size=32, **labels, min_labelled=0.5, keep_empty=0.0, virtual=virtual)
    counts = {key: report.counts[key] for key in ('chips', 'too_little_data', 'too_few_labels', 'empty')}
    assert counts == {'chips': 1, 'too_little_data': 0, 'too_few_labels': 4, 'empty': 1}


def test_a_dry_run_tells_what_a_run_does(cut: Any, scene: str, mask: str, tmp_path: Path) -> None:
    asked = {'chip_size': 50, 'min_valid': 0.85, 'labels': (mask,), 'class_names': CLASSES, 'keep_empty': 0.0}
    told = cut(scene, dry_run=True, **asked)
    assert not (tmp_path / 'chips').exists()
    done = cut(scene, **asked)
    assert (told.counts, told.parts) == (done.counts, done.parts)
    written = sum(path.stat().st_size for path in (tmp_path / 'chips').rglob('*.tif'))
    assert done.size == written
    assert told.size == pytest.approx(written, rel=0.1)


@pytest.mark.parametrize('split', first_fast([None, 'blocks']))
def test_virtual_chips_are_those_that_would_be_written(
    cut: Any, scene: str, mask: str, tmp_path: Path, split: str | None
) -> None:
    asked = {'chip_size': 16, 'min_valid': 0.4, 'labels': (mask,), 'class_names': CLASSES}
    asked |= {'split': split, 'block_size': 50}
    cut(scene, **asked)
    cut(scene, 'virtual', virtual=True, **asked)
    written, virtual = (gpd.read_parquet(tmp_path / name / 'chips.parquet') for name in ('chips', 'virtual'))
    assert virtual['image'].isna().all()
    assert virtual['mask'].isna().all()
    assert written['image'].notna().all()
    same = [name for name in written.columns if name not in ('image', 'mask')]
    assert written[same].equals(virtual[same])
    regions = ['split.geojson'] if split else []
    assert sorted(os.listdir(tmp_path / 'virtual')) == ['.chips.journal', 'chips.parquet', *regions, 'summary.json']
    first, second = (json.loads((tmp_path / name / 'summary.json').read_text()) for name in ('chips', 'virtual'))
    assert first['splits'] == second['splits']
    assert second['statistics'] is None


def test_statistics_are_those_of_the_pixels(cut: Any, scene: str, tmp_path: Path) -> None:
    cut(scene, chip_size=30, min_valid=1.0, edge='drop')
    with rasterio.open(scene) as file:
        pixels = file.read()[:, :, :180].reshape(3, -1).astype(float)
    found = json.loads((tmp_path / 'chips/summary.json').read_text())['statistics']
    for band, values in zip(('red', 'green', 'nir'), pixels, strict=True):
        assert found[band]['count'] == values.size
        assert found[band]['mean'] == pytest.approx(values.mean(), rel=1e-12)
        assert found[band]['std'] == pytest.approx(values.std(), rel=1e-12)
        assert (found[band]['min'], found[band]['max']) == (values.min(), values.max())


def test_parts_have_folders_of_their_own(cut: Any, make_scene: Any, random_array: Any, tmp_path: Path) -> None:
    path = make_scene('a.tif', random_array((1, 300, 300), 'uint8'), names=['red'])
    report = cut(path, chip_size=16, split='blocks', fractions=(0.6, 0.2, 0.2), block_size=60, geojson=True)
    frame = gpd.read_parquet(tmp_path / 'chips' / 'chips.parquet')
    assert set(frame['split']) == {'train', 'val', 'test'}
    for chip in frame.itertuples():
        assert chip.image == f'{chip.split}/images/a_{chip.row:05d}_{chip.col:05d}.tif'
        assert (tmp_path / 'chips' / chip.image).is_file()
    parts = [frame[frame['split'] == part].union_all() for part in ('train', 'val', 'test')]
    smallest = min(parts[i].distance(parts[k]) for i in range(3) for k in range(i))
    assert smallest >= 160
    assert report.split is not None
    assert report.split.distance * 10 == pytest.approx(smallest)
    assert report.counts['between_parts'] == report.counts['windows'] - len(frame)
    assert len(gpd.read_file(tmp_path / 'chips' / 'chips.geojson')) == len(frame)


def test_a_scene_in_another_crs(cut: Any, reassemble: Any, scene: str, tmp_path: Path) -> None:
    cut(scene, chip_size=64, crs='EPSG:32630', res=15.0)
    moved = warp_scene(find_scenes(scene)[0], rasterio.crs.CRS.from_epsg(32630), (15, 15))
    whole, _ = moved.read(moved.grid.window, moved.bands)
    found = reassemble(tmp_path / 'chips', 'ortho', whole.shape)
    # each window is warped by itself, so a pixel may come from the neighbour of the one it lies on the border of
    assert (found == whole).all(axis=0).mean() > 0.99
    frame = gpd.read_parquet(tmp_path / 'chips' / 'chips.parquet')
    assert frame.crs == 'EPSG:32630'
    with rasterio.open(tmp_path / 'chips' / frame['image'][0]) as file:
        assert (file.crs, file.res) == ('EPSG:32630', (15, 15))


def test_scenes_of_several_crs_are_listed_in_degrees(cut: Any, make_scene: Any, tmp_path: Path) -> None:
    array = np.ones((1, 64, 64), 'uint8')
    paths = [make_scene(f'{zone}.tif', array, names=['red'], crs=f'EPSG:326{zone}') for zone in (31, 32)]
    cut(paths, chip_size=64)
    frame = gpd.read_parquet(tmp_path / 'chips' / 'chips.parquet')
    assert frame.crs == 'EPSG:4326'
    for chip in frame.itertuples():
        with rasterio.open(tmp_path / 'chips' / chip.image) as file:
            assert file.crs == f'EPSG:326{chip.scene}'
            back = gpd.GeoSeries([chip.geometry], crs=frame.crs).to_crs(file.crs)[0]
            assert shapely.box(*file.bounds).symmetric_difference(back).area < 1e-3


@pytest.fixture
def series(make_scene: Any, mask: str) -> Callable[..., dict[str, Any]]:
    """Options of a run that takes a moment: scenes with gaps, masks and a split."""
    rng = np.random.default_rng(5)
    paths = []
    for i in range(3):
        array = rng.integers(1, 4000, (6, 150, 210)).astype(np.uint16)
        array[:, 20 * i : 20 * i + 30, 50:110] = 0
        paths.append(make_scene(f'day_{i}.tif', array, names=['B02', 'B03', 'B04', 'B08', 'B11', 'B12']))

    def asked(split: bool) -> dict[str, Any]:
        how = {'split': 'blocks', 'fractions': (0.6, 0.4), 'block_size': 70} if split else {}
        return {'paths': paths, 'chip_size': 22, 'min_valid': 0.5, 'labels': (mask,), 'class_names': CLASSES, **how}

    return asked


@pytest.mark.parametrize('split', first_fast([False, True]))
def test_bytes_do_not_depend_on_workers(cut: Any, series: Any, tmp_path: Path, contents: Any, split: bool) -> None:
    one, two = (cut(output=name, num_workers=n, **series(split)) for name, n in (('one', 1), ('two', 2)))
    assert contents(tmp_path / 'one') == contents(tmp_path / 'two')
    assert one.counts == two.counts
    assert one.counts['chips'] > 80


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes(cut: Any, series: Any, tmp_path: Path, contents: Any) -> None:
    asked = series(split=True)
    cut(output='whole', **asked)
    arguments = [sys.executable, '-m', 'torchgeo_msssl', 'chip', *asked['paths'], '--labels', asked['labels'][0]]
    arguments += ['--output', str(tmp_path / 'broken'), '--class_names', 'background,vine,grass', '--chip_size', '22']
    arguments += shlex.split('--num_workers 2 --split blocks --fractions 0.6,0.4 --block-size 70')
    for enough in (20, 90):
        process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and sum(1 for _ in (tmp_path / 'broken').rglob('*.tif')) < enough:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (tmp_path / 'broken' / '.chips.journal').open('a').write('["day_0", 0, 0, 16')  # a line that was being written
    cut(output='broken', **asked)
    whole, broken = contents(tmp_path / 'whole'), contents(tmp_path / 'broken')
    assert broken == whole
    assert cut(output='broken', **asked).complete
    assert contents(tmp_path / 'broken') == whole


def test_what_was_done_is_not_done_again(
    cut: Any, scene: str, tmp_path: Path, contents: Any, monkeypatch: pytest.MonkeyPatch
):
    cut(scene, 'whole', chip_size=50)
    folder = tmp_path / 'chips'

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('torchgeo_msssl.geo.chipping.run.write_manifest', stop)
        with pytest.raises(KeyboardInterrupt):
            cut(scene, chip_size=50)
    images = sorted((folder / 'images').iterdir())
    assert not (folder / 'summary.json').exists()
    images[3].write_bytes(images[3].read_bytes()[:100])  # as after a power cut
    before = {path.name: path.stat().st_mtime_ns for path in images}  # inode numbers may be used again
    (folder / 'images' / '.ortho_00000_00000.tif.1.part').write_bytes(b'x')
    cut(scene, chip_size=50)
    changed = [path.name for path in images if path.stat().st_mtime_ns != before[path.name]]
    assert changed == [images[3].name]
    assert contents(folder) == contents(tmp_path / 'whole')


def test_other_options_are_not_mixed(cut: Any, scene: str, tmp_path: Path, contents: Any) -> None:
    cut(scene, chip_size=50)
    with pytest.raises(ConfigurationError, match=r'chips cut with other chip_size; .* --overwrite'):
        cut(scene, chip_size=64)
    cut(scene, chip_size=64, overwrite=True)
    cut(scene, 'fresh', chip_size=64)
    assert contents(tmp_path / 'chips') == contents(tmp_path / 'fresh')


def test_files_of_others_are_not_touched(cut: Any, scene: str, tmp_path: Path) -> None:
    (tmp_path / 'chips' / 'images').mkdir(parents=True)
    (tmp_path / 'chips' / 'images' / 'mine.tif').write_bytes(b'x')
    for overwrite in (False, True):
        with pytest.raises(ConfigurationError, match='holds files that `chip` did not write'):
            cut(scene, chip_size=50, overwrite=overwrite)
    assert (tmp_path / 'chips' / 'images' / 'mine.tif').read_bytes() == b'x'


@pytest.mark.parametrize('split', first_fast([True, False]))
@pytest.mark.parametrize('where', first_fast(['pixels', 'header']))
def test_a_damaged_scene_does_not_stop_the_others(
    cut: Any, make_scene: Any, random_array: Any, tmp_path: Path, contents: Any, where: str, split: bool
) -> None:
    array = random_array((2, 256, 256))
    array[:, :20] = 0
    paths = [
        make_scene(
            f'{name}.tif',
            array,
            names=['red', 'nir'],
            nodata=0,
            tiled=True,
            blockxsize=64,
            blockysize=64,
            compress='deflate',
        )
        for name in ('good', 'bad')
    ]
    whole = Path(paths[1]).read_bytes()
    Path(paths[1]).write_bytes(whole[: 100 if where == 'header' else len(whole) * 2 // 3])
    how = {'split': 'blocks', 'fractions': (0.5, 0.5), 'block_size': 100} if split else {}
    report = cut(paths, chip_size=32, num_workers=2, **how)
    assert list(report.failed) == ['bad']
    assert 'bad.tif' in report.failed['bad']
    frame = gpd.read_parquet(tmp_path / 'chips' / 'chips.parquet')
    assert set(frame['scene']) == {'good'}
    assert len(list((tmp_path / 'chips').rglob('*.tif'))) == len(frame) == report.counts['chips']
    Path(paths[1]).write_bytes(whole)  # mended: the same command does the rest
    assert not cut(paths, chip_size=32, **how).failed
    cut(paths, 'fresh', chip_size=32, **how)
    assert contents(tmp_path / 'chips') == contents(tmp_path / 'fresh')


def test_a_damaged_scene_alone(cut: Any, scene: str) -> None:
    Path(scene).write_bytes(Path(scene).read_bytes()[:100])
    with pytest.raises(SceneReadError, match=r'ortho.tif: cannot be opened'):
        cut(scene, chip_size=50)


def test_refused_scenes(cut: Any, scene: str, make_scene: Any, random_array: Any, tmp_path: Path) -> None:
    array = random_array((3, 64, 64))
    with pytest.raises(MissingCRSError, match=r'no_crs.tif: has no coordinate reference system'):
        cut([scene, make_scene('no_crs.tif', array, crs=None)], chip_size=50)
    with pytest.raises(ConfigurationError, match=r'ortho.tif is given twice'):
        cut([scene, scene], chip_size=50)
    with pytest.raises(ConfigurationError, match=r'ortho.tif is given twice'):
        cut([scene, str(tmp_path)], chip_size=50)
    other = make_scene('other/ortho.tif', array, names=['red', 'green', 'nir'])
    with pytest.raises(ConfigurationError, match=r"are both called 'ortho'"):
        cut([scene, other], chip_size=50)
    with pytest.raises(ChipSizeError, match='150 × 210 pixels, less than a chip of 256'):
        cut(scene, chip_size=256, edge='drop')
    with pytest.raises(ChipSizeError, match='150 × 210 pixels, less than a chip of 256'):
        cut(scene, chip_size=256)
    with pytest.raises(ConfigurationError, match=r"^crs: 'nonsense' is not"):
        cut(scene, chip_size=50, crs='nonsense')
    empty = make_scene('empty.tif', np.zeros((1, 50, 150), 'uint8'), names=['red'], nodata=0)
    with pytest.raises(ValidDataError, match=r'none of the 3 chips is kept \(3 have too little data'):
        cut(empty, chip_size=50, min_valid=0.5)


def vector(path: Path, crs: Any = UTM, x: float = 600500, rows: int = 1) -> str:
    shapes = [shapely.box(x, 4999000, x + 500, 4999500)] * rows
    gpd.GeoDataFrame({'kind': ['vine'] * rows}, geometry=shapes, crs=crs).to_file(path)
    return str(path)


@pytest.mark.parametrize(
    ('make', 'how', 'error', 'message'),
    [
        ({'crs': None}, {}, MissingCRSError, r'v.gpkg.*: has no coordinate reference system'),
        ({'x': 900000}, {}, EmptyIntersectionError, r'v.gpkg \(drawn in EPSG:32631\) does not touch .*ortho.tif'),
        ({'rows': 0}, {}, ConfigurationError, r'v.gpkg.*: is empty'),
        ({}, {'column': 'species'}, ConfigurationError, r"v.gpkg has no column 'species'; it has kind"),
        (
            {},
            {'class_names': ['background', 'a', 'b']},
            ConfigurationError,
            r'^column: name the column of .*v.gpkg.*; it has kind',
        ),
        ({}, {'extent': 'parcels'}, ScenesNotFoundError, "^extent: 'parcels' is neither a file nor a layer of"),
        ({}, {'column': 'kind'}, ConfigurationError, r'^class_names: .*, for example --class_names='),
        (
            {},
            {'column': 'kind', 'class_names': ['background', 'grass']},
            ConfigurationError,
            r'holds vine, which the classes \(background, grass\)',
        ),
        ({}, {'layer': 'rows'}, ConfigurationError, r"has no layer 'rows'"),
        ({}, {'column': 'kind', 'class_names': {'a': 1, 'b': 1}}, ConfigurationError, 'the value 1 belongs to'),
        ({}, {'class_names': ['vine', 'vine']}, ConfigurationError, '^class_names: expected different names'),
        ({}, {'priority': ('grass',)}, ConfigurationError, '^priority: expected different names of class_names'),
    ],
)
def test_refused_vectors(
    cut: Any, scene: str, tmp_path: Path, make: Any, how: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        cut(scene, chip_size=50, labels=(vector(tmp_path / 'v.gpkg', **make),), **how)
    assert not (tmp_path / 'chips').exists()


def test_refused_mask_rasters(cut: Any, scene: str, mask: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r'^column: is for vector files'):
        cut(scene, chip_size=50, labels=(mask,), class_names=CLASSES, column='kind')
    with pytest.raises(ConfigurationError, match='rasters and vectors; give one kind'):
        cut(scene, chip_size=50, labels=(mask, vector(tmp_path / 'v.gpkg')), class_names=CLASSES)
    with pytest.raises(ConfigurationError, match=r'holds the value\(s\) 2'):
        cut(scene, chip_size=50, labels=(mask,), class_names=CLASSES[:2], num_workers=2)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='the peak is read where Linux keeps it')
def test_memory_does_not_grow_with_the_scene(make_scene: Any, tmp_path: Path) -> None:
    tile = np.random.default_rng(0).integers(1, 3000, (4, 1024, 1024)).astype(np.uint16)
    peaks = []
    for times in (4, 16):
        path = make_scene(
            f'{times}.tif',
            np.tile(tile, (1, times, 1)),
            names=['red', 'green', 'blue', 'nir'],
            nodata=0,
            tiled=True,
            blockxsize=256,
            blockysize=256,
        )
        # not getrusage: its maximum outlives exec and would be that of the process of the tests
        code = (
            'import sys; from torchgeo_msssl.geo.chipping.run import chip_scenes, ChipOptions\n'
            'chip_scenes([sys.argv[1]], sys.argv[2], ChipOptions(chip_size=256), progress=False)\n'
            'print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])'
        )
        arguments = [sys.executable, '-c', code, path, str(tmp_path / f'chips_{times}')]
        result = subprocess.run(arguments, capture_output=True, check=True, text=True)
        peaks.append(int(result.stdout) / 1024)
    # 100 MB more of pixels
    assert peaks[1] - peaks[0] < 20, peaks


@pytest.mark.slow
@pytest.mark.skipif(os.name != 'posix', reason='a limit on the size of files is a matter of POSIX')
def test_a_full_disk(scene: str, full_disk: Any, tmp_path: Path) -> None:
    asked = [scene, '--output', str(tmp_path / 'chips'), '--chip_size', '100', '--num_workers', '1']
    result = full_disk(8000, *asked)
    assert result.returncode == 1
    assert 'cannot be written (File too large); free disk space' in result.stderr
    assert 'Traceback' not in result.stderr
    assert not list((tmp_path / 'chips').rglob('*.part'))


def test_labels_outside_a_padded_scene_are_unknown(cut: Any, scene: str, vines: str, tmp_path: Path) -> None:
    cut(scene, chip_size=160, labels=(vines,), class_names=CLASSES, column='kind')
    with rasterio.open(tmp_path / 'chips/masks/ortho_00000_00160.tif') as file:
        mask: NDArray[Any] = file.read(1)
    assert (mask[150:] == 255).all()
    assert (mask[:, 50:] == 255).all()
    assert set(np.unique(mask[:150, :50])) == {0, 2}


def test_workers_have_to_be_some(scene: str, tmp_path: Path, cut: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'^num_workers: expected at least 1, got 0'):
        cut(scene, chip_size=50, num_workers=0)


def test_a_grid_that_is_turned(cut: Any, reassemble: Any, make_scene: Any, random_array: Any, tmp_path: Path) -> None:
    transform = Affine.translation(600000, 5000000) @ Affine.rotation(25) @ Affine.scale(10, -10)
    array = random_array((1, 90, 70))
    path = make_scene('turned.tif', array, names=['red'], nodata=0, transform=transform)
    cut(path, chip_size=32)
    np.testing.assert_array_equal(reassemble(tmp_path / 'chips', 'turned', array.shape), array)
    frame = gpd.read_parquet(tmp_path / 'chips' / 'chips.parquet')
    grid = PixelGrid(rasterio.crs.CRS.from_epsg(32631), transform, 90, 70)
    for chip in frame.itertuples():
        corner = grid.transform @ (chip.col, chip.row)
        assert shapely.Point(corner).distance(shapely.Point(chip.geometry.exterior.coords[0])) < 1e-6


def test_python_callers_need_no_command(scene: str, tmp_path: Path) -> None:
    from torchgeo_msssl.geo.chipping.options import ChipOptions

    report = chip_scenes([scene], tmp_path / 'chips', ChipOptions(chip_size=50), progress=False)
    assert report.lines('chips')[0] == '12 of 15 windows are chips (3 too little data).'
