"""``vectorize``: a map of classes as polygons and rows."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.labels.classes import parse_class_names
from torchgeo_msssl.geo.vectorize.run import Vectorized, VectorOptions, vectorize


def run(arguments: Sequence[str]) -> int:
    """Write the polygons of a map.

    Args:
        arguments: What follows the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If the map cannot be read, an option is out of its range, or the file cannot be written.
    """
    given = _parser().parse_args(arguments)
    output = Path(given.output)
    if output.suffix.lower() != '.gpkg':
        raise ConfigurationError(f'output: expected the path of a GeoPackage (.gpkg), got {output}.')
    if output.exists() and not given.overwrite:
        raise ConfigurationError(f'output: {output} is there already; add --overwrite to replace it.')
    options = VectorOptions(
        classes=_classes(given.class_names) if given.class_names else None,
        min_area=given.min_area, simplify=given.simplify, centrelines=given.centrelines, min_gap=given.min_gap,
        max_gap=given.max_gap,
    )  # fmt: skip
    _tell(vectorize(given.map, output, options), options)
    print(f'Wrote {output}')
    return 0


def _classes(text: str) -> dict[str, int]:
    given = parse_class_names(text)
    pairs = given.items() if isinstance(given, Mapping) else ((name, value) for value, name in enumerate(given))
    return {str(name): int(value) for name, value in pairs}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m torchgeo_msssl vectorize',
        description='Turn a map of classes into polygons, cut nowhere, and rows of plants into lines.',
    )
    add = parser.add_argument
    add('map', metavar='MAP.tif', help='raster with one band of whole numbers')
    add('--output', metavar='VINES.gpkg', required=True, help='GeoPackage to write')
    add(
        '--class-names',
        '--class_names',
        metavar='NAME=VALUE,…',
        help='only these (default: all but nodata and the background)',
    )
    add('--min-area', type=float, default=0.0, metavar='M2', help='leave out what is smaller, in m²')
    add('--simplify', type=float, default=0.0, metavar='METRES', help='take corners away, of shared edges together')
    add('--centrelines', action='store_true', help='write rows with their length and gaps as a second layer')
    add('--min-gap', type=float, default=0.5, metavar='METRES', help='shorter breaks are no gaps (default: 0.5)')
    add('--max-gap', type=float, default=5.0, metavar='METRES', help='longer breaks end a row (default: 5)')
    add('--overwrite', action='store_true', help='replace the output if it is there')
    return parser


def _tell(written: Vectorized, options: VectorOptions) -> None:
    for name, count in written.polygons.items():
        print(f'  {name}: {count:,} polygons, {written.areas[name]:,.1f} m²')
    if not written.polygons:
        print('  no polygons: the map holds none of the classes')
    if written.small:
        print(f'  {written.small:,} areas smaller than {options.min_area:g} m² were left out')
    for name in written.left_out:
        print(f'  class {name} was left out; name it in --class_names to have it')
    if 0 < options.simplify < written.corner:
        print(f'  --simplify {options.simplify:g} changed nothing: corners of pixels go from {written.corner:.3g} m on')
    if written.rows is not None:
        rows, length, gaps, missing = written.rows
        print(f'  {rows:,} rows, {length:,.1f} m, with {gaps:,} gaps of {missing:,.1f} m')
