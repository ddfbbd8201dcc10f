"""The metrics file survives kills and resumes."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from torchgeo_msssl.tasks.column_pictures import draw_columns
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


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that were written."""
    written: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: Any, **options: Any) -> None:
        written.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, 'savefig', keep)
    return written


def test_curves_have_legends_and_the_healthy_deviation(tmp_path: Path, figures: list[Figure]) -> None:
    metrics = MetricsFile(tmp_path / 'metrics.csv', resumed_at=0)
    metrics.add({'step': 0, 'epoch': 0, 'train_loss_step': -0.1, 'embedding_std': 0.1})
    draw_curves(metrics, tmp_path / 'curves.png', references={'std of embeddings': ('1/√64', 0.125)})
    panels = {axes.get_title(): axes for axes in figures[0].axes}
    legends = {
        title: [text.get_text() for text in axes.get_legend().get_texts()]
        for title, axes in panels.items()
        if axes.get_legend() is not None
    }
    assert legends == {'loss': ['train_loss_step'], 'std of embeddings': ['embedding_std', '1/√64 (healthy)']}
    assert panels['std of embeddings'].lines[-1].get_ydata()[0] == 0.125


def test_views_have_captions_in_the_order_of_the_columns(tmp_path: Path, figures: list[Figure]) -> None:
    images = [torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32), torch.rand(2, 3, 8, 8)]
    draw_columns(tmp_path / 'views.png', ['chip', 'view 1', 'view 2'], images, [None] * 3, (0, 1, 2))
    texts = {text.get_text(): text.get_position()[0] for text in figures[0].axes[0].texts if text.get_text()}
    width = imread(tmp_path / 'views.png').shape[1]
    assert list(texts) == ['chip', 'view 1', 'view 2']
    for number, position in enumerate(texts.values()):
        assert number * width / 3 < position < (number + 1) * width / 3
