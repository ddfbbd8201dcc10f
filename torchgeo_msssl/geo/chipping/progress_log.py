"""Log of the finished chips of a run.

A hidden file in the output folder has a header, which lists what the chips depend on, and one line per chip. A run
that was killed is resumed from it. The complete log is sorted, so that it does not depend on the number of processes,
and kept, so that the same command can detect changed inputs.
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
from torchgeo_msssl.geo.chipping.write import write_all, write_complete
from torchgeo_msssl.geo.grid import Window
from torchgeo_msssl.geo.scene import Scene
from torchgeo_msssl.shards import Shard

SUMMARY, MANIFEST, GEOJSON, JOURNAL = 'summary.json', 'chips.parquet', 'chips.geojson', '.chips.journal'
#: Logs of shards, see :func:`journal_name`.
_SHARD_JOURNALS = '.chips.*-of-*.journal'


@dataclass(frozen=True)
class Header:
    """Dependencies of chips, as plain values.

    Attributes:
        options: Options of the run.
        common: Other dependencies of every chip; if one changes, all chips are cut again.
        scenes: Fingerprint of each scene's files, by the name of the scene.
        earlier: Names of scenes whose chips may be in the folder without a line; None once the log is complete.
    """

    options: dict[str, Any]
    common: dict[str, Any]
    scenes: dict[str, Fingerprint]
    earlier: list[str] | None = None


class Journal:
    """Log of a run in progress.

    Args:
        folder: The output folder.
        header: Dependencies of the chips.
        scenes: The scenes.
        done: Outcomes of an earlier run.
        shard: Shard that is cut, or None for a run that cuts everything.

    Raises:
        OutputError: If the log cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        header: Header,
        scenes: Sequence[Scene],
        done: Iterable[Outcome],
        shard: Shard | None = None,
    ) -> None:
        """Start the log with the outcomes of an earlier run."""
        self.path = folder / journal_name(shard)
        self.scenes = scenes
        write_complete(self.path, _encoded(header, [self._line(outcome) for outcome in done]))
        self._file = self.path.open('ab', buffering=0)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Log outcomes.

        Args:
            outcomes: Outcomes; those of chips that could not be read are left out.

        Raises:
            OSError: If the disk is full.
        """
        write_all(self._file, ''.join(self._line(outcome) for outcome in outcomes if outcome.facts).encode())

    @property
    def descriptor(self) -> int:
        """Descriptor of the file while it is open."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def finish(self, header: Header, failed: Iterable[str]) -> None:
        """Sort the lines of a complete log.

        Args:
            header: Dependencies of the chips.
            failed: Names of scenes of which no chip is kept.

        Raises:
            OutputError: If the log cannot be written.
        """
        self.close()
        _, *lines = self.path.read_text(encoding='utf-8').splitlines(keepends=True)
        gone = tuple(f'[{json.dumps(name)}, ' for name in failed)
        write_complete(self.path, _encoded(header, sorted(line for line in lines if not line.startswith(gone))))

    def _line(self, outcome: Outcome) -> str:
        chip, facts = outcome.chip, outcome.facts
        assert facts is not None
        moments = None if facts.moments is None else facts.moments.tolist()
        entry = [
            self.scenes[chip.scene].name,
            *(chip.window.row, chip.window.col, chip.window.height, chip.window.width),
            chip.part,
            facts.valid,
            facts.classes,
            moments,
            outcome.size,
            outcome.mask_size,
        ]
        return json.dumps(entry) + '\n'


def journal_name(shard: Shard | None) -> str:
    """Return the name of the log of a shard, or of a run that cuts everything."""
    return JOURNAL if shard is None else f'.chips.{shard.file_part}.journal'


def shard_journals(folder: str | Path) -> list[Path]:
    """List the logs of all shards in a folder, which exist until a run without a shard has taken them over."""
    return sorted(Path(folder).glob(_SHARD_JOURNALS))


def read_journal(path: Path) -> tuple[Header, list[Any]] | None:
    """Read the log of an earlier run.

    Args:
        path: The log.

    Returns:
        Dependencies of its chips, and the lines; None if there is no log, or it cannot be read.
    """
    if not path.is_file():
        return None
    entries: list[Any] = []
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # the last line may be incomplete after a kill
            break
    try:
        return Header(**entries[0]), entries[1:]
    except (IndexError, TypeError):  # incomplete after a power cut, or of another version
        return None


def outcome_of(entry: Sequence[Any], scenes: dict[str, int]) -> Outcome | None:
    """Parse a line of the log.

    Args:
        entry: The line.
        scenes: Index of each scene by its name.

    Returns:
        Outcome of the chip, or None if its scene is not among the scenes.
    """
    name, row, col, height, width, part, valid, classes, moments, size, mask_size = entry
    if name not in scenes:
        return None
    facts = Facts(valid, tuple(classes), None if moments is None else np.array(moments))
    return Outcome(Chip(scenes[name], Window(row, col, height, width), part), facts, size, mask_size)


def _encoded(header: Header, lines: Iterable[str]) -> bytes:
    return (json.dumps(asdict(header)) + '\n' + ''.join(lines)).encode()
