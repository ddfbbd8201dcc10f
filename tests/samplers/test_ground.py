"""Windows of a region against the pixels that its polygons contain."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import shapely
import torch

from torchgeo_msssl.datasets import LabelledScenes, Labels, Scenes
from torchgeo_msssl.errors import EmptyIntersectionError
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.samplers import GroundSampler


@pytest.fixture
def labelled(make_scene: Callable[..., str]) -> Any:
    image = np.ones((2, 50, 70), np.uint16)
    image[:, :, :9] = 0
    scenes = Scenes(make_scene('scene.tif', image, names=('red', 'nir'), nodata=0))
    labels = Labels(make_scene('mask.tif', np.ones((50, 70), np.uint8)), ['soil', 'vine'])
    yield LabelledScenes(scenes, labels)
    close_datasets()


def ground(*boxes: tuple[float, float, float, float]) -> shapely.Geometry:
    """Rectangles ``(left, top, right, bottom)`` in pixels of the scene."""
    return shapely.union_all(
        [shapely.box(600000 + 10 * x, 5000000 - 10 * b, 600000 + 10 * r, 5000000 - 10 * y) for x, y, r, b in boxes]
    )


@pytest.mark.parametrize('context', [0, 5])
def test_each_labelled_pixel_of_a_region_is_shown_once(labelled: LabelledScenes, context: int) -> None:
    region = ground((3, 2, 21, 30), (21, 28.4, 40.6, 40), (60, 0, 70, 50), (50, 45, 53, 46))
    sampler = GroundSampler(labelled.scenes, 16, region, context)
    dataset, seen = labelled.inside(region, context), np.zeros((50, 70), int)
    for query in sampler:
        mask, window = dataset[query]['mask'], query.window
        assert mask.shape == (16 + 2 * context, 16 + 2 * context)
        rows, cols = torch.nonzero(mask == 1, as_tuple=True)
        np.add.at(seen, (rows.numpy() + window.row, cols.numpy() + window.col), 1)
    y, x = np.indices((50, 70)) + 0.5
    inside = shapely.contains_xy(region, 600000 + 10 * x, 5000000 - 10 * y)
    inside[:, :9] = False  # no data
    np.testing.assert_array_equal(seen, inside)
    assert len(sampler) < 4 * 5  # windows outside the region are omitted
    assert (labelled[next(iter(sampler))]['mask'] == 1).sum() > 0  # the dataset itself has not changed


def test_a_region_without_data(labelled: LabelledScenes) -> None:
    with pytest.raises(EmptyIntersectionError, match='no scene has data'):
        GroundSampler(labelled.scenes, 8, ground((0, 0, 8, 8)))
