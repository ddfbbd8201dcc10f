"""Chips against the scenes they were cut from, and against the arrays that were saved."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from shapely import Point
from torch import Tensor
from torch.utils.data import DataLoader
from torchgeo.datasets import NonGeoDataset

from torchgeo_msssl.datasets import ChipPart, Chips, LabelledScenes, Labels, Scenes
from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.errors import BandError, ConfigurationError, MSSSLError, SceneReadError, ScenesNotFoundError
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.run import chip_scenes
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.open_datasets import close_datasets, pooled_raster

type Maker = Callable[..., str]

SIZE = 32
BANDS = ['B02', 'B03', 'B04', 'B08']
NAMES = ['soil', 'grass', 'vine']
#: What Scenes and Chips samples have in common.
KEYS = ('image', 'valid', 'scale', 'offset')


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    close_datasets()


@pytest.fixture
def scene(make_scene: Maker) -> str:
    """A scene of the time since which Sentinel-2 has an offset, with a corner without data."""
    image = np.random.default_rng(0).integers(1200, 4000, (4, 96, 128)).astype(np.uint16)
    image[:, :40, :50] = 0
    return make_scene('T31TFJ_20220601.tif', image, names=BANDS, nodata=0)


@pytest.fixture
def classes(make_scene: Maker) -> str:
    mask = np.random.default_rng(1).integers(0, 3, (96, 128)).astype(np.uint8)
    mask[90:] = 255
    return make_scene('mask.tif', mask, nodata=255)


def windows(height: int = 96, width: int = 128) -> list[Window]:
    return [Window(row, col, SIZE, SIZE) for row in range(0, height, SIZE) for col in range(0, width, SIZE)]


def cut(path: str, folder: Path, places: list[Window]) -> None:
    """Cut windows out of a file with rasterio alone, header and all."""
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path) as scene:
        for window in places:
            here = window.to_rasterio()
            profile = scene.profile | {'height': SIZE, 'width': SIZE, 'transform': scene.window_transform(here)}
            with rasterio.open(folder / f'T31TFJ_20220601_{window.row}_{window.col}.tif', 'w', **profile) as chip:
                chip.descriptions = scene.descriptions
                chip.colorinterp = scene.colorinterp
                chip.write(scene.read(window=here))


@pytest.fixture
def folder(scene: str, classes: str, tmp_path: Path) -> Path:
    """Chips of all of a scene in two splits, with their masks."""
    for split, places in (('train', windows()[:8]), ('val', windows()[8:])):
        cut(scene, tmp_path / 'chips' / split / 'images', places)
        cut(classes, tmp_path / 'chips' / split / 'masks', places)
    return tmp_path / 'chips'


def place(chips: Chips, i: int) -> Window:
    """The window of the scene that a chip's name tells."""
    row, col = Path(chips.source.describe(i)).stem.split('_')[-2:]
    return Window(int(row), int(col), SIZE, SIZE)


def same(one: dict[str, Tensor], other: dict[str, Tensor], keys: tuple[str, ...] = KEYS) -> None:
    for key in keys:
        assert one[key].dtype == other[key].dtype, key
        assert torch.equal(one[key], other[key]), key


# Chips are what the scene has there.


def test_chips_in_files_have_the_samples_of_the_scene(folder: Path, scene: str, classes: str) -> None:
    scenes = Scenes(scene)
    labelled = LabelledScenes(scenes, Labels(classes, NAMES))
    chips = Chips(folder, class_names=NAMES)
    assert isinstance(chips, NonGeoDataset)
    assert (len(chips), chips.bands, chips.size) == (8, scenes.bands, (SIZE, SIZE))
    assert chips.sensor == scenes.sensor
    for i in range(len(chips)):
        expected = labelled[scenes.query(0, place(chips, i))]
        assert expected['offset'].tolist() == [-1000] * 4
        same(chips[i], expected, (*KEYS, 'mask'))
    assert sorted(place(chips, i) for i in range(8)) == windows()[:8]
    assert not chips[0]['valid'].all()  # the empty corner


