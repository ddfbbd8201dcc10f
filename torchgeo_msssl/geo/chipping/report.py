"""Summary of a chipping run."""

from dataclasses import dataclass
from pathlib import Path

from torchgeo_msssl.geo.chipping.options import ALL
from torchgeo_msssl.geo.chipping.split import Split
from torchgeo_msssl.shards import Shard

_REASONS = {
    'too_little_data': 'too little data',
    'too_few_labels': 'too few labels',
    'empty': 'no foreground class',
    'between_parts': 'between the parts',
    'unreadable': 'in scenes that cannot be read',
}


@dataclass(frozen=True)
class Report:
    """Summary of a chipping run.

    Attributes:
        counts: Number of windows (``windows``), of chips kept (``chips``), and of windows left out by reason.
        parts: Number of chips in each part.
        size: Size of the chips in bytes; an estimate in a dry run.
        split: Result of the split, or None.
        failed: Reason why a scene could not be read, by its name.
        complete: Whether an earlier run had written everything.
        scenes: Number of scenes, of which some may not be readable.
        shard: Shard that was cut, of whose chips only the number is counted; None for all chips.
    """

    counts: dict[str, int]
    parts: dict[str, int]
    size: int
    split: Split | None
    failed: dict[str, str]
    complete: bool = False
    scenes: int = 0
    shard: Shard | None = None

    def lines(self, folder: str | Path, dry_run: bool = False) -> list[str]:
        """Format the report for the terminal.

        Args:
            folder: Output folder.
            dry_run: Whether nothing was written.

        Returns:
            Lines.
        """
        counts = self.counts
        if self.shard is not None and not self.complete:
            return [
                f'Wrote {counts["chips"]:,} chips ({self.size / 1e6:,.1f} MB) of shard {self.shard} into {folder}.',
                'When all shards have ended, run the same command without --shard, which writes the manifest.',
            ]
        lines = [f'{counts["chips"]:,} of {counts["windows"]:,} windows are chips{self._left_out()}.']
        if list(self.parts) != [ALL]:
            lines.append('  ' + ', '.join(f'{part} {count:,}' for part, count in self.parts.items()))
        if self.split is not None:
            lines.append(self.split.sentence())
        if self.complete:
            return [*lines, f'{folder} is complete already; there is nothing to do.']
        size = f'{self.size / 1e6:,.1f} MB'
        return [*lines, f'They would take about {size}.' if dry_run else f'Wrote {folder} ({size} of chips).']

    def _left_out(self) -> str:
        left_out = [f'{self.counts[key]:,} {text}' for key, text in _REASONS.items() if self.counts[key]]
        return f' ({", ".join(left_out)})' if left_out else ''
