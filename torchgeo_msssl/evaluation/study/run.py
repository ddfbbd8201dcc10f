"""Run the cells of a study as the commands that a user would type."""

import contextlib
import gc
import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from torchgeo_msssl.errors import MSSSLError
from torchgeo_msssl.evaluation.study.cell_commands import (
    cell_folder,
    configuration_digest,
    pretraining_command,
    pretraining_folder,
    steps_of,
    weights_of,
)
from torchgeo_msssl.evaluation.study.design import Cell, Study
from torchgeo_msssl.evaluation.study.held_out import prepare_split, provenance_of
from torchgeo_msssl.evaluation.study.metrics import read_metrics
from torchgeo_msssl.evaluation.study.results import Result, check_pretraining, read_result, write_result
from torchgeo_msssl.files import write_json
from torchgeo_msssl.geo.open_datasets import close_datasets

log = logging.getLogger(__name__)

#: Runs ``fit`` or ``test`` with its options, as the command line does.
Run = Callable[[Sequence[str]], object]

#: Seconds between two checks of what other processes have finished.
_INTERVAL = 0.5


def run_cell(study: Study, cell: Cell, run: Run) -> Result:
    """Train and test a cell from scratch, after its pretraining unless that has ended.

    Returns:
        Its metrics or the reason of its failure, which are also written to ``result.json`` of the cell's folder.

    Raises:
        KeyboardInterrupt: If the user stops it.
        SystemExit: If the system does.
    """
    steps, begin = steps_of(study, cell), time.monotonic()
    fit, test, digest = steps.folder / 'fit', steps.folder / study.part, configuration_digest(study, cell)
    try:
        pretrain(study, cell, run)
        for folder in (fit, test):
            shutil.rmtree(folder, ignore_errors=True)
        begin = time.monotonic()
        prepare_split(study, cell)
        for step in (steps.fit, steps.test):
            if step:
                run_step(step, run)
        metrics = read_metrics(fit, test if steps.test else None, study.part)
        result = Result(metrics, time.monotonic() - begin, steps.command, digest=digest)
    except Exception as error:
        result = Result({}, time.monotonic() - begin, steps.command, _sentence(error), digest)
    write_result(steps.folder, result)
    return result


def pretrain(study: Study, cell: Cell, run: Run) -> None:
    """Run the pretraining of a cell unless it has ended; wait for another process that runs it.

    Raises:
        RuntimeError: If it failed, here or in another process.
        ConfigurationError: If the folder has a pretraining of other options, finished or not.
    """
    folder, arguments = pretraining_folder(study, cell), steps_of(study, cell).pretraining
    if folder is None or arguments is None:
        return
    with lock_of(folder):
        check_pretraining(study, cell)
        result = read_result(folder)
        if result is None:
            result = _pretrain(study, cell, arguments, run)
            write_result(folder, result)
    if result.error is not None:
        raise RuntimeError(f'the pretraining {folder.name} failed: {result.error}')


def run_pending(study: Study, cells: Sequence[Cell], run: Run) -> None:
    """Run cells until all of them have ended, in this process or in others that share the folder."""
    while pending := [cell for cell in cells if read_result(cell_folder(study, cell)) is None]:
        if not any([_try(study, cell, run) for cell in pending]):
            time.sleep(_INTERVAL)


def _try(study: Study, cell: Cell, run: Run) -> bool:
    """Run a cell unless another process runs it or its pretraining."""
    folder = cell_folder(study, cell)
    with try_lock(folder) as free:
        if not free or read_result(folder) is not None or _awaits_pretraining(study, cell):
            return False
        with output_to(folder / 'log.txt'):
            run_cell(study, cell, run)
        return True


def _awaits_pretraining(study: Study, cell: Cell) -> bool:
    folder = pretraining_folder(study, cell)
    if folder is None or read_result(folder) is not None:
        return False
    with try_lock(folder) as free:
        return not free


def lock_of(folder: Path) -> FileLock:
    """Return the lock that a process holds while it runs a cell or a pretraining.

    Returns:
        A lock between processes, which the system releases when its process ends.
    """
    return FileLock(folder.parent.parent / 'locks' / f'{folder.parent.name}_{folder.name}.lock')


@contextlib.contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """Hold the lock of a cell or a pretraining if it is free.

    Yields:
        Whether it was free.
    """
    lock = lock_of(folder)
    with contextlib.suppress(Timeout):
        lock.acquire(blocking=False)
    try:
        yield lock.is_locked
    finally:
        lock.release()


def _pretrain(study: Study, cell: Cell, arguments: Sequence[str], run: Run) -> Result:
    """Pretrain, resuming a run that was stopped, which gives the same encoder."""
    folder, begin, weights = pretraining_folder(study, cell), time.monotonic(), weights_of(study, cell)
    known = pretraining_command(study, cell)
    assert folder is not None
    assert weights is not None
    assert known is not None
    command, digest = known
    write_json(folder / 'command.json', {'command': command, 'digest': digest})
    last = folder / 'fit' / 'checkpoints' / 'last.ckpt'
    try:
        if cell.initialisation.pretraining and cell.initialisation.pretraining.same_split:
            prepare_split(study, cell)
        run_step([*arguments, *(['--ckpt_path', str(last)] if last.is_file() else [])], run)
        if not Path(weights).is_file():
            raise FileNotFoundError(f'{weights} does not exist after the pretraining; check `weights`.')
        if study.test:
            write_json(folder / 'provenance.json', asdict(provenance_of(study, cell.initialisation)))
        metrics = read_metrics(folder / 'fit', None)
    except Exception as error:
        return Result({}, time.monotonic() - begin, command, _sentence(error), digest)
    return Result(metrics, time.monotonic() - begin, command, digest=digest)


def run_step(arguments: Sequence[str], run: Run) -> None:
    """Run a command as if it were the only one of its process.

    Args:
        arguments: The command and its options.
        run: Runs it.

    Raises:
        RuntimeError: If its options are invalid.
        KeyboardInterrupt: If the user stopped it, which Lightning turns into an exit.
    """
    before = sys.argv
    sys.argv = ['torchgeo_msssl', *arguments]  # Lightning compares its arguments with it
    try:
        run(arguments)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        if stop.code != 2:  # the status of argparse for invalid options
            raise
        raise RuntimeError(f'the options of `{arguments[0]}` are invalid, see the output above.') from stop
    finally:
        sys.argv = before
        close_datasets()
        gc.collect()


def _sentence(error: Exception) -> str:
    """Describe an error in one sentence; print the traceback of an unexpected one to the log."""
    if isinstance(error, MSSSLError | RuntimeError):
        return str(error)
    traceback.print_exception(error)
    return f'{type(error).__name__}: {error}'


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Redirect standard output and error of the process, those of C libraries included, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    with path.open('w', encoding='utf-8') as file:
        _redirect({descriptor: file.fileno() for descriptor in kept})
    try:
        yield
    finally:
        _redirect(kept)
        for descriptor in kept.values():
            os.close(descriptor)


def _redirect(targets: Mapping[int, int]) -> None:
    """Point descriptors to other files after flushing Python's buffers."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for descriptor, target in targets.items():
        os.dup2(target, descriptor)
