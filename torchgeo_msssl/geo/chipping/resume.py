"""Reuse of the chips that an earlier run left in the output folder."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.chipping.cutting import Outcome
from torchgeo_msssl.geo.chipping.options import ALL
from torchgeo_msssl.geo.chipping.progress_log import (
    JOURNAL,
    MANIFEST,
    SUMMARY,
    Header,
    journal_name,
    outcome_of,
    read_journal,
    shard_journals,
)
from torchgeo_msssl.geo.chipping.write import TEMPORARY
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.shards import Shard

type Key = tuple[str, int, int]

#: Entries of a summary that `chip` wrote.
_ENTRIES = frozenset({'format', 'options', 'scenes', 'failed', 'counts'})


@dataclass(frozen=True)
class Found:
    """Chips of an earlier run in the output folder.

    Attributes:
        complete: Summary of a complete run, or None.
        done: Outcomes of chips that are still valid, by name of the scene, row and column.
        names: Names of scenes whose chips may be in the folder.
    """

    complete: dict[str, Any] | None = None
    done: dict[Key, Outcome] = field(default_factory=dict)
    names: frozenset[str] = frozenset()


def find_earlier(
    folder: Path, header: Header, scenes: Sequence[Scene], overwrite: bool, shard: Shard | None = None
) -> Found:
    """Find the chips of an earlier run in the output folder.

    Args:
        folder: The output folder.
        header: Dependencies of the chips of this run.
        scenes: The scenes.
        overwrite: Whether existing chips are replaced.
        shard: Shard that is cut; None reuses what all shards left.

    Returns:
        What can be reused.

    Raises:
        ConfigurationError: If the folder holds chips cut with other options, or files of other programs.
        OSError: If the folder cannot be read.
    """
    summary, main = _read_summary(folder / SUMMARY), read_journal(folder / JOURNAL)
    if summary is None and not (folder / JOURNAL).is_file() and not shard_journals(folder):
        if _holds_files(folder):
            msg = f'output: {folder} holds files that `chip` did not write; choose another folder, or empty this one.'
            raise ConfigurationError(msg)
        return Found()
    shards = shard_journals(folder) if shard is None else [folder / journal_name(shard)]
    logs = [log for log in (main, *map(read_journal, shards)) if log is not None]
    names = {*summary['scenes'], *summary['failed']} if summary else set()
    for earlier, _ in logs:
        names.update(earlier.scenes, earlier.earlier or ())
    if not overwrite:
        given = [earlier.options for earlier, _ in logs] or ([summary['options']] if summary else [])
        for options in given:
            _check_options(folder, header.options, options)
    done: dict[Key, Outcome] = {}
    for earlier, entries in () if overwrite else logs:
        if earlier.common == header.common:
            unchanged = {name for name, state in header.scenes.items() if earlier.scenes.get(name) == state}
            done |= _usable(folder, entries, scenes, unchanged)
    whole = main is not None and main[0] == header and len(done) == len(main[1]) and (folder / MANIFEST).is_file()
    whole = whole and not overwrite
    return Found(summary if whole and summary and not summary['failed'] else None, done, frozenset(names))


def _check_options(folder: Path, options: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    if earlier != options:
        different = sorted(name for name, value in options.items() if earlier.get(name) != value)
        msg = (
            f'output: {folder} holds chips cut with other {", ".join(different)}; choose another folder, or add '
            '--overwrite to replace them.'
        )
        raise ConfigurationError(msg)


def _usable(folder: Path, entries: Iterable[Any], scenes: Sequence[Scene], unchanged: set[str]) -> dict[Key, Outcome]:
    """Outcomes of chips of unchanged scenes whose files are complete."""
    index = {scene.name: i for i, scene in enumerate(scenes) if scene.name in unchanged}
    done: dict[Key, Outcome] = {}
    for entry in entries:
        outcome = outcome_of(entry, index)
        if outcome is not None and _is_whole(folder, outcome, scenes[outcome.chip.scene]):
            done[entry[0], outcome.chip.window.row, outcome.chip.window.col] = outcome
    return done


def _is_whole(folder: Path, outcome: Outcome, scene: Scene) -> bool:
    part = folder if outcome.chip.part == ALL else folder / outcome.chip.part
    name = f'{outcome.chip.stem(scene)}.tif'
    expected = (('images', outcome.size), ('masks', outcome.mask_size))
    return all(not size or _size(part / kind / name) == size for kind, size in expected)


def _read_summary(path: Path) -> dict[str, Any] | None:
    """The summary that ``chip`` wrote; None if there is none, or the file is of another program."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return None
    return content if isinstance(content, dict) and set(content) >= _ENTRIES else None


def _holds_files(folder: Path) -> bool:
    """Whether a folder holds any file other than temporary ones."""
    return any(not name.endswith(TEMPORARY) for _, _, names in os.walk(folder) for name in names)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
