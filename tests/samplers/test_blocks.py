"""Regions of a split have no ground in common and leave none out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon

from torchgeo_msssl.datasets import Scenes
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.samplers import GridChipSampler, RandomChipSampler, split_blocks


def write(
    path: Path,
    height: int,
    width: int,
    *,
    origin: tuple[float, float] = (500_000, 4_900_000),
    res: float = 10,
    crs: str = 'EPSG:32631',
) -> Path:
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        crs=crs,
        transform=Affine(res, 0, origin[0], 0, -res, origin[1]),
        height=height,
        width=width,
        count=1,
        dtype='uint8',
    ) as file:
        file.write(np.ones((1, height, width), np.uint8))
    return path


def ground_of(ours: Scenes) -> Any:
    return shapely.union_all(ours.index.geometry.to_numpy())


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(20, 300),
    width=st.integers(20, 300),
    block=st.integers(4, 40),
    shift=st.tuples(st.integers(-200, 200), st.integers(-200, 200)),
    seed=st.integers(0, 5),
)
def test_regions_are_disjoint_and_cover_the_ground(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, block: int, shift: tuple[int, int], seed: int
) -> None:
    folder = tmp_path_factory.mktemp('scenes')
    x, y = 500_000.3, 4_900_000.7
    ours = Scenes(
        [
            write(folder / 'a.tif', height, width, origin=(x, y)),
            write(folder / 'b.tif', 50, 60, origin=(x + 10.1 * shift[0], y + 10.1 * shift[1])),
        ]
    )
    try:
        regions = split_blocks(ours, (0.5, 0.3, 0.2), block, seed)
    except ConfigurationError:
        assert block * block * 20 > height * width
        return
    for i, region in enumerate(regions):
        assert isinstance(region, MultiPolygon)
        assert region.is_valid
        assert all(region.intersection(other).area == 0 for other in regions[i + 1 :])
    missing = ground_of(ours).difference(shapely.union_all(regions))
    assert missing.area < 1e-3


@pytest.mark.parametrize('fractions', [(0.7, 0.15, 0.15), (0.5, 0.5), (1.0,), (0.6, 0.3, 0.05, 0.05)])
def test_regions_have_their_share(tmp_path: Path, fractions: Sequence[float]) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', 200, 200))
    regions = split_blocks(ours, fractions, 20)
    shares = np.array([region.area for region in regions]) / 2000**2
    np.testing.assert_allclose(shares, fractions, atol=0.01)


def test_the_seed_decides(tmp_path: Path) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', 200, 200))
    a, b, c = (split_blocks(ours, (0.5, 0.5), 20, seed)[0] for seed in (1, 1, 2))
    assert a.equals(b)
    assert not a.equals(c)


def test_all_dates_of_a_place_come_to_one_region(tmp_path: Path) -> None:
    ours = Scenes([write(tmp_path / f'S2_202104{day}.tif', 128, 128) for day in (11, 12, 13)])
    train, test = split_blocks(ours, (0.5, 0.5), 32)
    for region, other in ((train, test), (test, train)):
        sampler = GridChipSampler(ours, 16, roi=region)
        places: dict[int, set[tuple[int, int]]] = {}
        for query in sampler:
            places.setdefault(query.scene, set()).add((query.window.row, query.window.col))
            box = shapely.box(query[0].start, query[1].start, query[0].stop, query[1].stop)
            assert box.intersection(other).area < 0.1
        assert places[0] == places[1] == places[2]
        assert len(places[0]) == 8 * 4  # 8 blocks of 4 chips
    assert len(list(RandomChipSampler(ours, 16, 20, roi=train))) == 20


def test_scenes_that_lie_far_apart_cost_nothing_for_the_gap(tmp_path: Path) -> None:
    """Two drone flights 300 km apart: the ground between them would be 4,000 million blocks."""
    ours = Scenes(
        [
            write(tmp_path / 'a.tif', 300, 300, res=0.03),
            write(tmp_path / 'b.tif', 300, 300, res=0.03, origin=(700_000, 5_100_000)),
        ]
    )
    regions = split_blocks(ours, (0.5, 0.5), 100)
    assert shapely.union_all(regions).area == pytest.approx(2 * 9**2, rel=0.8)
    assert ground_of(ours).difference(shapely.union_all(regions)).area < 1e-6


def test_scenes_in_two_zones_are_split_on_one_ground(tmp_path: Path) -> None:
    ours = Scenes(
        [
            write(tmp_path / 'a.tif', 128, 128),
            write(tmp_path / 'b.tif', 128, 128, crs='EPSG:32632', origin=(500_000, 4_900_000)),
        ]
    )
    train, test = split_blocks(ours, (0.5, 0.5), 32)
    assert train.intersection(test).area == 0
    assert ground_of(ours).difference(train.union(test)).area < 1e-3
    scenes = [{query.scene for query in RandomChipSampler(ours, 8, 200, roi=region)} for region in (train, test)]
    assert scenes == [{0, 1}, {0, 1}]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'fractions': (0.5, 0.4)}, r'fractions: expected positive numbers with a sum of 1, got \(0.5, 0.4\)'),
        ({'fractions': (1.5, -0.5)}, 'fractions'),
        ({'fractions': ()}, 'fractions'),
        ({'block_size': 0}, 'block_size: expected at least 1 pixel, got 0'),
        (
            {'block_size': 10_000},
            r'block_size: blocks of 10000 pixels give 1 block\(s\) for 3 .* use smaller',
        ),
    ],
)
def test_errors_name_the_option(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', 64, 64))
    with pytest.raises(ConfigurationError, match=message):
        split_blocks(ours, **({'fractions': (0.7, 0.15, 0.15)} | options))
