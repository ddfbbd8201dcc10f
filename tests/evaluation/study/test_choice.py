"""Choice between candidates by validation scores."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.evaluation.study.choice import choice_table, choose


def scores(**candidates: list[float]) -> dict[str, dict[int, float]]:
    return {name: dict(enumerate(values)) for name, values in candidates.items()}


def test_a_clear_lead_wins() -> None:
    found = choose(scores(texture=[0.6, 0.7, 0.65], random=[0.7, 0.82, 0.75], pretrained=[0.71, 0.8, 0.76]))
    assert (found.name, found.best, found.seed) == ('random', 'random', 1)  # pretrained has the same mean
    assert found.leads['texture'].mean == pytest.approx((0.1 + 0.12 + 0.1) / 3)
    assert found.wins == {'texture': 3, 'pretrained': 1}
    assert 'random scores highest' in found.reason


def test_a_lead_within_the_noise_goes_to_the_simpler_one() -> None:
    # leads of 0.09, −0.05 and 0.05: mean 0.03, standard deviation 0.0721, standard error 0.0416
    found = choose(scores(texture=[0.6, 0.7, 0.65], pretrained=[0.69, 0.65, 0.70]))
    assert (found.name, found.best) == ('texture', 'pretrained')
    assert found.noise == pytest.approx(0.07211103 / math.sqrt(3))
    assert found.leads['pretrained'].mean == pytest.approx(-0.03)
    assert found.reason.startswith('pretrained scores 0.030 higher than texture, which is no more than 0.042 of noise')
    # the same lead every time counts
    assert choose(scores(texture=[0.6, 0.7, 0.65], pretrained=[0.63, 0.73, 0.68])).name == 'pretrained'


def test_the_margin_decides_where_the_noise_is_unknown() -> None:
    one = scores(texture=[0.60], random=[0.609])
    assert choose(one).name == 'texture'
    assert choose(one, margin=0.005).name == 'random'
    assert 'One seed' in choice_table(choose(one), 'val_mean_iou')


def test_only_common_seeds_are_compared() -> None:
    found = choose({'a': {0: 0.5, 1: 0.9}, 'b': {1: 0.6, 2: 0.1}})
    assert (found.name, found.seeds, found.means['b'].mean) == ('a', (1,), 0.6)
    with pytest.raises(ConfigurationError, match='no seed has a score of every candidate'):
        choose({'a': {0: 0.5}, 'b': {1: 0.6}})


def test_the_table_names_everyone() -> None:
    found = choose(scores(texture=[0.6, 0.7], random=[0.5, 0.5]))
    lines = choice_table(found, 'val_mean_iou').splitlines()
    assert lines[2] == f'| **texture** | {found.means["texture"]} | recommended | |'
    assert lines[3].startswith('| random | 0.500 ± 0.000 | +0.150 ± ')
    assert lines[3].endswith('| 2 of 2 |')


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=4))
def test_the_choice_is_near_the_best_and_no_simpler_one_is(values: list[list[float]]) -> None:
    candidates = {str(i): dict(enumerate(row)) for i, row in enumerate(values)}
    found = choose(candidates, margin=0.01)
    means = {name: sum(row.values()) / 3 for name, row in candidates.items()}
    assert means[found.best] == pytest.approx(max(means.values()))
    assert means[found.best] - means[found.name] <= max(found.noise, 0) + 1e-12
    for name in candidates:
        if name == found.name:
            break
        assert means[found.best] - means[name] > 0.01 - 1e-12
