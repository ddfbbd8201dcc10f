"""Headers of many files, remembered, so that opening their scenes again reads none of them.

There is one JSON file for each folder of scenes, in the package's cache folder. A header counts as long as the file and
all that lies beside it under the same name (masks, world files, ``.aux.xml``) have the size and time they had.
"""

import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from torchgeo_msssl.errors import OutputError
from torchgeo_msssl.files import FRESH, atomic_path
from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.open_datasets import is_remote
from torchgeo_msssl.geo.scene import BandFile
from torchgeo_msssl.geo.tiff_headers import SimilarHeaders
from torchgeo_msssl.geo.user_cache import cache_folder, text_key

log = logging.getLogger(__name__)

#: Raise when a header is understood in another way.
_VERSION = 1

#: Fewer files than this are opened sooner than remembered.
MANY = 50

#: Fields of a :class:`BandFile` that JSON holds as they are.
_PLAIN = ('dtype', 'nodata', 'masked', 'tags')
_TUPLES = ('names', 'block_shape', 'scales', 'offsets')


class HeaderCache:
    """What is remembered of the files that are about to be opened.

    Args:
        files: Paths.
    """

    def __init__(self, files: Sequence[str]) -> None:
        """Look at the folders of local files, where there are many."""
        local = [file for file in files if not is_remote(file)]
        names = {os.path.dirname(os.path.abspath(file)) for file in local} if len(local) >= MANY else set()
        self._folders = {name: _Folder(name) for name in names}
        self._alike = SimilarHeaders()

    def find(self, path: str, asked: Sequence[Any]) -> BandFile | None:
        """Find a header.

        Args:
            path: The file.
            asked: What else decides how the header is understood, in plain values.

        Returns:
            The header, or None where it is not known or the file has changed.
        """
        folder = self._folders.get(os.path.dirname(os.path.abspath(path)))
        if folder is None:
            return None
        known = folder.find(path, repr(asked))
        if known is None and folder.is_alone(path):
            known = self._alike.find(path, repr(asked))
            if known is not None:
                folder.keep(known, repr(asked))
        return known

    def keep(self, asked: Sequence[Any], file: BandFile) -> None:
        """Remember a header.

        Args:
            asked: As for :meth:`find`.
            file: The header.
        """
        folder = self._folders.get(os.path.dirname(os.path.abspath(file.path)))
        if folder is not None:
            folder.keep(file, repr(asked))
            if folder.is_alone(file.path):
                self._alike.keep(file, repr(asked))

    def save(self) -> None:
        """Write what is new to the disk."""
        for folder in self._folders.values():
            folder.save()


class _Folder:
    """Headers of the files of one folder."""

    def __init__(self, folder: str) -> None:
        self._beside = _states(folder)
        self._kept = cache_folder() / 'headers' / f'{text_key(folder)}.json'
        self._key = [_VERSION, rasterio.__version__, rasterio.__gdal_version__, folder]
        self._crs, self._files = self._read()
        self._known: dict[str, CRS] = {}
        self._changed = False

    def _read(self) -> tuple[list[str], dict[str, Any]]:
        try:
            found = json.loads(self._kept.read_text(encoding='utf-8'))
            if found['key'] == self._key and isinstance(found['files'], dict):
                return list(found['crs']), found['files']
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none there, or torn
        return [], {}

    def _state(self, path: str) -> list[list[Any]]:
        return self._beside.get(_stem(os.path.basename(path)), [])

    def is_alone(self, path: str) -> bool:
        """Whether nothing lies beside a file that could tell more of it."""
        return len(self._state(path)) == 1

    def find(self, path: str, asked: str) -> BandFile | None:
        entry = self._files.get(os.path.basename(path))
        try:
            if entry is None or entry['asked'] != asked or entry['state'] != self._state(path):
                return None
            values: dict[str, Any] = {name: entry[name] for name in _PLAIN}
            values |= {name: tuple(entry[name]) for name in _TUPLES}
            wkt = self._crs[entry['crs']]
            crs = self._known.get(wkt) or self._known.setdefault(wkt, CRS.from_wkt(wkt))
            return BandFile(
                path=path,
                grid=PixelGrid(crs, Affine(*entry['transform']), *entry['size']),
                sources=tuple(os.path.join(os.path.dirname(path), name) for name in entry['sources']),
                **values,
            )
        except (KeyError, TypeError, ValueError, IndexError, CRSError):  # a foreign file
            return None

    def keep(self, file: BandFile, asked: str) -> None:
        state, wkt = self._state(file.path), file.grid.crs.to_wkt()
        if wkt not in self._crs:
            self._crs.append(wkt)
        name = os.path.basename(file.path)
        before = self._files.get(name)
        self._files[name] = {
            'asked': asked,
            'state': state,
            'crs': self._crs.index(wkt),
            'transform': list(file.grid.transform)[:6],
            'size': [file.grid.height, file.grid.width],
            'sources': [os.path.basename(source) for source in file.sources],
            **{field: getattr(file, field) for field in _PLAIN},
            **{field: list(getattr(file, field)) for field in _TUPLES},
        }
        fresh = any(time.time() - changed / 1e9 < FRESH for _, _, changed in state)
        if fresh or not state or not _same(self.find(file.path, asked), file):
            if before is None:
                del self._files[name]
            else:
                self._files[name] = before  # it does not fit this file either, and may fit another that was asked for
        else:
            self._changed = True

    def save(self) -> None:
        if not self._changed:
            return
        there = {name for group in self._beside.values() for name, _, _ in group}
        files = {name: entry for name, entry in self._files.items() if name in there}
        try:
            with atomic_path(self._kept) as temporary:
                temporary.write_text(json.dumps({'key': self._key, 'crs': self._crs, 'files': files}), encoding='utf-8')
        except OutputError as error:
            log.warning('The headers will be read again next time: %s', error)
        self._changed = False


def _states(folder: str) -> dict[str, list[list[Any]]]:
    """Name, size and time of all files of a folder, those of one stem together, in order."""
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
    return name.split('.', 1)[0].lower()  # GDAL finds a .MSK beside a .tif too


def _same(found: BandFile | None, file: BandFile) -> bool:
    """Whether what JSON gives back is the header, in every field and with the same text of its CRS."""
    return found is not None and str(found.grid.crs) == str(file.grid.crs) and all(
        repr(getattr(found, field.name)) == repr(getattr(file, field.name)) for field in fields(file)
    )  # fmt: skip
