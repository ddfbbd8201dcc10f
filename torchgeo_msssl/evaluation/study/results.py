"""Results of a study's cells, each of which lands complete or not at all."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.design import Cell, Study
from torchgeo_msssl.evaluation.study.steps import cell_folder, steps_of
from torchgeo_msssl.files import atomic_path, write_json

#: Columns of ``results.csv``, a row a metric of a cell.
COLUMNS = (
    'study', 'cell', 'initialisation', 'variant', 'fraction', 'shots', 'scenes', 'seed', 'region', 'metric', 'value',
    'seconds', 'run', 'command',
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What came out of a cell.

    Attributes:
        metrics: Numbers by name; empty where it failed.
        seconds: How long it took, without its pretraining.
        command: What ran.
        error: Why it failed, None where it did not.
    """

    metrics: Mapping[str, float]
    seconds: float
    command: str
    error: str | None = None


def write_result(folder: Path, result: Result) -> None:
    """Write ``result.json``.

    Args:
        folder: Folder of a cell or a pretraining.
        result: What came out.

    Raises:
        OutputError: If it cannot be written.
    """
    write_json(folder / 'result.json', vars(result))


def read_result(folder: Path) -> Result | None:
    """Read ``result.json``.

    Args:
        folder: Folder of a cell or a pretraining.

    Returns:
        What came out, None where it did not end.
    """
    path = folder / 'result.json'
    return Result(**json.loads(path.read_text(encoding='utf-8'))) if path.is_file() else None


def finished(study: Study, cells: Sequence[Cell]) -> dict[int, Result]:
    """Find the cells that ended, with or without success.

    Args:
        study: The study.
        cells: Its cells.

    Returns:
        Results by the index of their cell.

    Raises:
        ConfigurationError: If the output folder has results of other options.
    """
    found = {}
    for cell in cells:
        result = read_result(cell_folder(study, cell))
        if result is None:
            continue
        if result.command != steps_of(study, cell).command:
            raise ConfigurationError(
                f'output: {cell_folder(study, cell)} has a result of other options ({result.command}); choose another '
                'output, or remove the folder.'
            )
        found[cell.index] = result
    return found


def write_results(study: Study, cells: Sequence[Cell]) -> Path:
    """Write ``results.csv``, in the order of the cells whatever order they ended in, and ``failures.csv``.

    Args:
        study: The study.
        cells: Its cells.

    Returns:
        Path of ``results.csv``.

    Raises:
        OutputError: If a file cannot be written.
    """
    results = finished(study, cells)
    folder = Path(study.output)
    good = [row for cell in cells if cell.index in results for row in _rows(study, cell, results[cell.index])]
    _write(folder / 'results.csv', COLUMNS, good)
    failed = [
        {'cell': cell.name, 'error': result.error, 'command': result.command}
        for cell in cells
        if (result := results.get(cell.index)) and result.error is not None
    ]
    if failed or (folder / 'failures.csv').exists():
        _write(folder / 'failures.csv', ('cell', 'error', 'command'), failed)
    return folder / 'results.csv'


def read_results(folder: Path) -> list[dict[str, str]]:
    """Read ``results.csv``.

    Args:
        folder: Folder of a study.

    Returns:
        Rows by column; empty where no cell ended.
    """
    path = folder / 'results.csv'
    if not path.is_file():
        return []
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def _rows(study: Study, cell: Cell, result: Result) -> list[dict[str, Any]]:
    what = {
        'study': study.name, 'cell': cell.name, 'initialisation': cell.initialisation.name,
        'variant': cell.variant.name if cell.variant else None, 'fraction': cell.fraction, 'shots': cell.shots,
        'scenes': cell.scenes, 'seed': cell.seed, 'region': cell.region, 'seconds': f'{result.seconds:.1f}',
        'run': cell_folder(study, cell).relative_to(study.output).as_posix(), 'command': result.command,
    }  # fmt: skip
    return [what | {'metric': name, 'value': repr(value)} for name, value in sorted(result.metrics.items())]


def _write(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
