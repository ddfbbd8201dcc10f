"""Progress bars with rate and remaining time, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class _RateColumn(ProgressColumn):
    """Steps per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Return the rate of a task once it is known."""
        rate = task.finished_speed or task.speed
        return Text(f'{rate:.1f} {self.unit}/s' if rate else '')


@contextmanager
def progress_bar(description: str, total: int = 1, unit: str = '') -> Iterator[Callable[[int, float], None]]:
    """Show the progress of an operation.

    Args:
        description: Text next to the bar.
        total: Number of steps.
        unit: Unit of the steps. If given, their rate is shown.

    Yields:
        A function to call with the number of completed steps and the fraction of the next one.
    """
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        *([_RateColumn(unit)] if unit else []),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)

        def advance(completed: int, fraction: float) -> None:
            progress.update(task, completed=completed + fraction)

        yield advance
