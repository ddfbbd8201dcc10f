"""Names and numbers become values, and what is neither is refused."""

import shlex
from typing import Any

import numpy as np
import pytest

from tests.geo.drawings import NAMES
from torchgeo_msssl.errors import (
    ConfigurationError,
)
from torchgeo_msssl.geo.labels.classes import (
    class_values,
    example_of_classes,
    mapped_values,
    names_by_value,
    parse_classes,
)


@pytest.mark.parametrize(
    ('value', 'number'),
    [('vine', 1), (' vine ', 1), (1, 1), (1.0, 1), ('1', 1), (True, 1), (np.int64(2), 2)],
)
def test_classes_by_name_and_by_number(value: Any, number: int) -> None:
    assert class_values([value], NAMES, 'here').tolist() == [number]


@pytest.mark.parametrize('value', [3, -1, 1.5, 'Vine', '3', 'inf'])
def test_other_values_are_no_classes(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'^here: holds .* which the classes .* do not have'):
        class_values([value], NAMES, 'here')


def test_classes_are_read_as_they_are_written() -> None:
    assert parse_classes('vine=1, old grass = 2,a=b=0') == {'vine': 1, 'old grass': 2, 'a=b': 0}
    for text in ('vine', 'vine=', '=1', 'vine=256', 'vine=-1', 'vine=1.5', 'vine=1,', ''):
        with pytest.raises(ConfigurationError, match='classes: expected name=value'):
            parse_classes(text)
    assert parse_classes('vine=70000', most=70000) == {'vine': 70000}
    with pytest.raises(ConfigurationError, match='values from 0 to 300, such as vine=1'):
        parse_classes('vine=301', most=300)
    with pytest.raises(ConfigurationError, match="classes: 'vine' is named twice"):
        parse_classes('vine=1,vine=2')


def test_values_of_a_column_are_those_given_to_its_names() -> None:
    classes = {'vine': 4, '2': 9, 'grass': 4}
    assert mapped_values(['vine', 2, 2.0, ' grass ', '2'], classes, 'here').tolist() == [4, 9, 9, 4, 9]
    with pytest.raises(ConfigurationError, match=r'here: holds 3, hops, which classes \(vine, 2, grass\)'):
        mapped_values(['vine', 'hops', 3], classes, 'here')
    with pytest.raises(ConfigurationError, match='1 of 2 geometries have no class'):
        mapped_values(['vine', None], classes, 'here')
    with pytest.raises(ConfigurationError, match='2 of 3 geometries have no class'):
        mapped_values(['vine', '', ' '], classes, 'here')
    assert names_by_value(classes) == {4: 'vine+grass', 9: '2'}


def test_the_example_can_be_pasted() -> None:
    column = ['old grass', "vigneron's", '', None, 7.0]
    (text,) = shlex.split(example_of_classes(column))
    assert parse_classes(text) == {'7': 1, 'old grass': 2, "vigneron's": 3}
