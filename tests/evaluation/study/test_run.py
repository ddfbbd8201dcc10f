"""Cells one after the other, stopped and continued, with failures between them."""

import contextlib
import csv
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.cell_commands import cell_folder
from torchgeo_msssl.evaluation.study.design import Initialisation, Pretraining, Study, make_cells
from torchgeo_msssl.evaluation.study.jobs import forget_failures
from torchgeo_msssl.evaluation.study.results import finished, read_result, write_results
from torchgeo_msssl.evaluation.study.run import output_to, pretrain, run_cell, run_pending, try_lock
from torchgeo_msssl.evaluation.study.summary import write_plan
from torchgeo_msssl.shipped_configs import ConfigFile

Make = Callable[..., Study]
Run = Callable[[Sequence[str]], None]


def table(study: Study) -> list[dict[str, str]]:
    """``results.csv`` without its timings."""
    with write_results(study, make_cells(study, ['blocks'])).open(newline='') as file:
        return [{name: value for name, value in row.items() if name != 'seconds'} for row in csv.DictReader(file)]


def test_a_cell_runs_and_is_collected(make_study: Make, run: Run) -> None:
    study = make_study()
    cells = make_cells(study, ['blocks'])
    result = run_cell(study, cells[1], run)
    assert result.error is None
    assert result.metrics['test_iou_vine'] == pytest.approx(0.5 + 0.01 + 0.2)
    assert result.metrics['baseline_iou_vine'] == 0.4
    assert result.metrics['everything_iou_vine'] == 0.1
    assert result.metrics['train_loss'] == 0.25  # the last one that there is
    assert 'test_precision_vine' not in result.metrics  # 0 / 0
    assert finished(study, cells) == {1: result}
    row = next(row for row in table(study) if row['metric'] == 'test_iou_vine')
    assert (row['initialisation'], row['fraction'], row['seed'], row['region']) == ('pretrained', '0.1', '0', 'blocks')
    assert float(row['value']) == result.metrics['test_iou_vine']
    assert (Path(study.output) / row['run'] / 'test' / 'metrics_test.json').is_file()


@pytest.mark.parametrize('calls', [1, 2, 4, 7, 11])
def test_killed_and_continued_the_table_is_that_of_an_uninterrupted_study(
    make_study: Make, run: Run, calls: int
) -> None:
    study = make_study()
    cells = make_cells(study, ['blocks'])
    made = 0

    def dies(arguments: Sequence[str]) -> None:
        nonlocal made
        made += 1
        run(arguments)
        if made == calls:  # after the run folder is there, before it is collected
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        run_pending(study, cells, dies)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert len(finished(study, cells)) < len(cells)
    run_pending(study, cells, run)
    continued = table(study)
    assert len({row['cell'] for row in continued}) == len(cells)

    other = make_study('another')
    run_pending(other, make_cells(other, ['blocks']), run)
    assert continued == table(other)


def test_a_pretraining_runs_once(make_study: Make, run: Run) -> None:
    study, ran = make_study(), []

    def counts(arguments: Sequence[str]) -> None:
        ran.append(arguments[2])
        run(arguments)

    run_pending(study, make_cells(study, ['blocks']), counts)
    assert ran.count('pretrain.yaml') == 1
    assert ran.count('fit.yaml') == 16
    folder = Path(study.output) / 'pretraining' / 'pretrained'
    assert json.loads((folder / 'provenance.json').read_text())['reads_test_ground'] is True


def test_a_failure_is_recorded_and_the_others_go_on(make_study: Make, run: Run) -> None:
    study = make_study()
    cells = make_cells(study, ['blocks'])

    def fails(arguments: Sequence[str]) -> None:
        if arguments[0] == 'test' and 'random_fraction-0.1_on-blocks_seed-1' in ' '.join(arguments):
            raise ConfigurationError('chip_size: too large.')
        run(arguments)

    run_pending(study, cells, fails)
    found = finished(study, cells)
    assert [found[cell.index].error for cell in cells if found[cell.index].error] == ['chip_size: too large.']
    write_results(study, cells)
    with (Path(study.output) / 'failures.csv').open(newline='') as file:
        assert [row['cell'] for row in csv.DictReader(file)] == ['random_fraction-0.1_on-blocks_seed-1']

    forget_failures(study, cells)
    run_pending(study, cells, run)
    assert not any(result.error for result in finished(study, cells).values())


def test_a_failed_pretraining_fails_its_cells_alone(make_study: Make, run: Run) -> None:
    study = make_study()
    cells = make_cells(study, ['blocks'])

    def fails(arguments: Sequence[str]) -> None:
        if 'pretrain.yaml' in arguments:
            raise SystemExit(2)  # what the parser does with a wrong option
        run(arguments)

    run_pending(study, cells, fails)
    errors = {cell.initialisation.name: finished(study, cells)[cell.index].error for cell in cells}
    assert errors['random'] is None
    assert 'the pretraining pretrained failed: the options of `fit` are invalid' in str(errors['pretrained'])


