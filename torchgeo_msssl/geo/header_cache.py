"""Cache of file headers, so that opening the same scenes again reads none of them.

The cache folder of the package has one JSON file per folder of scenes. A header is valid as long as the file and all
files of the same stem (masks, world files, ``.aux.xml``) have the same size and modification time.
"""

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.files import FRESH, atomic_path
from torchgeo_msssl.geo.discover import is_image
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.open_datasets import is_remote
from torchgeo_msssl.geo.scene import BandFile
from torchgeo_msssl.geo.tiff_headers import SimilarHeaders
from torchgeo_msssl.geo.user_cache import cache_folder, text_key

log = logging.getLogger(__name__)

#: Increase when the file changes, or headers are interpreted in another way.
_VERSION = 4

#: Number of files from which headers are cached; fewer are opened as fast.
MANY = 50

#: Fields of a :class:`BandFile` that JSON stores unchanged, and tuples, which it stores as lists.
_PLAIN = ('dtype', 'nodata', 'masked', 'tags')
_TUPLES = ('names', 'block_shape', 'scales', 'offsets')


class HeaderCache:
    """Known headers of the files that are about to be opened.

    Args:
        files: Paths.
    """

    def __init__(self, files: Sequence[str]) -> None:
        local = [file for file in files if not is_remote(file)]
        names = {os.path.dirname(os.path.abspath(file)) for file in local} if len(local) >= MANY else set()
        self._folders = {name: _Folder(name) for name in names}
        self._similar = SimilarHeaders()

    def find(self, path: str, options: Sequence[Any]) -> BandFile | None:
        """Return the header of a file, or None if it is unknown or the file has changed.

        Args:
            path: The file.
            options: Plain values that the interpretation of the header depends on.
        """
        folder = self._folders.get(os.path.dirname(os.path.abspath(path)))
        if folder is None:
            return None
        known = folder.find(path, repr(options))
        if known is None and not is_image(path) and folder.has_no_sidecars(path):
            known = self._similar.find(path, repr(options))
            if known is not None:
                folder.keep(known, repr(options))
        return known

    def keep(self, options: Sequence[Any], file: BandFile) -> None:
        """Store a header.

        Args:
            options: See :meth:`find`.
            file: The header.
        """
        folder = self._folders.get(os.path.dirname(os.path.abspath(file.path)))
        if folder is not None:
            folder.keep(file, repr(options))
            if not is_image(file.path) and folder.has_no_sidecars(file.path):
                self._similar.keep(file, repr(options))

    def save(self) -> None:
        """Write new headers to the disk."""
        for folder in self._folders.values():
            folder.save()


class _Folder:
    """Headers of the files of one folder."""

    def __init__(self, folder: str) -> None:
        self._states = _states(folder)
        self._path = cache_folder() / 'headers' / f'{text_key(folder)}.json'
        self._key = [_VERSION, rasterio.__version__, rasterio.__gdal_version__, folder]
        self._entries = self._read()
        self._changed = False

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding='utf-8'))
            if content['key'] == self._key and isinstance(content['files'], dict):
                return dict(content['files'])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is none, or it is damaged
        return {}

    def _state(self, path: str) -> list[list[Any]]:
        return self._states.get(_stem(os.path.basename(path)), [])

    def has_no_sidecars(self, path: str) -> bool:
        return len(self._state(path)) == 1

    def find(self, path: str, options: str) -> BandFile | None:
        entry: Any = self._entries.get(os.path.basename(path))
        try:
            valid = entry['options'] == options and entry['state'] == self._state(path)
        except (KeyError, TypeError):  # no entry, or a foreign file
            return None
        return _header(path, entry) if valid else None

    def keep(self, file: BandFile, options: str) -> None:
        state = self._state(file.path)
        entry = {
            'options': options,
            'state': state,
            'crs': file.grid.crs.to_wkt(),
            'transform': list(file.grid.transform)[:6],
            'size': [file.grid.height, file.grid.width],
            'sources': [os.path.basename(source) for source in file.sources],
            **{field: getattr(file, field) for field in _PLAIN},
            **{field: list(getattr(file, field)) for field in _TUPLES},
        }
        fresh = any(time.time() - changed / 1e9 < FRESH for _, _, changed in state)
        if state and not fresh and _is_same(_header(file.path, entry), file):
            self._entries[os.path.basename(file.path)] = entry
            self._changed = True

    def save(self) -> None:
        if not self._changed:
            return
        existing = {name for group in self._states.values() for name, _, _ in group}
        entries = {name: entry for name, entry in self._entries.items() if name in existing}
        try:
            with atomic_path(self._path) as temporary:
                temporary.write_text(json.dumps({'key': self._key, 'files': entries}), encoding='utf-8')
        except OutputError as error:
            log.warning('The headers are not cached and will be read again next time: %s', error)
        self._changed = False


def _header(path: str, entry: dict[str, Any]) -> BandFile | None:
    """Return the header of an entry, or None if the entry is damaged."""
    try:
        values: dict[str, Any] = {name: entry[name] for name in _PLAIN}
        values |= {name: tuple(entry[name]) for name in _TUPLES}
        grid = PixelGrid(_parse_crs(entry['crs']), Affine(*entry['transform']), *entry['size'])
        sources = tuple(os.path.join(os.path.dirname(path), name) for name in entry['sources'])
        return BandFile(path=path, grid=grid, sources=sources, **values)
    except (KeyError, TypeError, ValueError, IndexError, CRSError):
        return None


@lru_cache(maxsize=64)
def _parse_crs(wkt: str) -> CRS:
    return CRS.from_wkt(wkt)


def _states(folder: str) -> dict[str, list[list[Any]]]:
    """Return name, size and modification time of all files of a folder, sorted, by stem."""
    groups: dict[str, list[list[Any]]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file():
                    status = entry.stat()
                    groups.setdefault(_stem(entry.name), []).append([entry.name, status.st_size, status.st_mtime_ns])
    except OSError:
        return {}
    return {stem: sorted(group) for stem, group in groups.items()}


def _stem(name: str) -> str:
    return name.split('.', 1)[0].lower()  # GDAL finds a .MSK file of a .tif, too


def _is_same(found: BandFile | None, file: BandFile) -> bool:
    """Whether two headers are equal in every field, and their CRS have the same text."""
    if found is None:
        return False
    return str(found.grid.crs) == str(file.grid.crs) and all(
        repr(getattr(found, field.name)) == repr(getattr(file, field.name)) for field in fields(file)
    )
