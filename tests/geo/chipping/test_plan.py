"""Windows cover a scene as the edge policy says; names of chips are no dates."""

from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from torchgeo_msssl.errors import ChipSizeError, ConfigurationError
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.plan import Chip, Facts, axis_offsets, chips_of, rejection
from torchgeo_msssl.geo.discover import date_of
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.scene import BandFile, Scene

LABELS: dict[str, Any] = {'labels': ('mask.tif',), 'class_names': ('background', 'vine')}


def scene(height: int = 100, width: int = 130, name: str = 'ortho') -> Scene:
    grid = PixelGrid(CRS.from_epsg(32631), Affine(10, 0, 600000, 0, -10, 5000000), height, width)
    file = BandFile(f'{name}.tif', grid, ('red',), 'uint8', None, False, (64, 64), (1.0,), (0.0,), {})
    return Scene(name, (file,), None, None)


@given(st.integers(1, 300), st.integers(1, 60), st.data())
def test_offsets(extent: int, size: int, data: Any) -> None:
    stride = data.draw(st.integers(1, size))
    pad, shift, drop = (axis_offsets(extent, size, stride, edge) for edge in ('pad', 'shift', 'drop'))
    for offsets in (pad, shift):
        covered = {pixel for offset in offsets for pixel in range(offset, offset + size)}
        assert covered >= set(range(extent))
        assert len(offsets) == len(set(offsets)) == max(1, -(-(extent - size) // stride) + 1)
    assert all(offset < extent for offset in pad)
    assert all(offset % stride == 0 for offset in pad)
    assert extent < size or all(0 <= offset <= extent - size for offset in shift)
    assert drop == [offset for offset in range(0, extent, stride) if offset + size <= extent]


def test_windows_are_row_by_row() -> None:
    chips = chips_of(scene(), 3, ChipOptions(chip_size=64))
    assert [(chip.window.row, chip.window.col) for chip in chips] == [
        (row, col) for row in (0, 64) for col in (0, 64, 128)
    ]
    assert chips == sorted(chips)
    assert {chip.scene for chip in chips} == {3}


@pytest.mark.parametrize('edge', ['shift', 'drop'])
def test_a_scene_smaller_than_a_chip(edge: Any) -> None:
    asked = {'stride': 64, 'chip_size': 128}
    with pytest.raises(ChipSizeError, match=r'ortho.tif has 100 × 130 pixels, less than a chip of 128.*or edge pad'):
        chips_of(scene(), 0, ChipOptions(**asked, edge=edge))
    assert len(chips_of(scene(), 0, ChipOptions(**asked))) == 2


@pytest.mark.parametrize('edge', ['pad', 'shift', 'drop'])
def test_a_scene_smaller_than_a_chip_in_both_directions(edge: Any) -> None:
    with pytest.raises(ChipSizeError, match=r'less than a chip of 131 × 131; choose a smaller one\.$'):
        chips_of(scene(), 0, ChipOptions(chip_size=131, edge=edge))
    assert len(chips_of(scene(130, 130), 0, ChipOptions(chip_size=130, edge=edge))) == 1


@pytest.mark.parametrize('row', [0, 1024, 1999, 2048, 12345])
@pytest.mark.parametrize('col', [0, 101, 1012, 1130, 31122])
def test_a_name_says_no_date_but_that_of_the_scene(row: int, col: int) -> None:
    chip = Chip(0, Window(row, col, 64, 64))
    assert date_of(f'images/{chip.stem(scene())}.tif') is None
    for name in ('2017-09-18', 'T31TFJ_20210415T103021', 'S2_20220130'):
        assert date_of(f'images/{chip.stem(scene(name=name))}.tif') == date_of(f'{name}.tif')


def test_rejection() -> None:
    chip, ortho = Chip(0, Window(0, 0, 10, 10)), scene()
    options = ChipOptions(chip_size=10, min_valid=0.5, min_labelled=0.2, keep_empty=0.0, **LABELS)

    def why(valid: int, *classes: int) -> str:
        return rejection(chip, ortho, Facts(valid, classes), (False, True), options)

    assert (why(49, 50, 50), why(50, 19, 0), why(50, 20, 0), why(50, 19, 1)) == ('data', 'labels', 'empty', '')
    assert rejection(chip, ortho, Facts(50), (), ChipOptions(chip_size=10)) == ''


def test_empty_chips_are_kept_by_chance() -> None:
    chips = chips_of(scene(2000, 2000), 0, ChipOptions(chip_size=20))
    facts = Facts(400, (400, 0))

    def kept(seed: int, share: float) -> set[Chip]:
        options = ChipOptions(chip_size=20, keep_empty=share, **LABELS, seed=seed)
        return {chip for chip in chips if not rejection(chip, scene(), facts, (False, True), options)}

    tenth = kept(0, 0.1)
    assert len(tenth) == pytest.approx(1000, abs=100)  # 10,000 draws: a standard deviation is 30
    assert tenth == kept(0, 0.1) <= kept(0, 0.3)
    assert tenth != kept(1, 0.1)


@pytest.mark.parametrize(
    ('option', 'value'),
    [
        ('chip_size', 0),
        ('stride', 65),
        ('min_valid', 1.1),
        ('keep_empty', -0.1),
        ('edge', 'crop'),
        ('compress', 'lzw'),
        ('res', 0.0),
        ('fractions', (0.7, 0.2)),
        ('fractions', (1.0,)),
        ('fractions', (0.5, 0.3, 0.3, -0.1)),
        ('gap', -1),
        ('min_labelled', 0.5),
    ],
)
def test_options_out_of_range(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f'^{option}: '):
        ChipOptions(**{'chip_size': 64, 'stride': 64, option: value})


def test_blocks_need_room_for_the_gap() -> None:
    with pytest.raises(ConfigurationError, match=r'^block_size: expected more than two chips \(128 pixels\)'):
        ChipOptions(chip_size=64, split='blocks', fractions=(0.5, 0.5), block_size=128)


def test_chances_are_even() -> None:
    chances = np.array([chip.chance(scene(), 0) for chip in chips_of(scene(1000, 1000), 0, ChipOptions(chip_size=10))])
    counts, _ = np.histogram(chances, bins=10, range=(0, 1))
    assert counts.sum() == 10_000
    assert np.abs(counts - 1000).max() < 150
