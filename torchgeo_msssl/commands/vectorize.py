"""``vectorize``: polygons and rows of plants from a class map."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torchgeo_msssl.commands.options import option, positional, read_options
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.vectorize.options import VectorizeOptions

if TYPE_CHECKING:
    from torchgeo_msssl.geo.vectorize.run import Vectorized


@dataclass(frozen=True, kw_only=True)
class VectorizeCommand(VectorizeOptions):
    """Convert a class map to polygons, and rows of plants to lines.

    Attributes:
        map: Raster with one band of integers.
        output: GeoPackage to write.
        overwrite: Replace an existing output.
    """

    map: str = positional('MAP.tif')
    output: str = option(metavar='VINES.gpkg')
    overwrite: bool = False


def run(arguments: Sequence[str]) -> int:
    """Write the polygons of a map.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If the map cannot be read, an option is out of its range, or the file cannot be written.
    """
    options = read_options(VectorizeCommand, 'vectorize', arguments)
    output = Path(options.output)
    if output.suffix.lower() != '.gpkg':
        raise ConfigurationError(f'output: expected the path of a GeoPackage (.gpkg), got {output}.')
    if output.exists() and not options.overwrite:
        raise ConfigurationError(f'output: {output} exists; add --overwrite to replace it.')
    from torchgeo_msssl.geo.vectorize.run import vectorize

    _print_summary(vectorize(options.map, output, options), options)
    print(f'Wrote {output}')
    return 0


def _print_summary(written: 'Vectorized', options: VectorizeOptions) -> None:
    for name, count in written.polygons.items():
        print(f'  {name}: {count:,} polygons, {written.areas[name]:,.1f} m²')
    if not written.polygons:
        print('  no polygons: the map holds none of the classes')
    if written.small:
        print(f'  {written.small:,} areas smaller than {options.min_area:g} m² were left out')
    for name in written.left_out:
        print(f'  class {name} was left out; name it in --class_names to include it')
    if 0 < options.simplify < written.corner:
        print(f'  --simplify {options.simplify:g} changed nothing: it removes corners from {written.corner:.3g} m on')
    if written.rows is not None:
        rows, length, gaps, missing = written.rows
        print(f'  {rows:,} rows, {length:,.1f} m, with {gaps:,} gaps of {missing:,.1f} m')
