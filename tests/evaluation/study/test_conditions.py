"""Results grouped by condition."""

import pandas as pd
import pytest

from torchgeo_msssl.evaluation.study.conditions import (
    condition_label,
    estimates,
    main_axis,
    seed_means,
    values_of,
    varying_axes,
)


def row(initialisation: str, value: float, **others: str) -> dict[str, str]:
    empty = {
        'fraction': '',
        'shots': '',
        'scenes': '',
        'variant': '',
        'steps': '',
        'seed': '0',
        'region': 'blocks',
        'metric': 'm',
    }
    return empty | {'initialisation': initialisation, 'value': repr(value)} | others


def test_values_by_condition_seed_and_region() -> None:
    rows = [row('a', 0.1, fraction='0.1'), row('a', 0.2, fraction='1.0'), row('a', 0.3, fraction='1.0', seed='1')]
    found = estimates(pd.DataFrame([*rows, row('a', 9.0, metric='other')]), 'm')
    assert [one.mean for one in found['estimate']] == pytest.approx([0.1, 0.25])
    assert [one.count for one in found['estimate']] == [1, 2]
    assert varying_axes(found) == ['fraction']
    assert main_axis(found) == 'fraction'
    assert [condition_label(one, ['fraction', 'shots']) for one in found.to_dict('records')] == [
        'a, fraction 0.1',
        'a, fraction 1.0',
    ]


def test_regions_are_averaged_within_a_seed_and_incomplete_seeds_wait() -> None:
    values = {('0', 'a'): 0.2, ('0', 'b'): 0.4, ('1', 'a'): 0.6, ('1', 'b'): 0.8, ('2', 'a'): 5.0}
    rows = [row('x', value, seed=seed, region=region) for (seed, region), value in values.items()]
    assert seed_means(values_of(pd.DataFrame(rows), 'm')) == pytest.approx([0.3, 0.7])


def test_a_group_counts_each_seed_and_region_once() -> None:
    """As for the threshold, which is the same for all initialisations."""
    table = pd.DataFrame([row('a', 0.1), row('b', 0.1), row('a', 0.3, seed='1'), row('b', 0.3, seed='1')])
    (found,) = estimates(table, 'm', ['fraction'])['estimate']
    assert (found.mean, found.count) == (pytest.approx(0.2), 2)
    (found,) = estimates(table, 'm', [])['estimate']
    assert (found.mean, found.count) == (pytest.approx(0.2), 2)
    assert len(estimates(table, 'none', [])) == 0


def test_the_axis_that_varies_is_drawn() -> None:
    scenes = [row('a', 0.1, shots='4', scenes=n) for n in ('1', '2')]
    assert main_axis(pd.DataFrame(scenes)) == 'scenes'
    assert main_axis(pd.DataFrame([row('a', 0.1, shots='4')])) == 'shots'
    assert main_axis(pd.DataFrame([row('a', 0.1)])) is None
