"""``rasterize``: polygons and lines as a mask on the grid of a scene."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.labels.classes import names_by_value, parse_classes
from torchgeo_msssl.geo.labels.vector import no_place_in_common
from torchgeo_msssl.geo.rasterize import MaskOptions, write_coverage, write_mask
from torchgeo_msssl.geo.vector.burn import GeometryIndex, read_extent
from torchgeo_msssl.geo.vector.drawing import Drawing, read_drawing
from torchgeo_msssl.geo.vector.files import split_layer

#: Options that say nothing about fractions, with the values they have when they are not given.
_MASK_ONLY = {'all_touched': False, 'boundary_ignore': 0, 'background': 0, 'ignore': 255}


def run(arguments: Sequence[str]) -> int:
    """Write a mask.

    Args:
        arguments: What follows the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If an input is missing or does not fit the others, or the mask cannot be written.
    """
    options = _parser().parse_args(arguments)
    _check(options)
    grid = _grid(options.like)
    drawing = read_drawing(
        options.vector, layer=options.layer, column=options.column,
        classes=parse_classes(options.classes) if options.classes else None, buffer=options.buffer,
        priority=[name.strip() for name in options.priority.split(',')] if options.priority else (),
    )  # fmt: skip
    _check_place(drawing.path, drawing.geometries, options.like, grid)
    extent = read_extent(options.extent, options.vector, 'extent') if options.extent else None
    if extent is not None:
        _check_place(options.extent, extent, options.like, grid)
    print(
        f'Read {drawing.read:,} geometries of {drawing.path}: {drawing.repaired:,} were invalid and repaired, '
        f'{drawing.dropped:,} empty and dropped.'
    )
    if options.coverage:
        totals = write_coverage(drawing, grid, options.output, extent)
        _tell_coverage(drawing, grid, totals)
    else:
        values = MaskOptions(options.background, options.ignore, options.boundary_ignore, options.all_touched)
        counts = write_mask(drawing, grid, options.output, values, extent)
        _tell_pixels(drawing, values, counts)
    print(f'Wrote {options.output}')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m torchgeo_msssl rasterize',
        description='Burn polygons and lines of any CRS into a mask on the grid of a scene, block by block. A pixel '
        'takes the class of the geometry that holds its centre.',
    )
    add = parser.add_argument
    add('vector', metavar='VECTOR', help='GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet')
    add('--like', metavar='SCENE', required=True, help='scene whose CRS, transform and size the mask gets')
    add('--output', metavar='MASK.tif', required=True, help='GeoTIFF to write')
    add('--layer', metavar='NAME', help='layer of the vector file; needed where there are several')
    add('--column', metavar='NAME', help='column with the class; without it every geometry is of one class')
    add('--classes', metavar='NAME=VALUE,…', help='value of each class, 0 to 255; without --column one (default: 1)')
    add('--buffer', type=float, default=0.0, metavar='METRES', help='widen lines (flat ends) and points to each side')
    add('--priority', metavar='NAME,…', help='classes that lie on top of the others, the uppermost first')
    add('--all-touched', action='store_true', help='burn every pixel that is touched')
    add('--coverage', action='store_true', help='write the fraction of each pixel covered, a float32 band a class')
    add('--background', type=int, default=0, metavar='VALUE', help='value where nothing is drawn (default: 0)')
    add(
        '--ignore', type=int, default=255, metavar='VALUE', help='value of what is not to be learnt from (default: 255)'
    )
    add('--extent', metavar='VECTOR', help='polygons of the surveyed ground; outside of it pixels are ignored')
    add('--boundary-ignore', type=int, default=0, metavar='PIXELS', help='ignore so many pixels beside each border')
    add('--overwrite', action='store_true', help='replace the output if it is there')
    return parser


def _check(options: argparse.Namespace) -> None:
    output = Path(options.output)
    for given in (options.like, split_layer(options.vector)[0]):
        if output.exists() and Path(given).exists() and output.samefile(given):
            raise ConfigurationError(f'output: {output} is an input too; choose another path.')
    if output.exists() and not options.overwrite:
        raise ConfigurationError(f'output: {output} is there already; add --overwrite to replace it.')
    if output.suffix.lower() not in ('.tif', '.tiff'):
        raise ConfigurationError(f'output: expected the path of a GeoTIFF (.tif), got {output}.')
    for option, usual in _MASK_ONLY.items():
        if options.coverage and getattr(options, option) != usual:
            raise ConfigurationError(f'coverage: writes fractions, to which {option} does not apply; leave one out.')


def _grid(path: str) -> PixelGrid:
    scenes = find_scenes(path)
    if len(scenes) > 1:
        names = ', '.join(scene.name for scene in scenes)
        raise ConfigurationError(f'like: {path} holds {len(scenes)} scenes ({names}); name one of them.')
    return scenes[0].grid


def _check_place(path: str, geometries: GeometryIndex, like: str, grid: PixelGrid) -> None:
    if not geometries.touches(grid):
        raise no_place_in_common(path, geometries.bounds, geometries.crs, like, grid)


def _tell_pixels(drawing: Drawing, values: MaskOptions, counts: dict[int, int]) -> None:
    names = {values.background: 'background', values.ignore: 'ignored'}
    names |= names_by_value(drawing.classes)
    total = sum(counts.values())
    for value, name in sorted(names.items()):
        count = counts.get(value, 0)
        print(f'  {name} ({value}): {count:,} pixels, {count / total:.2%}')


def _tell_coverage(drawing: Drawing, grid: PixelGrid, totals: dict[int, float]) -> None:
    for value, name in names_by_value(drawing.classes).items():
        share = totals[value] / (grid.height * grid.width)
        print(f'  {name}: covers as much as {totals[value]:,.1f} pixels, {share:.2%}')