def test_bands_are_chosen_by_name_and_parts_by_window(folder: Path, scene: str) -> None:
    scenes = Scenes(scene, bands=['B8', 'B2'])
    chips = Chips(folder, 'val', bands=['B8', 'B2'])
    part = chips[ChipPart(1, Window(3, 5, 8, 16))]
    corner = place(chips, 1)
    same(part, scenes[scenes.query(0, Window(corner.row + 3, corner.col + 5, 8, 16))])
    assert part['mask'].shape == (8, 16)
    assert part['window'].tolist() == [3, 5, 8, 16]
    assert part['chip'] == 1


def test_alpha_is_no_band_and_says_where_data_are(make_scene: Maker, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 255, (4, 96, 128)).astype(np.uint8)
    image[3] = np.where(np.arange(128) < 60, 0, 255)
    path = make_scene('ortho.tif', image, names=['red', 'green', 'blue', 'alpha'], alpha=True)
    cut(path, tmp_path / 'flat', windows())
    scenes, chips = Scenes(path), Chips(tmp_path / 'flat', 'all')
    assert chips.bands == ('red', 'green', 'blue')
    for i in range(len(chips)):
        same(chips[i], scenes[scenes.query(0, place(chips, i))])
        assert 'mask' not in chips[i]
    for virtual in (False, True):
        chips = Chips(chipped([path], tmp_path / f'out{virtual}', virtual=virtual), 'all')
        for sample, window in zip(chips, windows(), strict=True):
            same(sample, scenes[scenes.query(0, window)])


def test_digits_of_a_place_are_no_date(make_scene: Maker, tmp_path: Path) -> None:
    """In field_2048_1024 a date could be seen, 24 October 2048, and with it an offset."""
    make_scene('chips/images/field_2048_1024.tif', np.full((4, 8, 8), 1500, np.uint16), names=BANDS)
    assert Chips(tmp_path / 'chips', 'all')[0]['offset'].tolist() == [0] * 4


def test_scale_and_offset_are_those_of_the_scene(make_scene: Maker, tmp_path: Path) -> None:
    """One chip of floats has no data and tells nothing: it is of a scene of digital numbers all the same."""
    empty, full = np.full((4, 8, 8), np.nan, np.float32), np.full((4, 8, 8), 1500, np.float32)
    make_scene('chips/a_0_0.tif', empty, names=BANDS)
    make_scene('chips/a_0_8.tif', full, names=BANDS)
    chips = Chips(tmp_path / 'chips', 'all')
    assert [chips[i]['scale'].tolist() for i in range(2)] == [[pytest.approx(1e-4)] * 4] * 2
    assert not chips[0]['valid'].any()


def test_chips_need_no_place_on_the_ground(make_scene: Maker, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 99, (2, 8, 9)).astype(np.int16)
    make_scene('chips/one.tif', image, crs=None, placed=False)
    chips = Chips(tmp_path / 'chips', 'all')
    assert chips.bands == ('band_1', 'band_2')
    assert torch.equal(chips[0]['image'], torch.from_numpy(image))


# What the command chip wrote.


@pytest.fixture
def later(make_scene: Maker) -> str:
    """A scene beside the first one, of the time before the offset, with another extent."""
    image = np.random.default_rng(2).integers(200, 3000, (4, 70, 100)).astype(np.uint16)
    return make_scene('T31TFJ_20210601.tif', image, names=BANDS, nodata=0)


def chipped(paths: list[str], folder: Path, **options: Any) -> Path:
    given = {'chip_size': SIZE, 'stride': SIZE, 'min_valid': 0.0} | options
    chip_scenes(paths, folder, ChipOptions(**given), progress=False)
    return folder


def raster_labels(path: str) -> dict[str, Any]:
    return {'labels': (path,), 'class_names': NAMES}


