"""``statistics``: measure the bands of scenes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from torchgeo_msssl.bands import get_sensor, infer_sensor
from torchgeo_msssl.commands.options import option, positional, read_options
from torchgeo_msssl.errors import ConfigurationError, SceneReadError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.bad_scenes import BadScenes, BadSceneSettings
from torchgeo_msssl.geo.band_choice import choose_bands, spectral_bands
from torchgeo_msssl.geo.band_statistics.file import statistics_content, unit_of, write_statistics
from torchgeo_msssl.geo.band_statistics.histograms import PERCENTILES
from torchgeo_msssl.geo.band_statistics.shards import (
    check_narrow,
    find_shards,
    identity,
    read_counts,
    shard_path,
    write_counts,
)
from torchgeo_msssl.geo.band_statistics.summary import (
    BandSummary,
    UnreadableScenesError,
    count_values_of,
    summarize_bands,
    summarize_counts,
)
from torchgeo_msssl.geo.headers import find_scenes, own_scenes
from torchgeo_msssl.geo.radiometry import Radiometry, radiometry
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.progress import progress_bar
from torchgeo_msssl.shards import Shard, ShardSettings


@dataclass(frozen=True, kw_only=True)
class StatisticsOptions(ShardSettings, BadSceneSettings):
    """Measure the bands of scenes over all valid pixels.

    Writes the YAML file that --data.statistics reads, and a figure of the histograms. With --shard i/n, the counts of a
    part of the scenes are written next to that file, and the same command with --merge makes the statistics of them.

    Attributes:
        paths: Scenes: files, folders or quoted patterns.
        bands: Bands to measure; default: the spectral bands of the first scene.
        sensor: Sensor of files that do not identify it.
        offset: Offset to add to digital numbers; auto takes it from the metadata or date of each scene.
        output: YAML file to write, next to which the figure (.png) is written, or folder for both.
        bins: Largest number of bins of a histogram.
        num_workers: Number of processes that read.
        merge: Compute the statistics from the counts of all shards, and remove these.
        overwrite: Replace existing files.
    """

    paths: list[str] = positional('SCENE')
    bands: list[str] | None = None
    sensor: str | None = None
    offset: float | Literal['auto'] = option('auto', metavar='NUMBER|auto')
    output: str = option('statistics.yaml', metavar='FILE|DIR')
    bins: int = 256
    num_workers: int = 1
    merge: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if self.merge and self.shard is not None:
            raise ConfigurationError('merge: computes the statistics of all shards; leave merge or shard out.')
        for name in ('bins', 'num_workers'):
            if getattr(self, name) < 1:
                raise ConfigurationError(f'{name}: expected 1 or more, got {getattr(self, name)}.')


def run(arguments: Sequence[str]) -> int:
    """Measure scenes, and write the statistics and the histograms.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If scenes cannot be read, lack bands or data, or the files cannot be written.
    """
    options = read_options(StatisticsOptions, 'statistics', arguments)
    from torchgeo_msssl.geo.band_statistics.figure import draw_histograms

    target, figure = _targets(Path(options.output), options.overwrite or options.shard is not None)
    named = get_sensor(options.sensor) if options.sensor else None
    bad = BadScenes(options.on_bad_scene)
    scenes = find_scenes(options.paths, named, plain=True, bad=bad)
    total = len(scenes) + len(bad.errors)
    bands = choose_bands(scenes, options.bands or spectral_bands(scenes[0].bands, scenes[0].path))
    sensor = named or infer_sensor(scenes[0].bands, scenes[0].path)
    radiometries = [radiometry(scene, bands, sensor, options.offset) for scene in scenes]
    reasons = [how.reason for how in radiometries]
    for reason in sorted(set(reasons)):
        print(f'{reasons.count(reason)} scene(s): {reason}')
    if options.own_shard is not None:
        _count_shard(options, options.own_shard, target, scenes, bands, radiometries, bad)
        return 0
    shards = find_shards(target) if options.merge else []
    # the files are opened first, so that a folder that cannot be written is found before the work; both appear, or none
    with atomic_path(figure) as drawn, atomic_path(target) as written:
        if shards:
            counts, skipped = read_counts(shards, identity(scenes, bands, radiometries))
            for name in skipped:
                bad.add(SceneReadError(f'{name}: could not be read when its shard was counted.'))
            read = [i for i, scene in enumerate(scenes) if scene.path not in skipped]
            scenes, radiometries = [scenes[i] for i in read], [radiometries[i] for i in read]
            summary = summarize_counts(counts, scenes, bands, options.bins)
        else:
            measure = partial(summarize_bands, bins=options.bins)
            summary, scenes, radiometries = _measure(measure, options, scenes, bands, radiometries, bad)
        print(_table(summary, bands, unit_of(sensor), len(scenes)))
        draw_histograms(drawn, summary, bands, unit_of(sensor), radiometries)
        write_statistics(written, statistics_content(summary, scenes, bands, radiometries, sensor))
    for path in shards:
        path.unlink()
    print(f'Wrote {target} and {figure}')
    if bad.errors:
        print(bad.summary(total))
    return 0


def _measure[Result](
    function: Callable[..., Result],
    options: StatisticsOptions,
    scenes: list[Scene],
    bands: Sequence[str],
    radiometries: list[Radiometry],
    bad: BadScenes,
) -> tuple[Result, list[Scene], list[Radiometry]]:
    """Measure scenes; if bad ones are skipped, measure the others again. Return the scenes that were measured, too."""
    while True:
        try:
            with progress_bar('Measuring') as advance:
                result = function(
                    scenes,
                    bands,
                    radiometries,
                    num_workers=options.num_workers,
                    on_progress=lambda done: advance(0, done),
                    find_all=bad.skip,
                )
            return result, scenes, radiometries
        except UnreadableScenesError as error:
            none_left = len(error.failed) == len(scenes) and options.shard is None
            if not bad.skip or none_left:
                raise
            for failure in error.failed.values():
                bad.add(failure)
            read = [i for i in range(len(scenes)) if i not in error.failed]
            scenes, radiometries = [scenes[i] for i in read], [radiometries[i] for i in read]


def _count_shard(
    options: StatisticsOptions,
    shard: Shard,
    target: Path,
    scenes: Sequence[Scene],
    bands: Sequence[str],
    radiometries: Sequence[Radiometry],
    bad: BadScenes,
) -> None:
    check_narrow(scenes)
    path, depends_on = shard_path(target, shard), identity(scenes, bands, radiometries)
    if path.exists() and not options.overwrite:
        read_counts([path], depends_on)  # raises where they are of other scenes or options
        print(f'Already exists: {path}')
        return
    own = own_scenes(scenes, options.paths, shard)
    paths = {scene.path for scene in own}
    of_own = [how for scene, how in zip(scenes, radiometries, strict=True) if scene.path in paths]
    counts, measured, _ = _measure(count_values_of, options, own, bands, of_own, bad)
    skipped = sorted(paths - {scene.path for scene in measured})
    write_counts(path, counts, depends_on, skipped)
    print(f'Wrote {path} with the counts of {len(measured)} of {len(scenes)} scene(s).')
    if bad.errors:
        print(bad.summary(len(own) + len(bad.errors) - len(skipped)))
    print('When all shards have ended, run the same command with --merge instead of --shard.')


def _targets(output: Path, overwrite: bool) -> tuple[Path, Path]:
    """Return the paths of the YAML file and of the figure."""
    if output.suffix.lower() not in ('.yaml', '.yml'):
        if output.suffix and not output.is_dir():
            raise ConfigurationError(f'output: expected a .yaml file or a folder, got {output}.')
        output = output / 'statistics.yaml'
    targets = output, output.with_suffix('.png')
    for target in targets:
        if target.exists() and not overwrite:
            raise ConfigurationError(f'output: {target} exists; add --overwrite to replace it.')
    return targets


def _table(summary: BandSummary, bands: Sequence[str], unit: str, scenes: int) -> str:
    """Format the most important statistics in columns."""
    header = ['band', 'valid', 'mean', 'std', 'min', '2 %', '50 %', '98 %', 'max']
    percentiles = [summary.percentiles[PERCENTILES.index(q)] for q in (2, 50, 98)]
    columns = [summary.moments.mean, summary.moments.std, summary.least, *percentiles, summary.most]
    rows = [
        [band, f'{summary.valid_fraction[k]:.1%}', *(f'{column[k]:.5g}' for column in columns)]
        for k, band in enumerate(bands)
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ['  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    title = f'{summary.moments.count:,} pixels of {scenes} scene(s) are valid in all bands; unit: {unit}'
    return '\n'.join([title, *lines])
