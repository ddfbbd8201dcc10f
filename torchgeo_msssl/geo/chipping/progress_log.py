"""Log of the finished chips of a run.

A hidden file in the output folder has a line for each chip, below one about what the chips depend on. A run that was
killed goes on from it. It stays when all is done, in an order that no number of workers changes, so that the same
command finds out what has changed since.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchgeo_msssl.geo.chipping.cutting import Outcome
from torchgeo_msssl.geo.chipping.fingerprints import Fingerprint
from torchgeo_msssl.geo.chipping.plan import Chip, Facts
from torchgeo_msssl.geo.chipping.write import write_all, write_whole
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene

SUMMARY, MANIFEST, GEOJSON, JOURNAL = 'summary.json', 'chips.parquet', 'chips.geojson', '.chips.journal'


@dataclass(frozen=True)
class Header:
    """What chips depend on, as plain values.

    Attributes:
        options: Options of the run.
        common: What else every chip depends on; where it differs, all are cut anew.
        scenes: State of each scene's files, by the scene's name.
        earlier: Names of scenes whose chips may lie in the folder without being noted; None once all is noted.
    """

    options: dict[str, Any]
    common: dict[str, Any]
    scenes: dict[str, Fingerprint]
    earlier: list[str] | None = None


class Journal:
    """The file as it is being written.

    Args:
        folder: The output folder.
        header: What the chips depend on.
        scenes: The scenes.
        done: What became of chips before.

    Raises:
        OutputError: If it cannot be written.
    """

    def __init__(self, folder: Path, header: Header, scenes: Sequence[Scene], done: Iterable[Outcome]) -> None:
        """Start it with what is done already."""
        self.path = folder / JOURNAL
        self.scenes = scenes
        write_whole(self.path, _encoded(header, [self._line(outcome) for outcome in done]))
        self._file = self.path.open('ab', buffering=0)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Note what became of chips.

        Args:
            outcomes: What became of them; those that could not be read are not noted.

        Raises:
            OSError: If the disk is full.
        """
        write_all(self._file, ''.join(self._line(outcome) for outcome in outcomes if outcome.facts).encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def finish(self, header: Header, failed: Iterable[str]) -> None:
        """Put the lines in order, once there are no more.

        Args:
            header: What the chips depend on.
            failed: Names of scenes of which nothing is kept.

        Raises:
            OutputError: If it cannot be written.
        """
        self.close()
        _, *lines = self.path.read_text(encoding='utf-8').splitlines(keepends=True)
        gone = tuple(f'[{json.dumps(name)}, ' for name in failed)
        write_whole(self.path, _encoded(header, sorted(line for line in lines if not line.startswith(gone))))

    def _line(self, outcome: Outcome) -> str:
        chip, facts = outcome.chip, outcome.facts
        assert facts is not None
        moments = None if facts.moments is None else facts.moments.tolist()
        entry = [
            self.scenes[chip.scene].name, *(chip.window.row, chip.window.col, chip.window.height, chip.window.width),
            chip.part, facts.valid, facts.classes, moments, outcome.size, outcome.mask_size,
        ]  # fmt: skip
        return json.dumps(entry) + '\n'


def read_journal(folder: Path) -> tuple[Header, list[Any]] | None:
    """Read what an earlier run noted.

    Args:
        folder: The output folder.

    Returns:
        What its chips depend on and the lines about them; None where there is no journal, or none that can be read.
    """
    path = folder / JOURNAL
    if not path.is_file():
        return None
    entries: list[Any] = []
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # the line that was being written when the run was killed
            break
    try:
        return Header(**entries[0]), entries[1:]
    except (IndexError, TypeError):  # lost in a power cut, or of another version
        return None


def outcome_of(entry: Sequence[Any], scenes: dict[str, int]) -> Outcome | None:
    """What a line of the journal says.

    Args:
        entry: The line.
        scenes: Index of each scene by its name.

    Returns:
        What became of the chip, or None where its scene is not among these.
    """
    name, row, col, height, width, part, valid, classes, moments, size, mask_size = entry
    if name not in scenes:
        return None
    facts = Facts(valid, tuple(classes), None if moments is None else np.array(moments))
    return Outcome(Chip(scenes[name], Window(row, col, height, width), part), facts, size, mask_size)


def _encoded(header: Header, lines: Iterable[str]) -> bytes:
    return (json.dumps(asdict(header)) + '\n' + ''.join(lines)).encode()