@pytest.mark.parametrize('virtual', [False, True])
def test_what_chip_wrote_is_what_the_scenes_hold(
    scene: str, later: str, classes: str, tmp_path: Path, virtual: bool
) -> None:
    folder = chipped([scene, later], tmp_path / 'out', **raster_labels(classes), virtual=virtual)
    scenes = Scenes([later, scene])
    labelled = LabelledScenes(scenes, Labels(classes, NAMES))
    chips = Chips(folder, 'all')
    assert (chips.class_names, chips.bands, chips.sensor) == (tuple(NAMES), scenes.bands, scenes.sensor)
    assert chips.manifest is not None
    rows = chips.manifest.chips
    assert len(rows) == len(chips) == 12 + 12
    offsets = set()
    for i, (name, row, col) in enumerate(zip(rows['scene'], rows['row'], rows['col'], strict=True)):
        number = [s.name for s in scenes.scenes].index(name)
        expected = labelled[scenes.query(number, Window(row, col, SIZE, SIZE))]
        same(chips[i], expected, (*KEYS, 'mask'))
        offsets.add(float(chips[i]['offset'][0]))
    assert offsets == {-1000.0, 0.0}
    part = Window(3, 7, 9, 11)
    for key in KEYS:
        whole = chips[20][key]
        assert torch.equal(chips[ChipPart(20, part)][key], whole[..., 3:12, 7:18] if whole.ndim == 3 else whole)


@pytest.mark.parametrize('virtual', [False, True])
def test_vector_labels_and_another_grid(scene: str, tmp_path: Path, virtual: bool) -> None:
    shapes = [Point(600_000 + x, 5_000_000 - y).buffer(70) for x, y in ((300, 300), (700, 500), (1100, 800))]
    gpd.GeoDataFrame({'kind': ['vine', 'vine', 'grass']}, geometry=shapes, crs=32631).to_file(tmp_path / 'drawn.gpkg')
    drawn = str(tmp_path / 'drawn.gpkg')
    options = {'labels': (drawn,), 'class_names': ['background', 'grass', 'vine'], 'column': 'kind'}
    folder = chipped([scene], tmp_path / 'out', **options, crs='EPSG:32632', res=12.0, virtual=virtual)
    chips = Chips(folder, 'all')
    assert chips.class_names == ('background', 'grass', 'vine')
    scenes = Scenes(scene, crs='EPSG:32632', res=12.0)
    labels = Labels(drawn, chips.class_names, column='kind', background=True)
    labelled = LabelledScenes(scenes, labels)
    assert chips.manifest is not None
    for i, (row, col) in enumerate(chips.manifest.chips[['row', 'col']].to_numpy().tolist()):
        same(chips[i], labelled[scenes.query(0, Window(row, col, SIZE, SIZE))], (*KEYS, 'mask'))
    assert {int(value) for i in range(len(chips)) for value in chips[i]['mask'].unique()} == {0, 1, 2, 255}


@pytest.mark.parametrize('extent', ['parcels', 'drawn.gpkg|layername=parcels', 'drawn.gpkg'])
def test_labels_of_virtual_chips_are_found_from_everywhere(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extent: str
) -> None:
    drawn = {'rows': Point(600_400, 4_999_600).buffer(70), 'parcels': Point(600_400, 4_999_500).buffer(200)}
    for layer in ('rows', 'parcels') if 'parcels' in extent else ('rows',):
        gpd.GeoDataFrame(geometry=[drawn[layer]], crs=32631).to_file(tmp_path / 'drawn.gpkg', layer=layer)
    monkeypatch.chdir(tmp_path)
    options = {'labels': ('drawn.gpkg',), 'class_names': ['vine'], 'layer': 'rows', 'extent': extent}
    written, virtual = (chipped([scene], tmp_path / str(v), virtual=v, **options) for v in (False, True))
    monkeypatch.chdir('/')
    for one, other in zip(Chips(written, 'all'), Chips(virtual, 'all'), strict=True):
        same(one, other, (*KEYS, 'mask'))


def test_splits_come_from_the_manifest(scene: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        'chip_size': 8,
        'stride': 8,
        'split': 'blocks',
        'fractions': (0.5, 0.25, 0.25),
        'block_size': 24,
        'min_valid': 1.0,
    }
    written = chipped([scene], tmp_path / 'written', **options)
    virtual = chipped([scene], tmp_path / 'virtual', virtual=True, **options)
    for split in ('train', 'val', 'test', 'all'):
        one, other = Chips(written, split), Chips(virtual, split)
        assert len(one) == len(other) > 0
        for i in range(len(one)):
            same(one[i], other[i])
            assert 'mask' not in one[i]
        if split != 'all':
            assert all(f'/{split}/images/' in one.source.describe(i) for i in range(len(one)))


