"""``statistics``: what the values of each band of some scenes are."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from torchgeo_msssl.bands import canonical_band_name, get_sensor, infer_sensor, is_auxiliary
from torchgeo_msssl.errors import BandError, ConfigurationError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.band_statistics.figure import draw_histograms
from torchgeo_msssl.geo.band_statistics.file import statistics_content, unit_of, write_statistics
from torchgeo_msssl.geo.band_statistics.histograms import PERCENTILES
from torchgeo_msssl.geo.band_statistics.summary import Survey, summarize_bands
from torchgeo_msssl.geo.headers import find_scenes
from torchgeo_msssl.geo.radiometry import radiometry
from torchgeo_msssl.geo.scene import Scene, missing_bands_error
from torchgeo_msssl.progress import progress_bar


def run(arguments: Sequence[str]) -> int:
    """Measure scenes; write the YAML and the histograms.

    Args:
        arguments: What follows the command's name.

    Returns:
        Exit status.

    Raises:
        MSSSLError: If scenes cannot be read, lack bands or data, or the files cannot be written.
    """
    options = _parser().parse_args(arguments)
    target, picture = _targets(Path(options.output), options.overwrite)
    named = get_sensor(options.sensor) if options.sensor else None
    scenes = find_scenes(options.scenes, named)
    bands = _choose_bands(scenes, options.bands)
    sensor = named or infer_sensor(scenes[0].bands, scenes[0].path)
    radiometries = [radiometry(scene, bands, sensor, options.offset) for scene in scenes]
    for reason in sorted({how.reason for how in radiometries}):
        print(f'{sum(how.reason == reason for how in radiometries)} scene(s): {reason}')
    # asked for before the work, so that a folder that cannot be written is known at once; both files land, or none
    with atomic_path(picture) as drawn, atomic_path(target) as written:
        with progress_bar('Measuring') as advance:
            survey = summarize_bands(
                scenes, bands, radiometries, options.bins, options.workers, lambda done: advance(0, done)
            )
        print(_table(survey, bands, unit_of(sensor), len(scenes)))
        draw_histograms(drawn, survey, bands, unit_of(sensor), radiometries)
        write_statistics(written, statistics_content(survey, scenes, bands, radiometries, sensor))
    print(f'Wrote {target} and {picture}')
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m torchgeo_msssl statistics',
        description='Measure the bands of scenes over all valid pixels, and write what --data.statistics reads.',
    )
    parser.add_argument('scenes', metavar='SCENE', nargs='+', help='files, folders or patterns')
    parser.add_argument(
        '--bands', help='bands by name, such as B02,B03 (default: the spectral ones of the first scene)'
    )
    parser.add_argument('--sensor', help='sensor, where the files do not tell')
    parser.add_argument(
        '--offset', type=_number_or_auto, default='auto', help='added to digital numbers (default: auto)'
    )
    parser.add_argument(
        '--output', default='statistics.yaml', metavar='DIR-or-YAML',
        help='YAML to write, with the histograms (.png) beside it, or a folder for both (default: statistics.yaml)',
    )  # fmt: skip
    parser.add_argument('--overwrite', action='store_true', help='replace the output if it is there')
    parser.add_argument('--bins', type=_positive, default=256, help='bins of a histogram, at most (default: 256)')
    parser.add_argument('--workers', type=_positive, default=1, help='processes that read (default: 1)')
    return parser


def _number_or_auto(text: str) -> float | str:
    try:
        return text if text == 'auto' else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected a number or auto, got {text}') from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected 1 or more, got {text}')
    return int(text)


def _targets(output: Path, overwrite: bool) -> tuple[Path, Path]:
    """The YAML and the picture."""
    if output.suffix.lower() not in ('.yaml', '.yml'):
        if output.suffix and not output.is_dir():
            raise ConfigurationError(f'output: expected the path of a .yaml or a folder, got {output}.')
        output = output / 'statistics.yaml'
    targets = output, output.with_suffix('.png')
    for target in targets:
        if target.exists() and not overwrite:
            raise ConfigurationError(f'output: {target} is there already; add --overwrite to replace it.')
    return targets


def _choose_bands(scenes: Sequence[Scene], wanted: str | None) -> list[str]:
    if wanted:
        bands = [canonical_band_name(name) for name in wanted.split(',') if name.strip()]
        twice = sorted({band for band in bands if bands.count(band) > 1})
        if twice or not bands:
            raise BandError(f'bands: expected names, each once, such as B02,B03; got {wanted!r}.')
    else:
        bands = [band for band in scenes[0].bands if not is_auxiliary(band)]
        if not bands:
            msg = f'bands: {scenes[0].path} has only {", ".join(scenes[0].bands)}, none of which is a spectral band.'
            raise BandError(msg)
    for scene in scenes:
        missing = [band for band in bands if band not in scene.bands]
        if missing:
            raise missing_bands_error(scene, missing)
    return bands


def _table(survey: Survey, bands: Sequence[str], unit: str, scenes: int) -> str:
    """What people want to see at once, in columns."""
    header = ['band', 'valid', 'mean', 'std', 'min', '2 %', '50 %', '98 %', 'max']
    middle = [survey.percentiles[PERCENTILES.index(q)] for q in (2, 50, 98)]
    columns = [survey.moments.mean, survey.moments.std, survey.least, *middle, survey.most]
    rows = [
        [band, f'{survey.valid_fraction[k]:.1%}', *(f'{column[k]:.5g}' for column in columns)]
        for k, band in enumerate(bands)
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = ['  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return '\n'.join([f'{survey.moments.count:,} pixels of {scenes} scene(s) valid in all bands; {unit}:', *lines])
