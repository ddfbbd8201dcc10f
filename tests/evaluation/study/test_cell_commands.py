"""The commands of a cell."""

import shlex
from collections.abc import Callable
from pathlib import Path

from torchgeo_msssl.evaluation.study.cell_commands import as_arguments, command_line, steps_of
from torchgeo_msssl.evaluation.study.design import Initialisation, Pretraining, Study, Variant, make_cells
from torchgeo_msssl.shipped_configs import ConfigFile

Make = Callable[..., Study]


def options_of(arguments: tuple[str, ...]) -> dict[str, str]:
    """Arguments by name, each of which may come once: the parser would take the last one without a word."""
    names = arguments[1::2]
    assert len(set(names)) == len(names)
    return dict(zip((name.removeprefix('--') for name in names), arguments[2::2], strict=True))


def test_a_cell_is_fit_and_test_with_the_same_data(make_study: Make) -> None:
    study = make_study(options={'data.chip_size': 64, 'model.lr': 0.1}, variants=[Variant('v', {'model.lr': 0.2})])
    random, pretrained, *_ = make_cells(study, ['blocks'])
    steps = steps_of(study, random)
    assert steps.test is not None
    assert steps.pretraining is None
    fit, test = options_of(steps.fit), options_of(steps.test)
    assert fit['config'] == 'fit.yaml'
    assert (fit['data.split'], fit['data.seed'], fit['data.label_fraction']) == ('blocks', '0', '0.1')
    assert (fit['seed_everything'], fit['data.chip_size'], fit['model.lr']) == ('0', '64', '0.2')
    assert 'model.weights' not in fit
    assert {name for name in fit | test if fit.get(name) != test.get(name)} == {
        'trainer.logger.init_args.version',
        'ckpt_path',
    }
    assert test['ckpt_path'] == f'runs/study/cells/{random.name}/fit/checkpoints/best.ckpt'
    last = steps_of(make_study(checkpoint='last'), random)
    assert last.test is not None
    assert options_of(last.test)['ckpt_path'] == f'runs/study/cells/{random.name}/fit/checkpoints/last.ckpt'

    steps = steps_of(study, pretrained)
    assert steps.pretraining is not None
    assert options_of(steps.fit)['model.weights'] == 'runs/study/pretraining/pretrained/fit/encoder.safetensors'
    pretraining = options_of(steps.pretraining)
    assert pretraining['config'] == 'pretrain.yaml'
    assert not {'seed_everything', 'data.split', 'data.label_fraction'} & set(pretraining)


def test_step_budgets_are_an_axis(make_study: Make) -> None:
    study = make_study(steps=[100, 300], options={'trainer.max_epochs': 4}, seeds=[0], fractions=[])
    cells = make_cells(study, ['blocks'])
    assert [cell.steps for cell in cells] == [100, 100, 300, 300]
    assert cells[0].name == 'random_steps-100_on-blocks_seed-0'
    fit = options_of(steps_of(study, cells[2]).fit)
    assert (fit['trainer.max_steps'], fit['trainer.max_epochs']) == ('300', '-1')


def test_a_pretraining_with_labels_has_the_split_of_its_cell_and_all_labels(make_study: Make) -> None:
    make_study()
    coarse = Pretraining(ConfigFile('pretrain.yaml'), each_seed=True, same_split=True, weights='checkpoints/best.ckpt')
    study = make_study(initialisations=[Initialisation('coarse', pretraining=coarse)], reference='coarse', seeds=[3])
    steps = steps_of(study, make_cells(study, ['ground.geojson'])[0])
    assert steps.pretraining is not None
    pretraining = options_of(steps.pretraining)
    assert (pretraining['seed_everything'], pretraining['data.seed']) == ('3', '3')
    assert pretraining['data.split'] == options_of(steps.fit)['data.split']
    assert 'data.label_fraction' not in pretraining


def test_labels_from_scenes_are_in_the_file_of_the_split(make_study: Make) -> None:
    study = make_study(fractions=[], shots=[4], scenes=[1, 2], regions=['scene'])
    cells = make_cells(study, ['scene'])
    fits = [options_of(steps_of(study, cell).fit) for cell in cells]
    assert not any('data.shots' in fit for fit in fits)
    assert len({fit['data.split'] for fit in fits}) == 4  # scenes × seeds: both initialisations learn from the same


def test_values_are_written_as_the_command_line_reads_them() -> None:
    given = {'a': None, 'b': True, 'c': [1.0, 2.0], 'd': 'text', 'e': 0.1}
    assert as_arguments(given)[1::2] == ['null', 'true', '[1.0, 2.0]', 'text', '0.1']


def test_a_command_is_one_for_a_shell(make_study: Make, tmp_path: Path) -> None:
    study = make_study(options={'data.paths': 'my flights/*.tif'})
    steps = steps_of(study, make_cells(study, ['blocks'])[0])
    assert shlex.split(command_line(steps.fit)) == ['python', '-m', 'torchgeo_msssl', *steps.fit]
    assert steps.command.count(' && ') == 1