@pytest.mark.parametrize('label_option', [{'min_labelled': 0.5}, {'keep_empty': 0.3}])
def test_virtual_chips_that_were_chosen_by_their_labels(
    scene: str, classes: str, tmp_path: Path, label_option: dict[str, float]
) -> None:
    options: dict[str, Any] = {**raster_labels(classes), **label_option}
    written, virtual = (Chips(chipped([scene], tmp_path / str(v), virtual=v, **options), 'all') for v in (False, True))
    assert len(written) == len(virtual) > 0
    for i in range(len(written)):
        same(written[i], virtual[i], (*KEYS, 'mask'))


@pytest.mark.parametrize('listed', [True, False])
def test_virtual_chips_open_the_files_that_were_given(make_scene: Maker, tmp_path: Path, listed: bool) -> None:
    image = np.random.default_rng(0).integers(1, 3000, (4, 96, 96)).astype(np.uint16)
    for band, name in zip(image, BANDS, strict=True):
        make_scene(f'20210601/{name}.tif', band)
    folder = chipped([str(tmp_path / '20210601' / 'B0[234].tif')], tmp_path / 'out', virtual=True)
    summary = folder / 'summary.json'
    content = json.loads(summary.read_text())
    (entry,) = content['scenes'].values()
    assert entry['files'] == [str(tmp_path / '20210601' / f'{name}.tif') for name in BANDS[:3]]
    if listed:
        make_scene('20210601/notes.tif', image[0], crs=None)
        make_scene('20210601/dem.tif', image[0])
    else:  # as earlier versions wrote it
        del entry['files']
        summary.write_text(json.dumps(content))
    chips = Chips(folder, 'all')
    assert chips.bands == tuple(BANDS[:3])
    assert torch.equal(chips[1]['image'], torch.from_numpy(image[:3, :SIZE, SIZE : 2 * SIZE]))


def test_scenes_that_are_missing_are_named_once(
    scene: str, make_scene: Maker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ('bad', 'worse'):
        path = make_scene(f'{name}.tif', np.ones((4, 96, 96), np.uint16), names=BANDS, nodata=0)
        Path(path).write_bytes(Path(path).read_bytes()[:100])
    folder = chipped([scene, path, path.replace('worse', 'bad')], tmp_path / 'out')
    whole = chipped([scene], tmp_path / 'whole')
    caplog.clear()
    for _ in range(2):
        Chips(folder, 'all')
    Chips(whole, 'all')
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f'{folder}: has no chips of 2 scene(s) that `chip` could not read (bad, worse); repair them and run the same '
        'command again.'
    ]


def test_no_class_of_the_manifest_is_the_value_of_unlabelled_pixels(scene: str, classes: str, tmp_path: Path) -> None:
    folder = chipped([scene], tmp_path / 'out', **raster_labels(classes))
    with pytest.raises(ConfigurationError, match=r'ignore_index: expected 3 to 255, .* got 1'):
        Chips(folder, 'all', ignore_index=1)
    assert 200 in Chips(folder, 'all', ignore_index=200)[11]['mask']


def test_bands_without_names_keep_their_numbers(make_scene: Maker, tmp_path: Path) -> None:
    """A chip that holds band 2 and band 4 alone is not asked for its second band in vain, nor given another one."""
    image = np.random.default_rng(0).integers(1, 99, (4, SIZE, SIZE)).astype(np.uint8)
    folder = chipped([make_scene('raw.tif', image)], tmp_path / 'out', bands=('band_2', 'band_4'))
    chips = Chips(folder, 'all', bands=['band_4'])
    assert torch.equal(chips[0]['image'], torch.from_numpy(image[3:]))
    named = Chips(folder, 'all', band_names=['red', 'nir'], bands=['nir'])
    assert torch.equal(named[0]['image'], torch.from_numpy(image[3:]))


def test_scenes_of_several_types_make_chips_of_one(make_scene: Maker, tmp_path: Path) -> None:
    paths = [make_scene(f'{kind}.tif', np.full((1, SIZE, SIZE), 9, kind), names=['red']) for kind in ('uint8', 'int32')]
    for virtual in (False, True):
        chips = Chips(chipped(paths, tmp_path / f'out{virtual}', virtual=virtual), 'all')
        assert [sample['image'].dtype for sample in chips] == [torch.int32] * 2


