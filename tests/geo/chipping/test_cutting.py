"""Tasks hold every chip once, and no block is decoded in two of them without need."""

from collections import Counter
from typing import Any

import pytest

from torchgeo_msssl.geo.chipping.cutting import tasks_of
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.chipping.plan import chips_of
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.scene import Scene


def scene(make_scene: Any, random_array: Any, **layout: Any) -> Scene:
    (found,) = find_scenes(make_scene('a.tif', random_array((1, 640, 640), 'uint8'), **layout))
    return found


def shared(found: Scene, tasks: list[Any], side: int) -> int:
    """Blocks that more than one task touches."""
    touched: Counter[Any] = Counter()
    height, width = (min(block, 640) for block in found.block_shape)
    for task in tasks:
        touched.update(
            {
                (row, col)
                for chip in task
                for row in range(chip.window.row // height, min(chip.window.row + side - 1, 639) // height + 1)
                for col in range(chip.window.col // width, min(chip.window.col + side - 1, 639) // width + 1)
            }
        )
    return sum(count > 1 for count in touched.values())


@pytest.mark.parametrize('workers', [1, 3])
@pytest.mark.parametrize(
    ('layout', 'side', 'most', 'whole_rows'),
    [
        ({'tiled': True, 'blockxsize': 32, 'blockysize': 32}, 32, 8, False),
        ({'tiled': True, 'blockxsize': 32, 'blockysize': 32}, 64, 8, False),
        ({'tiled': True, 'blockxsize': 32, 'blockysize': 32}, 48, 64 + 14, True),
        ({'tiled': True, 'blockxsize': 64, 'blockysize': 64}, 32, 64 + 20, True),
        ({'blockysize': 32}, 32, 20, True),
    ],
)
def test_tasks(
    make_scene: Any, random_array: Any, layout: Any, side: int, most: int, whole_rows: bool, workers: int
) -> None:
    found = scene(make_scene, random_array, **layout)
    chips = chips_of(found, 0, ChipOptions(chip_size=side))
    tasks = list(tasks_of(found, 1, chips, workers))
    assert sorted(chip for task in tasks for chip in task) == sorted(chips)
    assert max(map(len, tasks)) <= most
    if whole_rows:
        rows = [{chip.window.row for chip in task} for task in tasks]
        assert sum(map(len, rows)) == len(set().union(*rows))
    else:
        assert shared(found, tasks, side) == 0


def test_no_chips_are_no_task(make_scene: Any, random_array: Any) -> None:
    assert not list(tasks_of(scene(make_scene, random_array), 1, [], 2))
