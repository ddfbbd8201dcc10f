"""Results of a study's cells, each of which lands complete or not at all."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.cell_commands import (
    cell_folder,
    configuration_digest,
    pretraining_command,
    pretraining_folder,
    steps_of,
)
from torchgeo_msssl.evaluation.study.cell_locks import claim
from torchgeo_msssl.evaluation.study.design import Cell, Study
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
        digest: Of the content of its configurations; None where an earlier version did not note it.
    """

    metrics: Mapping[str, float]
    seconds: float
    command: str
    error: str | None = None
    digest: str | None = None


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
        ConfigurationError: If the output folder has results, or pretrainings, of other options or configurations.
    """
    found = {}
    for cell in cells:
        check_pretraining(study, cell)
        result = read_result(cell_folder(study, cell))
        if result is None:
            continue
        digest = configuration_digest(study, cell)
        if result.command != steps_of(study, cell).command or result.digest not in (None, digest):
            raise ConfigurationError(
                f'output: {cell_folder(study, cell)} has a result of other options ({result.command}), or of another '
                'content of its configuration; choose another output, or remove the folder.'
            )
        found[cell.index] = result
    return found


def check_pretraining(study: Study, cell: Cell) -> None:
    """See that the pretraining of a cell, as far as there is one already, is the one that the study asks for.

    Args:
        study: The study.
        cell: A cell.

    Raises:
        ConfigurationError: If it is one of other options, or of another content of its configuration.
    """
    folder, wanted = pretraining_folder(study, cell), pretraining_command(study, cell)
    if folder is None or wanted is None:
        return
    begun = read_begun(folder)
    if begun is not None and (begun[0] != wanted[0] or begun[1] not in (None, wanted[1])):
        raise ConfigurationError(
            f'output: {folder} has a pretraining of other options ({begun[0]}), or of another content of its '
            'configuration; choose another output, or remove the folder.'
        )


def read_begun(folder: Path) -> tuple[str, str | None] | None:
    """Read what a pretraining that ended, or began, is.

    Args:
        folder: Its folder.

    Returns:
        Its command, and the digest of its configuration (None where an earlier version did not note it); None where
        there is no pretraining.
    """
    if result := read_result(folder):
        return result.command, result.digest
    path = folder / 'command.json'
    if not path.is_file():
        return None
    noted = json.loads(path.read_text(encoding='utf-8'))
    return noted['command'], noted['digest']


def write_results(study: Study, cells: Sequence[Cell]) -> Path:
    """Write ``results.csv``, in the order of the cells whatever order they ended in, and ``failures.csv``.

    Rows of cells outside of these, which an earlier call with more seeds ran for instance, stay behind them.

    Args:
        study: The study.
        cells: Its cells.

    Returns:
        Path of ``results.csv``.

    Raises:
        OutputError: If a file cannot be written.
    """
    folder = Path(study.output)
    with claim(folder / 'claims' / 'results', wait=True):  # others may be at it, with fewer cells
        results = finished(study, cells)
        good = [row for cell in cells if cell.index in results for row in _rows(study, cell, results[cell.index])]
        _write(folder / 'results.csv', COLUMNS, [*good, *_of_others(folder, 'results.csv', cells)])
        failed: list[Mapping[str, Any]] = [
            {'cell': cell.name, 'error': result.error, 'command': result.command}
            for cell in cells
            if (result := results.get(cell.index)) and result.error is not None
        ]
        failed += _of_others(folder, 'failures.csv', cells)
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
    return _read(folder / 'results.csv')


def _of_others(folder: Path, name: str, cells: Sequence[Cell]) -> list[dict[str, str]]:
    """Rows of cells that another call of the study ran, with other seeds for instance, and that are still there."""
    known = {cell.name for cell in cells}
    rows = [row for row in _read(folder / name) if row['cell'] not in known]
    return [row for row in rows if (folder / 'cells' / row['cell'] / 'result.json').is_file()]


def _read(path: Path) -> list[dict[str, str]]:
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
