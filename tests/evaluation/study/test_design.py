"""What a study varies, and which of it goes together."""

from collections.abc import Callable

import pytest

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.cell_commands import steps_of
from torchgeo_msssl.evaluation.study.design import Initialisation, Pretraining, Study, Variant, make_cells
from torchgeo_msssl.shipped_configs import ConfigFile

Make = Callable[..., Study]


def test_every_combination_once(make_study: Make) -> None:
    study = make_study(variants=[Variant('a'), Variant('b')])
    cells = make_cells(study, ['blocks', 'scene'])
    assert [cell.index for cell in cells] == list(range(2 * 2 * 2 * 2 * 2))
    assert len({cell.name for cell in cells}) == len(cells)
    assert {cell.seed for cell in cells[:16]} == {0}  # a study that is stopped early has whole seeds


def test_names_do_not_depend_on_what_else_is_studied(make_study: Make) -> None:
    small, large = make_study(seeds=[1]), make_study(seeds=[0, 1], fractions=[0.01, 0.1, 1.0])
    names = [[cell.name for cell in make_cells(study, ['blocks'])] for study in (small, large)]
    assert set(names[0]) <= set(names[1])
    assert 'random_fraction-0.1_on-blocks_seed-1' in names[0]


def test_a_pretraining_is_shared_unless_it_is_of_a_seed(make_study: Make) -> None:
    make_study()
    for each_seed, same_split, expected in (
        (False, False, {'p'}),
        (True, False, {'p_seed-0', 'p_seed-1'}),
        (True, True, {'p_on-blocks_seed-0', 'p_on-blocks_seed-1'}),
    ):
        pretraining = Pretraining(ConfigFile('pretrain.yaml'), each_seed=each_seed, same_split=same_split)
        study = make_study(initialisations=[Initialisation('random'), Initialisation('p', pretraining=pretraining)])
        names = {cell.pretraining_name for cell in make_cells(study, ['blocks'])}
        assert names == expected | {None}


def test_a_pretraining_with_the_split_of_its_cell_is_not_that_of_another_split(make_study: Make) -> None:
    make_study()
    pretraining = Pretraining(ConfigFile('pretrain.yaml'), each_seed=True, same_split=True)
    study = make_study(
        initialisations=[Initialisation('p', pretraining=pretraining)],
        reference='p',
        seeds=[0],
        fractions=[],
        shots=[4],
        scenes=[1, 2],
        regions=['scene'],
    )
    found = {(cell.pretraining_name, steps_of(study, cell).pretraining) for cell in make_cells(study, ['scene'])}
    assert len(found) == len({name for name, _ in found}) == 2


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'fractions': [0.1], 'shots': [1]}, 'fractions or shots'),
        ({'fractions': [0.0]}, 'above 0'),
        ({'fractions': [], 'shots': [0]}, '1 or more'),
        ({'steps': [0]}, '1 or more'),
        ({'seeds': [0, 0]}, 'expected different values'),
        ({'variants': [Variant('a b'), Variant('a/b')]}, 'the same folder name'),
        ({'seeds': []}, 'at least one'),
        ({'regions': []}, 'at least one'),
        ({'reference': 'imagenet'}, "'imagenet' is not one of random, pretrained"),
        ({'test': False}, 'need a test'),
        ({'fractions': [], 'shots': [4], 'scenes': [1]}, 'regions'),
        ({'fractions': [], 'shots': [2], 'scenes': [4], 'regions': ['scene']}, 'at least as many shots'),
        ({'options': {'seed_everything': 3}}, 'seed_everything is set by the study'),
        ({'options': {'trainer.logger.init_args.name': 'x'}}, 'is set by the study'),
        ({'variants': [Variant('a', {'data.split': 'x'})]}, 'data.split is set by the study'),
    ],
)
def test_contradictions_are_refused(make_study: Make, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_study(**options)


def test_labels_of_a_pretraining_need_its_seed(make_study: Make) -> None:
    pretraining = Pretraining(ConfigFile(__file__), same_split=True)
    with pytest.raises(ConfigurationError, match='each_seed'):
        make_study(initialisations=[Initialisation('random', pretraining=pretraining)])
