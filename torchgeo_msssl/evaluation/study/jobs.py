"""Several processes that work on one study side by side."""

import contextlib
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess

from torchgeo_msssl.evaluation.study.cell_commands import cell_folder, pretraining_folder
from torchgeo_msssl.evaluation.study.design import Cell, Study
from torchgeo_msssl.evaluation.study.results import Result, finished, read_result, write_results
from torchgeo_msssl.evaluation.study.run import Run, work
from torchgeo_msssl.processes import available_cpus
from torchgeo_msssl.progress import progress_bar

#: Called with each cell that ends.
Told = Callable[[Cell, Result], None]

_PATIENCE = 0.5


def run_study(study: Study, cells: Sequence[Cell], run: Run, jobs: int, told: Told) -> bool:
    """Run all cells that have no result yet; those that failed are tried again.

    Args:
        study: The study.
        cells: Its cells.
        run: Runs a command; a function of a module, since other processes import it.
        jobs: Number of processes.
        told: Called with each cell that ends, in this process.

    Returns:
        Whether all of them succeeded.

    Raises:
        KeyboardInterrupt: If the user stops it; the same call goes on.
    """
    forget_failures(study, cells)
    done = finished(study, cells)
    write_results(study, cells)
    rest = [cell for cell in cells if cell.index not in done]
    with _threads(jobs), progress_bar('Cells', len(cells)) as advance:
        advance(len(done), 0.0)
        workers = [_start(study, rest, run) for _ in range(min(jobs, len(rest)))]
        try:
            while any(worker.is_alive() for worker in workers):
                time.sleep(_PATIENCE)
                _tell(study, cells, done, told)
                advance(len(done), 0.0)
        except BaseException:
            for worker in workers:
                worker.terminate()
            raise
        finally:
            for worker in workers:
                worker.join()
        _tell(study, cells, done, told)
    return len(done) == len(cells) and all(result.error is None for result in done.values())


def forget_failures(study: Study, cells: Sequence[Cell]) -> None:
    """Remove the results of cells and pretrainings that failed, so that they are run again.

    Args:
        study: The study.
        cells: Cells to run.
    """
    for cell in cells:
        for folder in (cell_folder(study, cell), pretraining_folder(study, cell)):
            result = read_result(folder) if folder else None
            if folder and result and result.error is not None:
                for name in ('result.json', 'command.json'):
                    (folder / name).unlink(missing_ok=True)
                # what a failed run left may be the reason of the failure
                shutil.rmtree(folder / 'fit', ignore_errors=True)


def _tell(study: Study, cells: Sequence[Cell], done: dict[int, Result], told: Told) -> None:
    found = finished(study, cells)
    new = [cell for cell in cells if cell.index in found and cell.index not in done]
    done.update(found)
    if new:
        write_results(study, cells)
    for cell in new:
        told(cell, found[cell.index])


def _start(study: Study, cells: Sequence[Cell], run: Run) -> BaseProcess:
    worker = multiprocessing.get_context('spawn').Process(target=_worker, args=(study, list(cells), run))
    worker.start()
    return worker


def _worker(study: Study, cells: Sequence[Cell], run: Run) -> None:
    """Work until everything is done, or the process that asked for it has gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        work(study, cells, run)


@contextlib.contextmanager
def _threads(jobs: int) -> Iterator[None]:
    """Share the cores between several jobs, for processes that start now."""
    before = os.environ.get('OMP_NUM_THREADS')
    if jobs > 1 and before is None:
        os.environ['OMP_NUM_THREADS'] = str(max(1, available_cpus() // jobs))
    try:
        yield
    finally:
        if jobs > 1 and before is None:
            del os.environ['OMP_NUM_THREADS']


def mean_seconds(study: Study, cells: Sequence[Cell]) -> float | None:
    """Mean seconds of the cells that have ended.

    Args:
        study: The study.
        cells: Its cells.

    Returns:
        Seconds, None where none has.
    """
    known = [result.seconds for result in finished(study, cells).values() if result.error is None]
    return sum(known) / len(known) if known else None
