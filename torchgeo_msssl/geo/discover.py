"""Find raster files and group them into scenes.

A scene is one multi-band file, or several single-band files whose names differ only in the band:
``B02.tif`` and ``B03.tif`` of one folder; ``T31UFT_20240601T104031_B02_10m.jp2`` and its siblings, also across
the ``R10m``, ``R20m`` and ``R60m`` folders of a SAFE product.
"""

import datetime
import glob
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from torchgeo_msssl.bands import canonical_band_name
from torchgeo_msssl.errors import BandError, ScenesNotFoundError
from torchgeo_msssl.geo.open_datasets import is_remote

log = logging.getLogger(__name__)

RASTER_SUFFIXES = frozenset({'.tif', '.tiff', '.jp2', '.vrt', '.img'})
#: Suffix of arrays, which are chips and not scenes.
ARRAY_SUFFIX = '.npy'
#: Suffixes of images that folders without other rasters are searched for; next to scenes they are previews.
IMAGE_SUFFIXES = frozenset({'.jpg', '.jpeg', '.png'})
#: Archives, in which products are distributed.
_ARCHIVES = ('.zip', '.tar', '.tar.gz', '.tgz', '.7z')

_BAND_FILE = re.compile(
    r'^(?P<scene>.*?)(?:^|[_.\s-])(?P<band>b(?:0?[1-9]|1[0-2]|8a)|blue|green|red[\s_-]?edge|re|red|nir|lwir|(?<=MS_)[gr])'
    r'(?P<resolution>[_-]\d+m)?$',
    re.IGNORECASE,
)
#: Layers in the folders of Sentinel-2, HLS, Landsat and PlanetScope products that are neither bands nor scenes.
_SIDE_LAYER = re.compile(
    r'(?:^MSK_.*|(?:^|[_.])(?:TCI|SCL|AOT|WVP|PVI|CLD|SNW|Fmask|SAA|SZA|VAA|VZA|QA_\w+|ST_\w+|udm2?)(?:_\d+m)?)$',
    re.IGNORECASE,
)
_DATE = re.compile(r'(?<!\d)((?:19|20)\d{2})[-_]?(\d{2})[-_]?(\d{2})(?:[T_-]?(\d{2})(\d{2})(\d{2}))?(?!\d)')
_DAY_OF_YEAR = re.compile(r'(?<!\d)((?:19|20)\d{5}T\d{6})(?!\d)')


