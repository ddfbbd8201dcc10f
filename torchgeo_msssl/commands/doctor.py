"""``doctor``: what will be slow or wrong with scenes, and what mends it."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from torchgeo_msssl.bands import canonical_band_name, get_sensor
from torchgeo_msssl.errors import ConfigurationError, MSSSLError, OutputError
from torchgeo_msssl.files import write_json
from torchgeo_msssl.geo.checks.finding import Finding
from torchgeo_msssl.geo.checks.remedies import write_mended
from torchgeo_msssl.geo.discover import find_files
from torchgeo_msssl.geo.doctor import examine
from torchgeo_msssl.progress import progress_bar

#: Files that are listed for each topic; ``--json`` has all.
_SHOWN = 5

_TITLES = {'wrong': 'WRONG', 'slow': 'SLOW', 'note': 'NOTES'}


def run(arguments: Sequence[str]) -> int:
    """Examine scenes, or write them anew.

    Args:
        arguments: What follows the command's name.

    Returns:
        Exit status: 1 where something is wrong.

    Raises:
        MSSSLError: If there are no scenes, or a file cannot be written.
    """
    options = _parser().parse_args(arguments)
    files = find_files(options.scenes)
    if options.mend is not None:
        return _mend(files, options)
    if options.scale is not None or options.interleave != 'keep' or options.overwrite:
        raise ConfigurationError('scale, interleave, overwrite: go with --mend, which writes a file.')
    bands = [canonical_band_name(name) for name in options.bands.split(',')] if options.bands else None
    sensor = get_sensor(options.sensor) if options.sensor else None
    with progress_bar('Examining', len(files)) as advance:
        found = examine(options.scenes, bands, sensor, not options.quick, lambda done, _: advance(done, 0.0))
    print(_report(found, len(files)))
    if options.json:
        content = {'files': files, 'findings': [finding.content() for finding in found]}
        write_json(options.json, content)
        print(f'Wrote {options.json}')
    return int(any(finding.severity == 'wrong' for finding in found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m torchgeo_msssl doctor',
        description='Tell what will be slow or wrong with scenes, and the command that mends it.',
        epilog='Exit status: 1 where something is wrong, else 0.',
    )
    parser.add_argument('scenes', metavar='SCENE', nargs='+', help='files, folders or patterns')
    parser.add_argument('--bands', help='bands that will be used, such as B02,B03 (default: all)')
    parser.add_argument('--sensor', help='sensor, where the files do not tell')
    parser.add_argument('--quick', action='store_true', help='measure no speed')
    parser.add_argument('--json', metavar='FILE', help='write the findings as JSON, too')
    mend = parser.add_argument_group(
        'mending', 'Write scenes anew: in tiles, north up, with mask and names inside. Nothing is examined then.'
    )
    mend.add_argument('--mend', metavar='OUTPUT', help='file to write, .tif; or folder for one or more')
    mend.add_argument(
        '--interleave', choices=('keep', 'pixel', 'band'), default='keep', help='order of the bands in it'
    )
    mend.add_argument('--overwrite', action='store_true', help='replace files that are there')
    mend.add_argument('--scale', type=float, help='reflectance per digital number to declare in it')
    return parser


def _mend(files: Sequence[str], options: argparse.Namespace) -> int:
    targets = _targets(files, Path(options.mend))
    left = targets if options.overwrite else _not_done(targets, Path(options.mend))
    failed: list[str] = []
    try:
        with progress_bar('Writing', len(left)) as advance:
            for number, (source, target) in enumerate(left.items(), start=1):
                try:
                    write_mended(source, target, options.interleave, options.scale)
                except OutputError:  # the next one could not be written either
                    raise
                except MSSSLError as error:
                    failed.append(str(error))
                advance(number, 0.0)
    finally:
        for sentence in failed:
            print(f'error: {sentence}', file=sys.stderr)
    print(f'Wrote {len(left) - len(failed)} file(s) to {options.mend}')
    return int(bool(failed))


def _not_done(targets: Mapping[str, Path], output: Path) -> dict[str, Path]:
    """What is still to be written; what is there and is not of these sources is never replaced."""
    done = [source for source, target in targets.items() if target != output and _is_newer(target, source)]
    if done:
        print(f'{len(done)} file(s) were written before and are newer than what they are of: left as they are')
    left = {source: target for source, target in targets.items() if source not in done}
    for source, target in left.items():
        if target.exists() and not (Path(source).exists() and target.samefile(source)):
            raise ConfigurationError(f'mend: {target} is there already; add --overwrite to replace it.')
    return left


def _targets(files: Sequence[str], output: Path) -> dict[str, Path]:
    """Where each file goes: to the file named, or into the folder under its own name."""
    if output.suffix.lower() in ('.tif', '.tiff'):
        if len(files) != 1:
            raise ConfigurationError(f'mend: {output} is one file, and there are {len(files)} scenes; name a folder.')
        return {files[0]: output}
    targets = {file: output / f'{Path(file).stem}.tif' for file in files}
    twice = [target for target in targets.values() if list(targets.values()).count(target) > 1]
    if twice:
        raise ConfigurationError(f'mend: two files would be written to {twice[0]}; mend them folder by folder.')
    return targets


def _is_newer(target: Path, source: str) -> bool:
    return target.is_file() and target.stat().st_mtime_ns >= Path(source).stat().st_mtime_ns


def _report(found: Sequence[Finding], files: int) -> str:
    """Everything for people, by severity and topic."""
    lines: list[str] = []
    for severity, title in _TITLES.items():
        some = [finding for finding in found if finding.severity == severity]
        if some:
            lines += [title]
            for _, group in groupby(sorted(some, key=_topic), key=_topic):
                lines += [*_told(list(group)), '']
    counts = ', '.join(
        f'{number} {word}' for word in _TITLES if (number := sum(finding.severity == word for finding in found))
    )
    return '\n'.join([*lines, f'{files} file(s) examined: {counts or "nothing to complain of"}.'])


def _topic(finding: Finding) -> tuple[str, str]:
    return finding.topic, finding.message


def _told(findings: Sequence[Finding]) -> list[str]:
    """One topic: what it is, then its files with what was seen and what mends it."""
    ordered = sorted(findings, key=lambda finding: -(finding.factor or 0))
    lines = [f'  {findings[0].message} [{findings[0].topic}]']
    for finding in ordered[:_SHOWN]:
        where = finding.files[0] if len(finding.files) == 1 else f'{len(finding.files)} files, {finding.files[0]} first'
        lines.append(f'    {where}: {finding.detail}' if finding.detail else f'    {where}')
        lines += [f'      {"or " if i else "→  "}{remedy}' for i, remedy in enumerate(finding.remedies)]
    if len(ordered) > _SHOWN:
        lines.append(f'    … and {len(ordered) - _SHOWN} more (--json FILE has them all)')
    return lines
