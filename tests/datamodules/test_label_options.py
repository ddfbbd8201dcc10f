"""Classes, grids and splits of segmentation follow the labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from torchgeo_msssl.datamodules import SegmentationDataModule
from torchgeo_msssl.errors import ConfigurationError

Make = Callable[..., str]
SMALL: dict[str, Any] = {'chip_size': 8, 'block_size': 16, 'batch_size': 2}


@pytest.fixture
def scene(make_scene: Make) -> str:
    image = np.random.default_rng(0).integers(1, 4000, (2, 64, 64)).astype(np.uint16)
    return make_scene('scene.tif', image, names=('B02', 'B03'))


@pytest.fixture
def drawn(tmp_path: Path) -> str:
    """The western half of the scene, without a column."""
    frame = gpd.GeoDataFrame(geometry=[shapely.box(600_000, 4_999_360, 600_320, 5_000_000)], crs='EPSG:32631')
    frame.to_file(tmp_path / 'vines.gpkg')
    return str(tmp_path / 'vines.gpkg')


def halves(value: int, dtype: str = 'uint8') -> Any:
    """A mask whose western half has a value, and the last row another one for unlabelled pixels."""
    mask = np.zeros((64, 64), dtype)
    mask[:, :32] = value
    return mask


@pytest.mark.parametrize('names', [None, ['vine'], ['background', 'vine'], {'vine': 1}])
def test_polygons_of_one_class(scene: str, drawn: str, names: Any) -> None:
    data = SegmentationDataModule(scene, drawn, names, **SMALL)
    assert data.num_classes == 2
    data.setup('fit')
    assert data.class_names == ('background', 'vines' if names is None else 'vine')
    chip = data.reader.dataset('train')[data.scenes.query(0, _window(0, 28))]
    np.testing.assert_array_equal(chip['mask'][0].numpy(), [1, 1, 1, 1, 0, 0, 0, 0])


def test_masks_without_names(scene: str, make_scene: Make) -> None:
    data = SegmentationDataModule(scene, make_scene('vine.tif', halves(255)), **SMALL)
    data.setup('fit')
    assert data.class_names == ('background', 'vine')
    with pytest.raises(ConfigurationError, match=r'some hold 255, .*\{background: 0, vine: 255\}'):
        SegmentationDataModule(scene, make_scene('vine.tif', halves(255)), ['background', 'vine'], **SMALL).setup('fit')


def test_a_single_class_explains_that_background_is_needed(scene: str, make_scene: Make) -> None:
    for names in (['vine'], {'vine': 1}):
        data = SegmentationDataModule(scene, make_scene('mask.tif', halves(1)), names, **SMALL)
        with pytest.raises(ConfigurationError, match=r'class_names: vine alone leaves nothing .*\[background, vine\]'):
            _ = data.num_classes
    named = SegmentationDataModule(scene, make_scene('mask.tif', halves(1)), ['vine'], background=True, **SMALL)
    assert named.num_classes == 2


def test_codes_of_unlabelled_pixels(scene: str, make_scene: Make) -> None:
    mask = halves(1, 'int16')
    mask[:, 60:] = -1
    data = SegmentationDataModule(scene, make_scene('mask.tif', mask), ['water', 'land'], ignore_index=-1, **SMALL)
    data.setup('fit')
    assert data.ignore_index == 255
    chip = data.reader.dataset('train')[data.scenes.query(0, _window(0, 56))]
    np.testing.assert_array_equal(chip['mask'][0].numpy(), [0, 0, 0, 0, 255, 255, 255, 255])


@pytest.mark.parametrize('names', [None, {'background': 0, 'vine': 255}])
def test_folders_of_chips_with_masks_of_255(tmp_path: Path, names: Any) -> None:
    _write_chips(tmp_path, 255)
    data = SegmentationDataModule(str(tmp_path), class_names=names, channels='first', batch_size=2)
    data.setup('fit')
    assert data.class_names == ('background', 'class_1' if names is None else 'vine')
    np.testing.assert_array_equal(data.reader.dataset('train')[0]['mask'][0].numpy(), [1, 1, 1, 1, 0, 0, 0, 0])
    wrong = SegmentationDataModule(str(tmp_path), class_names=['background', 'vine'], channels='first', batch_size=2)
    with pytest.raises(ConfigurationError, match=r'paths: no pixel of .*0\.npy is vine, and some hold 255'):
        wrong.setup('fit')


def test_folders_of_chips_with_other_codes(tmp_path: Path) -> None:
    _write_chips(tmp_path, 1, unlabelled=-1)
    data = SegmentationDataModule(str(tmp_path), ignore_index=-1, channels='first', batch_size=2)
    data.setup('fit')
    np.testing.assert_array_equal(data.reader.dataset('train')[0]['mask'][-1].numpy(), [255] * 8)


def test_without_validation(scene: str, drawn: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = [shapely.box(600_000, 4_999_360 + 320 * i, 600_640, 4_999_680 + 320 * i) for i in range(2)]
    frame = gpd.GeoDataFrame({'split': ['train', 'test']}, geometry=parts, crs='EPSG:32631')
    frame.to_file(tmp_path / 'split.geojson')
    data = SegmentationDataModule(scene, drawn, split=str(tmp_path / 'split.geojson'), **SMALL)
    data.setup('fit')
    data.setup('test')
    assert 'Nothing is held out for validation' in caplog.text
    assert data.val_dataloader() == []
    assert len(data.test_dataloader()) > 0
    with pytest.raises(ConfigurationError, match='split: nothing is held out for validation'):
        data.setup('validate')


def test_chips_without_validation(tmp_path: Path) -> None:
    _write_chips(tmp_path, 1, parts=('train', 'test'))
    data = SegmentationDataModule(str(tmp_path), channels='first', batch_size=2)
    data.setup('fit')
    assert data.val_dataloader() == []


def test_grids_that_doctor_advises(scene: str, drawn: str, make_scene: Make) -> None:
    """Scenes in two CRS on one grid: the masks are those of the polygons on that grid."""
    image = np.random.default_rng(1).integers(1, 4000, (2, 64, 64)).astype(np.uint16)
    degrees = make_scene('degrees.tif', image, names=('B02', 'B03'), crs='EPSG:4326', transform=_degrees())
    data = SegmentationDataModule([scene, degrees], drawn, crs='EPSG:32631', res=20.0, min_valid=0.1, **SMALL)
    data.setup('fit')
    assert data.scenes.res == (20, 20)
    for i, other in enumerate(data.scenes.scenes):
        grid = other.grid
        assert grid.res == (20, 20)
        window = _window(2, 2)
        chip = data.reader.dataset('train')[data.scenes.query(i, window)]
        x = grid.transform.c + (np.arange(2, 10) + 0.5) * 20
        y = grid.transform.f - (np.arange(2, 10) + 0.5) * 20
        inside = (x > 600_000)[None] & (x < 600_320)[None] & (y > 4_999_360)[:, None] & (y < 5_000_000)[:, None]
        expected = np.where(chip['valid'][0].numpy(), inside, 255)
        np.testing.assert_array_equal(chip['mask'].numpy(), expected)


def _degrees() -> Any:
    from affine import Affine
    from rasterio.warp import transform

    (x,), (y,) = transform('EPSG:32631', 'EPSG:4326', [600_000], [5_000_000])
    return Affine(0.0001, 0, x, 0, -0.0001, y)


def _window(row: int, col: int) -> Any:
    from torchgeo_msssl.geo.grid import Window

    return Window(row, col, 8, 8)


def _write_chips(
    folder: Path, value: int, unlabelled: int | None = None, parts: tuple[str, ...] = ('train', 'val', 'test')
) -> None:
    mask = np.zeros((8, 8), np.int16)
    mask[:, :4] = value
    if unlabelled is not None:
        mask[-1] = unlabelled
    for part in parts:
        for i in range(2):
            image = np.random.default_rng(i).integers(1, 4000, (3, 8, 8)).astype(np.uint16)
            for kind, array in (('images', image), ('masks', mask)):
                (folder / part / kind).mkdir(parents=True, exist_ok=True)
                np.save(folder / part / kind / f'{i}.npy', array)
