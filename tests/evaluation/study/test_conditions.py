"""Results put in order."""

from torchgeo_msssl.evaluation.study.conditions import by_seed, conditions, main_axis, varying_axes


def row(initialisation: str, value: float, **others: str) -> dict[str, str]:
    empty = {'fraction': '', 'shots': '', 'scenes': '', 'variant': '', 'seed': '0', 'region': 'blocks', 'metric': 'm'}
    return empty | {'initialisation': initialisation, 'value': repr(value)} | others


def test_values_by_condition_seed_and_region() -> None:
    rows = [row('a', 0.1, fraction='0.1'), row('a', 0.2, fraction='1.0'), row('a', 0.3, fraction='1.0', seed='1')]
    found = conditions([*rows, row('a', 9.0, metric='other')], 'm')
    assert [list(values.values()) for values in found.values()] == [[0.1], [0.2, 0.3]]
    assert varying_axes(found) == ['fraction']
    assert main_axis(found) == 'fraction'


def test_regions_are_averaged_within_a_seed_and_incomplete_seeds_wait() -> None:
    values = {('0', 'a'): 0.2, ('0', 'b'): 0.4, ('1', 'a'): 0.6, ('1', 'b'): 0.8, ('2', 'a'): 5.0}
    assert by_seed(values) == [0.30000000000000004, 0.7]


def test_the_axis_that_varies_is_drawn() -> None:
    scenes = [row('a', 0.1, shots='4', scenes=n) for n in ('1', '2')]
    assert main_axis(conditions(scenes, 'm')) == 'scenes'
    assert main_axis(conditions([row('a', 0.1, shots='4')], 'm')) == 'shots'
    assert main_axis(conditions([row('a', 0.1)], 'm')) is None
