"""Labelled chips and frozen features against direct reads of made scenes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.warp
import shapely
import torch
from affine import Affine
from torch import Tensor, nn

from torchgeo_msssl.datasets.batches import collate
from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import EmptyIntersectionError
from torchgeo_msssl.evaluation.features import extract_all, extract_features, label_chips, split_labelled_chips
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.labels.open import open_labels
from torchgeo_msssl.geo.labels.raster import RasterLabels

Make = Callable[..., str]


def make_pair(make_scene: Make, labels: np.ndarray, side: int = 64, **options: Any) -> tuple[Scenes, RasterLabels]:
    image = np.random.default_rng(0).integers(1, 3000, (2, side, side)).astype(np.uint16)
    scene = make_scene('scene.tif', image, names=('B02', 'B03'))
    return Scenes(scene), RasterLabels(make_scene('labels.tif', labels.astype(np.uint8), nodata=0, **options))


def test_chips_have_the_class_that_reaches_the_purity(make_scene: Make) -> None:
    labels = np.repeat(np.repeat([[1, 2], [3, 4]], 32, axis=0), 32, axis=1)
    labels[:10, :32] = 2  # 22 of 32 rows are left: 69 %
    labels[32:, :32][:, :9] = 0  # 23 of 32 columns have a label: 72 %
    scenes, path = make_pair(make_scene, labels)
    chips = label_chips(scenes, path, 32, purity=0.7)
    assert chips.labels.tolist() == [2, 3, 4]
    assert [(query.window.row, query.window.col) for query in chips.queries] == [(0, 32), (32, 0), (32, 32)]
    assert label_chips(scenes, path, 32, purity=0.68).labels.tolist() == [1, 2, 3, 4]
    assert label_chips(scenes, path, 32, purity=0.73).labels.tolist() == [2, 4]


def test_labels_on_a_shifted_grid_are_found_by_place(make_scene: Make) -> None:
    labels = np.zeros((96, 96))
    labels[16:48, 8:40] = 5  # the scene's first chip: the labels begin 16 rows above and 8 columns left of it
    transform = Affine(10, 0, 600000 - 80, 0, -10, 5000000 + 160)
    scenes, path = make_pair(make_scene, labels, transform=transform)
    chips = label_chips(scenes, path, 32)
    assert chips.labels.tolist() == [5]
    assert (chips.queries[0].window.row, chips.queries[0].window.col) == (0, 0)


def test_labels_may_have_other_pixels(make_scene: Make) -> None:
    labels = np.array([[1, 2], [3, 4]]).repeat(16, 0).repeat(16, 1)  # 20 m on scenes of 10 m
    scenes, path = make_pair(make_scene, labels, res=20)
    assert label_chips(scenes, path, 32, purity=1.0).labels.tolist() == [1, 2, 3, 4]


def test_labels_of_another_place_are_refused(make_scene: Make) -> None:
    scenes, path = make_pair(make_scene, np.ones((64, 64)), crs='EPSG:32632')
    with pytest.raises(EmptyIntersectionError, match='EPSG:32631'):
        label_chips(scenes, path, 32)


def test_labels_of_another_grid_are_brought_onto_the_scenes(make_scene: Make) -> None:
    """A grid moved by 3 m of 10, and one in degrees: the class under the centre of each pixel."""
    labels = np.repeat(np.repeat([[1, 2], [3, 4]], 32, axis=0), 32, axis=1)
    scenes, moved = make_pair(make_scene, labels, transform=Affine(10, 0, 600003, 0, -10, 5000000))
    # column 32 has its centre 2 m inside the left half: 31 of 32 columns are left, and 63 of 64 have a label
    assert label_chips(scenes, moved, 32, purity=30 / 32).labels.tolist() == [1, 2, 3, 4]
    grid = PixelGrid(rasterio.crs.CRS.from_epsg(4326), *_in_degrees(scenes.scenes[0].grid))
    rows, cols = np.indices((grid.height, grid.width)) + 0.5
    x, y = rasterio.warp.transform('EPSG:4326', 'EPSG:32631', *(grid.transform @ (cols.ravel(), rows.ravel())))
    col, row = ((np.array(x) - 600000) // 320).clip(0, 1), ((5000000 - np.array(y)) // 320).clip(0, 1)
    classes = (1 + col + 2 * row).reshape(rows.shape).astype(np.uint8)
    degrees = make_scene('degrees.tif', classes, crs='EPSG:4326', transform=grid.transform)
    assert label_chips(scenes, RasterLabels(degrees), 32, purity=0.95).labels.tolist() == [1, 2, 3, 4]


def _in_degrees(grid: PixelGrid) -> tuple[Affine, int, int]:
    transform, width, height = rasterio.warp.calculate_default_transform(
        grid.crs, 'EPSG:4326', grid.width, grid.height, *grid.bounds, resolution=2e-5
    )
    return transform, height, width


def test_dated_labels_are_for_scenes_of_their_date(make_scene: Make) -> None:
    paths = [
        make_scene(f'S2/{day}.tif', np.full((2, 32, 32), 500, np.uint16), names=('B02', 'B03'))
        for day in ('2017-09-18', '2017-09-21')
    ]
    for day, value in (('2017-09-18', 1), ('2017-09-21', 3)):
        make_scene(f'masks/{day}.tif', np.full((32, 32), value, np.uint8), nodata=0)
    masks = str(Path(paths[0]).parents[1] / 'masks')
    chips = label_chips(Scenes(paths), RasterLabels(masks), 32)
    assert [(query.scene, label) for query, label in zip(chips.queries, chips.labels, strict=True)] == [(0, 1), (1, 3)]
    others = [f'{masks}/2017-09-21.tif', make_scene('2017-10-01.tif', np.ones((32, 32)))]
    with pytest.raises(EmptyIntersectionError, match='dates'):
        label_chips(Scenes(paths[:1]), RasterLabels(others), 32)


def test_several_values_can_be_one_class(make_scene: Make) -> None:
    labels = np.ones((32, 32))
    labels[:16], labels[16:20], labels[20:] = 1, 2, 7
    scenes, path = make_pair(make_scene, labels, side=32)
    with pytest.raises(EmptyIntersectionError):
        label_chips(scenes, path, 32, purity=0.6)
    merged = open_labels(path.files[0], {'none': 0, 'both': [1, 2]})
    assert label_chips(scenes, merged, 32, purity=20 / 32).labels.tolist() == [1]
    with pytest.raises(EmptyIntersectionError):  # other values are unlabelled
        label_chips(scenes, open_labels(path.files[0], {'a': 2, 'b': 7}), 32, purity=0.4)


def test_a_chip_on_two_rasters_takes_the_pixels_of_both(make_scene: Make) -> None:
    scenes, left = make_pair(make_scene, np.full((32, 16), 5), side=32)
    right = make_scene('right.tif', np.full((32, 16), 5, np.uint8), transform=Affine(10, 0, 600160, 0, -10, 5000000))
    assert label_chips(scenes, RasterLabels([left.files[0], right]), 32, purity=1.0).labels.tolist() == [5]
    with pytest.raises(EmptyIntersectionError):
        label_chips(scenes, left, 32, purity=0.6)


def test_a_distributed_rank_gets_all_chips(make_scene: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe runs on one rank alone."""
    scenes, path = make_pair(make_scene, np.ones((64, 64)))
    monkeypatch.setattr('torchgeo_msssl.samplers.base.ChipSampler.ranks', staticmethod(lambda: (0, 2)))
    assert len(label_chips(scenes, path, 32).labels) == 4


