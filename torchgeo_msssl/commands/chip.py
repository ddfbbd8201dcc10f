"""``chip``: cut scenes into chips."""

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

from torchgeo_msssl.commands.options import option, positional, read_options
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.bad_scenes import BadSceneSettings, skipped_sentence
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.processes import available_cpus, start_server
from torchgeo_msssl.shards import ShardSettings

_EXAMPLE = (
    'chip scenes/*.tif --output chips --chip_size 256 --labels vines.gpkg --column kind \\\n'
    '      --class_names background,vine,grass --split blocks --block_size 2048'
)
#: Imported by worker processes while this one reads its options.
_WORKER_MODULES = ('torchgeo_msssl.geo.chipping.pixel_counts', 'pyarrow')


@dataclass(frozen=True, kw_only=True)
class ChipCommandOptions(ChipOptions, ShardSettings, BadSceneSettings):
    """Cut scenes into georeferenced chips that keep band names, data type, nodata and radiometry.

    Writes masks, a spatial split and a manifest too. Run the same command again to resume a run that was killed. After
    runs with --shard, the same command without it writes the manifest.

    Attributes:
        paths: Scenes: files, folders or quoted patterns.
        output: Folder to write into.
        num_workers: Number of processes. Default: number of CPUs.
        overwrite: Replace the chips that an earlier run wrote into the folder.
        dry_run: Print the number of chips and the disk space they would take, and write nothing.
        geojson: Write the footprints as chips.geojson too.
    """

    paths: list[str] = positional('SCENE')
    output: str = option(metavar='DIR')
    num_workers: int | None = None
    overwrite: bool = False
    dry_run: bool = False
    geojson: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.num_workers is not None and self.num_workers < 1:
            raise ConfigurationError(f'num_workers: expected at least 1, got {self.num_workers}.')
        ShardSettings.__post_init__(self)
        self._check_shard()

    def _check_shard(self) -> None:
        """Check that the other options suit a part of the chips."""
        reasons = {
            'overwrite': 'would remove the chips of other shards; remove the folder before',
            'dry_run': 'counts the chips of all shards',
            'geojson': 'is written by the run without --shard that follows',
            'virtual': 'writes no chips that shards could divide',
        }
        for name, reason in reasons.items():
            if self.shard is not None and getattr(self, name):
                raise ConfigurationError(f'{name}: {reason}; leave {name} or shard out.')


def run(arguments: Sequence[str]) -> int:
    """Cut scenes into chips.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status: 1 if a scene could not be read and the others were cut, unless such scenes are skipped.

    Raises:
        MSSSLError: If scenes, labels and options do not fit each other, or the folder cannot be written.
    """
    given = read_options(ChipCommandOptions, 'chip', arguments, example=_EXAMPLE)
    options = ChipOptions(**{field.name: getattr(given, field.name) for field in fields(ChipOptions)})
    # no matrices are multiplied, and idle threads of OpenBLAS spin on CPUs that the workers need
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    num_workers = given.num_workers or available_cpus()
    if num_workers > 1:
        start_server(_WORKER_MODULES)
    # imported here, so that --help and errors in the options come at once, while worker processes start
    from torchgeo_msssl.geo.chipping.run import chip_scenes

    try:
        report = chip_scenes(
            given.paths,
            given.output,
            options,
            num_workers=num_workers,
            overwrite=given.overwrite,
            dry_run=given.dry_run,
            geojson=given.geojson,
            shard=given.own_shard,
        )
    except KeyboardInterrupt:
        print('\nStopped. Run the same command again to resume.', file=sys.stderr)
        return 130
    # the process ends: collecting garbage would take longer than the end itself
    atexit.register(gc.freeze)
    for line in report.lines(given.output, given.dry_run):
        print(line)
    skip = given.on_bad_scene == 'skip'
    for sentence in report.failed.values():
        print(f'Skipped: {sentence}' if skip else f'error: {sentence}', file=sys.stderr)
    if report.failed and skip:
        print(skipped_sentence(len(report.failed), report.scenes))
    return 1 if report.failed and not skip else 0
