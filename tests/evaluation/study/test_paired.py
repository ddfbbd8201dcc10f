"""Paired differences."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from torchgeo_msssl.evaluation.study.paired import paired_differences, paired_table, write_paired

VALUES = {'random': [0.5, 0.6, 0.7, 0.8], 'pretrained': [0.6, 0.6, 0.75, 0.7]}


def rows(missing: tuple[str, str] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                'initialisation': name,
                'value': repr(value),
                'fraction': '0.1',
                'shots': '',
                'scenes': '',
                'variant': '',
                'steps': '',
                'seed': str(i // 2),
                'region': 'ab'[i % 2],
                'metric': 'm',
            }
            for name, values in VALUES.items()
            for i, value in enumerate(values)
            if (name, str(i)) != missing
        ]
    )


def test_pairs_are_of_one_seed_and_region_and_a_seed_counts_once() -> None:
    (one,) = paired_differences(rows(), 'm', 'random').itertuples()
    seeds = [np.reshape(VALUES[name], (2, 2)).mean(axis=1) for name in ('pretrained', 'random')]
    interval = stats.ttest_rel(*seeds).confidence_interval(0.95)
    assert one.difference == pytest.approx(np.subtract(*seeds).mean())
    assert (one.low, one.high) == pytest.approx((interval.low, interval.high))
    assert one.seeds == 2
    assert (one.wins, one.ties, one.losses) == (2, 1, 1)


@pytest.mark.slow
def test_the_interval_covers_where_regions_of_a_seed_are_alike() -> None:
    """Simulated: five seeds, whose differences (true mean 0) are nearly the same in all four regions."""
    rng, hits, repeats = np.random.default_rng(0), 0, 200
    blank = dict.fromkeys(('fraction', 'shots', 'scenes', 'variant', 'steps'), '') | {'metric': 'm'}
    for _ in range(repeats):
        found = rng.normal(0, 1, (5, 1)) + rng.normal(0, 0.3, (5, 4))
        cells = [
            blank | {'initialisation': name, 'value': repr(value), 'seed': str(seed), 'region': str(region)}
            for name, values in (('random', 0 * found), ('pretrained', found))
            for (seed, region), value in zip(np.ndindex(5, 4), values.ravel().tolist(), strict=True)
        ]
        (one,) = paired_differences(pd.DataFrame(cells), 'm', 'random').itertuples()
        hits += one.low <= 0 <= one.high
    assert 0.9 < hits / repeats < 0.99  # pairs taken for independent: 0.67


def test_a_cell_whose_partner_is_missing_is_left_out_and_its_seed_from_the_mean() -> None:
    (one,) = paired_differences(rows(missing=('random', '3')), 'm', 'random').itertuples()
    assert (one.wins, one.ties, one.losses) == (2, 1, 0)
    assert one.seeds == 1
    assert one.difference == pytest.approx(0.05)


def test_tables(tmp_path: Path) -> None:
    found = paired_differences(rows(), 'm', 'random')
    table, text = write_paired(tmp_path, found)
    with table.open(newline='') as file:
        read = list(csv.DictReader(file))
    assert float(read[0]['difference']) == found['difference'][0]
    assert (read[0]['seeds'], read[0]['pairs']) == ('2', '4')
    assert (read[0]['wins'], read[0]['ties'], read[0]['losses'], read[0]['fraction']) == ('2', '1', '1', '0.1')
    assert '| m | pretrained | +0.012 ± 0.476 | 2 / 1 / 1 |' in text.read_text()
    assert 'No pair' in paired_table(found[:0])
