"""``study``: the same training with one thing changed at a time, to see whether it helps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.report import write_report
from torchgeo_msssl.evaluation.study.cell_commands import cell_folder, steps_of
from torchgeo_msssl.evaluation.study.cell_locks import claim
from torchgeo_msssl.evaluation.study.design import Cell, Study, make_cells
from torchgeo_msssl.evaluation.study.held_out import check_pretrainings, find_regions
from torchgeo_msssl.evaluation.study.jobs import estimate, forget_failures, run_study
from torchgeo_msssl.evaluation.study.results import Result, finished, read_results, write_results
from torchgeo_msssl.evaluation.study.run import claim_of, run_cell
from torchgeo_msssl.evaluation.study.summary import write_plan, write_summary
from torchgeo_msssl.evaluation.study.vineyards import with_flights

_OVERRIDES = ('model', 'data', 'trainer')


def run(arguments: Sequence[str]) -> int:
    """Run a study, or list its cells.

    Args:
        arguments: What follows the command's name.

    Returns:
        Exit status: 1 where a cell failed, 130 where the user stopped it.

    Raises:
        MSSSLError: If the options contradict each other, or the data do not suit.
    """
    study, options = read_study(arguments)
    study = with_flights(study)
    check_pretrainings(study)
    cells = make_cells(study, find_regions(study))
    if options.dry_run:
        _list(study, cells, options.jobs)
        return 0
    write_plan(study, cells)
    if options.index is not None:
        return _run_one(study, cells, options.index)
    if options.jobs < 1:
        raise ConfigurationError(f'jobs: expected 1 or more, got {options.jobs}.')
    try:
        good = run_study(study, cells, run_command, options.jobs, lambda cell, result: _tell(study, cell, result))
    except KeyboardInterrupt:
        print('Stopped; the same command goes on.')
        return 130
    _summarise(study)
    if not good:
        print(f'Cells failed or did not end: see {study.output}/failures.csv; the same command tries them again.')
    return 0 if good else 1


def read_study(arguments: Sequence[str]) -> tuple[Study, Any]:
    """Read the options of the command.

    Args:
        arguments: What follows the command's name; ``--model…``, ``--data…`` and ``--trainer…`` are options of every
            cell, and with ``--pretraining.`` before them of every pretraining.

    Returns:
        The study, and the options ``dry_run``, ``index`` and ``jobs``.

    Raises:
        MSSSLError: If they contradict each other.
    """
    rest, cells, pretrainings = _split_overrides(arguments)
    parser = ArgumentParser(prog='python -m torchgeo_msssl study', description=__doc__)
    parser.add_argument('--config', action='config', help='YAML file of the study')
    parser.add_class_arguments(Study, as_group=False)
    parser.add_argument('--dry_run', '--dry-run', action='store_true', help='list the cells and their commands')
    parser.add_argument('--index', type=int | None, help='run this cell alone (for arrays of batch jobs)')
    parser.add_argument('--jobs', type=int, default=1, help='cells that run side by side')
    found = parser.parse_args(rest)
    options = parser.instantiate(found)
    own = {name: value for name, value in vars(options).items() if name in Study.__dataclass_fields__}
    own['options'] = own['options'] | cells
    for entry in own['initialisations']:
        if entry.pretraining is not None:
            entry.pretraining.options.update(pretrainings)
    return Study(**own), options


def run_command(arguments: Sequence[str]) -> None:
    """Run ``fit`` or ``test`` in this process.

    Args:
        arguments: The command and its options.
    """
    # imported here: the process that only watches others does without
    from torchgeo_msssl.cli import run_trainer

    run_trainer(arguments)


def _split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Tell options of the study from those of its cells and pretrainings."""
    rest: list[str] = []
    cells: dict[str, str] = {}
    pretrainings: dict[str, str] = {}
    given = list(arguments)
    while given:
        argument = given.pop(0)
        name, equals, value = argument.removeprefix('--').partition('=')
        ours = pretrainings if name.startswith('pretraining.') else cells
        name = name.removeprefix('pretraining.')
        if not argument.startswith('--') or name.split('.')[0] not in _OVERRIDES or '.' not in name:
            rest.append(argument)
        elif equals or given:
            ours[name] = value if equals else given.pop(0)
        else:
            raise ConfigurationError(f'{argument}: expected a value after it.')
    return rest, cells, pretrainings


def _summarise(study: Study) -> None:
    """Write tables and figures of what there is."""
    for path in write_summary(study.output):
        print(f'Wrote {path}')
    if read_results(Path(study.output)):
        print(f'Wrote {write_report(Path(study.output))}')


def _list(study: Study, cells: Sequence[Cell], jobs: int) -> None:
    seconds = estimate(study, cells)
    told = '' if seconds is None else f'  # about {seconds:.0f} s'
    for cell in cells:
        print(f'{cell.index}  {cell.name}{told}\n    {steps_of(study, cell).command}')
    total = '' if seconds is None else f', about {seconds * len(cells) / jobs / 60:.0f} minutes besides pretraining'
    print(f'{len(cells)} cells{total}; each alone with --index 0 … {len(cells) - 1}')


def _run_one(study: Study, cells: Sequence[Cell], index: int) -> int:
    if not 0 <= index < len(cells):
        raise ConfigurationError(f'index: expected 0 to {len(cells) - 1}, got {index}.')
    cell = cells[index]
    with claim(claim_of(cell_folder(study, cell))) as mine:
        if not mine:
            print(f'{index}  {cell.name}: another process is at it; wait for it, or take another index.')
            return 1
        forget_failures(study, [cell])
        if index in finished(study, [cell]):
            print(f'{index}  {cell.name} has ended already.')
            return 0
        try:
            result = run_cell(study, cell, run_command)
        except KeyboardInterrupt:
            return 130
    write_results(study, cells)
    _summarise(study)
    _tell(study, cell, result)
    return 0 if result.error is None else 1


def _tell(study: Study, cell: Cell, result: Result) -> None:
    if result.error is not None:
        log = cell_folder(study, cell) / 'log.txt'
        print(f'{cell.index}  {cell.name} failed: {result.error}{f" (see {log})" if log.is_file() else ""}')
        return
    shown = [f'{name} {result.metrics[name]:.3f}' for name in study.metrics if name in result.metrics]
    print(f'{cell.index}  {cell.name}: {", ".join(shown) or "no such metric"} ({result.seconds:.0f} s)')
