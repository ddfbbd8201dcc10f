"""Several processes that run the cells of one study."""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial

import torch

from torchgeo_msssl.evaluation.study.cell_commands import cell_folder, pretraining_folder
from torchgeo_msssl.evaluation.study.design import Cell, Study
from torchgeo_msssl.evaluation.study.results import Result, finished, read_result, write_results
from torchgeo_msssl.evaluation.study.run import Run, run_pending
from torchgeo_msssl.processes import WorkerPool, available_cpus
from torchgeo_msssl.progress import progress_bar


def run_study(
    study: Study, cells: Sequence[Cell], run: Run, jobs: int, on_result: Callable[[Cell, Result], None]
) -> bool:
    """Run all cells that have no result yet, and those that failed again.

    Args:
        study: The study.
        cells: Its cells.
        run: Runs a command; a function of a module, because worker processes import it.
        jobs: Number of worker processes.
        on_result: Called in this process with each cell that ends.

    Returns:
        Whether all of them succeeded.

    Raises:
        WorkerError: If a worker process was killed; the same call resumes.
        KeyboardInterrupt: If the user stops it; the same call resumes.
    """
    forget_failures(study, cells)
    done = finished(study, cells)
    write_results(study, cells)
    rest = [cell for cell in cells if cell.index not in done]

    with progress_bar('Cells', len(cells)) as advance:

        def collect() -> None:
            found = finished(study, cells)
            new = [cell for cell in cells if cell.index in found and cell.index not in done]
            done.update(found)
            if new:
                write_results(study, cells)
            for cell in new:
                on_result(cell, found[cell.index])
            advance(len(done), 0.0)

        collect()
        workers = min(jobs, len(rest))
        threads = max(1, available_cpus() // workers) if workers > 1 and 'OMP_NUM_THREADS' not in os.environ else None
        with WorkerPool(workers, isolated=True) as pool:
            for _ in pool.map(partial(_work, study, rest, run), [threads] * workers, on_wait=collect):
                collect()
    return len(done) == len(cells) and all(result.error is None for result in done.values())


def forget_failures(study: Study, cells: Sequence[Cell]) -> None:
    """Remove the results of cells and pretrainings that failed, so that they run again."""
    for cell in cells:
        for folder in (cell_folder(study, cell), pretraining_folder(study, cell)):
            result = read_result(folder) if folder else None
            if folder and result and result.error is not None:
                for name in ('result.json', 'command.json'):
                    (folder / name).unlink(missing_ok=True)
                shutil.rmtree(folder / 'fit', ignore_errors=True)  # which may have caused the failure


def mean_seconds(study: Study, cells: Sequence[Cell]) -> float | None:
    """Average the duration of the cells that have ended.

    Returns:
        Seconds, None if no cell has ended.
    """
    known = [result.seconds for result in finished(study, cells).values() if result.error is None]
    return sum(known) / len(known) if known else None


def _work(study: Study, cells: Sequence[Cell], run: Run, threads: int | None) -> None:
    """Run cells in a worker process, with its share of the CPUs."""
    if threads is not None:
        os.environ['OMP_NUM_THREADS'] = str(threads)  # of processes that it starts
        torch.set_num_threads(threads)
    run_pending(study, cells, run)
