"""Scenes that are smaller than a chip are padded, with and without a region."""

from collections.abc import Callable

import numpy as np
import pytest
import shapely

from torchgeo_msssl.datasets.scenes import Scenes
from torchgeo_msssl.errors import ChipSizeError
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.samplers.grid import GridChipSampler
from torchgeo_msssl.samplers.random import RandomChipSampler

Make = Callable[..., str]


@pytest.fixture
def scenes(make_scene: Make) -> Scenes:
    """Scenes of 20 × 12, 16 × 40 and 40 × 40 pixels, a kilometre apart."""
    from affine import Affine

    paths = []
    for i, shape in enumerate([(20, 12), (16, 40), (40, 40)]):
        image = np.random.default_rng(i).integers(1, 4000, (2, *shape)).astype(np.uint16)
        transform = Affine(10, 0, 600_000 + 1000 * i, 0, -10, 5_000_000)
        paths.append(make_scene(f'{i}.tif', image, names=('B02', 'B03'), transform=transform))
    return Scenes(paths)


@pytest.mark.parametrize('with_region', [False, True])
@pytest.mark.parametrize('aligned', [False, True])
def test_random_chips_of_small_scenes(scenes: Scenes, with_region: bool, aligned: bool) -> None:
    region = shapely.union_all([shapely.box(*scene.grid.bounds) for scene in scenes.scenes]) if with_region else None
    sampler = RandomChipSampler(scenes, 24, 200, min_valid=0.4, aligned=aligned, roi=region, seed=0)
    chips = list(sampler)
    assert {chip.scene for chip in chips} == {0, 1, 2}
    small = {(chip.window.row, chip.window.col) for chip in chips if chip.scene == 0}
    assert small == {(0, 0)}
    assert {chip.window.row for chip in chips if chip.scene == 1} == {0}
    sample = scenes[next(chip for chip in chips if chip.scene == 0)]
    assert sample['image'].shape == (2, 24, 24)
    assert sample['valid'][0, :20, :12].all()
    assert int(sample['valid'].sum()) == 20 * 12


def test_too_few_pixels_for_min_valid(scenes: Scenes) -> None:
    with pytest.warns(UserWarning, match='2 of 3 scenes are smaller .* a smaller min_valid lets them be padded'):
        sampler = RandomChipSampler(scenes, 24, 20, min_valid=0.9)
    assert {chip.scene for chip in sampler} == {2}
    with pytest.raises(ChipSizeError, match='Use a smaller chip, or a smaller min_valid'):
        RandomChipSampler(scenes, 64, min_valid=0.9)


def test_a_part_of_a_small_scene_has_no_chip(scenes: Scenes) -> None:
    """Padding reaches beyond the border of a scene, never from one region into another."""
    left, bottom, right, top = scenes.scenes[1].grid.bounds
    region = shapely.box(left, bottom + 40, right, top)
    sampler = RandomChipSampler(
        scenes, 24, 20, min_valid=0.1, roi=shapely.union(region, shapely.box(*scenes.scenes[2].grid.bounds))
    )
    assert {chip.scene for chip in sampler} == {2}


def test_a_region_covers_small_scenes_too(scenes: Scenes) -> None:
    region = shapely.union_all([shapely.box(*scene.grid.bounds) for scene in scenes.scenes])
    places = GridChipSampler(scenes, 24, roi=region).places
    assert places == GridChipSampler(scenes, 24).places
    assert (0, Window(0, 0, 24, 24)) in places
    left, bottom, right, top = scenes.scenes[0].grid.bounds
    half = shapely.union(shapely.box(left, bottom + 60, right, top), shapely.box(*scenes.scenes[2].grid.bounds))
    assert {scene for scene, _ in GridChipSampler(scenes, 24, roi=half).places} == {2}
