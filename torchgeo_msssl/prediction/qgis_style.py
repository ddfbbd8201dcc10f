"""Colors of classes and QGIS styles."""

import colorsys
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.files import atomic_path

__all__ = ('Colors', 'class_colors', 'write_qml')

type Colors = Mapping[int, tuple[int, int, int]]

#: Colors of Okabe and Ito, distinguishable by color-blind people (https://jfly.uni-koeln.de/color/).
_PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
#: Names of background classes, which are drawn in grey.
_BACKGROUND = frozenset({'background', 'other', 'none', 'rest'})
_LIGHT_GREY = (224, 224, 224)


def class_colors(names: Sequence[str]) -> dict[int, tuple[int, int, int]]:
    """Choose default colors for classes.

    Args:
        names: Names of the classes in order.

    Returns:
        ``(red, green, blue)`` in 0–255 for each class: light grey for the background, then colors that color-blind
        people can distinguish, then hues as far apart as possible.
    """
    colors, taken = {}, 0
    for index, name in enumerate(names):
        if name.strip().lower() in _BACKGROUND:
            colors[index] = _LIGHT_GREY
        else:
            colors[index] = _color(taken)
            taken += 1
    return colors


def _color(number: int) -> tuple[int, int, int]:
    if number < len(_PALETTE):
        return _PALETTE[number]
    # Steps of the golden ratio never coincide.
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.55 + 0.4 * (number % 2), 0.9 - 0.25 * (number % 3))
    return round(255 * red), round(255 * green), round(255 * blue)


def write_qml(path: str | os.PathLike[str], names: Sequence[str], colors: Colors) -> Path:
    """Write a QGIS style with the colors and names of classes, which QGIS loads together with the map.

    Args:
        path: The map; the style has the same name with the suffix ``.qml``.
        names: Names of the classes in order.
        colors: ``(red, green, blue)`` in 0–255 for each class.

    Returns:
        The path of the style.

    Raises:
        ConfigurationError: If a class has no color.
        OutputError: If the style cannot be written.
    """
    missing = [name for index, name in enumerate(names) if index not in colors]
    if missing:
        raise ConfigurationError(f'colors: expected one for each class, got none for {", ".join(missing)}.')
    root = ElementTree.Element('qgis', version='3.28', styleCategories='Symbology')
    pipe = ElementTree.SubElement(root, 'pipe')
    renderer = ElementTree.SubElement(pipe, 'rasterrenderer', type='paletted', band='1', opacity='1', alphaBand='-1')
    palette = ElementTree.SubElement(renderer, 'colorPalette')
    for index, name in enumerate(names):
        color = '#{:02x}{:02x}{:02x}'.format(*colors[index])
        ElementTree.SubElement(palette, 'paletteEntry', value=str(index), color=color, label=name, alpha='255')
    style = Path(path).with_suffix('.qml')
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding='unicode')
    with atomic_path(style) as temporary:
        temporary.write_text(f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{text}\n", encoding='utf-8')
    return style
