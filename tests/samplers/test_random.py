"""Random chips hold data, reach every pixel, are fair, and come again from seed, epoch and position."""

import datetime
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import seed_everything
from numpy.typing import NDArray
from rasterio.warp import transform as transform_points
from scipy.stats import chisquare
from torch.utils.data import DistributedSampler

from tests.marks import first_fast
from torchgeo_msssl.datasets import ChipQuery, Scenes
from torchgeo_msssl.errors import ChipSizeError, ConfigurationError, ValidDataError
from torchgeo_msssl.geo.open_datasets import close_datasets
from torchgeo_msssl.samplers import ChipSampler, RandomChipSampler
from torchgeo_msssl.samplers.random import neighbourhood, origins


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv('TORCHGEO_MSSSL_CACHE', str(tmp_path / 'cache'))
    yield
    close_datasets()


def write(
    path: Path,
    array: NDArray[Any],
    *,
    origin: tuple[float, float] = (500_000, 4_900_000),
    crs: str = 'EPSG:32631',
    **profile: Any,
) -> Path:
    bands, height, width = array.shape
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        crs=crs,
        transform=Affine(10, 0, origin[0], 0, -10, origin[1]),
        height=height,
        width=width,
        count=bands,
        dtype=array.dtype,
        **profile,
    ) as file:
        file.write(array)
    return path


def ones(height: int, width: int) -> NDArray[np.uint16]:
    return np.ones((1, height, width), dtype=np.uint16)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(1, 60_000, (1, height, width), dtype=np.uint16)


def wedge(height: int = 500, width: int = 600) -> NDArray[np.uint16]:
    """60 % nodata: a slanting edge, and a speck here and there beyond it."""
    rows, cols = np.mgrid[:height, :width]
    array = noise(height, width)
    array[:, rows + 0.3 * cols < 0.78 * height] = 0
    array[:, np.random.default_rng(1).random((height, width)) < 0.01] = 0
    return array


def places(queries: Iterator[ChipQuery] | list[ChipQuery]) -> list[tuple[int, int, int]]:
    return [(query.scene, query.window.row, query.window.col) for query in queries]


def covered_by(queries: list[ChipQuery], shape: tuple[int, int]) -> NDArray[np.bool_]:
    covered = np.zeros(shape, dtype=bool)
    for query in queries:
        w = query.window
        assert w.row >= 0 <= w.col
        assert w.row + w.height <= shape[0]
        assert w.col + w.width <= shape[1]
        covered[w.row : w.row + w.height, w.col : w.col + w.width] = True
    return covered


# Valid data.


@pytest.mark.parametrize(('size', 'aligned', 'block'), [(48, True, 64), (64, True, 16), (37, False, 64), (8, True, 64)])
def test_no_chip_has_less_valid_data_than_asked(tmp_path: Path, size: int, aligned: bool, block: int) -> None:
    array = wedge()
    assert 0.58 < (array == 0).mean() < 0.65
    path = write(tmp_path / 'scene.tif', array, nodata=0, tiled=True, blockxsize=block, blockysize=block)
    sampler = RandomChipSampler(Scenes(path), size, 3000, min_valid=0.9, aligned=aligned)
    queries = list(sampler)
    assert len(queries) == len(sampler) == 3000
    valid = np.array(
        [
            np.count_nonzero(array[0, q.window.row : q.window.row + size, q.window.col : q.window.col + size])
            for q in queries
        ]
    )
    assert valid.min() >= 0.9 * size * size
    assert valid.min() < size * size  # the edge is not shunned
    covered_by(queries, array.shape[1:])


def test_every_pixel_that_can_be_shown_is_shown(tmp_path: Path) -> None:
    array = ones(30, 42)  # 45 places
    array[:, :, :24] = 0
    sampler = RandomChipSampler(
        Scenes(write(tmp_path / 'scene.tif', array, nodata=0)), 16, 1000, min_valid=1.0, aligned=False
    )
    covered = covered_by(list(sampler), (30, 42))
    assert covered[:, 24:].all()
    assert not covered[:, :24].any()


@pytest.mark.parametrize(('block', 'size'), first_fast([(16, 20), (16, 15), (16, 16), (32, 16), (32, 33)]))
def test_aligned_chips_reach_every_border_pixel(tmp_path: Path, block: int, size: int) -> None:
    path = write(tmp_path / 'scene.tif', ones(61, 45), tiled=True, blockxsize=block, blockysize=block)
    assert covered_by(list(RandomChipSampler(Scenes(path), size, 3000, seed=0)), (61, 45)).all()