def test_what_has_changed_since_is_refused(scene: str, make_scene: Maker, tmp_path: Path) -> None:
    folder = chipped([scene], tmp_path / 'out', virtual=True)
    with pytest.raises(ConfigurationError, match='with band names; leave it out'):
        Chips(folder, 'all', band_names=['a'])
    make_scene(scene, np.ones((4, 96, 127), np.uint16), names=BANDS)
    with pytest.raises(SceneReadError, match=r'T31TFJ_20220601.tif: has 96 × 127 pixels .* had 96 × 128 pixels'):
        Chips(folder, 'all')
    Path(scene).unlink()
    with pytest.raises(MSSSLError, match=r'T31TFJ_20220601.tif'):
        Chips(folder, 'all')


def test_an_unfinished_or_strange_folder_of_chip_is_refused(scene: str, classes: str, tmp_path: Path) -> None:
    folder = chipped([scene], tmp_path / 'out', **raster_labels(classes))
    with pytest.raises(ConfigurationError, match=r'class_names: got a, b, c, and the chips in .* soil, grass, vine'):
        Chips(folder, 'all', class_names=['a', 'b', 'c'])
    assert 'mask' not in Chips(folder, 'all', masks=False)[0]
    summary = folder / 'summary.json'
    text = summary.read_text()
    summary.write_text(text.replace('"format": 2', '"format": 99'))
    with pytest.raises(ConfigurationError, match='was written in format 99, and this version reads 2'):
        Chips(folder, 'all')
    summary.unlink()
    (folder / '.chips.journal').touch()
    with pytest.raises(ConfigurationError, match='is from an unfinished run of `chip`; run the same command again'):
        Chips(folder, 'all')


# Arrays.


@pytest.mark.parametrize('channels', ['first', 'last'])
@pytest.mark.parametrize('dtype', ['uint16', '>i2', 'float32'])
def test_arrays_come_back_as_they_were_saved(tmp_path: Path, channels: Any, dtype: str) -> None:
    image = np.random.default_rng(0).integers(1, 3000, (12, 6, 5)).astype(dtype)
    saved = image if channels == 'first' else np.moveaxis(image, 0, -1)
    mask = np.random.default_rng(1).integers(0, 2, (6, 5)).astype(bool)
    for kind, array in (('images', saved), ('masks', mask)):
        (tmp_path / kind).mkdir()
        np.save(tmp_path / kind / 'one.npy', array)
    chips = Chips(tmp_path, 'all', sensor='sentinel2_l2a', bands=['B11', 'B2'], channels=channels)
    sample = chips[0]
    assert torch.equal(sample['image'], torch.from_numpy(image[[10, 1]].astype(image.dtype.newbyteorder('='))))
    assert torch.equal(sample['mask'], torch.from_numpy(mask).long())
    assert sample['scale'].tolist() == [pytest.approx(1e-4)] * 2


def test_bands_of_arrays_can_be_named(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 200, (3, 6, 5)).astype(np.uint8)
    image[2, 0, 0] = 0
    np.save(tmp_path / 'one.npy', image)
    chips = Chips(tmp_path, 'all', channels='first', band_names=['nir', 'red', 'alpha'], bands=['red'])
    assert torch.equal(chips[0]['image'], torch.from_numpy(image[1:2]))
    assert chips[0]['valid'].sum() == 29
    assert Chips(tmp_path, 'all', channels='first').bands == ('band_1', 'band_2', 'band_3')


