"""What became of a run, as it is told."""

from dataclasses import dataclass
from pathlib import Path

from torchgeo_msssl.geo.chipping.options import ALL
from torchgeo_msssl.geo.chipping.split import Split


@dataclass(frozen=True)
class Report:
    """What became of a run.

    Attributes:
        counts: Windows looked at (``windows``), chips kept (``chips``), and those left out by reason.
        parts: Chips in each part.
        size: Bytes of the chips; estimated in a dry run.
        split: What the split came to, or None.
        failed: Why a scene could not be read, by its name.
        earlier: Whether an earlier run had done everything.
    """

    counts: dict[str, int]
    parts: dict[str, int]
    size: int
    split: Split | None
    failed: dict[str, str]
    earlier: bool = False

    def lines(self, folder: str | Path, dry_run: bool = False) -> list[str]:
        """The report as people read it.

        Args:
            folder: The output folder.
            dry_run: Whether nothing was written.

        Returns:
            Lines.
        """
        counts = self.counts
        lines = [f'{counts["chips"]:,} of {counts["windows"]:,} windows are chips{self._left_out()}.']
        if list(self.parts) != [ALL]:
            lines.append('  ' + ', '.join(f'{part} {count:,}' for part, count in self.parts.items()))
        if self.split is not None:
            lines.append(self.split.sentence())
        if self.earlier:
            return [*lines, f'{folder} is complete already; nothing was to be done.']
        size = f'{self.size / 1e6:,.1f} MB'
        return [*lines, f'They would take about {size}.' if dry_run else f'Wrote {folder} ({size} of chips).']

    def _left_out(self) -> str:
        reasons = {
            'too_little_data': 'too little data', 'too_few_labels': 'too few labels', 'empty': 'no foreground class',
            'between_parts': 'between the parts', 'unreadable': 'in scenes that cannot be read',
        }  # fmt: skip
        said = [f'{self.counts[key]:,} {text}' for key, text in reasons.items() if self.counts[key]]
        return f' ({", ".join(said)})' if said else ''
