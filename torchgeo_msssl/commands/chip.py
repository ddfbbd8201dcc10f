"""``chip``: scenes cut into chips for training."""

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.chipping.options import COMPRESSIONS, EDGES, ChipOptions, LabelOptions
from torchgeo_msssl.geo.chipping.workers import start_server
from torchgeo_msssl.processes import available_cpus

_EXAMPLE = """\
example:
  chip scenes/*.tif --output chips --size 256 --labels vines.gpkg --column kind --class_names background,vine,grass \\
       --split blocks --block-size 2048
"""


def run(arguments: Sequence[str]) -> int:
    """Cut scenes into chips.

    Args:
        arguments: What follows the command's name.

    Returns:
        Exit status: 1 where a scene could not be read and the others are done.

    Raises:
        MSSSLError: If scenes, labels and options do not fit each other, or the folder cannot be written.
    """
    given = _parser().parse_args(arguments)
    options = _options(given)
    # nothing is multiplied here; its threads, which wait for work in a loop, take processors from those who have some
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    workers = available_cpus() if given.workers is None else given.workers
    if workers > 1:
        start_server()
    # imported here: --help and mistakes in the options are told at once, and processes are being prepared meanwhile
    from torchgeo_msssl.geo.chipping.run import chip_scenes

    try:
        report = chip_scenes(
            given.scenes, given.output, options, workers=workers, overwrite=given.overwrite,
            dry_run=given.dry_run, geojson=given.geojson,
        )  # fmt: skip
    except KeyboardInterrupt:
        print('\nStopped; the same command goes on from here.', file=sys.stderr)
        return 130
    # what there is now lives to the end, and to look for garbage in it takes longer than to end
    atexit.register(gc.freeze)
    for line in report.lines(given.output, given.dry_run):
        print(line)
    for sentence in report.failed.values():
        print(f'error: {sentence}', file=sys.stderr)
    return 1 if report.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m torchgeo_msssl chip', epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Cut scenes into georeferenced chips that keep band names, type, nodata and radiometry, with '
        'masks,\nspatial splits and a manifest. A killed run goes on with the same command.',
    )  # fmt: skip
    add = parser.add_argument
    add('scenes', nargs='+', metavar='SCENE', help='files, folders or quoted patterns')
    add('--output', required=True, metavar='DIR', help='folder to write into')
    add('--size', type=int, default=512, metavar='PIXELS', help='side of a chip (default: 512)')
    step = parser.add_mutually_exclusive_group()
    step.add_argument('--stride', type=int, metavar='PIXELS', help='from one chip to the next (default: the size)')
    step.add_argument('--overlap', type=int, metavar='PIXELS', help='that neighbours share (default: 0)')
    add('--edge', choices=EDGES, default='pad', help='at the border: fill up with nodata, move inwards, or leave out')
    add('--bands', type=_names, default=(), metavar='B02,B03', help='bands to write (default: all)')
    add('--sensor', help='names of unnamed bands (default: found from the files)')
    add('--crs', help='bring the scenes to this CRS, for example EPSG:32631')
    add('--res', type=float, help='bring the scenes to this pixel size, in units of the CRS')
    add('--min-valid', type=float, default=0.5, metavar='SHARE', help='of pixels with data (default: 0.5)')
    _add_labels(parser)
    _add_split(parser)
    _add_writing(parser)
    return parser


def _add_labels(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group('labels').add_argument
    add('--labels', nargs='+', default=(), metavar='PATH', help='mask rasters, or vector files')
    add(
        '--class-names', '--class_names', metavar='NAMES', help='list of names, or mapping such as forest=2,built=[8,9]'
    )
    add('--column', metavar='NAME', help='vectors: column with the class; without it every geometry is of one class')
    add('--layer', metavar='NAME', help='vectors: layer; needed where there are several')
    add('--buffer', type=float, metavar='METRES', help='vectors: widen lines and points to each side')
    add('--background', choices=('true', 'false'), help='whether ground without a label is background')
    add('--extent', metavar='VECTOR', help='polygons of the surveyed ground; outside of it pixels are unlabelled')
    add('--priority', type=_names, default=(), metavar='NAME,…', help='vectors: classes on top, the uppermost first')
    add('--all-touched', '--all_touched', action='store_true', help='vectors: burn every pixel that is touched')
    add('--min-labelled', type=float, default=0.0, metavar='SHARE', help='of pixels with label and data (default: 0)')
    add('--keep-empty', type=float, default=1.0, metavar='SHARE', help='of chips with background only (default: 1)')


def _add_split(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group('split').add_argument
    add(
        '--split',
        metavar='blocks|scenes|FILE',
        help='divide the ground by blocks, by whole scenes, or as in a file of '
        'polygons with a column split, such as an earlier split.geojson (default: no split)',
    )
    add(
        '--fractions',
        type=_shares,
        default=(0.7, 0.15, 0.15),
        metavar='0.7,0.15,0.15',
        help='of the ground for train, val and test (default: 0.7,0.15,0.15)',
    )
    add(
        '--block-size',
        '--block_size',
        type=int,
        default=2048,
        metavar='PIXELS',
        help='side of a block of ground in pixels of the first scene (default: 2048)',
    )
    add('--gap', type=int, metavar='PIXELS', help='between chips of different parts (default: the size)')
    add('--seed', type=int, default=0, help='of the split and of --keep-empty (default: 0)')


def _add_writing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group('writing').add_argument
    add('--compress', choices=COMPRESSIONS, default='zstd', help='default: zstd')
    add('--virtual', action='store_true', help='write the manifest alone; chips are then read from the scenes')
    add('--workers', type=int, help='processes (default: all processors)')
    add('--overwrite', action='store_true', help='replace chips that an earlier run wrote into the folder')
    add('--dry-run', action='store_true', help='tell the counts and the disk they would take, and write nothing')
    add('--geojson', action='store_true', help='write chips.geojson too')


def _options(given: argparse.Namespace) -> ChipOptions:
    stride = given.stride if given.stride is not None else given.size - (given.overlap or 0)
    if given.overlap is not None and not 0 <= given.overlap < given.size:
        raise ConfigurationError(f'overlap: expected 0 to {given.size - 1} pixels, got {given.overlap}.')
    return ChipOptions(
        size=given.size, stride=stride, bands=given.bands, sensor=given.sensor, labels=_labels(given),
        min_valid=given.min_valid, min_labelled=given.min_labelled, keep_empty=given.keep_empty, edge=given.edge,
        crs=given.crs, res=given.res, split=given.split, fractions=given.fractions, block_size=given.block_size,
        gap=given.gap, seed=given.seed,
        compress=given.compress, virtual=given.virtual,
    )  # fmt: skip


def _labels(given: argparse.Namespace) -> LabelOptions | None:
    if not given.labels:
        for option in ('class_names', 'column', 'layer', 'background', 'extent', 'buffer', 'priority', 'all_touched'):
            if getattr(given, option):
                raise ConfigurationError(f'{option}: requires labels; give them with --labels.')
        return None
    # imported here: it takes long, and is for labels alone
    from torchgeo_msssl.geo.labels.classes import parse_class_names

    return LabelOptions(
        tuple(given.labels),
        parse_class_names(given.class_names) if given.class_names else None,
        given.column,
        given.layer,
        given.buffer or 0.0,
        None if given.background is None else given.background == 'true',
        given.extent,
        given.priority,
        given.all_touched,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(',') if name.strip())


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(share) for share in text.split(','))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'expected shares such as 0.7,0.15,0.15, got {text!r}') from error
