"""Progress bars with rate and time left, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def progress_bar(description: str, total: int = 1) -> Iterator[Callable[[int, float], None]]:
    """Show the progress of ``total`` pieces of work.

    Args:
        description: What is being done.
        total: Number of pieces.

    Yields:
        A function to call with ``(piece, fraction of that piece)``.
    """
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)

        def advance(piece: int, fraction: float) -> None:
            progress.update(task, completed=piece + fraction)

        yield advance
