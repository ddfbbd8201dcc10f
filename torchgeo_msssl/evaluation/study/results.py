"""Results of a study's cells, each written completely or not at all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.cell_commands import (
    cell_folder,
    configuration_digest,
    pretraining_command,
    pretraining_folder,
    steps_of,
)
from torchgeo_msssl.evaluation.study.conditions import read_table
from torchgeo_msssl.evaluation.study.design import Cell, Study
from torchgeo_msssl.files import atomic_path, write_json

#: Columns of ``results.csv``, one row per metric of each cell.
COLUMNS = (
    *('study', 'cell', 'initialisation', 'variant', 'fraction', 'shots', 'scenes', 'steps', 'seed', 'region'),
    *('metric', 'value', 'seconds', 'run', 'command'),
)
_FAILURE_COLUMNS = ('cell', 'error', 'command')


@dataclass(frozen=True)
class Result:
    """Result of a cell or a pretraining.

    Attributes:
        metrics: Metrics by name; empty if it failed.
        seconds: Duration; that of a cell excludes its pretraining.
        command: Command that ran.
        error: Reason of a failure, None if it succeeded.
        digest: Digest of the content of its configurations; None in results of earlier versions.
    """

    metrics: Mapping[str, float]
    seconds: float
    command: str
    error: str | None = None
    digest: str | None = None


def write_result(folder: Path, result: Result) -> None:
    """Write ``result.json``.

    Raises:
        OutputError: If it cannot be written.
    """
    write_json(folder / 'result.json', vars(result))


def read_result(folder: Path) -> Result | None:
    """Read ``result.json``.

    Returns:
        Its result, None if it has not ended.
    """
    path = folder / 'result.json'
    return Result(**json.loads(path.read_text(encoding='utf-8'))) if path.is_file() else None


def finished(study: Study, cells: Sequence[Cell]) -> dict[int, Result]:
    """Find the cells that ended, with or without success.

    Returns:
        Results by the index of their cell.

    Raises:
        ConfigurationError: If the output folder has results or pretrainings of other options or configurations.
    """
    found = {}
    for cell in cells:
        check_pretraining(study, cell)
        folder = cell_folder(study, cell)
        if (result := read_result(folder)) is not None:
            expected = steps_of(study, cell).command, configuration_digest(study, cell)
            _check_same(folder, 'result', (result.command, result.digest), expected)
            found[cell.index] = result
    return found


def check_pretraining(study: Study, cell: Cell) -> None:
    """Check that the pretraining of a cell that exists or has begun is the one of the study.

    Raises:
        ConfigurationError: If it has other options, or another content of its configuration.
    """
    folder, expected = pretraining_folder(study, cell), pretraining_command(study, cell)
    begun = read_begun(folder) if folder is not None else None
    if folder is not None and expected is not None and begun is not None:
        _check_same(folder, 'pretraining', begun, expected)


def _check_same(folder: Path, what: str, found: tuple[str, str | None], expected: tuple[str, str]) -> None:
    """Compare command and digest; results of earlier versions have no digest."""
    if found[0] != expected[0] or found[1] not in (None, expected[1]):
        raise ConfigurationError(
            f'output: {folder} has a {what} of other options ({found[0]}) or of another content of its configuration; '
            'choose another output, or remove the folder.'
        )


def read_begun(folder: Path) -> tuple[str, str | None] | None:
    """Read the command of a pretraining that ended or began.

    Returns:
        Its command and the digest of its configuration, None in earlier versions; None if there is no pretraining.
    """
    if result := read_result(folder):
        return result.command, result.digest
    path = folder / 'command.json'
    if not path.is_file():
        return None
    begun = json.loads(path.read_text(encoding='utf-8'))
    return begun['command'], begun['digest']


def write_results(study: Study, cells: Sequence[Cell]) -> Path:
    """Write ``results.csv`` and ``failures.csv`` in the order of the cells, whatever order they ended in.

    Rows of other cells, such as those of an earlier call with more seeds, follow.

    Returns:
        Path of ``results.csv``.

    Raises:
        OutputError: If a file cannot be written.
    """
    folder = Path(study.output)
    with FileLock(folder / 'locks' / 'results.lock'):  # other processes may write it, with fewer cells
        results = finished(study, cells)
        ended = [cell for cell in cells if cell.index in results]
        rows = [row for cell in ended for row in _rows(study, cell, results[cell.index])]
        failures = [
            {'cell': cell.name, 'error': result.error, 'command': result.command}
            for cell in ended
            if (result := results[cell.index]).error is not None
        ]
        _write(folder / 'results.csv', COLUMNS, rows, cells)
        if failures or (folder / 'failures.csv').exists():
            _write(folder / 'failures.csv', _FAILURE_COLUMNS, failures, cells)
    return folder / 'results.csv'


def _rows(study: Study, cell: Cell, result: Result) -> list[dict[str, Any]]:
    common = {
        'study': study.name,
        'cell': cell.name,
        'initialisation': cell.initialisation.name,
        'variant': cell.variant.name if cell.variant else None,
        'seconds': f'{result.seconds:.1f}',
        'run': cell_folder(study, cell).relative_to(study.output).as_posix(),
        'command': result.command,
    } | {name: getattr(cell, name) for name in ('fraction', 'shots', 'scenes', 'steps', 'seed', 'region')}
    return [common | {'metric': name, 'value': repr(value)} for name, value in sorted(result.metrics.items())]


def _write(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> None:
    """Write rows, followed by those of other cells in the file whose results still exist."""
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    if path.is_file():
        before = read_table(path).reindex(columns=columns)
        others = [
            name not in {cell.name for cell in cells} and (path.parent / 'cells' / name / 'result.json').is_file()
            for name in before['cell']
        ]
        table = pd.concat([table, before[others].astype(object)])
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, encoding='utf-8')
