"""Embeddings of tiny scenes, end to end."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from matplotlib.image import imsave
from pyproj import CRS, Transformer

from tests.marks import first_fast
from torchgeo_msssl.__main__ import main
from torchgeo_msssl.datamodules import PretrainingDataModule
from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.errors import BandError, ConfigurationError, OutputError, WeightsError
from torchgeo_msssl.evaluation import embeddings
from torchgeo_msssl.evaluation.embed_settings import EmbedData, EmbedSettings
from torchgeo_msssl.evaluation.embedding_chips import chips_of_scenes
from torchgeo_msssl.evaluation.embeddings import measure, write_results
from torchgeo_msssl.evaluation.frozen_encoder import embed_batch, open_data, open_encoder, read_metadata
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.losses import lidar, rank_me
from torchgeo_msssl.models.metadata import EncoderMetadata
from torchgeo_msssl.models.weights import save_encoder

Make = Callable[..., str]


def settings_of(paths: str | list[str], output: Path, stride: int | None = None, **options: Any) -> EmbedSettings:
    """Settings for chips of 16 pixels; the network is taken from elsewhere."""
    few = {'lidar_chips': 6, 'lidar_views': 3, 'queries': 2, 'neighbours': 2, 'batch_size': 5, 'map_step': 16}
    return EmbedSettings(EmbedData(paths, chip_size=16, stride=stride), 'random', str(output), **few | options)


def open_chips(paths: str | list[str], bands: list[str] | None = None, metadata: Any = None) -> PretrainingDataModule:
    return open_data(metadata, EmbedData(paths, bands, chip_size=16))


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    close_datasets()


@pytest.fixture
def paths(make_scene: Make) -> list[str]:
    """Two scenes side by side, one with a hole of one chip."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(2):
        image = rng.integers(100, 3000, (3, 48, 64)).astype(np.uint16)
        image[:, 16:32, 16:32] *= number
        transform = rasterio.Affine(10, 0, 600000 + 640 * number, 0, -10, 5000000)
        found.append(
            make_scene(f'scene_{number}.tif', image, names=('B02', 'B03', 'B04'), nodata=0, transform=transform)
        )
    return found


@pytest.mark.parametrize('stride', first_fast([None, 8]))
def test_everything_is_written(paths: list[str], tmp_path: Path, stride: int | None) -> None:
    folder = tmp_path / 'out'
    data = open_chips(paths)
    encoder = open_encoder('random', data, 'test_resnet')
    metrics = write_results(encoder, data, settings_of(paths, folder, stride))
    assert sorted(path.name for path in folder.iterdir()) == [
        'embeddings.parquet',
        'metrics.json',
        'neighbours.png',
        'scene_0_pca.tif',
        'scene_1_pca.tif',
    ]
    assert json.loads((folder / 'metrics.json').read_text())['rank_me'] == metrics['rank_me']

    frame = gpd.read_parquet(folder / 'embeddings.parquet')
    # 3 × 4 chips side by side; at half the stride 5 × 7, of which those that touch the hole have too few pixels
    assert len(frame) == metrics['chips'] == (11 + 12 if stride is None else 35 - 9 + 35)
    assert metrics['rank_me'] == pytest.approx(rank_me(torch.tensor(np.stack(frame['embedding']))).item())
    for row in frame.iloc[[0, 7, len(frame) - 1]].itertuples():
        number = int(row.scene[-1])
        chip = data.scenes.query(number, Window(row.row, row.col, 16, 16))
        expected = embed_batch(encoder, collate([data.scenes[chip]]))[0]
        np.testing.assert_allclose(row.embedding, expected, rtol=1e-4, atol=1e-5)
        left, top = 600000 + 640 * number + 10 * row.col, 5000000 - 10 * row.row
        assert row.geometry.equals(shapely.box(left, top - 160, left + 160, top))
        assert row.valid == 1
    with rasterio.open(folder / 'scene_0_pca.tif') as file:
        assert file.shape == (3, 4)
        assert [file.read(band)[1, 1] for band in (1, 2, 3)] == [0, 0, 0]
        assert (np.delete(file.read(1).ravel(), 5) > 0).all()


def test_the_same_again(paths: list[str], tmp_path: Path) -> None:
    data = open_chips(paths)
    encoder = open_encoder('random', data, 'test_resnet')
    runs = [write_results(encoder, data, settings_of(paths, tmp_path / name)) for name in 'ab']
    assert runs[0] == runs[1]
    for name in ('scene_1_pca.tif', 'neighbours.png'):
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()


