"""Find the files of scenes, grouped into scenes.

A scene is one multi-band file, or several single-band files whose names differ in the band alone:
``B02.tif`` and ``B03.tif`` of one folder; ``T31UFT_20240601T104031_B02_10m.jp2`` and its siblings, also across
the ``R10m``, ``R20m`` and ``R60m`` folders of a SAFE product.
"""

import datetime
import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from torchgeo_msssl.bands import canonical_band_name
from torchgeo_msssl.errors import ScenesNotFoundError
from torchgeo_msssl.geo.handles import is_remote

RASTER_SUFFIXES = frozenset({'.tif', '.tiff', '.jp2', '.vrt', '.img'})

_BAND_FILE = re.compile(
    r'^(?P<scene>.*?)(?:^|[_.\s-])(?P<band>b(?:0?[1-9]|1[0-2]|8a)|blue|green|red[_-]?edge|re|red|nir|lwir)'
    r'(?P<resolution>[_-]\d+m)?$',
    re.IGNORECASE,
)
_DATE = re.compile(r'(?<!\d)((?:19|20)\d{2})[-_]?(\d{2})[-_]?(\d{2})(?:[T_-]?(\d{2})(\d{2})(\d{2}))?(?!\d)')


def find_files(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """List the raster files at paths, folders and glob patterns.

    Args:
        paths: One or more files (any suffix), folders (searched to the bottom for :data:`RASTER_SUFFIXES`) or
            patterns such as ``dir/*.tif``; virtual and remote paths are taken as they are.

    Returns:
        Sorted paths without duplicates.

    Raises:
        ScenesNotFoundError: If there is nothing at one of the paths.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    found: set[str] = set()
    for path in map(os.fspath, paths):
        files = _files_at(path)
        if not files:
            msg = (
                f'paths: no raster file ({", ".join(sorted(RASTER_SUFFIXES))}) found at {path!r}; '
                'give a file, a folder or a quoted pattern such as "scenes/*.tif".'
            )
            raise ScenesNotFoundError(msg)
        found.update(files)
    if not found:
        msg = 'paths: the list of scenes is empty; give a file, a folder or a quoted pattern such as "scenes/*.tif".'
        raise ScenesNotFoundError(msg)
    return sorted(found)


def _files_at(path: str) -> list[str]:
    if is_remote(path) or os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        inside = (os.path.join(root, name) for root, _, names in os.walk(path) for name in names)
        return [name for name in inside if _is_raster(name)]
    return [name for name in glob.glob(os.path.expanduser(path), recursive=True) if os.path.isfile(name)]


def _is_raster(path: str) -> bool:
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in RASTER_SUFFIXES and not name.startswith('.')


def group_files(files: Sequence[str]) -> list[tuple[str, dict[str, str] | str]]:
    """Group files into scenes by their names.

    Args:
        files: Sorted paths.

    Returns:
        ``(name, file)`` for a multi-band file and ``(name, {band: file})`` for single-band files, in order of
        first appearance. Where a band lies there at several resolutions, the finest one that the names tell is
        taken.
    """
    scenes: dict[tuple[str, str], dict[str, str] | str] = {}
    for file in files:
        path = Path(file)
        match = _BAND_FILE.match(path.stem)
        if match is None:
            scenes[str(path.parent), path.stem] = file
            continue
        folder = path.parent.parent if re.fullmatch(r'R\d+m', path.parent.name) else path.parent
        name = match['scene'].strip('_.- ') or folder.name or 'scene'
        bands = scenes.setdefault((str(folder), name), {})
        if isinstance(bands, str):  # a multi-band file that bears the scene's name: it stands for itself
            bands = scenes.setdefault((str(folder), f'{name} (bands)'), {})
        assert isinstance(bands, dict)
        band = canonical_band_name(match['band'])
        if band not in bands or _metres(file) < _metres(bands[band]):
            bands[band] = file
    return [(name, files_) for (_, name), files_ in scenes.items()]


def _metres(file: str) -> int:
    match = re.search(r'(\d+)m$', Path(file).stem)
    return int(match[1]) if match else 0


def date_of(path: str) -> tuple[datetime.datetime, datetime.datetime] | None:
    """Read the time of a scene off its file name, or off the folder above.

    Args:
        path: File with a date such as ``2017-09-18``, ``20240601`` or ``20240601T104031`` in its name.

    Returns:
        ``(first, last)`` moment that the name can mean: a whole day, or one second where the name has the time;
        None without a date.
    """
    for text in (Path(path).stem, Path(path).parent.name):
        for match in _DATE.finditer(text):
            year, month, day, *clock = match.groups()
            try:
                start = datetime.datetime(int(year), int(month), int(day), *(int(part) for part in clock if part))
            except ValueError:
                continue
            span = datetime.timedelta(seconds=1) if clock[0] else datetime.timedelta(days=1)
            return start, start + span - datetime.timedelta(microseconds=1)
    return None
