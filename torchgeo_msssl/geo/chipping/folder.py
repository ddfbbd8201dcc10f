"""Output folder of chips.

Files of other programs are never removed. If a run is killed, its log exists, or nothing has been changed.
"""

import contextlib
import errno
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import filelock

from torchgeo_msssl.errors import MSSSLError, OutputError
from torchgeo_msssl.geo.chipping.cutting import Outcome
from torchgeo_msssl.geo.chipping.options import ALL
from torchgeo_msssl.geo.chipping.progress_log import (
    GEOJSON,
    JOURNAL,
    MANIFEST,
    SUMMARY,
    Header,
    Journal,
    journal_name,
    shard_journals,
)
from torchgeo_msssl.geo.chipping.resume import Found, find_earlier
from torchgeo_msssl.geo.chipping.write import TEMPORARY
from torchgeo_msssl.geo.ground.parts import PARTS, SPLIT_FILE
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.shards import Shard

#: Folders of chips below the output folder.
FOLDERS = tuple(f'{"" if part == ALL else f"{part}/"}{kind}' for part in (ALL, *PARTS) for kind in ('images', 'masks'))
#: Names of chips and of temporary files of chips, with the name of their scene; see :meth:`Chip.stem`.
_NAMES = (
    re.compile(r'(.+)_\d{5,}_\d{5,}\.tif'),
    re.compile(r'\.(.+)_\d{5,}_\d{5,}\.tif\.\d+' + re.escape(TEMPORARY)),
)
#: Error numbers of file systems without locks on folders.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF})


