"""Styles of class maps: colours that differ, names that QGIS shows."""

from pathlib import Path

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.prediction.qgis_style import class_colors, write_qml


def test_colors_differ_and_backgrounds_are_grey() -> None:
    colors = class_colors(['Background', *(f'{number}' for number in range(40))])
    assert colors[0] == (224, 224, 224)
    assert len(set(colors.values())) == 41
    assert all(0 <= value <= 255 for color in colors.values() for value in color)


def test_styles_name_every_class(tmp_path: Path) -> None:
    style = write_qml(tmp_path / 'map.tif', ['a & b', 'c'], {0: (1, 2, 3), 1: (255, 0, 16)})
    assert style == tmp_path / 'map.qml'
    assert 'color="#010203" label="a &amp; b"' in style.read_text()
    with pytest.raises(ConfigurationError, match='got none for c'):
        write_qml(tmp_path / 'map.tif', ['a', 'c'], {0: (1, 2, 3)})
