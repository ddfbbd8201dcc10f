"""Images without a CRS: each has a place of its own, and nothing that needs a real place accepts them."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from torchgeo_msssl.datamodules import PretrainingDataModule, SegmentationDataModule
from torchgeo_msssl.datasets.chips import Chips
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import MissingCRSError, ScenesNotFoundError
from torchgeo_msssl.geo.discover import find_files
from torchgeo_msssl.geo.grid import PIXELS, Window
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.plain_images import image_number
from torchgeo_msssl.samplers.blocks import split_scenes
from torchgeo_msssl.samplers.random import RandomChipSampler

Make = Callable[..., str]


def write_image(path: Path, array: NDArray[Any]) -> Path:
    """Write (band, height, width) as PNG or lossless as its suffix says, without any georeference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {'.png': 'PNG', '.jpg': 'JPEG', '.tif': 'GTiff'}[path.suffix]
    options = {'photometric': 'RGB'} if driver == 'GTiff' and len(array) == 3 else {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        with rasterio.open(
            path, 'w', driver, array.shape[2], array.shape[1], len(array), dtype=array.dtype, **options
        ) as image:
            image.write(array)
    return path


def noise(seed: int = 0, side: int = 24) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(1, 255, (3, side, side)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of two sizes in two folders of classes."""
    for i in range(12):
        write_image(tmp_path / 'images_of' / 'ab'[i % 2] / f'{i:02}.png', noise(i, 24 if i < 6 else 32))
    return tmp_path / 'images_of'


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.jpg'])
def test_pixels_come_back(tmp_path: Path, suffix: str) -> None:
    array = noise() if suffix != '.jpg' else np.full((3, 24, 24), 90, np.uint8)  # JPEG keeps even surfaces only
    scenes = Scenes(write_image(tmp_path / f'one{suffix}', array))
    assert scenes.plain
    assert scenes.bands == ('red', 'green', 'blue')
    assert scenes.sensor is not None
    assert scenes.sensor.name == 'rgb'
    sample = scenes[scenes.query(0, Window(4, 8, 16, 12))]
    np.testing.assert_allclose(sample['image'].numpy(), array[:, 4:20, 8:20], atol=1)
    assert sample['valid'].all()
    np.testing.assert_allclose(sample['scale'].numpy(), 1 / 255)


def test_each_image_is_ground_of_its_own(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter('error')
        scenes = Scenes(folder)
    assert len([record for record in caplog.records if 'without a coordinate reference' in record.message]) == 1
    assert len(scenes) == 12
    assert str(scenes.scenes[0].grid.crs) == str(PIXELS)
    bounds = np.array([scene.grid.bounds for scene in scenes.scenes])
    assert (bounds[1:, 0] > bounds[:-1, 2]).all()  # none touches its neighbour
    train, val = split_scenes(scenes, (0.5, 0.5))
    for scene in scenes.scenes:
        box = scene.grid.bounds
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        whole = shapely.box(*box)
        assert train.covers(whole) != val.covers(whole)
        assert train.contains(shapely.Point(middle)) == train.covers(whole)
    chips = list(RandomChipSampler(scenes, 24, 40, roi=train, seed=0))
    held = {i for i, scene in enumerate(scenes.scenes) if val.covers(shapely.box(*scene.grid.bounds))}
    assert held
    assert not held & {chip.scene for chip in chips}


def test_validation_holds_out_whole_images(folder: Path) -> None:
    data = PretrainingDataModule(str(folder), chip_size=16, batch_size=4, val_fraction=0.4, block_size=16)
    data.setup('fit')
    parts = [
        {int(chip) for batch in loader for chip in batch['scene']}
        for loader in (data.train_dataloader(), data.val_dataloader())
    ]
    assert parts[0]
    assert parts[1]
    assert not parts[0] & parts[1]


def test_what_needs_a_place_refuses(folder: Path, tmp_path: Path, make_scene: Make) -> None:
    with pytest.raises(MissingCRSError, match=r'00\.png: has no coordinate reference system, which maps and labels'):
        find_scenes(folder)
    labels = make_scene('labels.tif', np.zeros((8, 8), np.uint8))
    for data in (
        PretrainingDataModule(str(folder), chip_size=16, batch_size=2, labels=labels),
        SegmentationDataModule(str(folder), labels, ['background', 'vine'], chip_size=16, batch_size=2),
    ):
        with pytest.raises(MissingCRSError, match=r'labels: .*00\.png has no coordinate .*`images` and `masks`'):
            data.setup('fit')
    with pytest.raises(MissingCRSError, match=r'crs, res: .*leave them out'):
        Scenes(folder, res=10)


def test_images_and_scenes_do_not_mix(tmp_path: Path, make_scene: Make) -> None:
    write_image(tmp_path / 'a.tif', noise())
    placed = make_scene('b.tif', noise(), names=('red', 'green', 'blue'))
    with pytest.raises(MissingCRSError, match=r'paths: .*a\.tif has no coordinate reference system and .*b\.tif has'):
        Scenes([tmp_path / 'a.tif', placed])


def test_images_next_to_rasters_are_previews(tmp_path: Path, make_scene: Make) -> None:
    scene = make_scene('product/scene.tif', noise(), names=('red', 'green', 'blue'))
    write_image(tmp_path / 'product' / 'preview' / 'quicklook.png', noise())
    assert find_files(tmp_path / 'product') == [scene]
    assert find_files(str(tmp_path / '*')) == [scene]
    assert len(find_files(tmp_path / 'product' / 'preview')) == 1


def test_arrays_are_pointed_to_the_reader_of_chips(tmp_path: Path) -> None:
    (tmp_path / 'a').mkdir()
    np.save(tmp_path / 'a' / 'one.npy', np.zeros((12, 8, 8), np.uint16))
    for path in (tmp_path, tmp_path / 'a' / '*.npy', tmp_path / 'a' / 'one.npy'):
        with pytest.raises(ScenesNotFoundError, match=r'\.npy files are chips without a place, so give the folder'):
            find_files(path)


@pytest.mark.parametrize('axis', [0, 2])
def test_the_number_of_bands_tells_their_axis(tmp_path: Path, axis: int) -> None:
    for i in range(4):
        array = np.random.default_rng(i).integers(1, 4000, (12, 8, 8)).astype(np.uint16)
        np.save(tmp_path / f'{i}.npy', np.moveaxis(array, 0, axis))
    data = PretrainingDataModule(str(tmp_path), sensor='sentinel2_l2a', batch_size=2)
    data.setup('fit')
    assert data.in_channels == 12
    np.testing.assert_array_equal(data.reader.dataset('train')[3]['image'].numpy(), array)


def test_folders_of_images_with_masks_are_chips(tmp_path: Path) -> None:
    for part in ('train', 'val', 'test'):
        for i in range(2):
            image = write_image(tmp_path / part / 'images' / f'{i}.jpg', noise(i, 16))
            mask = (np.arange(256).reshape(1, 16, 16) % 2).astype(np.uint8)
            write_image(tmp_path / part / 'masks' / f'{i}.png', mask)
    data = SegmentationDataModule(str(tmp_path), class_names=['background', 'vine'], batch_size=2)
    data.setup('fit')
    sample = next(iter(data.train_dataloader()))
    np.testing.assert_array_equal(sample['mask'][0].numpy(), mask[0])
    write_image(image.with_suffix('.tif'), noise())  # next to a raster, an image is its preview
    assert Chips(tmp_path, 'test', masks=False).source.describe(0).endswith('.tif')


def test_thousands_of_small_images_have_few_known_places(folder: Path) -> None:
    sampler = RandomChipSampler(Scenes(folder), 24)
    assert sorted(len(place.good) for place in sampler._places.values()) == [1] * 6 + [81] * 6


def test_the_number_of_an_image_is_that_of_its_name_and_folder() -> None:
    assert image_number('/one/forest/1.jpg') == image_number('/two/forest/1.jpg')
    assert len({image_number(f'/{kind}/{i}.jpg') for kind in 'ab' for i in range(1000)}) == 2000