class OutputFolder:
    """The output folder of one run, for use in a ``with`` block.

    Several shards may write into it at the same time, each its own chips and its own log; nothing is removed then. A
    run without a shard has the folder for itself.

    Args:
        path: The folder.
        header: Dependencies of the chips.
        scenes: The scenes.
        names: Names of the scenes, failed ones included.
        shard: Shard that is cut, or None for everything.
    """

    def __init__(
        self, path: Path, header: Header, scenes: Sequence[Scene], names: Iterable[str], shard: Shard | None = None
    ) -> None:
        """Change nothing yet."""
        self.path = path
        self.header = replace(header, **json.loads(json.dumps({'options': header.options, 'common': header.common})))
        self.scenes = scenes
        self.names = set(names)
        self.shard = shard
        self._lock: int | None = None
        self._journal: Journal | None = None

    def __enter__(self) -> Self:
        """Change nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the log and release the folder."""
        if self._journal is not None:
            self._journal.close()
        if self._lock is not None:
            os.close(self._lock)

    def look(self, overwrite: bool) -> Found:
        """Find the chips of an earlier run.

        Args:
            overwrite: Whether to replace them.

        Returns:
            What can be reused.

        Raises:
            ConfigurationError: If the folder holds chips cut with other options, or files of other programs.
            OutputError: If it cannot be written, or another run is writing into it.
        """
        found = Found()
        if self.path.is_dir():
            with writing(self.path):
                self._claim()
                found = find_earlier(self.path, self.header, self.scenes, overwrite, self.shard)
                self.names.update(found.names)
        if found.complete is None:
            _check_writable(self.path)
        return found

    def begin(self, good: Sequence[Outcome], files: Collection[str], parts: Iterable[str]) -> None:
        """Remove what cannot be reused, and start the log.

        Args:
            good: Outcomes that are reused.
            files: Paths of their files, relative to the folder.
            parts: Folders of chips to create in it.

        Raises:
            OutputError: If that fails, or another run is writing into the folder.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._claim()
            # written first, with the names of all scenes, so that the next run can clean up if this one is killed
            header = replace(self.header, earlier=sorted(self.names))
            self._check_single()
            self._journal = Journal(self.path, header, self.scenes, good, self.shard)
            self._hold(self._journal.descriptor, shared=False)
            if self.shard is None:
                for name in (SUMMARY, MANIFEST, GEOJSON, SPLIT_FILE):
                    (self.path / name).unlink(missing_ok=True)
                for journal in shard_journals(self.path):  # its lines are in the log by now
                    journal.unlink()
                self._remove_but(files)
            for part in parts:
                (self.path / part).mkdir(parents=True, exist_ok=True)

    def note(self, outcomes: Iterable[Outcome]) -> None:
        """Log outcomes.

        Args:
            outcomes: Outcomes of chips.

        Raises:
            OutputError: If the disk is full.
        """
        assert self._journal is not None
        with writing(self.path):
            self._journal.add(outcomes)

    def finish(self, files: Collection[str], failed: Iterable[str]) -> None:
        """Remove chips that are not kept, and sort the log; the manifest and the summary are written next.

        Args:
            files: Paths of the files that are kept, relative to the folder.
            failed: Names of scenes of which no chip is kept.

        Raises:
            OutputError: If that fails.
        """
        assert self._journal is not None
        with writing(self.path):
            if self.shard is None:
                self._remove_but(files)
            self._journal.finish(self.header, failed)

    def discard(self) -> None:
        """Remove everything after a run that kept no chip.

        Raises:
            OutputError: If that fails.
        """
        with writing(self.path):
            self._remove_but(())
            (self.path / JOURNAL).unlink(missing_ok=True)
            _remove_empty(self.path)

    def _claim(self) -> None:
        """Lock the folder itself, so that no lock file is left, however this process ends; not possible on Windows."""
        if not filelock.has_fcntl or self._lock is not None:
            return
        self._lock = os.open(self.path, os.O_RDONLY)
        self._hold(self._lock, shared=self.shard is not None)

    def _check_single(self) -> None:
        """Raise if another process cuts the same shard."""
        if filelock.has_fcntl and self.shard is not None:
            with contextlib.suppress(FileNotFoundError), (self.path / journal_name(self.shard)).open('rb') as journal:
                self._hold(journal.fileno(), shared=False)

    def _hold(self, descriptor: int, shared: bool) -> None:
        """Lock the folder or a log until it is closed, where its file system has locks."""
        if not filelock.has_fcntl:
            return
        try:
            locked = _lock(descriptor, shared)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return
        if not locked:
            msg = f'{self.path} is being written by another run of `chip`; wait for it, or choose another folder.'
            raise OutputError(msg)

    def _remove_but(self, files: Collection[str]) -> None:
        """Remove the files of chips, temporary ones included, except some."""
        for below in FOLDERS:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path / below) as entries:
                for entry in entries:
                    if f'{below}/{entry.name}' not in files and self._is_ours(entry.name):
                        os.unlink(entry.path)
        for leftover in self.path.glob(f'.{JOURNAL}.*{TEMPORARY}'):
            leftover.unlink()
        for below in (*FOLDERS, *PARTS):
            _remove_empty(self.path / below)

    def _is_ours(self, name: str) -> bool:
        found = next(filter(None, (known.fullmatch(name) for known in _NAMES)), None)
        return found is not None and found[1] in self.names


def _lock(descriptor: int, shared: bool) -> bool:
    """Lock a file or folder, together with others or alone; return whether that was possible."""
    import fcntl  # does not exist on Windows

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise one error for whatever prevents writing a folder.

    Args:
        folder: The folder.

    Raises:
        OutputError: If a system call in the block fails.
    """
    try:
        yield
    except MSSSLError:
        raise
    except OSError as error:
        raise _unwritable(error.filename or folder, error.strerror or str(error)) from error


def _unwritable(path: str | Path, reason: str) -> OutputError:
    remedy = 'free disk space or choose another folder, then run the same command to resume'
    return OutputError(f'{path} cannot be written ({reason}); {remedy}.')


def _check_writable(folder: Path) -> None:
    """Check that a folder can be created or written, before all scenes are read."""
    nearest = folder.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise _unwritable(folder, f'{nearest} is not a folder')
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _unwritable(folder, f'no permission to write into {nearest}')


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not there, or not empty
        folder.rmdir()
