"""The metrics file survives kills and resumes."""

import csv
from pathlib import Path

from matplotlib.image import imread

from torchgeo_msssl.tasks.run_folder import MetricsFile, draw_curves


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def test_rows_are_appended_and_columns_grow(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / 'metrics.csv', resumed_at=0)
    metrics.add({'step': 0, 'epoch': 0, 'loss': 0.1})
    metrics.add({'step': 1, 'epoch': 0, 'loss': 0.1 + 0.2})
    metrics.add({'step': 1, 'epoch': 0, 'rank': 5.0})
    rows = read(tmp_path / 'metrics.csv')
    assert [float(row['loss']) for row in rows[:2]] == [0.1, 0.1 + 0.2]  # to the last digit
    assert rows[2]['loss'] == ''
    assert float(rows[2]['rank']) == 5
    assert metrics.series('loss') == ([0, 1], [0.1, 0.1 + 0.2])


def test_resuming_drops_the_rows_that_were_lost(tmp_path: Path) -> None:
    path = tmp_path / 'metrics.csv'
    first = MetricsFile(path, resumed_at=0)
    for step in range(5):
        first.add({'step': step, 'epoch': 0, 'loss': float(step)})
    with path.open('a') as file:
        file.write('5,0')  # half a row, as a killed process leaves it
    MetricsFile(path, resumed_at=3).add({'step': 3, 'epoch': 0, 'loss': 33.0})
    assert [(row['step'], row['loss']) for row in read(path)] == [
        ('0', '0.0'),
        ('1', '1.0'),
        ('2', '2.0'),
        ('3', '33.0'),
    ]


def test_curves_are_drawn_even_of_a_run_without_epochs(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / 'metrics.csv', resumed_at=0)
    metrics.add({'step': 0, 'epoch': 0, 'train_loss_step': -0.1, 'lr': 0.1})
    draw_curves(metrics, tmp_path / 'curves.png')
    assert imread(tmp_path / 'curves.png').shape[:2] == (600, 1200)
