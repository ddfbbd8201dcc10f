"""Tiles of classes in memory."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.prediction.class_map import NODATA
from torchgeo_msssl.prediction.ground_map import ClassTiles


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_tiles_return_what_was_added(data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, 299), max_size=4)))
    classes = np.random.default_rng(len(cuts)).integers(0, 3, (300, 520)).astype(np.uint8)
    classes[:, :256][data.draw(st.integers(0, 300)) :] = NODATA
    tiles = ClassTiles()
    for first, end in zip([0, *cuts], [*cuts, 300], strict=True):
        tiles.add(first, classes[first:end])
    row, col = data.draw(st.integers(-20, 310)), data.draw(st.integers(-20, 530))
    height, width = data.draw(st.integers(1, 330)), data.draw(st.integers(1, 300))
    padded = np.pad(classes, 700, constant_values=NODATA)
    expected = padded[row + 700 : row + 700 + height, col + 700 : col + 700 + width]
    np.testing.assert_array_equal(tiles.read(Window(row, col, height, width)), expected)
