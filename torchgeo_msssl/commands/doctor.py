"""``doctor``: find what is wrong or slow about scenes."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from torchgeo_msssl.bands import canonical_band_name, get_sensor
from torchgeo_msssl.commands.options import option, positional, read_options
from torchgeo_msssl.errors import ConfigurationError, MSSSLError, OutputError
from torchgeo_msssl.files import write_json
from torchgeo_msssl.geo.checks.finding import Finding
from torchgeo_msssl.geo.checks.rewrite import rewrite_raster
from torchgeo_msssl.geo.discover import find_files
from torchgeo_msssl.geo.doctor import examine
from torchgeo_msssl.progress import progress_bar

#: Number of files that are listed per topic; ``--json`` writes all of them.
_SHOWN = 5

_TITLES = {'error': 'ERRORS', 'slow': 'SLOW', 'note': 'NOTES'}


@dataclass(frozen=True, kw_only=True)
class RewriteOptions:
    """Rewrite scenes instead of checking them.

    Attributes:
        rewrite: File (.tif) or folder to write to. The GeoTIFFs are tiled and north up, with internal mask.
        interleave: Order of the bands in the written files: all bands of a tile together (pixel), separately (band), or
            as they are (keep).
        scale: Reflectance per digital number to declare in the written files.
        overwrite: Replace existing files.
    """

    rewrite: str | None = option(None, metavar='OUTPUT')
    interleave: Literal['keep', 'pixel', 'band'] = 'keep'
    scale: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check that the other options come with ``rewrite``."""
        if self.rewrite is None and (self.scale is not None or self.interleave != 'keep' or self.overwrite):
            raise ConfigurationError('scale, interleave, overwrite: only used with --rewrite, which writes files.')


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(RewriteOptions):
    """Find what is wrong or slow about scenes, and print the commands that fix it.

    The exit status is 1 if there are errors, else 0.

    Attributes:
        paths: Scenes: files, folders or quoted patterns.
        bands: Bands that will be used; default: all.
        sensor: Sensor of files that do not identify it.
        quick: Do not measure the time to read chips.
        json: JSON file to write the findings to.
    """

    paths: list[str] = positional('SCENE')
    bands: list[str] | None = None
    sensor: str | None = None
    quick: bool = False
    json: str | None = option(None, metavar='FILE')


def run(arguments: Sequence[str]) -> int:
    """Check scenes, or rewrite them.

    Args:
        arguments: Arguments that follow the command's name.

    Returns:
        Exit status: 1 if there are errors.

    Raises:
        MSSSLError: If there are no scenes, or a file cannot be written.
    """
    options = read_options(DoctorOptions, 'doctor', arguments)
    files = find_files(options.paths)
    if options.rewrite is not None:
        return _rewrite(files, Path(options.rewrite), options)
    bands = [canonical_band_name(name) for name in options.bands] if options.bands else None
    sensor = get_sensor(options.sensor) if options.sensor else None
    with progress_bar('Checking', len(files)) as advance:
        found = examine(options.paths, bands, sensor, not options.quick, lambda done, _: advance(done, 0.0))
    print(_report(found, len(files)))
    if options.json:
        write_json(options.json, {'files': files, 'findings': [finding.content() for finding in found]})
        print(f'Wrote {options.json}')
    return int(any(finding.severity == 'error' for finding in found))


def _rewrite(files: Sequence[str], output: Path, options: RewriteOptions) -> int:
    targets = _targets(files, output)
    if not options.overwrite:
        targets = _without_done(targets, output)
    failed: list[str] = []
    try:
        with progress_bar('Writing', len(targets)) as advance:
            for number, (source, target) in enumerate(targets.items(), start=1):
                try:
                    rewrite_raster(source, target, options.interleave, options.scale)
                except OutputError:  # the next file could not be written either
                    raise
                except MSSSLError as error:
                    failed.append(str(error))
                advance(number, 0.0)
    finally:
        for sentence in failed:
            print(f'error: {sentence}', file=sys.stderr)
    print(f'Wrote {len(targets) - len(failed)} file(s) to {output}')
    return int(bool(failed))


def _without_done(targets: Mapping[str, Path], output: Path) -> dict[str, Path]:
    """Leave out files that an earlier run wrote into the folder; any other existing file is an error."""
    done = [source for source, target in targets.items() if target != output and _is_newer(target, source)]
    if done:
        print(f'Skipped {len(done)} file(s) that exist and are newer than their source')
    left = {source: target for source, target in targets.items() if source not in done}
    for source, target in left.items():
        if target.exists() and not (Path(source).exists() and target.samefile(source)):
            raise ConfigurationError(f'rewrite: {target} exists; add --overwrite to replace it.')
    return left


def _targets(files: Sequence[str], output: Path) -> dict[str, Path]:
    """Return the target of each file: the given file, or a file of the same name in the given folder."""
    if output.suffix.lower() in ('.tif', '.tiff'):
        if len(files) != 1:
            raise ConfigurationError(f'rewrite: {output} is one file for {len(files)} scenes; give a folder.')
        return {files[0]: output}
    targets = {file: output / f'{Path(file).stem}.tif' for file in files}
    twice = [target for target in targets.values() if list(targets.values()).count(target) > 1]
    if twice:
        raise ConfigurationError(f'rewrite: {twice[0]} would be written for two files; rewrite them folder by folder.')
    return targets


def _is_newer(target: Path, source: str) -> bool:
    return target.is_file() and target.stat().st_mtime_ns >= Path(source).stat().st_mtime_ns


def _report(found: Sequence[Finding], files: int) -> str:
    """Format all findings by severity and topic."""
    lines: list[str] = []
    for severity, title in _TITLES.items():
        some = [finding for finding in found if finding.severity == severity]
        if some:
            lines += [title]
            for _, group in groupby(sorted(some, key=_topic), key=_topic):
                lines += [*_format_topic(list(group)), '']
    numbers = {word: sum(finding.severity == word for finding in found) for word in _TITLES}
    plural = {word: word if word == 'slow' or number == 1 else f'{word}s' for word, number in numbers.items()}
    counts = ', '.join(f'{number} {plural[word]}' for word, number in numbers.items() if number)
    return '\n'.join([*lines, f'Checked {files} file(s): {counts or "no problems found"}.'])


def _topic(finding: Finding) -> tuple[str, str]:
    return finding.topic, finding.message


def _format_topic(findings: Sequence[Finding]) -> list[str]:
    """Format the findings of one topic: the message, then the files with details and remedies."""
    ordered = sorted(findings, key=lambda finding: -(finding.factor or 0))
    lines = [f'  {findings[0].message} [{findings[0].topic}]']
    for finding in ordered[:_SHOWN]:
        files = (
            finding.files[0] if len(finding.files) == 1 else f'{len(finding.files)} files such as {finding.files[0]}'
        )
        lines.append(f'    {files}: {finding.detail}' if finding.detail else f'    {files}')
        lines += [f'      {"or " if i else "→  "}{remedy}' for i, remedy in enumerate(finding.remedies)]
    if len(ordered) > _SHOWN:
        lines.append(f'    … and {len(ordered) - _SHOWN} more (--json FILE writes all of them)')
    return lines