@settings(max_examples=300, deadline=None)
@given(extent=st.integers(1, 400), size=st.integers(1, 400), block=st.integers(1, 128))
def test_origins_cover_every_pixel_and_touch_the_fewest_blocks(extent: int, size: int, block: int) -> None:
    size = min(size, extent)
    found = origins(extent, size, block)
    assert (np.diff(found) > 0).all()
    assert found[0] >= 0
    assert found[-1] + size == extent
    covered = np.zeros(extent, dtype=bool)
    for start in found:
        covered[start : start + size] = True
    assert covered.all()
    if block < extent:
        touched = (found + size - 1) // block - found // block + 1
        assert (touched[:-1] <= -(-size // block)).all()  # the last one ends at the border, wherever that is
        every = np.arange(extent - size + 1)
        few = every[(every + size - 1) // block - every // block + 1 <= -(-size // block)]
        assert set(few) <= set(found)  # and none is left out without a reason
    np.testing.assert_array_equal(origins(extent, size, None), np.arange(extent - size + 1))


def test_places_known_to_be_good_do_not_grow_with_the_scene(tmp_path: Path) -> None:
    path = write(tmp_path / 'scene.tif', wedge(2000, 2000), nodata=0, tiled=True, blockxsize=256, blockysize=256)
    sampler = RandomChipSampler(Scenes(path), 64, 10, aligned=False)
    good = sampler._places[0].good
    assert 4096 <= len(good) <= 5 * 4096
    assert len(np.unique(good // 500, axis=0)) > 5  # and lie everywhere


def test_min_valid_of_0_takes_chips_without_any_data(tmp_path: Path) -> None:
    path = write(tmp_path / 'scene.tif', 0 * ones(40, 40), nodata=0)
    assert len(list(RandomChipSampler(Scenes(path), 8, 20, min_valid=0))) == 20


# Sizes.


def test_a_scene_of_exactly_one_chip_gives_it(tmp_path: Path) -> None:
    sampler = RandomChipSampler(Scenes(write(tmp_path / 'scene.tif', ones(32, 40))), (32, 40))
    assert len(sampler) == 1
    assert places(list(sampler)) == [(0, 0, 0)]


def test_scenes_smaller_than_a_chip_are_left_out_with_a_warning(tmp_path: Path) -> None:
    files = [write(tmp_path / 'small.tif', ones(31, 99)), write(tmp_path / 'large.tif', ones(64, 64))]
    with pytest.warns(UserWarning, match=r'1 of 2 scenes are smaller than a chip of 32×32 .*small.tif'):
        sampler = RandomChipSampler(Scenes(files), 32, 50, min_valid=0.98)  # padded it is 97 % valid
    names = [Path(scene.path).name for scene in sampler.dataset.scenes]
    assert {names[query.scene] for query in sampler} == {'large.tif'}


def test_a_chip_larger_than_every_scene_is_an_error_with_both_sizes(tmp_path: Path) -> None:
    files = [write(tmp_path / 'small.tif', ones(31, 99)), write(tmp_path / 'large.tif', ones(64, 50))]
    with pytest.raises(ChipSizeError, match=r'128×128 pixels is larger than every scene; .*large.tif, has 64×50'):
        RandomChipSampler(Scenes(files), 128)


def test_scenes_are_drawn_in_proportion_to_their_area(tmp_path: Path) -> None:
    sides = (40, 80, 120)  # areas 1 : 4 : 9
    ours = Scenes(
        [
            write(tmp_path / f'{side}.tif', ones(side, side), origin=(500_000 + 5000 * k, 4_900_000))
            for k, side in enumerate(sides)
        ]
    )
    queries = list(RandomChipSampler(ours, 32, 7000, seed=1))
    area = np.array([scene.grid.window.area for scene in ours.scenes])
    counts = np.bincount([query.scene for query in queries], minlength=3)
    assert chisquare(counts, 7000 * area / area.sum()).pvalue > 0.01


@pytest.mark.slow
def test_within_a_scene_every_place_is_as_likely(tmp_path: Path) -> None:
    queries = list(RandomChipSampler(Scenes(write(tmp_path / 'a.tif', ones(47, 40))), 32, 9000, seed=1, aligned=False))
    counts = np.zeros((16, 9))
    for query in queries:
        counts[query.window.row, query.window.col] += 1
    assert chisquare(counts.ravel()).pvalue > 0.01


def test_the_length_defaults_to_the_chips_that_cover_the_valid_pixels(tmp_path: Path) -> None:
    array = wedge()
    sampler = RandomChipSampler(Scenes(write(tmp_path / 'scene.tif', array, nodata=0)), 32)
    assert len(sampler) == np.count_nonzero(array) // 32**2


# Seeds, epochs, positions, ranks.


@pytest.fixture
def scenes(tmp_path: Path) -> Scenes:
    return Scenes(
        [
            write(tmp_path / f'{k}.tif', noise(100 + 60 * k, 130, seed=k), origin=(500_000 + 2000 * k, 4_900_000))
            for k in range(2)
        ]
    )


def test_seed_everything_decides(scenes: Scenes) -> None:
    def draw(seed: int) -> list[tuple[int, int, int]]:
        seed_everything(seed, verbose=False)
        return places(list(RandomChipSampler(scenes, 16, 100)))

    assert draw(5) == draw(5) != draw(6)
    seed_everything(5, verbose=False)
    torch.rand(10)
    assert places(list(RandomChipSampler(scenes, 16, 100))) == draw(5)  # whatever else was drawn before


@pytest.mark.parametrize('seed', [0, -1, 2**32 - 1, 2**63 - 1, 2**64 - 1])
def test_any_seed_will_do(scenes: Scenes, seed: int) -> None:
    assert len(list(RandomChipSampler(scenes, 16, 10, seed=seed))) == 10
    if 0 <= seed < 2**32:
        seed_everything(seed, verbose=False)
        assert RandomChipSampler(scenes, 16, 10).seed == seed


def test_each_epoch_has_its_own_chips_and_always_the_same(scenes: Scenes) -> None:
    sampler = RandomChipSampler(scenes, 16, 150, seed=3)
    first, second = places(list(sampler)), places(list(sampler))
    assert first != second
    sampler.set_epoch(0)
    assert places(list(sampler)) == first
    again = RandomChipSampler(scenes, 16, 150, seed=3)
    again.set_epoch(1)
    assert places(list(again)) == second
    assert RandomChipSampler(scenes, 16, 10, seed=3).epoch == 0


def test_an_iteration_that_was_broken_off_leaves_nothing_behind(scenes: Scenes) -> None:
    sampler = RandomChipSampler(scenes, 16, 150, seed=3)
    whole = places(list(sampler))
    sampler.set_epoch(0)
    half = iter(sampler)
    for _ in range(70):
        next(half)
    sampler.set_epoch(0)  # as Lightning says it after its sanity check
    assert places(list(sampler)) == whole


@pytest.mark.parametrize('position', [0, 1, 63, 64, 65, 149, 150])
def test_a_state_goes_on_at_any_position(scenes: Scenes, position: int) -> None:
    sampler = RandomChipSampler(scenes, 16, 150, seed=3)
    list(sampler)  # epoch 1 now
    iterator = iter(sampler)
    for _ in range(position):
        next(iterator)
    state = sampler.state_dict()
    other = RandomChipSampler(scenes, 16, 150, seed=99)
    other.load_state_dict(state)
    assert places(list(other)) == places(list(iterator))
    assert places(list(other)) == places(list(sampler))  # and on to epoch 2


def test_ranks_share_the_chips_of_one_process(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = RandomChipSampler(scenes, 16, 200, seed=3)
    alone = places(list(sampler.draw(4, 0)))
    shares = []
    for rank in range(3):
        monkeypatch.setattr(ChipSampler, 'ranks', staticmethod(lambda rank=rank: (rank, 3)))
        assert len(sampler) == 66
        shares.append(places(list(sampler.draw(4, 0))))
        assert places(list(sampler.draw(4, 50))) == shares[-1][50:]
    assert [place for row in zip(*shares, strict=True) for place in row] == alone[:198]


def test_lightning_leaves_it_as_it_is(scenes: Scenes) -> None:
    assert isinstance(RandomChipSampler(scenes, 16, 10), DistributedSampler)


# Positives.


def dated_pair(folder: Path, shift: tuple[int, int] = (7, -13)) -> tuple[NDArray[np.uint16], Scenes]:
    """Two dates of one ground whose grids begin at other pixels; the second has a hole."""
    ground = noise(240, 260)
    row, col = 20 + shift[0], 20 + shift[1]
    later = ground[:, row : row + 150, col : col + 180].copy()
    later[:, 30:60, 40:90] = 0
    x, y = 500_000, 4_900_000
    first = write(folder / 'S2_20210415.tif', ground[:, 20:180, 20:220], origin=(x + 200, y - 200), nodata=0)
    second = write(folder / 'S2_20210614.tif', later, origin=(x + 10 * col, y - 10 * row), nodata=0)
    return ground, Scenes([first, second])


def test_temporal_positives_show_the_same_ground_on_another_date(tmp_path: Path) -> None:
    ground, ours = dated_pair(tmp_path)
    sampler = RandomChipSampler(ours, 24, 400, positives='temporal', min_valid=0.9, seed=0)
    queries = list(sampler)
    assert {query.scene for query in queries} == {0, 1}
    for query in queries:
        assert query.positive is not None
        assert query.positive.scene != query.scene
        sample = ours[query]
        both = sample['valid'] & sample['positive_valid']
        assert sample['valid'].float().mean() >= 0.9
        assert sample['positive_valid'].float().mean() >= 0.9
        np.testing.assert_array_equal(sample['image'][both].numpy(), sample['positive'][both].numpy())
    assert ground.any()


def test_temporal_positives_need_a_second_date(tmp_path: Path) -> None:
    dated = write(tmp_path / 'S2_20210415.tif', ones(64, 64))
    undated = write(tmp_path / 'scene.tif', ones(64, 64))
    apart = write(tmp_path / 'S2_20210614.tif', ones(64, 64), origin=(600_000, 4_900_000))
    for files in ([dated], [dated, undated], [undated], [dated, apart]):
        with pytest.raises(ValidDataError, match='temporal needs scenes of one place at two dates'):
            RandomChipSampler(Scenes(files), 16, 10, positives='temporal')


def test_scenes_without_a_partner_are_not_drawn(tmp_path: Path) -> None:
    files = [
        write(tmp_path / 'S2_20210415.tif', ones(64, 64)),
        write(tmp_path / 'S2_20210614.tif', ones(64, 64)),
        write(tmp_path / 'S2_20210714.tif', ones(64, 64), origin=(600_000, 4_900_000)),
        write(tmp_path / 'S2_20210814.tif', ones(64, 64), crs='EPSG:32632'),
    ]
    queries = list(RandomChipSampler(Scenes(files), 16, 100, positives='temporal'))
    assert {query.scene for query in queries} == {0, 1}


def test_dates_of_one_scene_are_kept_apart(tmp_path: Path) -> None:
    ours = Scenes([write(tmp_path / f'S2_202104{day}.tif', noise(64, 64, seed=day)) for day in (11, 12, 13)])
    partners = {
        (query.scene, query.positive.scene)
        for query in RandomChipSampler(ours, 16, 300, positives='temporal')
        if query.positive
    }
    assert partners == {(a, b) for a in range(3) for b in range(3) if a != b}
    assert ours.scenes[0].date[0].date() == datetime.date(2021, 4, 11)  # type: ignore[index]


@pytest.mark.parametrize('positives', ['earlier', 'later'])
def test_positives_of_one_direction(positives: Any, tmp_path: Path) -> None:
    ours = Scenes([write(tmp_path / f'S2_202104{day}.tif', noise(64, 64, seed=day)) for day in (11, 12, 13)])
    partners = {
        (query.scene, query.positive.scene)
        for query in RandomChipSampler(ours, 16, 300, positives=positives)
        if query.positive
    }
    ordered = {(a, b) for a in range(3) for b in range(a)}
    assert partners == (ordered if positives == 'earlier' else {(b, a) for a, b in ordered})


def test_nearby_positives_lie_within_a_chip_and_hold_data(tmp_path: Path) -> None:
    array = wedge()
    ours = Scenes(write(tmp_path / 'scene.tif', array, nodata=0))
    apart = 0
    for query in RandomChipSampler(ours, 32, 500, positives='nearby', seed=0):
        assert query.positive is not None
        a, b = query.window, query.positive.window
        assert max(abs(a.row - b.row), abs(a.col - b.col)) <= 32
        apart += a != b
        assert np.count_nonzero(array[0, b.row : b.row + 32, b.col : b.col + 32]) >= 0.9 * 32 * 32
        assert 0 <= b.row <= 500 - 32
        assert 0 <= b.col <= 600 - 32
    assert apart > 400


def test_nearby_falls_back_to_the_chip_itself(tmp_path: Path) -> None:
    array = 0 * ones(64, 64)
    array[:, 16:32, 16:32] = 1  # one place alone has enough data
    ours = Scenes(write(tmp_path / 'scene.tif', array, nodata=0))
    for query in RandomChipSampler(ours, 16, 20, positives='nearby', min_valid=1.0):
        assert query.positive is not None
        assert query.window == query.positive.window


# Regions.


@pytest.mark.parametrize('aligned', first_fast([True, False]))
def test_chips_lie_wholly_inside_the_region(tmp_path: Path, aligned: bool) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', ones(200, 300), tiled=True, blockxsize=64, blockysize=64))
    region = shapely.Polygon([(500_300, 4_899_900), (502_500, 4_899_700), (501_000, 4_898_200)])
    queries = list(RandomChipSampler(ours, 16, 5000, roi=region, aligned=aligned))
    boxes = shapely.box(*np.array([(q[0].start, q[1].start, q[0].stop, q[1].stop) for q in queries]).T)
    assert shapely.covers(region.buffer(0.02), boxes).all()
    assert shapely.union_all(boxes).area > 0.6 * region.area  # and fill it


def test_a_small_region_of_a_large_scene_is_found(tmp_path: Path) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', ones(1500, 1500)))
    region = shapely.box(508_000, 4_890_000, 508_330, 4_890_330)  # 33 pixels: one lattice place, perhaps none
    for aligned in (True, False):
        queries = list(RandomChipSampler(ours, 16, 50, roi=region, aligned=aligned))
        assert all(
            region.buffer(0.02).covers(shapely.box(q[0].start, q[1].start, q[0].stop, q[1].stop)) for q in queries
        )


def test_a_region_reaches_scenes_in_another_crs(tmp_path: Path) -> None:
    (x,), (y,) = transform_points('EPSG:32631', 'EPSG:32632', [502_000], [4_899_000])
    files = [
        write(tmp_path / 'a.tif', ones(100, 100)),
        write(tmp_path / 'b.tif', ones(100, 100), crs='EPSG:32632', origin=(round(x, -1), round(y, -1))),
    ]
    ours = Scenes(files)
    region = shapely.box(500_200, 4_898_200, 502_800, 4_899_700)
    queries = list(RandomChipSampler(ours, 16, 300, roi=region))
    assert {query.scene for query in queries} == {0, 1}
    for query in queries:
        grid = ours.scenes[query.scene].grid
        left, bottom, right, top = grid.window_bounds(query.window)
        xs, ys = transform_points(grid.crs, 'EPSG:32631', [left, right, left, right], [bottom, bottom, top, top])
        assert all(region.buffer(0.1).covers(shapely.Point(*xy)) for xy in zip(xs, ys, strict=True))


# What it says when it cannot.


def test_errors_name_the_option(tmp_path: Path) -> None:
    array = 0 * ones(64, 64)
    array[:, :8, :8] = 1
    ours = Scenes(write(tmp_path / 'empty.tif', array, nodata=0))
    with pytest.raises(
        ValidDataError, match=r'min_valid: no chip of 32×32 pixels has 90% valid data; .*empty.tif, is 2%'
    ):
        RandomChipSampler(ours, 32, 10)
    with pytest.raises(ValidDataError, match='inside the region'):
        RandomChipSampler(ours, 8, 10, roi=shapely.box(500_300, 4_899_400, 500_600, 4_899_600))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({'size': 0}, 'size: expected at least 1 pixel, got 0'),
        ({'min_valid': 1.5}, 'min_valid: expected a fraction from 0 to 1, got 1.5'),
        ({'min_valid': -0.1}, 'min_valid'),
        ({'length': 0}, 'length: expected at least 1 chip per epoch, got 0'),
        ({'positives': 'other'}, "positives: expected one of same, temporal, earlier, later, nearby, got 'other'"),
    ]
    for options, message in wrong:
        with pytest.raises(ConfigurationError, match=message):
            RandomChipSampler(ours, **({'size': 8} | options))


def test_nothing_is_warned_of_without_a_reason(scenes: Scenes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        list(RandomChipSampler(scenes, 16, 20, positives='nearby'))


# Several chips from one neighbourhood.


def groups_of(queries: list[ChipQuery], count: int) -> list[list[ChipQuery]]:
    return [queries[k : k + count] for k in range(0, len(queries), count)]


@settings(max_examples=300, deadline=None)
@given(
    extent=st.integers(1, 400),
    size=st.integers(1, 400),
    block=st.integers(1, 600),
    place=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_a_neighbourhood_holds_its_chip_and_few_blocks(extent, size, block, place, seed) -> None:
    size = min(size, extent)
    origin = round(place * (extent - size))
    first, last = neighbourhood(origin, size, block, extent, np.random.default_rng(seed))
    assert 0 <= first <= origin <= last <= extent - size
    touched = (last + size - 1) // block - first // block + 1
    assert touched <= max(-(-2 * size // block), (origin + size - 1) // block - origin // block + 1)


@pytest.mark.parametrize('count', [2, 3, 8])
def test_consecutive_chips_come_from_one_neighbourhood(tmp_path: Path, count: int) -> None:
    array = wedge(512, 640)
    path = write(tmp_path / 'scene.tif', array, nodata=0, tiled=True, blockxsize=64, blockysize=64)
    sampler = RandomChipSampler(Scenes(path), 48, 50 * count, chips_per_read=count)
    queries = list(sampler)
    assert len(queries) == len(sampler) == 50 * count
    together, valid = 0, []
    for group in groups_of(queries, count):
        rows, cols = ([getattr(q.window, side) for q in group] for side in ('row', 'col'))
        blocks = [max(values) // 64 * 64 + 48 - min(values) // 64 * 64 for values in (rows, cols)]
        together += max(blocks) <= 3 * 64
        valid.extend(np.count_nonzero(array[0, r : r + 48, c : c + 48]) for r, c in zip(rows, cols, strict=True))
        assert len(set(zip(rows, cols, strict=True))) > 1
    assert together == 50
    assert min(valid) >= 0.9 * 48 * 48
    firsts = {(group[0].window.row // 64, group[0].window.col // 64) for group in groups_of(queries, count)}
    assert len(firsts) > 15  # and the neighbourhoods lie everywhere


def test_neighbourhoods_come_again_from_seed_epoch_and_position(tmp_path: Path) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', noise(400, 400), tiled=True, blockxsize=64, blockysize=64))

    def sampler(seed: int = 3) -> RandomChipSampler:
        return RandomChipSampler(ours, 32, 150, seed=seed, chips_per_read=5)

    whole = places(list(sampler().draw(2, 0)))
    assert len(whole) == 150
    assert whole != places(list(sampler().draw(1, 0)))
    assert whole != places(list(sampler(4).draw(2, 0)))
    for start in (1, 4, 5, 63, 64, 149):
        assert places(list(sampler().draw(2, start))) == whole[start:]


def test_each_rank_has_whole_neighbourhoods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', noise(400, 400), tiled=True, blockxsize=64, blockysize=64))
    sampler = RandomChipSampler(ours, 32, 120, seed=3, chips_per_read=4)
    alone = groups_of(places(list(sampler.draw(0, 0))), 4)
    for rank in range(3):
        monkeypatch.setattr(RandomChipSampler, 'ranks', staticmethod(lambda rank=rank: (rank, 3)))
        mine = groups_of(places(list(sampler.draw(0, 0))), 4)
        assert mine == alone[rank::3]


def test_neighbours_stay_inside_the_region_and_have_partners(tmp_path: Path) -> None:
    for k, date in enumerate(('20240101', '20240601')):
        write(tmp_path / f's_{date}.tif', noise(300, 300, k), tiled=True, blockxsize=64, blockysize=64)
    region = shapely.box(500_000, 4_898_500, 501_000, 4_900_000)  # 100 columns, 150 rows
    sampler = RandomChipSampler(Scenes(tmp_path), 32, 128, positives='temporal', roi=region, chips_per_read=8)
    for query in sampler:
        assert query.window.row + 32 <= 150
        assert query.window.col + 32 <= 100
        assert query.positive is not None
        assert query.positive.scene != query.scene


def test_where_no_neighbour_has_enough_data_chips_come_from_elsewhere(tmp_path: Path) -> None:
    array = ones(256, 256)
    array[0, :, :] = 0
    array[0, 0:16, 0:16] = 1
    array[0, 240:256, 240:256] = 1
    sampler = RandomChipSampler(
        Scenes(write(tmp_path / 's.tif', array, nodata=0, tiled=True, blockxsize=16, blockysize=16)),
        16,
        32,
        min_valid=1.0,
        chips_per_read=4,
    )
    assert set(places(list(sampler))) == {(0, 0, 0), (0, 240, 240)}


@pytest.mark.parametrize('count', [0, 65])
def test_chips_per_read_has_a_range(tmp_path: Path, count: int) -> None:
    ours = Scenes(write(tmp_path / 'scene.tif', ones(40, 40)))
    with pytest.raises(ConfigurationError, match=f'chips_per_read: expected 1 to 64 chips, got {count}'):
        RandomChipSampler(ours, 8, chips_per_read=count)
