"""Columns become values, priorities an order, and what does not fit is named."""

from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import LineString, Polygon

from tests.geo.drawings import GRID, X, Y, save, square
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.vector.drawing import read_drawing


def test_without_a_column_all_is_one_class(tmp_path: Path) -> None:
    path = save(tmp_path / 'vines.gpkg', [square(0, 0, 4), LineString([(X, Y), (X + 3, Y - 3)])])
    drawing = read_drawing(path)
    assert (drawing.classes, drawing.geometries.values.tolist(), drawing.lines) == ({'vines': 1}, [1, 1], 1)
    assert read_drawing(path, classes={'vine': 5}, buffer=0.5).geometries.values.tolist() == [5, 5]
    with pytest.raises(ConfigurationError, match=r'column: .*2 classes \(vine, grass\).*its columns are none'):
        read_drawing(path, classes={'vine': 1, 'grass': 2})


def test_the_first_named_lies_on_top(tmp_path: Path) -> None:
    kinds = ['vine', 'grass', 'tree', 'vine']
    path = save(tmp_path / 'a.gpkg', [square(k, 0, 4) for k in range(4)], kind=kinds)
    classes = {'grass': 7, 'vine': 2, 'tree': 7 - 3}

    def on_top(*priority: str) -> int:
        index = read_drawing(path, column='kind', classes=classes, priority=priority).geometries
        return int(index.burn(GRID, GRID.window)[1, 7])  # 3.5 m from the left, where all four lie

    assert on_top() == 2  # the last of the file
    assert on_top('grass') == 7
    assert on_top('tree', 'grass') == 4
    assert on_top('grass', 'tree', 'vine') == 7
    for wrong in (['house'], ['vine', 'vine']):
        with pytest.raises(ConfigurationError, match=r'priority: expected different names of classes \(grass, vine'):
            on_top(*wrong)


def test_repairs_and_empties_are_counted(tmp_path: Path) -> None:
    bow_tie = Polygon([(X, Y), (X + 4, Y - 4), (X + 4, Y), (X, Y - 4)])
    path = save(tmp_path / 'a.geojson', [bow_tie, square(5, 5, 1), None, Polygon()])
    drawing = read_drawing(path)
    assert (drawing.read, drawing.repaired, drawing.dropped) == (4, 1, 2)
    assert len(drawing.geometries.geometries) == 3


def test_columns_and_classes_that_do_not_fit(tmp_path: Path) -> None:
    path = save(tmp_path / 'a.gpkg', [square(0, 0, 4)] * 3, kind=['vine', 'grass', 'vine'], age=np.array([3.0, 4, 3]))
    with pytest.raises(ConfigurationError, match=r"column: .* has no column 'sort'; it has kind, age"):
        read_drawing(path, column='sort', classes={'vine': 1})
    with pytest.raises(ConfigurationError, match=r"classes: .*column 'kind'.*--classes=grass=1,vine=2\."):
        read_drawing(path, column='kind')
    with pytest.raises(ConfigurationError, match=r'holds grass, which classes \(vine\) does not name'):
        read_drawing(path, column='kind', classes={'vine': 1})
    assert read_drawing(path, column='age', classes={'3': 9, '4': 1}).geometries.values.tolist() == [9, 1, 9]