def test_results_are_replaced_with_overwrite_only(
    paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole folder is refused; one of a run that was cut short is done again."""
    data = open_chips(paths)
    encoder = open_encoder('random', data, 'test_resnet')
    settings = settings_of(paths, tmp_path, dense=False)
    write_results(encoder, data, settings)
    with pytest.raises(OutputError, match='--overwrite'):
        write_results(encoder, data, settings)
    with monkeypatch.context() as patch:
        patch.setattr(embeddings, 'measure', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_results(encoder, data, replace(settings, overwrite=True))
    assert not (tmp_path / 'metrics.json').exists()
    assert write_results(encoder, data, settings)['chips'] == 23


def test_scenes_of_one_name_are_refused(make_scene: Make, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(1, 99, (2, 32, 32)).astype(np.uint16)
    paths = [make_scene(f'{name}/same.tif', image) for name in 'ab']
    data = open_chips(paths)
    with pytest.raises(ConfigurationError, match=r'same_pca\.tif'):
        write_results(open_encoder('random', data, 'test_resnet'), data, settings_of(paths, tmp_path / 'out'))


def test_footprints_of_several_crs_are_in_degrees(make_scene: Make) -> None:
    image = np.random.default_rng(0).integers(1, 99, (2, 32, 48)).astype(np.uint16)
    paths = [make_scene(f'{zone}.tif', image, crs=f'EPSG:{zone}') for zone in (32631, 32632)]
    chips = chips_of_scenes(open_chips(paths), None, 0.9)
    polygons, crs = chips.subset([10, 4, 10]).footprints()  # the second row and column of two rows and three columns
    assert crs == CRS(4326)
    for polygon, zone in zip(polygons, (32632, 32631, 32632), strict=True):
        corner = Transformer.from_crs(zone, 4326, always_xy=True).transform(600160, 4999840)
        assert min(shapely.Point(corner).distance(shapely.Point(p)) for p in polygon.exterior.coords) < 1e-9


def test_measures_are_of_the_views_of_each_chip(paths: list[str]) -> None:
    """Views without any change have no spread within a chip, so that LiDAR is that of the chips alone."""
    data = open_chips(paths)
    encoder = open_encoder('random', data, 'test_resnet')
    chips = chips_of_scenes(data, None, 0.9).subset([11, 12, 13, 14])
    features = embed_batch(encoder, chips.batch(range(4)))
    same = {
        'crop_scale': (1, 1),
        'crop_ratio': (1, 1),
        'flips': False,
        'quarter_turns': False,
        'blur': 0.0,
        'noise': 0.0,
        'common_gain': (1, 1),
        'band_gain': (1, 1),
    }
    with pytest.MonkeyPatch.context() as patch:
        views = embeddings.MultiView
        patch.setattr(embeddings, 'MultiView', lambda number: views(number, **same))
        found = measure(encoder, chips, features.numpy(), settings_of(paths, Path('out')))
    assert found['lidar'] == pytest.approx(lidar(features[:, None].expand(-1, 3, -1)).item(), rel=1e-3)
    assert (found['lidar_chips'], found['measured_chips'], found['features']) == (4, 4, features.shape[1])
    assert found['rank_me'] == pytest.approx(rank_me(features).item(), rel=1e-5)


@pytest.mark.parametrize('wrong', [{'stride': 0}, {'map_step': 0}, {'map_step': 17}, {'lidar_views': 1}])
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        settings_of('scene.tif', Path('out'), **wrong)
    with pytest.raises(ConfigurationError, match=r'data\.chip_size: expected at least 1'):
        EmbedData('scene.tif', chip_size=0)


def test_a_map_step_beyond_the_encoders_chip_size_is_refused(paths: list[str], tmp_path: Path) -> None:
    """Without a chip size it is checked when the encoder's is known."""
    options = EmbedData(paths)
    data = open_data(EncoderMetadata('test', 'test_resnet', chip_size=16), options)
    settings = EmbedSettings(options, 'random', str(tmp_path / 'out'), map_step=17)
    with pytest.raises(ConfigurationError, match='chip_size 16, got 17'):
        write_results(open_encoder('random', data, 'test_resnet'), data, settings)


def test_chips_may_be_farther_apart_than_their_size(paths: list[str]) -> None:
    chips = chips_of_scenes(open_chips(paths), 40, 0.9)
    places = [(origin.name, origin.window.row, origin.window.col) for origin in chips.origins]
    # of 48 × 64 pixels each, with a hole in the first one
    assert places == [('scene_0', 0, 0), ('scene_0', 0, 40), ('scene_1', 0, 0), ('scene_1', 0, 40)]


@pytest.mark.parametrize('virtual', first_fast([True, False]))
def test_chips_of_a_folder(paths: list[str], tmp_path: Path, virtual: bool) -> None:
    """Their embeddings and footprints are those of the chips of the scenes."""
    folder, output = tmp_path / 'chips', tmp_path / 'out'
    arguments = [*paths, '--output', str(folder), '--chip_size', '16', *(['--virtual'] if virtual else [])]
    assert main(['chip', *arguments]) == 0
    data = open_chips(paths)
    encoder = open_encoder('random', data, 'test_resnet')
    write_results(encoder, data, settings_of(paths, tmp_path / 'scenes'))
    metrics = write_results(encoder, open_chips(str(folder)), settings_of(str(folder), output))
    assert metrics['files'] == ['embeddings.parquet', 'neighbours.png', 'metrics.json']
    found, expected = (gpd.read_parquet(path / 'embeddings.parquet') for path in (output, tmp_path / 'scenes'))
    assert found.crs == expected.crs
    order = [found.geometry.normalize().tolist().index(box) for box in expected.geometry.normalize()]
    np.testing.assert_allclose(
        np.stack(found['embedding'].iloc[order]), np.stack(expected['embedding']), rtol=1e-4, atol=1e-5
    )


def test_chips_without_georeference(tmp_path: Path) -> None:
    for number in range(5):
        image = np.random.default_rng(number).integers(1, 3000, (3, 16, 16)).astype(np.uint16)
        (tmp_path / 'chips' / 'images').mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / 'chips' / 'images' / f'{number}.npy', image)
    folder = str(tmp_path / 'chips')
    data = open_data(None, EmbedData(folder, channels='first'))
    write_results(open_encoder('random', data, 'test_resnet'), data, settings_of(folder, tmp_path / 'out'))
    frame = gpd.read_parquet(tmp_path / 'out' / 'embeddings.parquet')
    assert frame.geometry.isna().all()
    assert frame.crs is None
    assert frame['scene'].tolist() == list('01234')


