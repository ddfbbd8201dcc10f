"""Recommendation: train candidates, compare them on validation ground, and test the best one once."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torchgeo_msssl.datamodules.segmentation import SegmentationDataModule
from torchgeo_msssl.datasets.chips import chip_splits
from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.cell_commands import (
    as_arguments,
    cell_folder,
    command_line,
    config_path,
    digest,
    steps_of,
)
from torchgeo_msssl.evaluation.study.choice import Choice, choice_table, choose
from torchgeo_msssl.evaluation.study.design import Cell, make_cells
from torchgeo_msssl.evaluation.study.held_out import check_pretrainings, open_data
from torchgeo_msssl.evaluation.study.jobs import run_study
from torchgeo_msssl.evaluation.study.metrics import read_metrics
from torchgeo_msssl.evaluation.study.recommendation import Recommendation
from torchgeo_msssl.evaluation.study.results import Result, finished
from torchgeo_msssl.evaluation.study.run import Run, output_to, run_step
from torchgeo_msssl.evaluation.study.summary import write_plan, write_summary
from torchgeo_msssl.files import atomic_path, write_json
from torchgeo_msssl.geo.ground.file import write_split
from torchgeo_msssl.geo.ground.split import split_ground
from torchgeo_msssl.samplers.blocks import ground_of

#: What the candidates must have in common to be comparable.
_LABELS = ('paths', 'labels', 'label_options', 'sample', 'shots', 'label_fraction', 'block_size', 'gap')


class Recommender:
    """Candidates, ready to be trained and compared.

    Args:
        design: The recommendation.
        run: Function of a module that runs ``fit``, ``validate`` or ``test``; worker processes import it.

    Raises:
        MSSSLError: If the options and the data do not fit.
    """

    def __init__(self, design: Recommendation, run: Run) -> None:
        self.design, self._run = design, run
        data = open_data(design.fit, design.options)
        if not isinstance(data, SegmentationDataModule):
            raise ConfigurationError(
                f'{config_path(design.fit)}: expected a SegmentationDataModule, got {type(data).__name__}.'
            )
        self._data = data
        split = None if data.reads_chips else self._write_split()
        self.study = design.study([str(split)] if split else [])
        check_pretrainings(self.study)
        self._check_labels()
        self.cells = make_cells(self.study, [str(split) if split else None])

    @property
    def folder(self) -> Path:
        """Run folder of the recommended model."""
        return Path(self.design.output) / 'recommended'

    def list_cells(self) -> None:
        """Print the runs with their commands."""
        for cell in self.cells:
            print(f'{cell.name}\n    {steps_of(self.study, cell).command}')

    def run_all(self, jobs: int) -> int:
        """Train the candidates that have no result yet, choose one, and test it once.

        Args:
            jobs: Number of candidates that are trained at the same time.

        Returns:
            Exit status: 1 if a candidate failed, 130 if the user stopped it.

        Raises:
            ConfigurationError: If no candidate could be trained.
        """
        write_plan(self.study, self.cells)
        try:
            succeeded = run_study(self.study, self.cells, self._run, jobs, self._print_result)
        except KeyboardInterrupt:
            print('Stopped; the same command resumes.')
            return 130
        write_summary(self.study.output)
        self.conclude()
        if not succeeded:
            print(f'Some candidates failed, see {self.study.output}/failures.csv; the same command tries them again.')
        return 0 if succeeded else 1

    def conclude(self) -> Choice:
        """Choose a candidate by its validation scores, test it, and write and print the recommendation.

        Returns:
            The choice.

        Raises:
            ConfigurationError: If no candidate has a score.
            OutputError: If a file cannot be written.
        """
        results = {i: result for i, result in finished(self.study, self.cells).items() if result.error is None}
        choice = choose(self._scores(results), self.design.margin)
        cell = next(cell for cell in self.cells if (cell.initialisation.name, cell.seed) == (choice.name, choice.seed))
        test = self._test(cell) if self._has_test_ground() else {}
        self._keep(cell)
        text = '\n'.join([choice_table(choice, self.design.metric), _test_line(test, self.folder / 'test')])
        commands = {'fit': results[cell.index].command, 'predict': self._next_command(cell)}
        report = _report(choice, self.design.metric, results, self.cells) | {'test': test, 'commands': commands}
        write_json(Path(self.design.output) / 'recommendation.json', report)
        with atomic_path(Path(self.design.output) / 'recommendation.md') as temporary:
            temporary.write_text(f'# {self.design.name}\n\n{text}', encoding='utf-8')
        print(f'\n{text}\nRun folder: {self.folder}\nNext: {commands["predict"]}')
        return choice

    def _write_split(self) -> Path:
        """Write the split that all candidates share; its name depends on the options of the data."""
        known = {name: value for name, value in self.design.options.items() if name.startswith('data.')}
        content = Path(self.design.fit).read_bytes()
        name = digest(repr(sorted(known.items())).encode(), content)
        path = Path(self.design.output) / 'splits' / f'{name}.geojson'
        if not path.is_file():
            data, ground = self._data, ground_of(self._data.scenes)
            labels = data.open_labels().source
            regions = split_ground(ground, data.split, data.fractions, data.block_size, data.seed, labels, data.gap)
            if 'val' not in regions:
                raise ConfigurationError(
                    f'split: {data.split} has no validation ground, on which candidates are compared; add polygons '
                    'whose column split says val.'
                )
            write_split(path, regions, ground.crs)
        return path

    def _check_labels(self) -> None:
        """Check that candidates with a configuration of their own have the same labels, without opening files."""
        for entry in self.study.initialisations:
            if entry.fit is None:
                continue
            options = {name: value for name, value in self.study.options.items() if name.startswith('data.')}
            other = open_data(entry.fit, options | entry.options)
            different = [name for name in _LABELS if getattr(other, name, None) != getattr(self._data, name)]
            if different:
                raise ConfigurationError(
                    f'candidates: {entry.name} has other values of {", ".join(different)} in '
                    f'{config_path(entry.fit)} than {config_path(self.design.fit)} has; '
                    f'give them to all as options, such as --data.{different[0]}.'
                )

    def _scores(self, results: dict[int, Result]) -> dict[str, dict[int, float]]:
        """Scores of the candidates by seed, without those that failed for all seeds."""
        scores: dict[str, dict[int, float]] = {entry.name: {} for entry in self.study.initialisations}
        for cell in self.cells:
            known = results[cell.index].metrics if cell.index in results else {}
            if self.design.metric in known:
                scores[cell.initialisation.name][cell.seed] = known[self.design.metric]
            elif known:
                names = ', '.join(name for name in known if name.startswith('val_'))
                raise ConfigurationError(f'metric: {cell.name} has no {self.design.metric}; available: {names}.')
        found = {name: known for name, known in scores.items() if known}
        if not found:
            raise ConfigurationError(f'candidates: none could be trained, see {self.study.output}/failures.csv.')
        return found

    def _has_test_ground(self) -> bool:
        if not self._data.reads_chips:
            return True
        paths = self._data.paths
        assert paths is not None
        (root,) = [paths] if isinstance(paths, str) else paths
        return 'test' in chip_splits(root)

    def _test(self, cell: Cell) -> dict[str, float]:
        """Test a cell unless that was done before."""
        folder = cell_folder(self.study, cell)
        test = steps_of(replace(self.study, part='test'), cell).test
        assert test is not None
        if not (folder / 'test' / 'metrics_test.json').is_file():
            with output_to(folder / 'test.txt'):
                run_step(test, self._run)
        return {
            name: value
            for name, value in read_metrics(folder / 'fit', folder / 'test').items()
            if name.startswith('test_')
        }

    def _keep(self, cell: Cell) -> None:
        """Copy the run folder of a cell, so that neither the other candidates nor their seeds need to be kept."""
        source, target = cell_folder(self.study, cell), self.folder
        partial = target.with_name(f'{target.name}.partial')
        for folder in (partial, target):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source / 'fit', partial, copy_function=_link)
        if (source / 'test').is_dir():
            shutil.copytree(source / 'test', partial / 'test', copy_function=_link)
        partial.rename(target)

    def _next_command(self, cell: Cell) -> str:
        """Command that maps the first scene with the recommended model."""
        config = config_path(cell.initialisation.fit or self.design.fit)
        kept = {
            name: self.design.options[name] for name in ('data.sensor', 'data.offset') if name in self.design.options
        }
        scene = 'ortho.tif' if self._data.reads_chips else self._data.scenes.scenes[0].path
        options = {'config': config, 'ckpt_path': str(self.folder / 'checkpoints' / 'best.ckpt')} | kept
        return command_line(['predict', *as_arguments(options | {'data.predict_paths': scene})])

    def _print_result(self, cell: Cell, result: Result) -> None:
        name = f'{cell.initialisation.name}, seed {cell.seed}'
        if result.error is not None:
            print(f'{name} failed: {result.error} (see {cell_folder(self.study, cell) / "log.txt"})')
        elif self.design.metric in result.metrics:
            print(f'{name}: {self.design.metric} {result.metrics[self.design.metric]:.3f} ({result.seconds:.0f} s)')


def _report(choice: Choice, metric: str, results: dict[int, Result], cells: Sequence[Cell]) -> dict[str, Any]:
    """Content of ``recommendation.json``."""
    candidates: dict[str, Any] = {}
    for cell in cells:
        if cell.index in results and cell.initialisation.name in choice.means:
            entry = candidates.setdefault(cell.initialisation.name, {'scores': {}, 'seconds': {}})
            entry['scores'][str(cell.seed)] = results[cell.index].metrics[metric]
            entry['seconds'][str(cell.seed)] = results[cell.index].seconds
    for name, entry in candidates.items():
        entry |= {key: getattr(choice.means[name], key) for key in ('mean', 'low', 'high')}
        if name in choice.leads:
            lead = choice.leads[name]
            entry['lead'] = {key: getattr(lead, key) for key in ('mean', 'low', 'high', 'error')}
            entry['lead']['wins'] = choice.wins[name]
    return {
        'recommended': choice.name,
        'seed': choice.seed,
        'checkpoint': 'recommended/checkpoints/best.ckpt',
        'metric': metric,
        'seeds': list(choice.seeds),
        'best': choice.best,
        'noise': choice.noise,
        'reason': choice.reason,
        'candidates': candidates,
    }


def _test_line(test: dict[str, float], folder: Path) -> str:
    if not test:
        return 'There is no test ground.\n'
    shown = [f'{name.removeprefix("test_")} {value:.3f}' for name, value in test.items() if 'iou' in name]
    return f'On the test ground, which decided nothing: {", ".join(shown)} ({folder}).\n'


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
