"""Nearest chips against scikit-learn, and the sheet that shows them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from sklearn.neighbors import NearestNeighbors

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.evaluation.embedding_chips import ChipOrigin, EmbeddingChips
from torchgeo_msssl.evaluation.neighbours import draw_neighbours, nearest_elsewhere
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.open_datasets import close_datasets


def line_of_boxes(count: int) -> np.ndarray:
    """Boxes side by side, which share edges and no ground."""
    left = np.arange(count) * 10.0
    return np.stack([left, np.zeros(count), left + 10, np.full(count, 10.0)], axis=1)


def test_without_overlap_they_are_those_of_scikit_learn() -> None:
    features = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    search = NearestNeighbors(n_neighbors=5, metric='cosine').fit(features)
    for query in (0, 17, 59):
        distances, indices = search.kneighbors(features[query][None])
        found = nearest_elsewhere(features, line_of_boxes(60), query, 4)
        assert [i for i, _ in found] == indices[0, 1:].tolist()
        np.testing.assert_allclose([distance for _, distance in found], distances[0, 1:], atol=1e-6)


def test_places_count_once() -> None:
    """Chips 1 and 2 are the query's own ground, 4 is that of 3 at another date."""
    features = np.array([[1, 0], [1, 0.01], [1, 0.02], [1, 0.1], [1, 0.2], [1, 0.5], [0, 1]], dtype=np.float32)
    bounds = line_of_boxes(7)
    bounds[1], bounds[2], bounds[4] = bounds[0], bounds[0] + [5, 0, 5, 0], bounds[3]
    bounds[3:, [0, 2]] += 100
    assert [i for i, _ in nearest_elsewhere(features, bounds, 0, 3)] == [3, 5, 6]
    assert [i for i, _ in nearest_elsewhere(features, bounds, 0, 1)] == [3]
    bounds[:] = bounds[0]
    assert nearest_elsewhere(features, bounds, 0, 3) == []


def test_sheet_shows_the_chips(make_scene: Callable[..., str], tmp_path: Path) -> None:
    """Red, green and blue chips keep their colours; the chip without data is grey."""
    array = np.zeros((3, 8, 32), np.uint16)
    for band in range(3):
        array[band, :, 8 * band : 8 * band + 8] = 1000
        array[:, :, 8 * band : 8 * band + 8] += 1
    scenes = Scenes(make_scene('a_scene_with_a_name_that_is_long.tif', array, names=('B04', 'B03', 'B02'), nodata=0))
    windows = [Window(0, col, 8, 8) for col in (0, 8, 16, 24)]
    origins = [ChipOrigin(scenes.scenes[0].name, scenes.scenes[0].grid, window) for window in windows]
    chips = EmbeddingChips(scenes, [scenes.query(0, window) for window in windows], origins, (0, 1, 2))
    draw_neighbours(tmp_path / 'sheet.png', chips, [(0, [(1, 0.5), (3, 0.7)]), (2, [])])
    close_datasets()
    sheet = imread(tmp_path / 'sheet.png')[..., :3]
    for colour in ((1, 0, 0), (0, 1, 0), (0.5, 0.5, 0.5)):
        assert (np.abs(sheet - colour) < 0.01).all(axis=-1).mean() > 0.03, colour
    # a row has a stretch of its own, and a row of one even chip has no range: it is drawn black
    assert (sheet < 0.01).all(axis=-1).mean() > 0.03
    assert sheet.shape[1] == pytest.approx(3 * 1.55 * 130, abs=2)