@pytest.mark.parametrize('batch_size', [1, 3, 100])
def test_features_come_in_the_order_of_the_chips(make_scene: Make, batch_size: int) -> None:
    scenes, path = make_pair(make_scene, np.ones((64, 64)))
    chips = label_chips(scenes, path, 16)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}

    def prepare(batch: dict[str, Tensor]) -> Tensor:
        return batch['image'].float() * 1e-3

    found = extract_features(network, scenes, chips, prepare, batch_size=batch_size)
    with torch.no_grad():
        one_by_one = [network(prepare(collate([scenes[query]]))) for query in chips.queries]
    np.testing.assert_allclose(found, torch.cat(one_by_one).numpy(), rtol=1e-5, atol=1e-6)
    assert len(np.unique(found.round(5), axis=0)) == 16
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_several_networks_share_what_is_read(make_scene: Make) -> None:
    scenes, path = make_pair(make_scene, np.ones((64, 64)))
    chips = label_chips(scenes, path, 16)
    done: list[int] = []
    networks = {
        'sum': lambda batch: batch['image'].float().sum((2, 3)),
        'max': lambda batch: batch['image'].float().amax((2, 3)),
    }
    found = extract_all(networks, scenes, chips.queries, batch_size=7, on_progress=done.append)
    assert done == [7, 14, 16]
    direct = np.stack([scenes[query]['image'].numpy().astype(np.float32) for query in chips.queries])
    np.testing.assert_allclose(found['sum'], direct.sum((2, 3)))
    np.testing.assert_array_equal(found['max'], direct.max((2, 3)))


def test_train_and_test_have_no_ground_in_common(tiles: tuple[list[str], str]) -> None:
    paths, labels = tiles
    scenes = Scenes(paths)
    ground = []
    for chips in split_labelled_chips(scenes, RasterLabels(labels), 16, block_size=32):
        bounds = [scenes.scenes[query.scene].grid.window_bounds(query.window) for query in chips.queries]
        assert {query.scene for query in chips.queries} == {0, 1, 2, 3}  # every date of either tile
        ground.append(shapely.union_all(shapely.box(*np.array(bounds).T)))
    assert min(part.area for part in ground) > 0
    assert ground[0].intersection(ground[1]).area == 0
