"""Labels burned into a GeoTIFF on the grid of a scene.

The file is written block by block: the memory is that of the labels and of one block, however large the scene is, and
no pixel depends on how the blocks are cut.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
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
from torchgeo_msssl.geo.labels.classes import BACKGROUND
from torchgeo_msssl.geo.labels.source import LabelSource
from torchgeo_msssl.geo.labels.vector import VectorLabels
from torchgeo_msssl.geo.open_datasets import block_cache
from torchgeo_msssl.geo.vector.burn import GeometryIndex
from torchgeo_msssl.geo.write import Colormap, GeoTIFFSpec, GeoTIFFWriter
from torchgeo_msssl.progress import progress_bar

#: Side of the blocks, a multiple of the tiles of the file.
_BLOCK = 1024
#: Side of the blocks when coverage is written, which has four bytes per class.
_SAMPLED_BLOCK = 512
#: Side of the pieces that are sampled at a time, or not at all where no geometry is.
_TILE = 64
#: Points along each side of a pixel at which coverage is sampled: as many as uint16 has bits.
SAMPLES = 16
#: Memory of GDAL's block cache, in bytes; its default is a share of the machine's.
_GDAL_CACHE = 64 * 2**20
_BACKGROUND_GREY = (224, 224, 224)


def write_mask(
    source: LabelSource,
    grid: PixelGrid,
    output: str | os.PathLike[str],
    boundary_ignore: int = 0,
    progress: bool = True,
) -> dict[int, int]:
    """Write labels as one band of uint8, with the names and colours of the classes.

    Args:
        source: The labels. Their ``ignore_index`` is declared as nodata.
        grid: Pixel grid of the mask.
        output: GeoTIFF to write. Its tag ``CLASS_NAMES`` holds the class names as a JSON list; the index is the value.
        boundary_ignore: Pixels on either side of the border between two classes that become unlabelled.
        progress: Whether to show a progress bar.

    Returns:
        Number of pixels of each value that occurs.

    Raises:
        ConfigurationError: If ``boundary_ignore`` is negative, or the source holds a value that is no class.
        OutputError: If the file cannot be written.
    """
    if boundary_ignore < 0:
        raise ConfigurationError(f'boundary_ignore: expected 0 pixels or more, got {boundary_ignore}.')
    counts = np.zeros(np.iinfo(np.uint8).max + 1, dtype=np.int64)

    def block(window: Window) -> NDArray[np.uint8]:
        mask = _burn(source, grid, window, boundary_ignore)
        np.add(counts, np.bincount(mask.ravel(), minlength=len(counts)), out=counts)
        return mask[None]

    spec = GeoTIFFSpec(
        count=1,
        dtype=np.uint8,
        band_names=['class'],
        nodata=source.ignore_index,
        categorical=True,
        colormap=_colors(source),
        tags=_software() | {'CLASS_NAMES': json.dumps(source.class_names)},
    )
    _write(GeoTIFFWriter(output, grid, spec), block, _BLOCK, progress)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def write_coverage(
    labels: VectorLabels, grid: PixelGrid, output: str | os.PathLike[str], progress: bool = True
) -> dict[str, float]:
    """Write which fraction of each pixel each class covers, one band of float32 per class.

    A background class that is not drawn has no band.

    Each pixel is sampled at :data:`SAMPLES`² points, so that fractions are multiples of 1/256 and exact to about
    1/32 where an edge runs through. Where classes overlap, the upper one covers: fractions add up to 1 at most.

    Args:
        labels: Polygons, or lines with a buffer. Pixels with their centre outside ``labels.extent`` become NaN.
        grid: Pixel grid of the file.
        output: GeoTIFF to write; nodata is NaN.
        progress: Whether to show a progress bar.

    Returns:
        Area of each class, in pixels.

    Raises:
        ConfigurationError: If there are lines without a width.
        OutputError: If the file cannot be written.
    """
    if labels.lines:
        msg = f'coverage: {labels.files[0]} holds {labels.lines} lines, which cover no ground; give half their width '
        raise ConfigurationError(msg + 'in metres with buffer.')
    drawn = set(np.unique(labels.geometries.values).tolist())
    names = {
        value: name
        for value, name in enumerate(labels.class_names)
        if value in drawn or value != labels.classes.background
    }
    totals = dict.fromkeys(names.values(), 0.0)

    def block(window: Window) -> NDArray[np.float32]:
        fractions = sample_coverage(labels.geometries, grid, window, list(names))
        if labels.extent is not None:
            fractions[:, labels.extent.burn(grid, window) == 0] = np.nan
        for name, band in zip(names.values(), fractions, strict=True):
            totals[name] += float(np.nansum(band, dtype=np.float64))
        return fractions

    spec = GeoTIFFSpec(
        count=len(names),
        dtype=np.float32,
        band_names=list(names.values()),
        nodata=float('nan'),
        tags=_software() | {'UNIT': 'fraction of the pixel'},
    )
    _write(GeoTIFFWriter(output, grid, spec), block, _SAMPLED_BLOCK, progress)
    return totals


def sample_coverage(
    index: GeometryIndex, grid: PixelGrid, window: Window, values: Sequence[int]
) -> NDArray[np.float32]:
    """Sample which fraction of each pixel the geometries of each value cover.

    Args:
        index: The geometries; upper ones hide lower ones.
        grid: Pixel grid.
        window: Window on it.
        values: Values to look for, at most 255.

    Returns:
        Fractions, shape (value, height, width).
    """
    fractions = np.zeros((len(values), window.height, window.width), dtype=np.float32)
    for tile in _blocks(window, _TILE):
        if index.touches(grid.cut(tile)):
            row, col = tile.row - window.row, tile.col - window.col
            fractions[:, row : row + tile.height, col : col + tile.width] = _sample_tile(index, grid, tile, values)
    return fractions


def _sample_tile(index: GeometryIndex, grid: PixelGrid, window: Window, values: Sequence[int]) -> NDArray[np.float32]:
    finer = PixelGrid(grid.crs, grid.transform @ Affine.scale(1 / SAMPLES), grid.height * SAMPLES, grid.width * SAMPLES)
    fine = Window(*(SAMPLES * side for side in (window.row, window.col, window.height, window.width)))
    unused = next(value for value in range(256) if value not in values)
    burned = index.burn(finer, fine, unused)
    fractions = []
    for value in values:
        # The samples of a row of a pixel become the bits of one number.
        bits = np.packbits(burned == value, axis=1).view(np.uint16)
        counts = np.bitwise_count(bits).reshape(window.height, SAMPLES, window.width).sum(axis=1, dtype=np.float32)
        fractions.append(counts / SAMPLES**2)
    return np.stack(fractions)


def ignore_borders(mask: NDArray[np.uint8], pixels: int, ignore_index: int) -> NDArray[np.uint8]:
    """Make the pixels next to the border between two classes unlabelled.

    Args:
        mask: Classes, shape (height, width).
        pixels: Pixels on either side, also diagonally; unlabelled pixels have no border.
        ignore_index: Value of unlabelled pixels.

    Returns:
        Shape (height, width).
    """
    if pixels == 0:
        return mask
    size = 2 * pixels + 1
    known = mask != ignore_index
    highest = ndimage.maximum_filter(np.where(known, mask, 0), size, mode='nearest')
    lowest = ndimage.minimum_filter(np.where(known, mask, np.iinfo(np.uint8).max), size, mode='nearest')
    return np.where(known & (highest != lowest), ignore_index, mask).astype(np.uint8)


def _burn(source: LabelSource, grid: PixelGrid, window: Window, margin: int) -> NDArray[np.uint8]:
    """Burn one block; pixels around it are burned too, so that borders are those of the whole mask."""
    wide = Window(window.row - margin, window.col - margin, window.height + 2 * margin, window.width + 2 * margin)
    wide = wide.intersection(grid.window) or window
    mask = ignore_borders(source.burn(grid, wide), margin, source.ignore_index)
    row, col = window.row - wide.row, window.col - wide.col
    return mask[row : row + window.height, col : col + window.width]


def _write(writer: GeoTIFFWriter, block: Callable[[Window], NDArray[Any]], side: int, progress: bool) -> None:
    windows = list(_blocks(writer.grid.window, side))
    bar = progress_bar(Path(writer.path).name, total=len(windows)) if progress else nullcontext()
    with block_cache(_GDAL_CACHE), writer, bar as advance:
        for done, window in enumerate(windows, start=1):
            writer.write(block(window), window)
            if advance is not None:
                advance(done, 0.0)


def _blocks(window: Window, side: int) -> Iterator[Window]:
    for row in range(window.row, window.row + window.height, side):
        for col in range(window.col, window.col + window.width, side):
            rest = Window(row, col, side, side).intersection(window)
            assert rest is not None, 'a block begins inside'
            yield rest


def _software() -> dict[str, str]:
    return {'SOFTWARE': f'torchgeo_msssl {torchgeo_msssl.__version__}'}


def _colors(source: LabelSource) -> Colormap:
    """Return grey for the background, transparent for unlabelled pixels, colour-blind safe colours for classes."""
    names = source.class_names
    grey = names.index(BACKGROUND) if BACKGROUND in names else 0 if source.background else None
    values = [value for value in range(len(names)) if value != grey]
    if len(values) < colormaps['okabe_ito'].N:
        chosen = colormaps['okabe_ito'](np.arange(1, 1 + len(values)))  # the first one is black
    else:
        chosen = colormaps['turbo'](np.linspace(0.05, 0.95, len(values)))
    colors: dict[int, tuple[int, int, int] | tuple[int, int, int, int]] = {}
    if grey is not None:
        colors[grey] = _BACKGROUND_GREY
    for value, (red, green, blue, _) in zip(values, np.rint(255 * chosen).astype(int).tolist(), strict=True):
        colors[value] = red, green, blue
    return colors | {source.ignore_index: (0, 0, 0, 0)}
