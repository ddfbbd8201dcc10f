"""Paired differences."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from torchgeo_msssl.evaluation.study.paired import paired_differences, paired_table, write_paired

VALUES = {'random': [0.5, 0.6, 0.7, 0.8], 'pretrained': [0.6, 0.6, 0.75, 0.7]}


def rows(missing: tuple[str, str] | None = None) -> list[dict[str, str]]:
    return [
        {'initialisation': name, 'value': repr(value), 'fraction': '0.1', 'shots': '', 'scenes': '', 'variant': '',
         'seed': str(i // 2), 'region': 'ab'[i % 2], 'metric': 'm'}
        for name, values in VALUES.items() for i, value in enumerate(values) if (name, str(i)) != missing
    ]  # fmt: skip


def test_pairs_are_of_one_seed_and_region() -> None:
    (one,) = paired_differences(rows(), 'm', 'random')
    pairs = np.subtract(VALUES['pretrained'], VALUES['random'])
    interval = stats.ttest_rel(VALUES['pretrained'], VALUES['random']).confidence_interval(0.95)
    assert one.estimate.mean == pytest.approx(pairs.mean())
    assert (one.estimate.low, one.estimate.high) == pytest.approx((interval.low, interval.high))
    assert (one.wins, one.ties, one.losses) == (2, 1, 1)


def test_a_cell_whose_partner_is_missing_is_left_out() -> None:
    (one,) = paired_differences(rows(missing=('random', '3')), 'm', 'random')
    assert one.estimate.count == 3
    assert one.losses == 0


def test_tables(tmp_path: Path) -> None:
    found = paired_differences(rows(), 'm', 'random')
    table, text = write_paired(tmp_path, found)
    with table.open(newline='') as file:
        read = list(csv.DictReader(file))
    assert float(read[0]['difference']) == found[0].estimate.mean
    assert (read[0]['wins'], read[0]['ties'], read[0]['losses'], read[0]['fraction']) == ('2', '1', '1', '0.1')
    assert '| m | pretrained | +0.012 ± 0.136 | 2 / 1 / 1 |' in text.read_text()
    assert 'No pair' in paired_table([])
