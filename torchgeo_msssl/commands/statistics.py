"""``statistics``: measure the bands of scenes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torchgeo_msssl.bands import get_sensor, infer_sensor
from torchgeo_msssl.commands.options import option, positional, read_options
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.band_choice import choose_bands, spectral_bands
from torchgeo_msssl.geo.band_statistics.file import statistics_content, unit_of, write_statistics
from torchgeo_msssl.geo.band_statistics.histograms import PERCENTILES
from torchgeo_msssl.geo.band_statistics.summary import BandSummary, summarize_bands
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.radiometry import radiometry
from torchgeo_msssl.progress import progress_bar


@dataclass(frozen=True, kw_only=True)
class StatisticsOptions:
    """Measure the bands of scenes over all valid pixels.

    Writes the YAML file that --data.statistics reads, and a figure of the histograms.

    Attributes:
        paths: Scenes: files, folders or quoted patterns.
        bands: Bands to measure; default: the spectral bands of the first scene.
        sensor: Sensor of files that do not identify it.
        offset: Offset to add to digital numbers; auto takes it from the metadata or date of each scene.
        output: YAML file to write, next to which the figure (.png) is written, or folder for both.
        bins: Largest number of bins of a histogram.
        num_workers: Number of processes that read.
        overwrite: Replace existing files.
    """

    paths: list[str] = positional('SCENE')
    bands: list[str] | None = None
    sensor: str | None = None
    offset: float | Literal['auto'] = option('auto', metavar='NUMBER|auto')
    output: str = option('statistics.yaml', metavar='FILE|DIR')
    bins: int = 256
    num_workers: int = 1
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
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

    target, figure = _targets(Path(options.output), options.overwrite)
    named = get_sensor(options.sensor) if options.sensor else None
    scenes = find_scenes(options.paths, named, plain=True)
    bands = choose_bands(scenes, options.bands or spectral_bands(scenes[0].bands, scenes[0].path))
    sensor = named or infer_sensor(scenes[0].bands, scenes[0].path)
    radiometries = [radiometry(scene, bands, sensor, options.offset) for scene in scenes]
    reasons = [how.reason for how in radiometries]
    for reason in sorted(set(reasons)):
        print(f'{reasons.count(reason)} scene(s): {reason}')
    # the files are opened first, so that a folder that cannot be written is found before the work; both appear, or none
    with atomic_path(figure) as drawn, atomic_path(target) as written:
        with progress_bar('Measuring') as advance:
            summary = summarize_bands(
                scenes, bands, radiometries, options.bins, options.num_workers, lambda done: advance(0, done)
            )
        print(_table(summary, bands, unit_of(sensor), len(scenes)))
        draw_histograms(drawn, summary, bands, unit_of(sensor), radiometries)
        write_statistics(written, statistics_content(summary, scenes, bands, radiometries, sensor))
    print(f'Wrote {target} and {figure}')
    return 0


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
