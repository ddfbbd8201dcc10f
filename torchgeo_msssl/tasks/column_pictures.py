"""Pictures of chips with other images of them, in columns with titles."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.transforms.pictures import contact_sheet

#: Largest number of chips in a picture.
CHIPS_SHOWN = 8
_SEPARATOR = 2
#: Approximate height and width of a chip in the picture.
_SIDE = 160


def draw_columns(
    path: Path,
    titles: Sequence[str],
    images: Sequence[Tensor],
    valid: Sequence[Tensor | None],
    rgb_index: Sequence[int],
    rows: int = CHIPS_SHOWN,
    note: str = '',
) -> None:
    """Draw one row per chip: the chip and other images of it, in columns with titles.

    Args:
        path: PNG to write.
        titles: Title of each column.
        images: One per column, in reflectance, (batch, band, height, width) each; the first one determines the stretch.
        valid: Valid pixels of each, (batch, 1, height, width), bool; others are gray. None for all.
        rgb_index: Bands drawn red, green and blue, or one band drawn in gray.
        rows: Largest number of chips drawn.
        note: Remark below the picture's upper edge.

    Raises:
        BandError: If the images lack a band.
        OutputError: If the file cannot be written.
    """
    zoom = max(1, _SIDE // max(max(image.shape[-2:]) for image in images))
    sheet = contact_sheet(images[0], images[1:], rgb_index, valid[0], valid[1:], rows, zoom, _SEPARATOR)
    width = (sheet.shape[1] + _SEPARATOR) / len(images)
    dpi, title = 100, 45 if note else 30
    figure = Figure(figsize=(sheet.shape[1] / dpi, (sheet.shape[0] + title) / dpi), dpi=dpi)
    axes = figure.add_axes((0, 0, 1, sheet.shape[0] / (sheet.shape[0] + title)))
    axes.imshow(sheet, interpolation='nearest', aspect='auto')
    axes.set_axis_off()
    for column, text in enumerate(titles):
        axes.text((column + 0.5) * width, -8, text, ha='center', fontsize=8)
    axes.text(0, -26, note, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
