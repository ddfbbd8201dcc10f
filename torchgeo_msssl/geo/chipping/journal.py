"""What a killed run of chips goes on from.

A hidden file in the output folder has a line for each chip that is done. It tells, too, which inputs the chips were
cut from: those of a scene that has changed since are cut again.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.files import atomic_path
from torchgeo_msssl.geo.chipping.cutting import Outcome
from torchgeo_msssl.geo.chipping.options import ALL, PARTS
from torchgeo_msssl.geo.chipping.plan import Chip, Facts
from torchgeo_msssl.geo.chipping.write import TEMPORARY
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene

SUMMARY, MANIFEST, GEOJSON, JOURNAL = 'summary.json', 'chips.parquet', 'chips.geojson', '.chips.journal'
#: Folders of chips below the output folder.
FOLDERS = tuple(f'{"" if part == ALL else f"{part}/"}{kind}' for part in (ALL, *PARTS) for kind in ('images', 'masks'))


@dataclass(frozen=True)
class Found:
    """What an earlier run left in the output folder.

    Attributes:
        complete: The summary of a run that was completed with the same options, or None.
        done: What became of chips, by scene's name, row and column.
    """

    complete: dict[str, Any] | None
    done: dict[tuple[str, int, int], Outcome]


def look(folder: Path, options: Mapping[str, Any], scenes: Sequence[Scene], overwrite: bool) -> Found:
    """See what is in the output folder, and clear it where that was asked for.

    Args:
        folder: The output folder.
        options: Options of this run, as plain values.
        scenes: The scenes.
        overwrite: Whether to remove what an earlier run left.

    Returns:
        What can be used.

    Raises:
        ConfigurationError: If the folder holds chips cut with other options, or files of somebody else.
    """
    options = json.loads(json.dumps(options))  # lists and tuples are one
    if not folder.exists() or not any(folder.iterdir()):
        return Found(None, {})
    summary, journal = folder / SUMMARY, folder / JOURNAL
    if not summary.is_file() and not journal.is_file():
        msg = f'output: {folder} holds files that `chip` did not write; choose another folder, or empty this one.'
        raise ConfigurationError(msg)
    if overwrite:
        clear(folder)
        return Found(None, {})
    entries = _read_journal(journal) if journal.is_file() else []
    content: dict[str, Any] = json.loads(summary.read_text(encoding='utf-8')) if summary.is_file() else {}
    earlier: Mapping[str, Any] = content['options'] if content else entries[0]['options'] if entries else options
    if earlier != options:
        different = sorted(name for name in options if earlier.get(name) != options[name])
        msg = (
            f'output: {folder} holds chips cut with another {", ".join(different)}; choose another folder, or add '
            '--overwrite to replace them.'
        )
        raise ConfigurationError(msg)
    if content and not content['failed']:
        return Found(content, {})
    return Found(None, _usable(folder, entries, scenes))


def clear(folder: Path) -> None:
    """Remove what an earlier run wrote into a folder, and nothing else.

    Args:
        folder: The output folder.
    """
    for name in (SUMMARY, MANIFEST, GEOJSON):
        (folder / name).unlink(missing_ok=True)
    for below in FOLDERS:
        for file in (folder / below).glob('*.tif'):
            file.unlink()
    clear_unfinished(folder)
    (folder / JOURNAL).unlink(missing_ok=True)


def clear_unfinished(folder: Path) -> None:
    """Remove files that a killed run was writing."""
    for below in FOLDERS:
        for file in (folder / below).glob(f'.*{TEMPORARY}'):
            file.unlink(missing_ok=True)


class Journal:
    """The file with a line for each chip, as it is being written."""

    def __init__(self, folder: Path, options: Mapping[str, Any], scenes: Sequence[Scene], done: Iterable[Outcome]):
        """Start it with what is done already.

        Args:
            folder: The output folder.
            options: Options of the run, as plain values.
            scenes: The scenes.
            done: What became of chips before.

        Raises:
            OutputError: If it cannot be written.
        """
        self.scenes = scenes
        with atomic_path(folder / JOURNAL) as temporary, temporary.open('w', encoding='utf-8') as file:
            header = {'options': options, 'states': {scene.name: _state(scene) for scene in scenes}}
            file.write(json.dumps(header) + '\n')
            file.writelines(self._line(outcome) for outcome in done)
        self._file = (folder / JOURNAL).open('a', encoding='utf-8')

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Note what became of chips."""
        self._file.writelines(self._line(outcome) for outcome in outcomes if outcome.facts is not None)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line(self, outcome: Outcome) -> str:
        chip, facts = outcome.chip, outcome.facts
        assert facts is not None
        moments = None if facts.moments is None else facts.moments.tolist()
        entry = [
            self.scenes[chip.scene].name, *(chip.window.row, chip.window.col, chip.window.height, chip.window.width),
            chip.part, facts.valid, facts.classes, moments, outcome.size, outcome.mask_size,
        ]  # fmt: skip
        return json.dumps(entry) + '\n'


def _state(scene: Scene) -> list[list[Any]]:
    """What changes when a scene's files do."""
    states = []
    for file in scene.files:
        for path in file.sources or (file.path,):
            try:
                status = os.stat(path)
            except OSError:  # a virtual path: its name has to do
                states.append([path, 0, 0])
            else:
                states.append([os.path.abspath(path), status.st_size, status.st_mtime_ns])
    return states


def _read_journal(path: Path) -> list[Any]:
    entries = []
    for line in path.read_text(encoding='utf-8').splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # the line that was being written when the run was killed
            break
    return entries


def _usable(folder: Path, entries: Sequence[Any], scenes: Sequence[Scene]) -> dict[tuple[str, int, int], Outcome]:
    """Outcomes of chips of unchanged scenes whose files are there in full."""
    done: dict[tuple[str, int, int], Outcome] = {}
    if not entries:
        return done
    index = {scene.name: i for i, scene in enumerate(scenes) if entries[0]['states'].get(scene.name) == _state(scene)}
    for name, row, col, height, width, part, valid, classes, moments, size, mask_size in entries[1:]:
        if name not in index:
            continue
        chip = Chip(index[name], Window(row, col, height, width), part)
        image = folder / ('' if part == ALL else part) / 'images' / f'{chip.stem(scenes[chip.scene])}.tif'
        mask = image.parent.parent / 'masks' / image.name
        if (size and _size(image) != size) or (mask_size and _size(mask) != mask_size):
            continue
        facts = Facts(valid, tuple(classes), None if moments is None else np.array(moments))
        done[name, row, col] = Outcome(chip, facts, size, mask_size)
    return done


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
