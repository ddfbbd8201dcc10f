"""Regions are disjoint, the gap is kept, and rare classes are in every part."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.ground.area import Ground
from torchgeo_msssl.geo.ground.blocks import BlockGrid
from torchgeo_msssl.geo.ground.class_fractions import class_fractions
from torchgeo_msssl.geo.ground.file import read_split
from torchgeo_msssl.geo.ground.parts import part_names
from torchgeo_msssl.geo.ground.split import keep_apart, split_blocks, split_ground
from torchgeo_msssl.geo.scene import BandFile, Scene

X, Y, SIDE, BLOCK = 600_130.0, 5_000_070.0, 1000, 50
FRACTIONS = (0.6, 0.2, 0.2)


def scene(name: str = 'a', x: float = X, y: float = Y, zone: int = 31) -> Scene:
    grid = PixelGrid(CRS.from_epsg(32600 + zone), Affine(10, 0, x, 0, -10, y), SIDE, SIDE)
    file = BandFile(f'{name}.tif', grid, ('red',), 'uint8', None, False, (64, 64), (1.0,), (0.0,), {})
    return Scene(name, (file,), None, None)


class Corner:
    """Labels with a rare class in strips of the west, class 0 elsewhere."""

    class_names: Sequence[str] = ('common', 'rare')

    def burn(self, grid: PixelGrid, window: Window) -> np.ndarray:
        columns = grid.transform.c + grid.transform.a * (np.arange(window.width) + 0.5)
        mask = np.broadcast_to((columns < X + 500) & (columns // 100 % 3 == 0), (window.height, window.width))
        return mask.astype(np.uint8)


def test_fractions_of_classes_are_those_of_the_ground() -> None:
    blocks = BlockGrid(Ground.of([scene(), scene('other date')]), BLOCK)
    cells = blocks.cells()
    fractions = class_fractions(Corner(), blocks, cells)  # type: ignore[arg-type]
    np.testing.assert_allclose(fractions.sum(axis=1), blocks.areas(cells), atol=0.05)
    columns = np.arange(X, X + 500, 1)
    rare = 1000 * 10 * (columns // 100 % 3 == 0).sum()
    assert fractions[:, 1].sum() * (BLOCK * 10) ** 2 == pytest.approx(rare, rel=0.05)


def test_rare_classes_are_in_every_part() -> None:
    ground = Ground.of([scene()])
    for seed in range(4):
        for region in split_blocks(ground, FRACTIONS, BLOCK, seed, Corner()):  # type: ignore[arg-type]
            assert region.intersects(shapely.box(X, Y - 10 * SIDE, X + 500, Y))


@pytest.mark.parametrize('gap', [1, 20])
def test_the_gap_is_kept_and_the_test_ground_stays(gap: int) -> None:
    ground = Ground.of([scene(), scene('b', x=X + 20_000)])
    plain = split_ground(ground, 'blocks', FRACTIONS, BLOCK, 0)
    apart = split_ground(ground, 'blocks', FRACTIONS, BLOCK, 0, gap=gap)
    assert apart['test'].equals(plain['test'])
    for one, other in (('train', 'val'), ('train', 'test'), ('val', 'test')):
        assert plain[one].intersection(plain[other]).area == 0
        assert apart[one].distance(apart[other]) >= gap * 10 * (1 - 1e-9)
        assert plain[one].covers(apart[one].buffer(-1e-6))
    with pytest.raises(ConfigurationError, match='gap: a gap of 5000 pixels leaves nothing of val'):
        keep_apart(plain, ground, 5000)


def test_blocks_do_not_depend_on_the_scenes_that_show_them() -> None:
    one, moved = (split_blocks(Ground.of([scene(x=x)]), (0.5, 0.5), BLOCK, 1) for x in (X, X + 3_000))
    common = shapely.box(X + 3_500, Y - 10 * SIDE, X + 9_500, Y)
    same = sum(a.intersection(b).intersection(common).area for a, b in zip(one, moved, strict=True))
    assert same > 0.85 * common.intersection(shapely.union_all(one)).area


def test_a_scene_that_begins_on_the_border_of_a_block_adds_no_line_to_it() -> None:
    outlines = [shapely.box(2, 2, 5, 5), shapely.box(10, 3, 12, 8), shapely.box(30, 0, 40, 10)]
    ground = Ground(CRS.from_epsg(32631), (1, 1), np.array(outlines, dtype=np.object_), ('a', 'b', 'held out'))
    rest = shapely.union_all(outlines[:2])
    regions = split_blocks(ground, (0.5, 0.5), 10, 0, within=rest)
    assert sorted(region.area for region in regions) == [9, 10]
    assert shapely.get_type_id(BlockGrid(ground, 10).inside(rest, 0)[0]).tolist() == [shapely.GeometryType.POLYGON] * 2


def test_names_of_parts() -> None:
    assert part_names((0.7, 0.15, 0.15)) == ('train', 'val', 'test')
    assert part_names((0.5, 0, 0.5)) == ('train', 'test')
    assert part_names((0.5, 0.5)) == ('train', 'val')
    for fractions in ((1.0,), (0.5, 0.4), (0.0, 0.5, 0.5), (0.5, -0.1, 0.6)):
        with pytest.raises(ConfigurationError, match='fractions'):
            part_names(fractions)


def test_a_split_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    nowhere: Any = None  # the file is looked for first
    with pytest.raises(ConfigurationError, match=re.escape(f'split: {tmp_path}/split.geojson is neither')):
        read_split('~/split.geojson', nowhere)