def find_files(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """List the raster files at paths, folders and glob patterns.

    Args:
        paths: One or more files (any suffix), folders or patterns such as ``dir/*.tif``. Virtual and remote paths are
            used as they are. Folders, also those that match a pattern, are searched recursively, also behind symbolic
            links, for :data:`RASTER_SUFFIXES`, or else for :data:`IMAGE_SUFFIXES`, without hidden files and without
            the quality layers and previews of products (SCL, TCI, Fmask, QA_PIXEL, udm2, …).

    Returns:
        Sorted paths, each file once.

    Raises:
        ScenesNotFoundError: If one of the paths has no raster files.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    found: dict[str, str] = {}
    for path in [os.fspath(path) for path in paths]:
        files = _files_at(path)
        packed = next((file for file in files if _is_archive(file)), None)
        if packed is not None:
            raise ScenesNotFoundError(f'paths: {packed} is an archive; unpack it, and give the folder.')
        if not files or files[0].lower().endswith(ARRAY_SUFFIX):
            msg = (
                f'paths: no raster file ({", ".join(sorted(RASTER_SUFFIXES | IMAGE_SUFFIXES))}) found at {path!r}; '
                f'{_remedy(path)}'
            )
            raise ScenesNotFoundError(msg)
        for file in files:
            found.setdefault(file if is_remote(file) else os.path.abspath(file), file)
    if not found:
        msg = 'paths: the list of scenes is empty; give a file, a folder or a quoted pattern such as "scenes/*.tif".'
        raise ScenesNotFoundError(msg)
    return sorted(found.values())


def _files_at(path: str) -> list[str]:
    if is_remote(path):
        return [path]
    path = os.path.expanduser(path)
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        return _bands(_rasters(_files_in(path)), path)
    # a pattern without a suffix also matches sidecar and other files
    named = not glob.has_magic(os.path.splitext(path)[1]) and bool(os.path.splitext(path)[1])
    matches = sorted(glob.glob(path, recursive=True))
    files = [match for match in matches if not os.path.isdir(match)]
    inside = [file for match in matches if os.path.isdir(match) for file in _files_in(match)]
    if named:
        return [*files, *_bands(_rasters(inside), path)]
    chosen = set(_rasters([*files, *inside]))
    return [file for file in files if file in chosen] + _bands([file for file in inside if file in chosen], path)


def _files_in(folder: str) -> list[str]:
    """List the files below a folder, also behind symbolic links, each folder once: links may lead in circles."""
    files: list[str] = []
    seen = {os.path.realpath(folder)}
    for root, folders, names in os.walk(folder, followlinks=True):
        visible = sorted(name for name in folders if not name.startswith('.'))
        # links come last, so that a folder is found by its own name even if a link next to it leads there
        visible.sort(key=lambda name: os.path.islink(os.path.join(root, name)))
        folders.clear()
        for name in visible:
            real = os.path.realpath(os.path.join(root, name))
            if real not in seen:
                seen.add(real)
                folders.append(name)
        files.extend(os.path.join(root, name) for name in names)
    return files


def _bands(rasters: Sequence[str], path: str) -> list[str]:
    """Rasters without the quality layers and previews of products, unless there is nothing else."""
    bands = [file for file in rasters if not _SIDE_LAYER.search(Path(file).stem)]
    if bands and len(bands) < len(rasters):
        log.info('%s: ignored %d layer(s) that are not bands (SCL, TCI, …).', path, len(rasters) - len(bands))
    return bands or list(rasters)


def _rasters(files: Sequence[str]) -> list[str]:
    """Rasters among files that are not hidden, or else images: next to rasters these are previews."""
    visible = [file for file in files if not os.path.basename(file).startswith('.')]
    rasters = [file for file in visible if _suffix(file) in RASTER_SUFFIXES]
    return rasters or [file for file in visible if is_image(file)]


def is_image(path: str) -> bool:
    """Whether a file is a JPEG or PNG image by its name."""
    return _suffix(path) in IMAGE_SUFFIXES


def _is_archive(path: str) -> bool:
    return not is_remote(path) and path.lower().endswith(_ARCHIVES)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _remedy(path: str) -> str:
    """What to give instead of a path without rasters."""
    path = os.path.expanduser(path)
    names = _files_in(path) if os.path.isdir(path) else [path, *glob.glob(path, recursive=True)]
    if packed := next(filter(_is_archive, sorted(names)), None):
        return f'{packed} is an archive: unpack it, and give the folder.'
    if any(name.lower().endswith(ARRAY_SUFFIX) for name in names):
        return f'{ARRAY_SUFFIX} files are chips without a place, so give the folder that holds them as paths.'
    return 'give a file, a folder or a quoted pattern such as "scenes/*.tif".'


def group_files(files: Sequence[str]) -> list[tuple[str, dict[str, str] | str]]:
    """Group files into scenes by their names.

    Args:
        files: Sorted paths.

    Returns:
        ``(name, file)`` for a multi-band file and ``(name, {band: file})`` for single-band files, in order of first
        appearance. Of a band with several resolutions in the file names, the finest is used.

    Raises:
        BandError: If two files are the same band of one scene at the same resolution.
    """
    scenes: dict[tuple[str, ...], tuple[str, dict[str, str] | str]] = {}
    for file in files:
        path = Path(file)
        match = None if is_image(file) else _BAND_FILE.match(path.stem)
        if match is None:
            scenes[(file,)] = path.stem, file
            continue
        folder = path.parent.parent if re.fullmatch(r'R\d+m', path.parent.name) else path.parent
        name = match['scene'].strip('_.- ') or folder.name or 'scene'
        # L1C and L2A products of one tile and time have the same name, but only those of L2A contain the resolution.
        key = (str(folder), name, 'with resolution' if match['resolution'] else '')
        bands = scenes.setdefault(key, (name, {}))[1]
        assert isinstance(bands, dict)
        band = canonical_band_name(match['band'])
        if band in bands and _metres(file) == _metres(bands[band]):
            msg = f'{bands[band]} and {file}: are band {band} of the same scene by name; remove or rename one.'
            raise BandError(msg)
        if band not in bands or _metres(file) < _metres(bands[band]):
            bands[band] = file
    return list(scenes.values())


def _metres(file: str) -> int:
    """Return the resolution in the name of a band file, or else of its folder; 0 if there is none."""
    match = re.search(r'[_-](\d+)m$', Path(file).stem) or re.fullmatch(r'R(\d+)m', Path(file).parent.name)
    return int(match[1]) if match else 0


def date_of(path: str) -> tuple[datetime.datetime, datetime.datetime] | None:
    """Parse the date of a scene from its file name, or else from the name of its folder.

    Args:
        path: File with a date such as ``2017-09-18``, ``20240601``, ``20240601T104031`` or, for HLS, ``2024153T104031``
            (day of the year) in its name.

    Returns:
        First and last moment of the day, or of the second if the name has the time; None without a date.
    """
    for text in (Path(path).stem, Path(path).parent.name):
        for match in _DATE.finditer(text):
            year, month, day, *clock = match.groups()
            try:
                hour, minute, second = (int(part or 0) for part in clock)
                start = datetime.datetime(int(year), int(month), int(day), hour, minute, second)
            except ValueError:
                continue
            return _moments(start, bool(clock[0]))
        for match in _DAY_OF_YEAR.finditer(text):
            try:
                return _moments(datetime.datetime.strptime(match[1], '%Y%jT%H%M%S'), True)
            except ValueError:
                continue
    return None


def _moments(start: datetime.datetime, has_time: bool) -> tuple[datetime.datetime, datetime.datetime]:
    span = datetime.timedelta(seconds=1) if has_time else datetime.timedelta(days=1)
    return start, start + span - datetime.timedelta(microseconds=1)
