"""Restored scenes: georeferenced, corrupted independently of the windows, complete or absent."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from matplotlib.image import imsave
from numpy.typing import NDArray
from torch import Tensor

from tests.marks import first_fast
from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.resumable import ResumableGeoTIFFs
from torchgeo_msssl.prediction import reconstruct, reconstruct_scenes
from torchgeo_msssl.prediction.reconstruct import KINDS
from torchgeo_msssl.prediction.scenes import read_mirrored
from torchgeo_msssl.tasks import MAE, Reconstruction

BANDS = ('B02', 'B03', 'B04', 'B08')
MEAN, STD = (0.05, 0.06, 0.07, 0.2), (0.02, 0.02, 0.03, 0.1)

MakeScene = Callable[..., str]


class Echo(Reconstruction):
    """Gives back what it was given, plus a standard deviation; remembers the sizes it saw."""

    def predict_hidden(self, corrupted: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        self.sizes = [*getattr(self, 'sizes', []), tuple(corrupted.shape)]
        return corrupted + 1, corrupted.mean(dim=(-2, -1))


def prepare(task: Any, chip_size: int = 32) -> Any:
    task.normalize.set_statistics(MEAN, STD, (1e-4,) * 4, (0,) * 4)
    task._provenance = {'bands': list(BANDS), 'sensor': 'sentinel2_l2a', 'chip_size': chip_size}
    return task


def make_mae(**options: Any) -> MAE:
    torch.manual_seed(0)
    return prepare(
        MAE(model='vit_tiny_patch16_224', in_channels=4, decoder_dim=32, decoder_depth=1, decoder_heads=2, **options),
        64,
    )


def numbers(height: int, width: int, bands: int = 4) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(100, 4000, (bands, height, width)).astype(np.uint16)


def read(paths: list[Path]) -> dict[str, NDArray[np.float32]]:
    found = {}
    for kind, path in zip(KINDS, paths, strict=True):
        assert path.name == f'scene_{kind}.tif'
        with rasterio.open(path) as dataset:
            found[kind] = dataset.read()
    return found


@pytest.mark.parametrize(('height', 'width'), first_fast([(20, 20), (50, 70), (300, 40)]))
@pytest.mark.parametrize('corruption', ['coarse_cutout', 'patch_mask', 'crappify'])
def test_every_pixel_is_where_it_was(
    make_scene: MakeScene, tmp_path: Path, height: int, width: int, corruption: Any
) -> None:
    pixels = numbers(height, width)
    pixels[:, 3:11, 5:19] = 0
    transform = Affine(10.1, 0.3, 600000.7, 0.2, -9.9, 5000000.3)
    scene = make_scene('scene.tif', pixels, names=BANDS, nodata=0, transform=transform)
    task = prepare(Echo(model='test_resnet', in_channels=4, corruption=corruption))
    paths = reconstruct_scenes(task, scene, tmp_path / 'out')
    for path in paths:
        with rasterio.open(path) as made, rasterio.open(scene) as source:
            assert (made.crs, made.transform, made.shape) == (source.crs, source.transform, source.shape)
            assert made.descriptions == BANDS
            assert made.dtypes == ('float32',) * 4
            assert np.isnan(made.nodata)
    found = read(paths)
    valid = (pixels != 0).all(axis=0)
    for image in found.values():
        assert np.isnan(image[:, ~valid]).all()
        assert np.isfinite(image[:, valid]).all()
    np.testing.assert_allclose(found['original'][:, valid], pixels[:, valid] * 1e-4, rtol=1e-6)
    expected = found['corrupted'] + np.array(STD, np.float32)[:, None, None]
    np.testing.assert_allclose(found['reconstruction'][:, valid], expected[:, valid], rtol=1e-5, atol=1e-6)
    hidden = (found['corrupted'] != found['original']).any(axis=0) & valid
    assert hidden.any()
    assert hidden.all() == (valid.all() and corruption == 'crappify')
    filled = np.where(hidden, found['reconstruction'], found['original'])
    np.testing.assert_array_equal(found['reconstruction_and_visible'][:, valid], filled[:, valid])
    if corruption != 'crappify':
        means = np.broadcast_to(np.array(MEAN, np.float32)[:, None, None], pixels.shape)
        np.testing.assert_allclose(found['corrupted'][:, hidden], means[:, hidden], rtol=1e-6)


def test_a_scene_is_corrupted_in_tiles_that_depend_on_their_place(make_scene: MakeScene, tmp_path: Path) -> None:
    """Tiles of a cropped scene are corrupted alike, wherever the windows lie."""
    pixels = numbers(160, 160)
    task = prepare(Echo(model='test_resnet', in_channels=4, corruption='patch_mask'))
    whole = read(reconstruct_scenes(task, make_scene('scene.tif', pixels, names=BANDS), tmp_path / 'whole'))
    part = read(reconstruct_scenes(task, make_scene('scene.tif', pixels[:, :64, :96], names=BANDS), tmp_path / 'part'))
    np.testing.assert_array_equal(part['corrupted'], whole['corrupted'][:, :64, :96])
    hidden = (whole['corrupted'] != whole['original']).any(axis=0)
    tiles = {hidden[row : row + 32, col : col + 32].tobytes() for row in range(0, 160, 32) for col in range(0, 160, 32)}
    assert len(tiles) == 25
    assert all(shape[1:] == (4, 256, 256) for shape in task.sizes)


@pytest.mark.slow
def test_windows_fade_into_each_other(make_scene: MakeScene, tmp_path: Path) -> None:
    """A network that gives another constant for each window leaves no step between neighbours."""

    class Steps(Reconstruction):
        def predict_hidden(self, corrupted: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
            level = corrupted.mean(dim=(1, 2, 3), keepdim=True) * 100
            return level.expand_as(corrupted), level

        def tile_and_window(self, chip_size: int) -> tuple[int, int]:
            return chip_size, 2 * chip_size

    task = prepare(Steps(model='test_resnet', in_channels=4))
    found = read(reconstruct_scenes(task, make_scene('scene.tif', numbers(200, 200), names=BANDS), tmp_path / 'out'))
    band = found['reconstruction'][0]
    steps = np.abs(np.diff(band, axis=1)).max()
    assert 0 < steps < 0.12 * np.ptp(band)


@pytest.mark.parametrize('norm_target', first_fast([True, False]))
def test_mae_restores_windows_as_large_as_its_chips(make_scene: MakeScene, tmp_path: Path, norm_target: bool) -> None:
    task = make_mae(norm_target=norm_target)
    pixels = numbers(100, 150)
    pixels[:, :20, :30] = 0
    paths = reconstruct_scenes(task, make_scene('scene.tif', pixels, names=BANDS, nodata=0), tmp_path / 'out')
    found = read(paths)
    hidden = (found['corrupted'] != found['original']).any(axis=0)[:96, :144]
    patches = hidden.reshape(6, 16, 9, 16).transpose(0, 2, 1, 3).reshape(6, 9, 256)[2:, 2:]  # away from nodata
    assert set(patches.mean(axis=2).ravel()) == {0.0, 1.0}
    for row in range(0, 4, 2):  # tiles of 2 × 2 patches have one that is visible
        for col in range(0, 6, 2):
            assert patches[row : row + 2, col : col + 2].all(axis=2).sum() == 3
    with rasterio.open(paths[0]) as dataset:
        assert ('NOTE' in dataset.tags()) == norm_target


def test_scale_and_offset_of_the_scene_are_applied(make_scene: MakeScene, tmp_path: Path) -> None:
    """From 2022 on Sentinel-2 has an offset."""
    pixels = numbers(40, 40) + np.uint16(1000)
    make_scene('S2_20230601T104031.tif', pixels, names=BANDS)
    paths = reconstruct_scenes(
        prepare(Echo(model='test_resnet', in_channels=4)), str(tmp_path / '*.tif'), tmp_path / 'out'
    )
    with rasterio.open(paths[0]) as dataset:
        np.testing.assert_allclose(dataset.read(), (pixels - 1000.0) * 1e-4, rtol=1e-5)


def test_bands_are_taken_by_name(make_scene: MakeScene, tmp_path: Path) -> None:
    pixels = numbers(40, 40, 6)
    names = ('B08', 'SCL', 'B04', 'B02', 'B11', 'B03')
    found = read(
        reconstruct_scenes(
            prepare(Echo(model='test_resnet', in_channels=4)),
            make_scene('scene.tif', pixels, names=names),
            tmp_path / 'o',
        )
    )
    np.testing.assert_allclose(found['original'], pixels[[3, 5, 2, 0]] * 1e-4, rtol=1e-6)
    short = make_scene('short.tif', pixels[:3], names=names[:3])
    with pytest.raises(BandError, match='B02'):
        reconstruct_scenes(prepare(Echo(model='test_resnet', in_channels=4)), short, tmp_path / 'o')


@pytest.mark.slow
def test_what_is_there_is_kept_until_something_changes(
    make_scene: MakeScene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, folder = make_scene('scene.tif', numbers(40, 40), names=BANDS), tmp_path / 'out'
    task = prepare(Echo(model='test_resnet', in_channels=4))

    def again(**options: Any) -> bool:
        task.sizes = []
        reconstruct_scenes(task, scene, folder, **options)
        return bool(task.sizes)

    assert again()
    assert not again()
    assert 'Already exists' in capsys.readouterr().out
    assert again(overwrite=True)
    (folder / f'scene_{KINDS[1]}.tif').unlink()
    assert again()
    with torch.no_grad():
        task.restoration_head[0].bias += 1
    assert again()
    task.hparams['noise'] = 0.5
    assert again()
    assert not again()


@pytest.mark.slow
def test_a_failed_run_leaves_nothing_and_is_resumed(
    make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('torchgeo_msssl.prediction.pipeline.BLOCK', 64)
    pixels = numbers(500, 40)
    scene = make_scene('scene.tif', pixels, names=BANDS)

    class Fails(Echo):
        left = 3

        def predict_hidden(self, corrupted: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().predict_hidden(corrupted, hidden)

        def tile_and_window(self, chip_size: int) -> tuple[int, int]:
            return chip_size, 2 * chip_size

    task = prepare(Fails(model='test_resnet', in_channels=4))
    task.left = 14
    folder = tmp_path / 'out'
    with pytest.raises(KeyboardInterrupt):
        reconstruct_scenes(task, scene, folder)
    assert not [path for path in folder.iterdir() if not path.name.startswith('.')]
    task.left, task.sizes = 100, []
    resumed = read(reconstruct_scenes(task, scene, folder))
    first = len(task.sizes)
    task.sizes = []
    whole = read(reconstruct_scenes(task, scene, tmp_path / 'whole'))
    assert first < len(task.sizes)
    for kind in KINDS:
        np.testing.assert_array_equal(resumed[kind], whole[kind])
    assert {path.name for path in folder.iterdir()} == {f'scene_{kind}.tif' for kind in KINDS}


def test_values_that_are_not_finite_stop_it(make_scene: MakeScene, tmp_path: Path) -> None:
    class Broken(Reconstruction):
        def predict_hidden(self, corrupted: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
            return corrupted * torch.nan, corrupted

    with pytest.raises(ConfigurationError, match=r'scene\.tif: the network gives NaN or infinity'):
        reconstruct_scenes(
            prepare(Broken(in_channels=4)), make_scene('scene.tif', numbers(40, 40), names=BANDS), tmp_path / 'o'
        )


def test_scenes_of_one_name_are_refused(make_scene: MakeScene, tmp_path: Path) -> None:
    for folder in ('a', 'b'):
        make_scene(f'{folder}/scene.tif', numbers(40, 40), names=BANDS)
    with pytest.raises(ConfigurationError, match=r'would both become scene_original\.tif'):
        reconstruct_scenes(
            prepare(Echo(model='test_resnet', in_channels=4)),
            [str(tmp_path / 'a'), str(tmp_path / 'b')],
            tmp_path / 'o',
        )


@pytest.mark.parametrize('slow', ['reading', 'writing'])
def test_reading_network_and_writing_run_concurrently(
    make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """The network computes while rows are written, and windows are read while it computes."""
    continued = threading.Event()
    done: list[bool] = []

    class Meanwhile(Echo):
        def predict_hidden(self, corrupted: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
            if slow == 'reading' and not done:
                done.append(continued.wait(5))  # a window of the next row is read meanwhile
            elif slow == 'writing' and len(getattr(self, 'sizes', ())) == 2:  # two rows of windows give the first rows
                continued.set()
            return super().predict_hidden(corrupted, hidden)

        def tile_and_window(self, chip_size: int) -> tuple[int, int]:
            return chip_size, 2 * chip_size

    def write(self: ResumableGeoTIFFs, first: int, rows: Any) -> None:
        if slow == 'writing' and not done:
            done.append(continued.wait(5))  # the network has the next row meanwhile
        original_write(self, first, rows)

    def read_next(scene: Any, window: Window, bands: Any) -> Any:
        if slow == 'reading' and window.row >= 64:
            continued.set()
        return read_mirrored(scene, window, bands)

    original_write = ResumableGeoTIFFs.write
    monkeypatch.setattr(ResumableGeoTIFFs, 'write', write)
    monkeypatch.setattr(reconstruct, 'read_mirrored', read_next)
    task = prepare(Meanwhile(model='test_resnet', in_channels=4))
    reconstruct_scenes(task, make_scene('scene.tif', numbers(200, 50), names=BANDS), tmp_path / 'out')
    assert done == [True]


def test_an_image_without_a_crs_is_restored_without_one(tmp_path: Path) -> None:
    pixels = np.moveaxis(numbers(40, 50)[:3] % 250, 0, -1).astype(np.uint8)
    imsave(tmp_path / 'photo.png', pixels)
    torch.manual_seed(0)
    task = Echo(model='resnet18', in_channels=3)
    task.normalize.set_statistics(MEAN[:3], STD[:3], (1 / 255,) * 3, (0,) * 3)
    task._provenance = {'bands': ['red', 'green', 'blue'], 'sensor': 'rgb', 'chip_size': 32}
    written = reconstruct_scenes(task, str(tmp_path / 'photo.png'), tmp_path / 'out')
    with rasterio.open(written[0]) as dataset:
        assert dataset.crs is None
        assert dataset.transform.is_identity
        np.testing.assert_allclose(dataset.read(), np.moveaxis(pixels, -1, 0) / 255, rtol=1e-6)
