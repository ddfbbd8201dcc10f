"""One call of ``study``: which cells it runs, and what it prints."""

from pathlib import Path

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.report import write_report
from torchgeo_msssl.evaluation.study.cell_commands import cell_folder, steps_of
from torchgeo_msssl.evaluation.study.conditions import read_results
from torchgeo_msssl.evaluation.study.design import Cell, Study, make_cells
from torchgeo_msssl.evaluation.study.held_out import check_pretrainings, find_regions
from torchgeo_msssl.evaluation.study.jobs import forget_failures, mean_seconds, run_study
from torchgeo_msssl.evaluation.study.results import Result, finished, write_results
from torchgeo_msssl.evaluation.study.run import Run, run_cell, try_lock
from torchgeo_msssl.evaluation.study.summary import write_plan, write_summary
from torchgeo_msssl.evaluation.study.vineyards import with_flights


class Session:
    """Cells of a study, ready to run.

    Args:
        study: The study.
        run: Function of a module that runs ``fit`` or ``test``; worker processes import it.

    Raises:
        MSSSLError: If the study and its data do not fit.
    """

    def __init__(self, study: Study, run: Run) -> None:
        self.study, self._run = with_flights(study), run
        check_pretrainings(self.study)
        self.cells = make_cells(self.study, find_regions(self.study))

    def list_cells(self, jobs: int) -> None:
        """Print the cells with their commands.

        Args:
            jobs: Number of cells that run at the same time, for the estimate of the duration.
        """
        seconds = mean_seconds(self.study, self.cells)
        each = '' if seconds is None else f'  # about {seconds:.0f} s'
        for cell in self.cells:
            print(f'{cell.index}  {cell.name}{each}\n    {steps_of(self.study, cell).command}')
        minutes = None if seconds is None else seconds * len(self.cells) / jobs / 60
        total = '' if minutes is None else f', about {minutes:.0f} minutes without pretraining'
        print(f'{len(self.cells)} cells{total}; run one of them with --index 0 … {len(self.cells) - 1}')

    def run_all(self, jobs: int) -> int:
        """Run all cells that have no result yet.

        Args:
            jobs: Number of cells that run at the same time.
        """
        write_plan(self.study, self.cells)
        try:
            succeeded = run_study(self.study, self.cells, self._run, jobs, self._print_result)
        except KeyboardInterrupt:
            print('Stopped; the same command resumes the study.')
            return 130
        self._summarize()
        if not succeeded:
            print(f'Some cells failed, see {self.study.output}/failures.csv; the same command tries them again.')
        return 0 if succeeded else 1

    def run_one(self, index: int) -> int:
        """Run one cell.

        Args:
            index: Its position in the study.

        Returns:
            Exit status: 1 if it failed or another process runs it, 130 if the user stopped it.

        Raises:
            ConfigurationError: If there is no such cell.
        """
        write_plan(self.study, self.cells)
        if not 0 <= index < len(self.cells):
            raise ConfigurationError(f'index: expected 0 to {len(self.cells) - 1}, got {index}.')
        cell = self.cells[index]
        with try_lock(cell_folder(self.study, cell)) as free:
            if not free:
                print(f'{index}  {cell.name}: another process runs it; wait for it, or choose another index.')
                return 1
            forget_failures(self.study, [cell])
            if index in finished(self.study, [cell]):
                print(f'{index}  {cell.name}: has a result already.')
                return 0
            try:
                result = run_cell(self.study, cell, self._run)
            except KeyboardInterrupt:
                return 130
        write_results(self.study, self.cells)
        self._summarize()
        self._print_result(cell, result)
        return 0 if result.error is None else 1

    def _summarize(self) -> None:
        """Write tables and figures of the results so far."""
        for path in write_summary(self.study.output):
            print(f'Wrote {path}')
        if len(read_results(Path(self.study.output))):
            print(f'Wrote {write_report(Path(self.study.output))}')

    def _print_result(self, cell: Cell, result: Result) -> None:
        if result.error is not None:
            log = cell_folder(self.study, cell) / 'log.txt'
            print(f'{cell.index}  {cell.name} failed: {result.error}{f" (see {log})" if log.is_file() else ""}')
            return
        shown = [f'{name} {result.metrics[name]:.3f}' for name in self.study.metrics if name in result.metrics]
        print(f'{cell.index}  {cell.name}: {", ".join(shown) or "no such metric"} ({result.seconds:.0f} s)')
