"""Parts of a split are apart on the ground, balanced, and the same whatever else is there."""

from collections.abc import Sequence

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.plan import chips_of
from torchgeo_msssl.geo.chipping.split import Split, footprints, regions_of, split_chips
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.ground.area import Ground
from torchgeo_msssl.geo.scene import BandFile, Scene

UTM = CRS.from_epsg(32631)


def scene(
    name: str, x: float = 600000, y: float = 5000000, side: int = 1000, res: float = 10, crs: CRS = UTM, turn: float = 0
) -> Scene:
    grid = PixelGrid(crs, Affine.translation(x, y) @ Affine.rotation(turn) @ Affine.scale(res, -res), side, side)
    file = BandFile(f'{name}.tif', grid, ('red',), 'uint8', None, False, (64, 64), (1.0,), (0.0,), {})
    return Scene(name, (file,), None, None)


def options(
    size: int = 50, block: int = 200, seed: int = 0, fractions: Sequence[float] = (0.6, 0.2, 0.2)
) -> ChipOptions:
    return ChipOptions(chip_size=size, split='blocks', fractions=tuple(fractions), block_size=block, seed=seed)


def split(scenes: Sequence[Scene], how: ChipOptions) -> Split:
    chips = [chip for i, one in enumerate(scenes) for chip in chips_of(one, i, how)]
    return split_chips(chips, scenes, regions_of(scenes, how), how)


def ground(result: Split, scenes: Sequence[Scene], part: str) -> shapely.Geometry:
    return shapely.union_all(footprints([chip for chip in result.chips if chip.part == part], scenes, UTM))


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('turn', [0, 30])
def test_parts_are_a_chip_apart_on_the_ground(seed: int, turn: float) -> None:
    scenes = [scene('a', turn=turn), scene('b', turn=turn), scene('c', x=604123, y=4998765, turn=turn)]
    how = options(seed=seed)
    result = split(scenes, how)
    parts = [ground(result, scenes, part) for part in ('train', 'val', 'test')]
    assert not any(part.is_empty for part in parts)
    between = [parts[i].distance(parts[k]) for i in range(3) for k in range(i)]
    assert min(between) >= how.chip_size * 10 * (1 - 1e-9)
    assert result.distance == pytest.approx(min(between) / 10)
    assert len(result.chips) + result.left_out == sum(len(chips_of(s, 0, how)) for s in scenes)


def test_dates_of_one_place_are_in_one_part() -> None:
    result = split([scene('first'), scene('second')], options())
    parts = [{chip.window: chip.part for chip in result.chips if chip.scene == i} for i in (0, 1)]
    assert parts[0] == parts[1]


def test_a_scene_elsewhere_changes_few_blocks() -> None:
    alone, far = scene('a', side=2000), scene('b', x=700000, side=2000)
    before = {chip.window: chip.part for chip in split([alone], options()).chips}
    after = {chip.window: chip.part for chip in split([alone, far], options()).chips if chip.scene == 0}
    same = [before[window] == after[window] for window in before.keys() & after.keys()]
    assert np.mean(same) > 0.85
    assert split([alone], options()).chips == split([alone], options()).chips
    assert split([alone], options()).chips != split([alone], options(seed=1)).chips


def test_scenes_of_neighbouring_zones() -> None:
    other = scene('b', x=172_000, crs=CRS.from_epsg(32632))  # some 15 km east of the first, on the zone's border
    scenes = [scene('a', x=690_000), other]
    how = options()
    result = split(scenes, how)
    parts = [ground(result, scenes, part) for part in ('train', 'val', 'test')]
    assert min(parts[i].distance(parts[k]) for i in range(3) for k in range(i)) >= 499


def test_scenes_that_cannot_be_measured_together() -> None:
    with pytest.raises(ConfigurationError, match=r'^crs: far.tif .* bring the scenes to one CRS'):
        split([scene('a'), scene('far', x=300000, y=6000000, crs=CRS.from_epsg(32615))], options())


def test_too_few_blocks() -> None:
    with pytest.raises(ConfigurationError, match=r'^block_size: .* 1 block\(s\) for 3 regions'):
        split([scene('a', side=300)], options(block=1000, size=100))


def test_parts_without_a_share_are_left_out() -> None:
    result = split([scene('a')], options(fractions=(0.5, 0, 0.5)))
    assert {chip.part for chip in result.chips} == {'train', 'test'}
    assert list(result.blocks) == ['train', 'test']


@pytest.mark.parametrize('turn', [0, 30])
def test_padded_chips_at_the_border_of_the_ground_are_kept(turn: float) -> None:
    # the scene of 1,000 pixels ends with a block, and the last chips reach 8 pixels beyond it
    one = scene('a', turn=turn)
    result = split([one], ChipOptions(chip_size=48, split='blocks', fractions=(0.5, 0.5), block_size=200, gap=0))
    padded = [chip for chip in result.chips if chip.window.row + 48 > 1000 or chip.window.col + 48 > 1000]
    assert len(padded) > 10
    if turn == 0:  # all but those across a border between blocks of both parts
        corners = {(chip.window.row, chip.window.col) for chip in padded}
        assert {(0, 960), (960, 0), (960, 960)} <= corners
    shown = Ground.of([one]).union
    for part, other in (('train', 'val'), ('val', 'train')):
        assert ground(result, [one], part).intersection(shown).intersection(result.regions[other]).area < 1
