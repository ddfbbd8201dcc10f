"""Use that a pretraining made of the ground on which its cells are tested."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Provenance:
    """Data that a pretraining used.

    Attributes:
        reads_test_ground: Whether its scenes share ground with those that cells are tested on.
        labels: Whether it learned from labels; None in files of earlier versions.
        same_split: Whether it had the split of its cell.
        chosen_by_labels: Whether labels chose its checkpoint.
    """

    reads_test_ground: bool
    labels: bool | None = None
    same_split: bool = False
    chosen_by_labels: bool = False

    @property
    def sentence(self) -> str:
        """Description that follows the name of the pretraining in a sentence."""
        if self.labels and self.same_split:
            return 'learned from the labels of the training ground of its cell (never from those of the test ground)'
        if self.labels:
            where = 'ground that includes the test ground' if self.reads_test_ground else 'other ground'
            return f'learned from labels of {where}'
        if not self.reads_test_ground:
            return 'did not read the pixels of the test ground'
        if self.chosen_by_labels:
            return 'read the pixels of the test ground too, and labels that may be of it chose its checkpoint'
        return 'read the pixels of the test ground too' + (' (never its labels)' if self.labels is False else '')


def read_provenance(folder: Path) -> Provenance | None:
    """Read ``provenance.json``.

    Returns:
        Its content; None without such a file.
    """
    try:
        return Provenance(**json.loads((folder / 'provenance.json').read_text(encoding='utf-8')))
    except (OSError, ValueError, TypeError):  # does not exist yet, or is of another version
        return None