@pytest.mark.parametrize(
    ('array', 'options', 'error', 'told'),
    [
        (np.zeros((3, 4, 5)), {}, ConfigurationError, 'shape .3, 4, 5.; set it to the axis of the bands'),
        (np.zeros((3, 4, 5)), {'channels': 'first', 'sensor': 'rgbn'}, BandError, 'has 3 bands and sensor rgbn 4'),
        (np.zeros((3, 4, 5)), {'channels': 'last', 'band_names': ['red']}, BandError, 'has 5 bands and band_names 1'),
        (np.zeros(7), {'channels': 'first'}, SceneReadError, 'got float64 .7,.'),
        (np.zeros((2, 2), complex), {}, SceneReadError, 'expected real numbers'),
        (np.array([{}]), {'channels': 'first'}, SceneReadError, 'cannot be read as an array'),
        (np.zeros((3, 4, 5)), {'channels': 'second'}, ConfigurationError, "expected 'first' or 'last'"),
    ],
)
def test_arrays_are_never_guessed(
    tmp_path: Path, array: NDArray[Any], options: dict[str, Any], error: type[MSSSLError], told: str
) -> None:
    np.save(tmp_path / 'one.npy', array, allow_pickle=True)
    with pytest.raises(error, match=told):
        Chips(tmp_path, 'all', **options)


def test_an_array_that_was_cut_short_is_named(tmp_path: Path) -> None:
    for name in ('a.npy', 'b.npy'):
        np.save(tmp_path / name, np.zeros((4, 30, 30)))
    whole = (tmp_path / 'b.npy').read_bytes()
    (tmp_path / 'b.npy').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SceneReadError, match=r'b\.npy: cannot be read as an array'):
        Chips(tmp_path, 'all', channels='first')[1]


# What is refused.


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ScenesNotFoundError, match=r'paths: there is no folder .*/absent'):
        Chips(tmp_path / 'absent')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ScenesNotFoundError, match=r'paths: no chips .*/empty'):
        Chips(tmp_path / 'empty', 'all')


