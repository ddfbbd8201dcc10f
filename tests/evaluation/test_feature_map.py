"""Maps of features against networks that look at one pixel, whose maps are known."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn

from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.evaluation.encoders import Transfer
from torchgeo_msssl.evaluation.feature_map import (
    FeatureColours,
    centre_of_view,
    map_grid,
    write_feature_map,
)
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.models.encoders import create_encoder
from torchgeo_msssl.models.report import LoadReport
from torchgeo_msssl.transforms.normalize import Normalize

Make = Callable[..., str]
SIZE, STEP = 16, 5


class OnePixel(nn.Module):
    """The bands of one pixel of a window as its embedding."""

    def __init__(self, row: int, col: int) -> None:
        super().__init__()
        self.row, self.col = row, col

    def forward(self, image: Tensor) -> Tensor:
        return image[:, :, self.row, self.col]


def encoder_of(network: nn.Module, bands: int = 3) -> Transfer:
    return Transfer(network.eval(), Normalize(bands), LoadReport('made for a test'), 'none', 'data')


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    close_datasets()


@pytest.fixture
def scene(make_scene: Make, random_array: Callable[..., NDArray[np.uint16]]) -> tuple[Scenes, NDArray[np.uint16]]:
    """A scene of several blocks of cells, with a hole, whose size is no multiple of a cell."""
    array = random_array((3, 203, 178))
    array[:, 40:80, 100:140] = 0
    path = make_scene('scene.tif', array, names=('B02', 'B03', 'B04'), nodata=0)
    return Scenes(path, offset=0.0), array


def identity_colours() -> FeatureColours:
    """Colours that tell the digital numbers 1 to 120 of three bands, in reflectance."""
    return FeatureColours(np.zeros(3), np.eye(3), np.zeros(3), np.full(3, 0.0254), np.zeros(3))


def write_map(
    path: Path,
    network: nn.Module,
    scenes: Scenes,
    centre: tuple[float, float] | None = None,
    step: int = STEP,
    batch_size: int = 64,
) -> None:
    (scene,), (radiometry,) = scenes.scenes, scenes.radiometry
    encoder, colours = encoder_of(network), identity_colours()
    write_feature_map(path, encoder, scene, radiometry, scenes.bands, colours, SIZE, step, centre, batch_size)


def test_directions_are_those_of_scikit_learn() -> None:
    features = np.random.default_rng(0).normal(size=(300, 12)) @ np.diag(np.linspace(3, 0.2, 12)) + 5
    found, pca = FeatureColours.fit(features), PCA(3).fit(features)
    np.testing.assert_allclose(found.explained, pca.explained_variance_ratio_, rtol=1e-9)
    np.testing.assert_allclose(np.abs((found.directions * pca.components_).sum(axis=1)), 1, rtol=1e-9)
    assert (np.take_along_axis(found.directions, np.abs(found.directions).argmax(axis=1)[:, None], 1) > 0).all()
    painted = found.paint(features)
    assert painted.min() == 1
    assert painted.max() == 255
    assert (painted == 1).mean() == pytest.approx(0.02, abs=0.01)
    assert (painted == 255).mean() == pytest.approx(0.02, abs=0.01)


def test_colours_of_embeddings_that_are_all_the_same_are_grey() -> None:
    same = np.ones((20, 8), np.float32)
    assert (FeatureColours.fit(same).paint(same) == 128).all()
    few = np.random.default_rng(0).normal(size=(20, 2))
    assert (FeatureColours.fit(few).paint(few)[:, 2] == 128).all()  # there is no third direction


def test_map_grid() -> None:
    grid = PixelGrid(rasterio.crs.CRS.from_epsg(32631), Affine(10, 0, 600000, 0, -10, 5000000), 203, 178)
    target = map_grid(grid, STEP)
    assert (target.height, target.width, target.res) == (41, 36, (50, 50))
    assert (target.transform.c, target.transform.f) == (600000, 5000000)


@pytest.mark.parametrize(('row', 'col'), [(3, 12), (0, 0), (15, 7)])
def test_centre_of_view_of_one_pixel(scene: tuple[Scenes, NDArray[np.uint16]], row: int, col: int) -> None:
    scenes, _ = scene
    batch = collate(scenes.__getitems__([scenes.query(0, Window(0, start, SIZE, SIZE)) for start in (0, 20, 60)]))
    assert centre_of_view(encoder_of(OnePixel(row, col)), batch) == pytest.approx((row + 0.5, col + 0.5))
    alone = {key: value[:1] for key, value in batch.items()}  # one chip has no spread
    assert centre_of_view(encoder_of(OnePixel(row, col)), alone) == (8, 8)


def test_centre_of_view_of_a_resnet_is_not_the_middle() -> None:
    """Strides of 32 in all leave one position for a chip of 32 pixels, that of its first pixel."""
    torch.manual_seed(0)
    batch = {
        'image': torch.rand(8, 3, 32, 32),
        'valid': torch.ones(8, 1, 32, 32, dtype=torch.bool),
        'scale': torch.ones(8, 3),
        'offset': torch.zeros(8, 3),
    }
    row, col = centre_of_view(encoder_of(create_encoder('resnet18', 3)), batch)
    assert row < 8
    assert col < 8


@pytest.mark.parametrize(('row', 'col'), [(7, 7), (2, 13)])
def test_map_lies_where_the_scene_lies(
    scene: tuple[Scenes, NDArray[np.uint16]], tmp_path: Path, row: int, col: int
) -> None:
    """With a network that sees one pixel, a cell has the colour of the pixel in its middle."""
    scenes, array = scene
    write_map(tmp_path / 'map.tif', OnePixel(row, col), scenes, (row + 0.5, col + 0.5), batch_size=50)
    with rasterio.open(tmp_path / 'map.tif') as map_file, rasterio.open(scenes.scenes[0].path) as file:
        assert map_file.crs == file.crs
        assert map_file.nodata == 0
        picture = map_file.read()
        xs, ys = rasterio.transform.xy(map_file.transform, *np.indices((40, 35)).reshape(2, -1))
        expected = np.array(list(file.sample(zip(xs, ys, strict=True)))).reshape(40, 35, 3)
    inside = (array[:, 2:200:STEP, 2:175:STEP] > 0).all(axis=0)
    assert 0 < (~inside).sum() < inside.size / 4
    colours = identity_colours().paint(expected.reshape(-1, 3) * 1e-4).reshape(expected.shape)
    np.testing.assert_array_equal(picture[:, :40, :35].transpose(1, 2, 0)[inside], colours[inside])
    assert (picture[:, :40, :35][:, ~inside] == 0).all()


def test_map_beyond_the_border_is_mirrored(scene: tuple[Scenes, NDArray[np.uint16]], tmp_path: Path) -> None:
    """The last row and column of cells have their middle inside; the windows round them do not end there."""
    scenes, array = scene
    write_map(tmp_path / 'map.tif', OnePixel(15, 15), scenes, (8.0, 8.0))
    around = np.pad(array, ((0, 0), (0, 40), (0, 40)), mode='reflect')
    with rasterio.open(tmp_path / 'map.tif') as file:
        last = file.read()[:, 40, :30]
    seen = around[:, 40 * STEP - 6 + 15, 9 : 9 + 30 * STEP : STEP]
    assert last.all()
    np.testing.assert_array_equal(last.T, identity_colours().paint(seen.T * 1e-4))


def test_an_interrupted_map_is_resumed(
    scene: tuple[Scenes, NDArray[np.uint16]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells of the run that was interrupted are those of one that was not."""

    class Interrupted(OnePixel):
        left = 2

        def forward(self, image: Tensor) -> Tensor:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().forward(image)

    scenes, _ = scene
    monkeypatch.setattr('torchgeo_msssl.prediction.pipeline.BLOCK', 16)
    monkeypatch.setattr('torchgeo_msssl.evaluation.feature_map.BLOCK', 16)
    network = Interrupted(7, 7)
    network.left = 30  # rows of six blocks
    with pytest.raises(KeyboardInterrupt):
        write_map(tmp_path / 'map.tif', network, scenes, step=2, batch_size=256)
    assert not (tmp_path / 'map.tif').exists()
    network.left = 18
    write_map(tmp_path / 'map.tif', network, scenes, step=2, batch_size=256)
    write_map(tmp_path / 'whole.tif', OnePixel(7, 7), scenes, step=2, batch_size=256)
    assert (tmp_path / 'map.tif').read_bytes() == (tmp_path / 'whole.tif').read_bytes()


def test_scene_smaller_than_a_window(make_scene: Make, tmp_path: Path) -> None:
    path = make_scene('small.tif', np.full((3, 7, 9), 50, np.uint16), names=('B02', 'B03', 'B04'))
    scenes = Scenes(path, offset=0.0)
    write_map(tmp_path / 'map.tif', OnePixel(7, 7), scenes)
    with rasterio.open(tmp_path / 'map.tif') as file:
        assert file.shape == (2, 2)
        assert len(np.unique(file.read())) == 1