def test_images_without_a_crs(tmp_path: Path) -> None:
    for number in range(5):
        image = np.random.default_rng(number).integers(1, 255, (16, 16, 3)).astype(np.uint8)
        (tmp_path / 'images' / 'ab'[number % 2]).mkdir(parents=True, exist_ok=True)
        imsave(tmp_path / 'images' / 'ab'[number % 2] / f'{number // 2}.png', image)  # the same names in two folders
    folder = str(tmp_path / 'images')
    data = open_data(None, EmbedData(folder, chip_size=16))
    metrics = write_results(open_encoder('random', data, 'test_resnet'), data, settings_of(folder, tmp_path / 'out'))
    frame = gpd.read_parquet(tmp_path / 'out' / 'embeddings.parquet')
    assert len(frame) == 5
    assert frame.geometry.isna().all()
    assert metrics['files'] == ['embeddings.parquet', 'neighbours.png', 'metrics.json']


# ------------------------------------------------------------------------------------------------------ encoders


@pytest.fixture
def trained(paths: list[str], tmp_path: Path) -> str:
    """An encoder for two of the bands in another order, with statistics of its own."""
    data = open_chips(paths, ['B04', 'B02'])
    encoder = open_encoder('random', data, 'test_resnet', seed=7)
    known = EncoderMetadata(
        'fastsiam', 'test_resnet', ('B04', 'B02'), mean=(0.1, 0.2), std=(0.3, 0.4), sensor='sentinel2_l2a', chip_size=16
    )
    save_encoder(encoder.network, tmp_path / 'encoder.safetensors', known)
    return str(tmp_path / 'encoder.safetensors')


def test_bands_and_statistics_come_with_the_weights(paths: list[str], trained: str) -> None:
    metadata = read_metadata(trained)
    data = open_chips(paths, metadata=metadata)
    encoder = open_encoder(trained, data)
    assert data.bands == ('B04', 'B02')
    assert encoder.statistics == 'weights'
    assert encoder.model == 'test_resnet'
    torch.testing.assert_close(encoder.normalize.mean, torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(encoder.normalize.std, torch.tensor([0.3, 0.4]))
    other = open_encoder('random', data, 'test_resnet', seed=7)
    assert all(map(torch.equal, encoder.network.state_dict().values(), other.network.state_dict().values()))


def test_missing_bands_are_reported_and_can_be_named(make_scene: Make, trained: str) -> None:
    image = np.random.default_rng(0).integers(1, 99, (2, 32, 32)).astype(np.uint16)
    path = make_scene('other.tif', image, names=('B03', 'B04'))
    with pytest.raises(BandError, match=r'lacks B02.*--data\.bands.*\(B04\)'):
        open_chips(path, metadata=read_metadata(trained))
    data = open_chips(path, ['B03', 'B04'], read_metadata(trained))
    assert open_encoder(trained, data).statistics == 'data'


def test_random_weights_leave_the_generator_alone(paths: list[str]) -> None:
    data = open_chips(paths)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first, again, other = (open_encoder('random', data, 'test_resnet', seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(4), expected)
    name = next(iter(first.network.state_dict()))
    assert torch.equal(first.network.state_dict()[name], again.network.state_dict()[name])
    assert not torch.equal(first.network.state_dict()[name], other.network.state_dict()[name])
    assert read_metadata('random') is None


def test_weights_that_do_not_exist_are_refused() -> None:
    with pytest.raises(WeightsError, match=r'nothing\.ckpt'):
        read_metadata('nothing.ckpt')
