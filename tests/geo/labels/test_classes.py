"""Names and numbers become classes, and what is neither is refused."""

import json
import shlex
from typing import Any

import numpy as np
import pytest

from tests.geo.drawings import NAMES
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.labels.classes import ClassNames, resolve_classes
from torchgeo_msssl.geo.labels.columns import classes_of_column, classes_of_numbers, example_of_classes


def column(class_names: ClassNames, values: Any, background: bool | None = None) -> list[int]:
    """Classes of a column, with 255 for none."""
    classes, labelled = classes_of_column(resolve_classes(class_names, 255, background), values, 'here')
    assert (labelled == (classes != 255)).all()
    return classes.tolist()


@pytest.mark.parametrize(
    ('value', 'number'),
    [('vine', 1), (' vine ', 1), (1, 1), (1.0, 1), ('1', 1), (True, 1), (np.int64(2), 2), (255, 255)],
)
def test_classes_by_name_and_by_number(value: Any, number: int) -> None:
    assert column(NAMES, [value]) == [number]


@pytest.mark.parametrize('value', [3, -1, 1.5, 'Vine', '3', 'inf'])
def test_other_values_are_no_classes(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'^here: holds .* which the classes .* do not have'):
        column(NAMES, [value])


def test_a_mapping_renumbers_merges_and_leaves_out() -> None:
    classes = resolve_classes({'forest': 2, 'built': [8, 9], 'hops': 'HO'})
    assert (classes.names, classes.background) == (('forest', 'built', 'hops'), None)
    assert column({'forest': 2, 'built': [8, 9], 'hops': 'HO'}, ['2', 8, 9.0, ' HO ', 'VI', 3]) == [
        0,
        1,
        1,
        2,
        255,
        255,
    ]
    assert column({'vine': 4, 'other': '2', 'grass': 'grass'}, ['grass', 2, 2.0, '4']) == [2, 1, 1, 0]
    with pytest.raises(
        ConfigurationError, match=r'here: holds 3, hops, and none of the values of class_names \(4, 2\)'
    ):
        column({'vine': 4, 'other': '2'}, ['hops', 3])
    for values in (['vine', None], ['vine', ' ']):
        with pytest.raises(ConfigurationError, match='1 of 2 geometries have no class'):
            column({'vine': 'vine'}, values)


def test_background_becomes_class_0_unless_named() -> None:
    def names(class_names: ClassNames, background: bool | None) -> tuple[tuple[str, ...], int | None]:
        classes = resolve_classes(class_names, 255, background)
        return classes.names, classes.background

    assert names({'vine': 255}, True) == (('background', 'vine'), 0)
    assert names({'vine': 255, 'background': 0}, True) == (('vine', 'background'), 1)
    assert names({'vine': 255}, False) == names({'vine': 255}, None) == (('vine',), None)
    assert names(['vine'], True) == (('background', 'vine'), 0)
    assert names(['ground', 'vine'], True) == (('ground', 'vine'), 0)
    assert column({'vine': 'V'}, ['V', 'x'], background=True) == [1, 255]


def test_pixels_of_a_mapping() -> None:
    values = np.array([[0, 255, 8], [9, 2, 300]], dtype=np.int32)
    labelled = np.array([[True, True, True], [True, False, True]])
    classes, known = resolve_classes({'vine': 255, 'built': [9, 8, 300], 'forest': 2}).of_pixels(
        values, labelled, 'here'
    )
    assert known.tolist() == [[False, True, True], [True, False, True]]
    assert classes[known].tolist() == [0, 1, 1, 1]
    with pytest.raises(ConfigurationError, match=r'here is a raster, whose values are whole numbers, got 3, HO'):
        resolve_classes({'forest': 3, 'hops': 'HO'}).of_pixels(values, labelled, 'here')


@pytest.mark.parametrize(
    ('class_names', 'message'),
    [
        ({'vine': 1, 'grass': [2, '1']}, "the value 1 belongs to 'vine' and to 'grass'"),
        ({'vine': []}, 'the mapping of vine names no value'),
        ({}, 'names no value'),
        ([], 'expected different names, at least one'),
        (['vine', 'vine'], 'expected different names'),
        ([f'c{k}' for k in range(256)], 'ignore_index: expected 256 to 255'),
        ({f'c{k}': k for k in range(256)}, 'ignore_index: expected 256 to 255'),
    ],
)
def test_class_names_that_do_not_fit(class_names: ClassNames, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve_classes(class_names)


def test_numbers_are_used_as_they_are() -> None:
    assert classes_of_numbers([2.0, 0, np.nan, 255], 255, 'here').names == ('background', 'class_1', 'class_2')
    assert len(classes_of_numbers([254], 255, 'here').names) == 255
    for values in ([300], [-1], [1.5], ['1'], ['vine']):
        with pytest.raises(ConfigurationError, match=r'here holds no class numbers from 0 to 254; .*--class_names='):
            classes_of_numbers(values, 255, 'here')


def test_the_example_can_be_pasted() -> None:
    text = example_of_classes(['old grass', "vigneron's", '', None, 7.0])
    assert json.loads(shlex.split(text)[0]) == ['background', '7', 'old grass', "vigneron's"]


def test_names_are_compared_in_composed_form() -> None:
    composed, decomposed = 'for\u00eat', 'fore\u0302t'
    assert composed != decomposed
    classes = resolve_classes(['background', decomposed])
    assert classes.names == ('background', composed)
    found, labelled = classes_of_column(classes, [composed, decomposed, 'background'], 'a.gpkg')
    assert found.tolist() == [1, 1, 0]
    assert labelled.all()
    assert resolve_classes({'tree': decomposed}).values == {composed: 0}
    with pytest.raises(ConfigurationError, match='expected different names'):
        resolve_classes([composed, decomposed])
