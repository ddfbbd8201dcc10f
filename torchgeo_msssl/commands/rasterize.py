"""``rasterize``: labels as a mask on the grid of a scene."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torchgeo_msssl.commands.options import option, positional, read_options
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.labels.options import LabelSettings

if TYPE_CHECKING:
    from torchgeo_msssl.geo.grid import PixelGrid


@dataclass(frozen=True, kw_only=True)
class RasterizeOptions(LabelSettings):
    """Burn polygons and lines of any CRS into a mask on the grid of a scene.

    A pixel gets the class of the geometry that contains its centre. Without --column, all geometries are of one class,
    1, and ground without a geometry is the background, 0. Masks of another grid or with other values are converted too.

    Attributes:
        labels: GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet file, or a mask raster.
        like: Scene whose CRS, transform and size the mask gets.
        output: GeoTIFF to write. Its tag CLASS_NAMES lists the class names.
        ignore_index: Value of unlabelled pixels, declared as nodata.
        boundary_ignore: Pixels on either side of the border between two classes that become unlabelled.
        coverage: Write the fraction of each pixel that each class covers, one float32 band per class, instead of a
            mask. Requires vectors.
        overwrite: Replace an existing output.
    """

    labels: str = positional('LABELS')
    like: str = option(metavar='SCENE')
    output: str = option(metavar='MASK.tif')
    ignore_index: int = 255
    boundary_ignore: int = 0
    coverage: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the range of values, and options that exclude each other."""
        if not 0 <= self.ignore_index <= 255:
            raise ConfigurationError(f'ignore_index: expected 0 to 255, which uint8 can hold, got {self.ignore_index}.')
        for name in ('all_touched', 'boundary_ignore'):
            if self.coverage and getattr(self, name):
                raise ConfigurationError(f'coverage: writes fractions, to which {name} does not apply; leave one out.')


def run(arguments: Sequence[str]) -> int:
    """Write a mask.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If an input is missing or does not fit the others, or the mask cannot be written.
    """
    options = read_options(RasterizeOptions, 'rasterize', arguments)
    _check_output(options)
    from torchgeo_msssl.geo.labels.open import open_labels
    from torchgeo_msssl.geo.labels.source import check_overlap
    from torchgeo_msssl.geo.labels.vector import VectorLabels
    from torchgeo_msssl.geo.rasterize import write_coverage, write_mask

    grid = _grid(options.like)
    if options.coverage:
        labels = VectorLabels(options.labels, options, options.ignore_index)
        check_overlap(labels, options.like, grid)
        print(f'Read {labels.describe()}')
        for name, area in write_coverage(labels, grid, options.output).items():
            print(f'  {name}: covers {area:,.1f} pixels, {area / (grid.height * grid.width):.2%}')
    else:
        source = open_labels(options.labels, ignore_index=options.ignore_index, **options.arguments())
        check_overlap(source, options.like, grid)
        print(f'Read {source.describe()}')
        counts = write_mask(source, grid, options.output, options.boundary_ignore)
        for value, name in [*enumerate(source.class_names), (source.ignore_index, 'unlabelled')]:
            share = counts.get(value, 0) / (grid.height * grid.width)
            print(f'  {name} ({value}): {counts.get(value, 0):,} pixels, {share:.2%}')
    print(f'Wrote {options.output}')
    return 0


def _check_output(options: RasterizeOptions) -> None:
    output = Path(options.output)
    for given in (options.like, options.labels.partition('|')[0]):
        if output.exists() and Path(given).exists() and output.samefile(given):
            raise ConfigurationError(f'output: {output} is an input too; choose another path.')
    if output.exists() and not options.overwrite:
        raise ConfigurationError(f'output: {output} exists; add --overwrite to replace it.')
    if output.suffix.lower() not in ('.tif', '.tiff'):
        raise ConfigurationError(f'output: expected the path of a GeoTIFF (.tif), got {output}.')


def _grid(path: str) -> 'PixelGrid':
    from torchgeo_msssl.geo.headers import find_scenes

    scenes = find_scenes(path)
    if len(scenes) > 1:
        names = ', '.join(scene.name for scene in scenes)
        raise ConfigurationError(f'like: {path} holds {len(scenes)} scenes ({names}); name one of them.')
    return scenes[0].grid
