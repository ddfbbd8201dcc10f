"""``rasterize``: polygons and lines as a mask on the grid of a scene."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.labels.classes import parse_class_names
from torchgeo_msssl.geo.labels.source import check_overlap
from torchgeo_msssl.geo.labels.vector import VectorLabels
from torchgeo_msssl.geo.rasterize import write_coverage, write_mask
from torchgeo_msssl.geo.vector.files import split_layer


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
    labels = VectorLabels(
        options.labels,
        parse_class_names(options.class_names) if options.class_names else None,
        options.column,
        options.layer,
        options.buffer,
        None if options.background is None else options.background == 'true',
        options.extent,
        options.ignore_index,
        [name.strip() for name in options.priority.split(',')] if options.priority else (),
        options.all_touched,
    )
    check_overlap(labels, options.like, grid)
    print(
        f'Read {labels.read:,} geometries of {labels.files[0]}: {labels.repaired:,} were invalid and repaired, '
        f'{labels.dropped:,} empty and dropped.'
    )
    if options.coverage:
        _print_coverage(grid, write_coverage(labels, grid, options.output))
    else:
        _print_counts(labels, write_mask(labels, grid, options.output, options.boundary_ignore))
    print(f'Wrote {options.output}')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m torchgeo_msssl rasterize',
        description='Burn polygons and lines of any CRS into a mask on the grid of a scene, block by block. A pixel '
        'takes the class of the geometry that holds its centre.',
    )
    add = parser.add_argument
    add('labels', metavar='VECTOR', help='GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet')
    add('--like', metavar='SCENE', required=True, help='scene whose CRS, transform and size the mask gets')
    add('--output', metavar='MASK.tif', required=True, help='GeoTIFF to write')
    add(
        '--class-names', '--class_names', metavar='NAMES', help='list of names, or mapping such as forest=2,built=[8,9]'
    )
    add('--layer', metavar='NAME', help='layer of the vector file; needed where there are several')
    add('--column', metavar='NAME', help='column with the class; without it every geometry is of one class')
    add('--buffer', type=float, default=0.0, metavar='METRES', help='widen lines (flat ends) and points to each side')
    add('--priority', metavar='NAME,…', help='classes that lie on top of the others, the uppermost first')
    add('--all-touched', '--all_touched', action='store_true', help='burn every pixel that is touched')
    add('--coverage', action='store_true', help='write the fraction of each pixel covered, a float32 band per class')
    add('--background', choices=('true', 'false'), help='whether ground without a label is background')
    add('--ignore-index', '--ignore_index', type=int, default=255, help='value of unlabelled pixels (default: 255)')
    add('--extent', metavar='VECTOR', help='polygons of the surveyed ground; outside of it pixels are unlabelled')
    add('--boundary-ignore', '--boundary_ignore', type=int, default=0, metavar='PIXELS', help='ignore so many pixels')
    add('--overwrite', action='store_true', help='replace the output if it exists')
    return parser


def _check(options: argparse.Namespace) -> None:
    output = Path(options.output)
    for given in (options.like, split_layer(options.labels)[0]):
        if output.exists() and Path(given).exists() and output.samefile(given):
            raise ConfigurationError(f'output: {output} is an input too; choose another path.')
    if output.exists() and not options.overwrite:
        raise ConfigurationError(f'output: {output} exists; add --overwrite to replace it.')
    if output.suffix.lower() not in ('.tif', '.tiff'):
        raise ConfigurationError(f'output: expected the path of a GeoTIFF (.tif), got {output}.')
    for option in ('all_touched', 'boundary_ignore'):
        if options.coverage and getattr(options, option):
            raise ConfigurationError(f'coverage: writes fractions, to which {option} does not apply; leave one out.')


def _grid(path: str) -> PixelGrid:
    scenes = find_scenes(path)
    if len(scenes) > 1:
        names = ', '.join(scene.name for scene in scenes)
        raise ConfigurationError(f'like: {path} holds {len(scenes)} scenes ({names}); name one of them.')
    return scenes[0].grid


def _print_counts(labels: VectorLabels, counts: dict[int, int]) -> None:
    total = sum(counts.values())
    for value, name in [*enumerate(labels.class_names), (labels.ignore_index, 'unlabelled')]:
        count = counts.get(value, 0)
        print(f'  {name} ({value}): {count:,} pixels, {count / total:.2%}')


def _print_coverage(grid: PixelGrid, totals: dict[str, float]) -> None:
    for name, area in totals.items():
        print(f'  {name}: covers as much as {area:,.1f} pixels, {area / (grid.height * grid.width):.2%}')