def test_an_unknown_split_is_told_with_the_splits_that_are_there(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no 'test': the chips in .* divided into train, val; use train or"):
        Chips(folder, 'test')
    with pytest.raises(ConfigurationError, match=r"no 'train': the chips in .* are not divided; use all"):
        Chips(folder / 'train')
    assert len(Chips(folder, 'all')) == 12


def test_a_chip_that_differs_is_named(folder: Path, make_scene: Maker) -> None:
    images = folder / 'train' / 'images'
    first, second, third, *_ = sorted(images.iterdir())
    make_scene(second, np.ones((3, SIZE, SIZE), np.uint16), names=BANDS[:3])
    make_scene(third, np.ones((4, SIZE, SIZE + 1), np.uint16), names=BANDS)
    chips = Chips(folder)
    chips[0]
    with pytest.raises(BandError, match=rf'{second.name}: has the 3 band.s. B02, B03, B04 and .*{first.name}, has 4'):
        chips[1]
    with pytest.raises(SceneReadError, match=rf'{third.name}: has 32 × 33 pixels of uint16 .*{first.name}, has 32 × 3'):
        chips[2]


def test_a_damaged_chip_is_named(folder: Path) -> None:
    damaged = sorted((folder / 'train' / 'images').iterdir())[3]
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    chips = Chips(folder)
    with pytest.raises(SceneReadError, match=damaged.name):
        chips[3]


def test_masks_have_to_suit_their_images(folder: Path, make_scene: Maker) -> None:
    masks = sorted((folder / 'train' / 'masks').iterdir())
    make_scene(masks[0], np.zeros((SIZE, SIZE - 1), np.uint8))
    make_scene(masks[1], np.full((SIZE, SIZE), 7, np.uint8))
    make_scene(masks[2], np.zeros((2, SIZE, SIZE), np.uint8))
    chips = Chips(folder, class_names=NAMES)
    with pytest.raises(SceneReadError, match=rf'{masks[0].name}: has 32 × 31 pixels and its image, .*, 32 × 32'):
        chips[0]
    with pytest.raises(ConfigurationError, match=rf'{masks[1].name}: holds the value.s. 7, and class_names .* 0 to 2'):
        chips[1]
    with pytest.raises(ConfigurationError, match=rf'{masks[2].name}: has 2 bands, and a mask has one'):
        chips[2]
    assert (Chips(folder)[1]['mask'].unique() == torch.tensor([7, 255])).all()  # without names every value is taken
    make_scene(masks[3], np.full((SIZE, SIZE), -1, np.int16))
    with pytest.raises(ConfigurationError, match=r'the value.s. -1, and classes are integers from 0; recode'):
        Chips(folder)[3]
    masks[0].unlink()
    with pytest.raises(ConfigurationError, match=r'1 of 8 images .* have no mask'):
        Chips(folder)


def test_all_chips_have_masks_or_none(folder: Path) -> None:
    for mask in (folder / 'val' / 'masks').iterdir():
        mask.unlink()
    (folder / 'val' / 'masks').rmdir()
    with pytest.raises(ConfigurationError, match=r'train/images/.* has a mask and .*val/images/.* has none; add the'):
        Chips(folder, 'all')
    assert Chips(folder, 'train').labelled
    for chips in (Chips(folder, 'all', masks=False), Chips(folder, 'val')):
        assert not chips.labelled
        assert all('mask' not in chips[i] for i in range(len(chips)))


def test_two_kinds_of_files_are_kept_apart(folder: Path) -> None:
    np.save(folder / 'val' / 'images' / 'T31TFJ_20220601_64_0.npy', np.zeros((4, SIZE, SIZE)))
    with pytest.raises(ConfigurationError, match='in one folder have one name'):
        Chips(folder, 'val')
    (folder / 'val' / 'images' / 'T31TFJ_20220601_64_0.tif').unlink()
    with pytest.raises(ConfigurationError, match=r'is an array and .* a raster'):
        Chips(folder, 'val')


# Workers.


def read_by_workers(chips: Chips) -> list[dict[str, Tensor]]:
    """What two loaders give that run side by side, each with two workers, after the main process has read."""
    alone = [chips[i] for i in range(len(chips))]  # handles are open when the workers are forked
    loaders = [DataLoader(chips, 5, num_workers=2, collate_fn=collate) for _ in range(2)]
    pairs = list(zip(*loaders, strict=True))
    for batches in zip(*pairs, strict=True):
        for key in (*KEYS, 'mask', 'chip', 'window'):
            assert torch.equal(torch.cat([batch[key] for batch in batches]), torch.stack([s[key] for s in alone])), key
    return alone


def test_workers_read_the_same_chips_as_the_main_process(folder: Path) -> None:
    read_by_workers(Chips(folder, 'all', class_names=NAMES))


def test_workers_read_the_same_windows_as_the_main_process(scene: str, classes: str, tmp_path: Path) -> None:
    folder = chipped([scene], tmp_path / 'out', **raster_labels(classes), virtual=True)
    chips = Chips(folder, 'all')
    alone = read_by_workers(chips)
    backwards = chips.__getitems__(range(11, -1, -1))  # read in the order of the scene, given in the order asked for
    for one, other in zip(backwards, reversed(alone), strict=True):
        same(one, other, (*KEYS, 'mask', 'chip'))


def test_few_files_are_open_at_a_time(make_scene: Maker, tmp_path: Path) -> None:
    for i in range(140):
        make_scene(f'chips/{i:03}.tif', np.full((1, 4, 4), i + 1, np.uint8), res=1.0)
    chips = Chips(tmp_path / 'chips', 'all')
    assert [int(chips[i]['image'][0, 0, 0]) for i in range(140)] == list(range(1, 141))
    open_files = {str(path) for path in Path('/proc/self/fd').iterdir() if '/chips/' in str(path.resolve())}
    assert 0 < len(open_files) <= 128
    assert pooled_raster(str(tmp_path / 'chips' / '139.tif')).name.endswith('139.tif')


def test_a_number_beyond_the_last_chip_ends_an_iteration(folder: Path) -> None:
    chips = Chips(folder)
    assert len(list(chips)) == 8
    assert chips[-1]['chip'] == 7
    with pytest.raises(IndexError, match='chip 8 is out of range for 8 chips'):
        chips[8]


def test_a_mapping_translates_the_masks_of_a_folder(tmp_path: Path) -> None:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:4] = 255
    for folder, array in (('images', np.ones((3, SIZE, SIZE), np.uint8)), ('masks', mask)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / 'a.npy', array)
    chips = Chips(tmp_path, 'all', channels='first', class_names={'vine': 255, 'soil': 0})
    assert chips.class_names == ('vine', 'soil')
    np.testing.assert_array_equal(chips[0]['mask'].numpy(), mask == 0)