def test_the_user_stops_it(make_study: Make, run: Run) -> None:
    study = make_study()
    cells = make_cells(study, ['blocks'])

    def stops(arguments: Sequence[str]) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904  as Lightning does

    with pytest.raises(KeyboardInterrupt):
        run_cell(study, cells[0], stops)
    assert read_result(cell_folder(study, cells[0])) is None


def test_results_of_other_options_are_not_taken(make_study: Make, run: Run) -> None:
    study = make_study()
    run_cell(study, make_cells(study, ['blocks'])[0], run)
    other = make_study(options={'model.lr': 0.5})
    with pytest.raises(ConfigurationError, match='has a result of other options'):
        finished(other, make_cells(other, ['blocks']))
    more = make_study(seeds=[0, 1, 2])  # more of the same is no other study
    assert len(finished(more, make_cells(more, ['blocks']))) == 1


def pretraining_with(**options: object) -> list[Initialisation]:
    return [
        Initialisation('random'),
        Initialisation('pretrained', pretraining=Pretraining(ConfigFile('pretrain.yaml'), options)),
    ]


@pytest.mark.parametrize('ended', [True, False])
def test_a_pretraining_of_other_options_is_not_taken(make_study: Make, run: Run, ended: bool) -> None:
    study = make_study()
    cell = make_cells(study, ['blocks'])[1]

    def stops(arguments: Sequence[str]) -> None:
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        pretrain(study, cell, run if ended else stops)
    other = make_study(initialisations=pretraining_with(**{'model.lr': 0.5}))
    ran: list[object] = []
    with pytest.raises(ConfigurationError, match='pretraining of other options'):
        pretrain(other, make_cells(other, ['blocks'])[1], ran.append)
    with pytest.raises(ConfigurationError, match='pretraining of other options'):
        finished(other, make_cells(other, ['blocks']))
    assert not ran
    pretrain(study, cell, run)  # it resumes with its own options


def test_results_of_an_edited_configuration_are_not_taken(make_study: Make, run: Run) -> None:
    study = make_study()
    cells = make_cells(study, ['blocks'])
    for cell in cells[:2]:
        run_cell(study, cell, run)
    Path('pretrain.yaml').write_text('{model: {lr: 0.5}}')
    assert list(finished(study, cells[:1])) == [0]  # that one does without
    with pytest.raises(ConfigurationError, match='another content'):
        finished(study, cells[1:2])
    Path('fit.yaml').write_text('{model: {lr: 0.5}}')
    with pytest.raises(ConfigurationError, match='another content'):
        finished(study, cells[:1])


def test_a_failed_pretraining_may_have_other_options_the_next_time(make_study: Make, run: Run) -> None:
    study = make_study()

    def fails(arguments: Sequence[str]) -> None:
        raise ConfigurationError('lr: too large.')

    run_cell(study, make_cells(study, ['blocks'])[1], fails)
    other = make_study(initialisations=pretraining_with(**{'model.lr': 0.5}))
    cells = make_cells(other, ['blocks'])
    forget_failures(other, cells)
    assert run_cell(other, cells[1], run).error is None


def test_rows_of_other_cells_stay(make_study: Make, run: Run) -> None:
    study = make_study()
    cells = make_cells(study, ['blocks'])
    for cell in cells:
        run_cell(study, cell, run)
    every = table(study)
    fewer = make_study(seeds=[1])
    write_plan(fewer, make_cells(fewer, ['blocks']))
    assert sorted(map(str, table(fewer))) == sorted(map(str, every))
    assert len(json.loads(Path(study.output, 'study.json').read_text())['cells']) == len(cells)
    assert table(study) == every
    shutil.rmtree(cell_folder(study, cells[0]))  # a removed cell is gone
    assert cells[0].name not in {row['cell'] for row in table(fewer)}


def test_work_of_others_is_left_alone(make_study: Make, run: Run) -> None:
    study = make_study()
    cells = make_cells(study, ['blocks'])
    ran: list[str] = []

    def notes(arguments: Sequence[str]) -> None:
        ran.append(' '.join(arguments))
        run(arguments)

    with try_lock(cell_folder(study, cells[0])) as free:
        assert free
        child = os.fork()  # a lock belongs to a process
        if child == 0:
            from torchgeo_msssl.evaluation.study.run import _try

            os._exit(int(_try(study, cells[0], notes)) + 10 * int(_try(study, cells[2], notes)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10


def test_output_goes_to_a_file_and_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    child = os.fork()
    if child == 0:
        sys.stdout = os.fdopen(1, 'w', closefd=False)  # as in a process that pytest did not start
        with output_to(tmp_path / 'log.txt'):
            print('inside')
            os.system('echo below')
        print('outside', flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert sorted((tmp_path / 'log.txt').read_text().split()) == ['below', 'inside']
    assert capfd.readouterr().out == 'outside\n'
