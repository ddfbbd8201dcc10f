"""``rasterize``: labels as masks on the grids of scenes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torchgeo_msssl.commands.options import option, positional, read_options
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.labels.options import LabelSettings
from torchgeo_msssl.shards import ShardSettings

if TYPE_CHECKING:
    from torchgeo_msssl.geo.labels.source import LabelSource
    from torchgeo_msssl.geo.scene import Scene


@dataclass(frozen=True, kw_only=True)
class RasterizeOptions(LabelSettings, ShardSettings):
    """Burn polygons and lines of any CRS into masks on the grids of scenes.

    A pixel gets the class of the geometry that contains its centre. Without --column, all geometries are of one class,
    1, and ground without a geometry is the background, 0. Masks of another grid or with other values are converted too.

    Attributes:
        labels: GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet file, or a mask raster.
        like: Scene whose CRS, transform and size the mask gets; scenes of a folder or quoted pattern get one mask each.
        output: GeoTIFF to write, or folder for one mask per scene, named like it. The tag CLASS_NAMES lists the class
            names.
        ignore_index: Value of unlabelled pixels, declared as nodata.
        boundary_ignore: Pixels on either side of the border between two classes that become unlabelled.
        coverage: Write the fraction of each pixel that each class covers, one float32 band per class, instead of a
            mask. Requires vectors.
        overwrite: Replace existing outputs.
    """

    labels: str = positional('LABELS')
    like: str = option(metavar='SCENE')
    output: str = option(metavar='MASK.tif|DIR')
    ignore_index: int = 255
    boundary_ignore: int = 0
    coverage: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the range of values, and options that exclude each other."""
        ShardSettings.__post_init__(self)
        if self.shard is not None and not self.is_folder:
            raise ConfigurationError(
                f'shard: {self.output} is one file, which one process writes; give a folder for the masks of several '
                'scenes, or leave shard out.'
            )
        if not 0 <= self.ignore_index <= 255:
            raise ConfigurationError(f'ignore_index: expected 0 to 255, which uint8 can hold, got {self.ignore_index}.')
        for name in ('all_touched', 'boundary_ignore'):
            if self.coverage and getattr(self, name):
                raise ConfigurationError(f'coverage: writes fractions, to which {name} does not apply; leave one out.')

    @property
    def is_folder(self) -> bool:
        """Whether the output is a folder."""
        return Path(self.output).suffix.lower() not in ('.tif', '.tiff')


def run(arguments: Sequence[str]) -> int:
    """Write masks.

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

    outputs = _outputs(options)
    source: LabelSource
    if options.coverage:
        source = VectorLabels(options.labels, options, options.ignore_index)
    else:
        source = open_labels(options.labels, ignore_index=options.ignore_index, **options.arguments())
    for scene, _ in outputs:  # before the first file is written
        check_overlap(source, scene.path, scene.grid)
    print(f'Read {source.describe()}')
    for scene, output in outputs:
        for line in _write(options, source, scene, output):
            print(line)
        print(f'Wrote {output}')
    if not outputs:
        print(f'There are fewer scenes than shards, and none for shard {options.shard}.')
    return 0


def _write(options: RasterizeOptions, source: 'LabelSource', scene: 'Scene', output: Path) -> list[str]:
    """Write one file, and return lines about its content."""
    from torchgeo_msssl.geo.labels.vector import VectorLabels
    from torchgeo_msssl.geo.rasterize import write_coverage, write_mask

    area = scene.grid.window.area
    if options.coverage:
        assert isinstance(source, VectorLabels)
        covered = write_coverage(source, scene.grid, output)
        return [f'  {name}: covers {pixels:,.1f} pixels, {pixels / area:.2%}' for name, pixels in covered.items()]
    counts = write_mask(source, scene.grid, output, options.boundary_ignore)
    return [
        f'  {name} ({value}): {counts.get(value, 0):,} pixels, {counts.get(value, 0) / area:.2%}'
        for value, name in [*enumerate(source.class_names), (source.ignore_index, 'unlabelled')]
    ]


def _check_output(options: RasterizeOptions) -> None:
    """Check the path of a single file, before the scenes are opened."""
    output = Path(options.output)
    if not options.is_folder:
        _check_free(output, [options.like, options.labels.partition('|')[0]], options.overwrite)
    elif (output.exists() or output.suffix) and not output.is_dir():
        raise ConfigurationError(f'output: expected the path of a GeoTIFF (.tif) or a folder, got {output}.')


def _check_free(output: Path, inputs: Sequence[str], overwrite: bool) -> None:
    for given in inputs:
        if output.exists() and Path(given).exists() and output.samefile(given):
            raise ConfigurationError(f'output: {output} is an input too; choose another path.')
    if output.exists() and not overwrite:
        raise ConfigurationError(f'output: {output} exists; add --overwrite to replace it.')


def _outputs(options: RasterizeOptions) -> list[tuple['Scene', Path]]:
    """Return each scene of this process with the file to write."""
    from torchgeo_msssl.geo.headers import find_scenes, own_scenes
    from torchgeo_msssl.geo.scene import check_names

    scenes = find_scenes(options.like)
    if not options.is_folder:
        if len(scenes) > 1:
            names = ', '.join(scene.name for scene in scenes)
            raise ConfigurationError(
                f'like: {options.like} holds {len(scenes)} scenes ({names}); name one of them, or give a folder as '
                'output.'
            )
        return [(scenes[0], Path(options.output))]
    check_names(scenes, '.tif', 'like')
    own = own_scenes(scenes, options.like, options.own_shard)
    outputs = [(scene, Path(options.output) / f'{scene.name}.tif') for scene in own]
    for scene, output in outputs:
        _check_free(output, [file.path for file in scene.files], options.overwrite)
    return outputs
