"""What a pretraining knew of the ground that its cells are tested on."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Provenance:
    """What a pretraining knew.

    Attributes:
        reads_test_ground: Whether its scenes share ground with those that cells are tested on.
        labels: Whether it learnt from labels; None where an earlier version did not note it.
        same_split: Whether it had the split of its cell.
        chosen_by_labels: Whether labels chose its checkpoint.
    """

    reads_test_ground: bool
    labels: bool | None = None
    same_split: bool = False
    chosen_by_labels: bool = False

    @property
    def sentence(self) -> str:
        """What it knew, after ``it``."""
        if self.labels and self.same_split:
            return 'learnt from the labels of the training ground of its cell (never from those of the test ground)'
        if self.labels:
            where = 'ground that includes the test ground' if self.reads_test_ground else 'other ground'
            return f'learnt from labels of {where}'
        if not self.reads_test_ground:
            return 'did not read the pixels of the test ground'
        if self.chosen_by_labels:
            return 'read the pixels of the test ground too, and labels that may be of it chose its checkpoint'
        return 'read the pixels of the test ground too' + (' (never its labels)' if self.labels is False else '')


def read_provenance(folder: Path) -> Provenance | None:
    """Read ``provenance.json``.

    Args:
        folder: Folder of a pretraining.

    Returns:
        What it knew; None where that was not noted.
    """
    try:
        return Provenance(**json.loads((folder / 'provenance.json').read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError):  # not there yet, or of another version
        return None
