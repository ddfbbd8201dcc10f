"""Class names that follow from the values of masks, and classes that hide behind the value of unlabelled pixels."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.labels.classes import resolve_classes
from torchgeo_msssl.geo.labels.open import open_labels
from torchgeo_msssl.geo.labels.values import MaskValues, check_foreground, name_values

Make = Callable[..., str]


def parts(*values: Iterable[float]) -> list[MaskValues]:
    return [MaskValues(f'{i}.tif', np.array(sorted(some))) for i, some in enumerate(values)]


@pytest.mark.parametrize(
    ('values', 'ignored', 'names'),
    [
        ([[0, 1]], 255, ['background', 'vines']),
        ([[0], [1, 255]], 255, ['background', 'vines']),
        ([[0, 255]], 255, {'background': 0, 'vines': 255}),  # the commonest binary mask
        ([[0, 100]], 255, {'background': 0, 'vines': 100}),
        ([[0, 1, -1]], -1, ['background', 'vines']),
        ([[0, 1, -1, 9]], [-1, 9], ['background', 'vines']),
        ([[0, 1], [3, 255]], 255, ['background', 'class_1', 'class_2', 'class_3']),
    ],
)
def test_names_follow_the_values(values: Any, ignored: Any, names: Any) -> None:
    assert name_values(parts(*values), 'vines', ignored) == names


@pytest.mark.parametrize('values', [[0], [0, 1, -1], [0.5, 1], [0, 1, 300], [], [0, 254, 255, 256]])
def test_values_that_are_no_classes_have_to_be_named(values: list[float]) -> None:
    with pytest.raises(ConfigurationError, match=r'class_names: name the values in 0\.tif .*set ignore_index'):
        name_values(parts(values), 'vines', 255)


@pytest.mark.parametrize(
    ('values', 'names', 'lost'),
    [
        ([[0, 255]], ['background', 'vine'], True),
        ([[0], [0, 255]], ['background', 'vine'], True),
        ([[0, 255], [1]], ['background', 'vine'], False),
        ([[0]], ['background', 'vine'], False),
        ([[255]], ['background', 'vine'], False),  # nothing is labelled, which is reported elsewhere
        ([[0, 2, 255]], ['background', 'vine', 'tree'], False),  # a class that is nowhere, and unlabelled ground
        ([[1, 255]], ['vine', 'background'], True),
        ([[0, 255]], {'background': 0, 'vine': 255}, False),
        ([[0, 255]], {'background': 0, 'vine': 1}, False),  # says that 255 is unlabelled
    ],
)
def test_a_class_behind_the_value_of_unlabelled_pixels(values: Any, names: Any, lost: bool) -> None:
    classes = resolve_classes(names)
    if not lost:
        check_foreground(parts(*values), classes, 'labels')
        return
    with pytest.raises(ConfigurationError, match=r'labels: no pixel of .*\.tif is vine, and some hold 255') as caught:
        check_foreground(parts(*values), classes, 'labels')
    assert '{background: 0, vine: 255}' in str(caught.value)


def test_masks_are_read_up_to_the_first_pixel_of_a_class() -> None:
    read = iter(parts([0], [1], [255]))
    check_foreground(read, resolve_classes(['background', 'vine']), 'labels')
    assert len(list(read)) == 1


@pytest.mark.parametrize('nodata', [None, 255])
def test_binary_masks_of_255(make_scene: Make, nodata: int | None) -> None:
    mask = np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((8, 8), np.uint8))
    path = make_scene('vines.tif', mask, nodata=nodata)
    with pytest.raises(ConfigurationError, match='some hold 255'):
        open_labels(path, ['background', 'vine'])
    if nodata is not None:
        return
    for names in (None, {'background': 0, 'vine': 255}):
        labels = open_labels(path, names)
        assert labels.class_names == ('background', 'vines' if names is None else 'vine')
        grid = _grid(labels)
        np.testing.assert_array_equal(labels.burn(grid, grid.window), mask // 255)


def test_masks_of_rasterize_name_their_classes(make_scene: Make) -> None:
    path = make_scene('mask.tif', np.zeros((8, 8), np.uint8), tags={'CLASS_NAMES': json.dumps(['soil', 'vine'])})
    assert open_labels(path).class_names == ('soil', 'vine')


def test_several_masks_are_named_after_their_folder(make_scene: Make) -> None:
    for i in range(2):
        path = make_scene(f'vines/{i}.tif', np.full((8, 8), i, np.uint8))
    assert open_labels(str(Path(path).parent)).class_names == ('background', 'vines')


@pytest.mark.parametrize(('ignored', 'value'), [((-1, -9), 255), ((-1, -9, 250), 250), ((255, -1, -9), 255)])
def test_codes_of_unlabelled_pixels(make_scene: Make, ignored: tuple[int, ...], value: int) -> None:
    mask = np.kron(np.array([[0, 1], [-1, -9]], np.int16), np.ones((8, 8), np.int16))
    path = make_scene('mask.tif', mask)
    labels = open_labels(path, ['water', 'land'], ignore_index=ignored)
    grid = _grid(labels)
    assert labels.ignore_index == value
    np.testing.assert_array_equal(labels.burn(grid, grid.window), np.where(mask < 0, value, mask))
    with pytest.raises(ConfigurationError, match=r'holds the value\(s\) -9, .* or set ignore_index to those'):
        open_labels(path, ['water', 'land'], ignore_index=-1).burn(grid, grid.window)


def _grid(labels: Any) -> PixelGrid:
    grid: PixelGrid = labels.rasters[0].grid
    return grid
