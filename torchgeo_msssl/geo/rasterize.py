"""A drawing burned into a GeoTIFF on the grid of a scene.

The file is written block by block, each from the geometries that meet it: the memory is that of the geometries and of
one block, however large the scene is, and no pixel depends on how the blocks are cut.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from rasterio.transform import Affine
from scipy import ndimage

import torchgeo_msssl
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid, Window
from torchgeo_msssl.geo.labels.classes import names_by_value
from torchgeo_msssl.geo.open_datasets import block_cache
from torchgeo_msssl.geo.vector.burn import GeometryIndex, set_outside
from torchgeo_msssl.geo.vector.drawing import Drawing
from torchgeo_msssl.geo.write import Colormap, GeoTIFFSpec, GeoTIFFWriter
from torchgeo_msssl.progress import progress_bar

#: Side of the blocks, a multiple of the tiles of the file.
_BLOCK = 1024
#: Side of the blocks when coverage is written, which has four bytes a class.
_SAMPLED_BLOCK = 512
#: Side of the pieces that are sampled at a time, or not at all where no geometry is.
_TILE = 64
#: Points along each side of a pixel at which coverage is sampled: as many as uint16 has bits.
SAMPLES = 16
#: Memory for blocks that GDAL keeps, in bytes; its default is a share of the machine's.
_GDAL_CACHE = 64 * 2**20
_BACKGROUND_GREY = (224, 224, 224)


@dataclass(frozen=True)
class MaskOptions:
    """What ground outside the geometries and at their edges becomes.

    Attributes:
        background: Value of pixels that no geometry takes.
        ignore: Value of pixels that are not to be learnt from; it is declared as nodata.
        boundary_ignore: Pixels to either side of the border between two values that become ``ignore``.
        all_touched: Burn every pixel that is touched, not those alone whose centre is inside.
    """

    background: int = 0
    ignore: int = 255
    boundary_ignore: int = 0
    all_touched: bool = False

    def check(self, classes: Mapping[str, int]) -> None:
        """Make sure that the values fit each other.

        Args:
            classes: Value of each class.

        Raises:
            ConfigurationError: If a value does not fit into uint8, a class has the value of what is ignored, or the
                border is negative.
        """
        for option, value in (('background', self.background), ('ignore', self.ignore)):
            if not 0 <= value <= np.iinfo(np.uint8).max:
                raise ConfigurationError(f'{option}: expected a value from 0 to 255 (uint8), got {value}.')
        ignored = [name for name, value in classes.items() if value == self.ignore]
        if ignored:
            msg = f'ignore: {self.ignore} is the value of the class {ignored[0]!r} too; give one of them another.'
            raise ConfigurationError(msg)
        if self.boundary_ignore < 0:
            raise ConfigurationError(f'boundary_ignore: expected 0 pixels or more, got {self.boundary_ignore}.')


def write_mask(
    drawing: Drawing,
    grid: PixelGrid,
    output: str | os.PathLike[str],
    options: MaskOptions | None = None,
    extent: GeometryIndex | None = None,
    progress: bool = True,
) -> dict[int, int]:
    """Write the classes of a drawing as one band of uint8, with their names and colours.

    Args:
        drawing: What is burned.
        grid: Pixel grid of the mask.
        output: GeoTIFF to write.
        options: Values of what is not drawn.
        extent: The surveyed ground; outside of it pixels are ``ignore``. None where all was surveyed.
        progress: Whether to show a progress bar.

    Returns:
        Number of pixels of each value that occurs.

    Raises:
        ConfigurationError: If the values do not fit each other.
        OutputError: If the file cannot be written.
    """
    options = options or MaskOptions()
    options.check(drawing.classes)
    counts = np.zeros(np.iinfo(np.uint8).max + 1, dtype=np.int64)

    def block(window: Window) -> NDArray[np.uint8]:
        mask = _burn(drawing, grid, window, options, extent)
        np.add(counts, np.bincount(mask.ravel(), minlength=len(counts)), out=counts)
        return mask[None]

    spec = GeoTIFFSpec(
        count=1,
        dtype=np.uint8,
        band_names=['class'],
        nodata=options.ignore,
        categorical=True,
        colormap=_colors(drawing.classes, options),
        tags=_tags(drawing.classes, options),
    )
    _write(GeoTIFFWriter(output, grid, spec), block, _BLOCK, progress)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def write_coverage(
    drawing: Drawing,
    grid: PixelGrid,
    output: str | os.PathLike[str],
    extent: GeometryIndex | None = None,
    progress: bool = True,
) -> dict[int, float]:
    """Write which fraction of each pixel a class covers, one band of float32 a class, in the order of their values.

    Each pixel is sampled at :data:`SAMPLES`² points, so that fractions are multiples of 1/256 and exact to about
    1/32 where an edge runs through. Where classes overlap, the upper one covers: fractions add up to 1 at most.

    Args:
        drawing: What is burned: polygons, or lines with a buffer.
        grid: Pixel grid of the file.
        output: GeoTIFF to write; nodata is NaN.
        extent: The surveyed ground; pixels with their centre outside are NaN. None where all was surveyed.
        progress: Whether to show a progress bar.

    Returns:
        Pixels' worth of each class value.

    Raises:
        ConfigurationError: If there are lines without a width.
        OutputError: If the file cannot be written.
    """
    if drawing.lines:
        msg = f'coverage: {drawing.path} holds {drawing.lines} lines, which cover no ground; give half their width '
        raise ConfigurationError(msg + 'in metres with buffer.')
    names = names_by_value(drawing.classes)
    values = list(names)
    totals = dict.fromkeys(values, 0.0)

    def block(window: Window) -> NDArray[np.float32]:
        fractions = covered(drawing.geometries, grid, window, values)
        if extent is not None:
            fractions[:, extent.burn(grid, window) == 0] = np.nan
        for value, band in zip(values, fractions, strict=True):
            totals[value] += float(np.nansum(band, dtype=np.float64))
        return fractions

    spec = GeoTIFFSpec(
        count=len(values),
        dtype=np.float32,
        band_names=list(names.values()),
        nodata=float('nan'),
        tags=_software() | {'UNIT': 'fraction of the pixel'},
    )
    _write(GeoTIFFWriter(output, grid, spec), block, _SAMPLED_BLOCK, progress)
    return totals


def covered(index: GeometryIndex, grid: PixelGrid, window: Window, values: list[int]) -> NDArray[np.float32]:
    """Sample which fraction of each pixel geometries of each value cover.

    Args:
        index: The geometries; upper ones hide lower ones.
        grid: Pixel grid.
        window: Window on it.
        values: The values wanted.

    Returns:
        Fractions, shape (value, height, width).
    """
    fractions = np.zeros((len(values), window.height, window.width), dtype=np.float32)
    for tile in _blocks(window, _TILE):
        if index.touches(grid.cut(tile)):
            row, col = tile.row - window.row, tile.col - window.col
            fractions[:, row : row + tile.height, col : col + tile.width] = _sampled(index, grid, tile, values)
    return fractions


def _sampled(index: GeometryIndex, grid: PixelGrid, window: Window, values: list[int]) -> NDArray[np.float32]:
    finer = PixelGrid(grid.crs, grid.transform @ Affine.scale(1 / SAMPLES), grid.height * SAMPLES, grid.width * SAMPLES)
    fine = Window(*(SAMPLES * side for side in (window.row, window.col, window.height, window.width)))
    # What no geometry covers holds a value that no class has, for a class may have the value 0.
    nothing = next(value for value in range(256) if value not in values)
    burned = index.burn(finer, fine, nothing)
    fractions = []
    for value in values:
        # The samples of a row of a pixel become the bits of one number.
        bits = np.packbits(burned == value, axis=1).view(np.uint16)
        counts = np.bitwise_count(bits).reshape(window.height, SAMPLES, window.width).sum(axis=1, dtype=np.float32)
        fractions.append(counts / SAMPLES**2)
    return np.stack(fractions)


def ignore_borders(mask: NDArray[np.uint8], pixels: int, ignore: int) -> NDArray[np.uint8]:
    """Take the pixels beside the border between two values out of what is learnt from.

    Args:
        mask: Values, shape (height, width).
        pixels: How many pixels to either side, also diagonally; what is ``ignore`` already has no border.
        ignore: Value of what is taken out.

    Returns:
        Shape (height, width).
    """
    if pixels == 0:
        return mask
    size = 2 * pixels + 1
    known = mask != ignore
    highest = ndimage.maximum_filter(np.where(known, mask, 0), size, mode='nearest')
    lowest = ndimage.minimum_filter(np.where(known, mask, np.iinfo(np.uint8).max), size, mode='nearest')
    return np.where(known & (highest != lowest), ignore, mask).astype(np.uint8)


def _burn(
    drawing: Drawing, grid: PixelGrid, window: Window, options: MaskOptions, extent: GeometryIndex | None
) -> NDArray[np.uint8]:
    """One block; for borders the pixels round it are looked at too, so that they are those of the whole mask."""
    margin = options.boundary_ignore
    wide = Window(window.row - margin, window.col - margin, window.height + 2 * margin, window.width + 2 * margin)
    wide = wide.intersection(grid.window) or window
    mask = drawing.geometries.burn(grid, wide, options.background, options.all_touched)
    mask = ignore_borders(set_outside(mask, extent, grid, wide, options.ignore), margin, options.ignore)
    row, col = window.row - wide.row, window.col - wide.col
    return mask[row : row + window.height, col : col + window.width]


def _write(writer: GeoTIFFWriter, block: Callable[[Window], NDArray[Any]], side: int, progress: bool) -> None:
    windows = list(_blocks(writer.grid.window, side))
    with block_cache(_GDAL_CACHE), writer:
        if not progress:
            for window in windows:
                writer.write(block(window), window)
            return
        with progress_bar(Path(writer.path).name, total=len(windows)) as advance:
            for done, window in enumerate(windows, start=1):
                writer.write(block(window), window)
                advance(done, 0.0)


def _blocks(window: Window, side: int) -> Iterator[Window]:
    for row in range(window.row, window.row + window.height, side):
        for col in range(window.col, window.col + window.width, side):
            rest = Window(row, col, side, side).intersection(window)
            assert rest is not None, 'a block begins inside'
            yield rest


def _tags(classes: Mapping[str, int], options: MaskOptions) -> dict[str, str]:
    """Names by value; a value that no pixel can have, or that is nodata, has an empty one."""
    known = {} if options.background == options.ignore else {options.background: 'background'}
    known |= names_by_value(classes)
    names = [known.get(value, '') for value in range(max(known) + 1)]
    return _software() | {'CLASS_NAMES': json.dumps(names)}


def _software() -> dict[str, str]:
    return {'SOFTWARE': f'torchgeo_msssl {torchgeo_msssl.__version__}'}


def _colors(classes: Mapping[str, int], options: MaskOptions) -> Colormap:
    """Grey for the background, nothing for what is ignored, colours that colour-blind people can tell apart."""
    values = sorted(set(classes.values()) - {options.background})
    if len(values) < colormaps['okabe_ito'].N:
        chosen = colormaps['okabe_ito'](np.arange(1, 1 + len(values)))  # the first one is black
    else:
        chosen = colormaps['turbo'](np.linspace(0.05, 0.95, len(values)))
    colors: dict[int, tuple[int, int, int] | tuple[int, int, int, int]] = {options.background: _BACKGROUND_GREY}
    for value, (red, green, blue, _) in zip(values, np.rint(255 * chosen).astype(int).tolist(), strict=True):
        colors[value] = red, green, blue
    return colors | {options.ignore: (0, 0, 0, 0)}
