"""Rows from pieces whose row is known: straight and bent ones, of several directions, with gaps."""

import tracemalloc

import numpy as np
import pytest
import shapely
import shapely.ops

from torchgeo_msssl.geo.vectorize import rows
from torchgeo_msssl.geo.vectorize.centrelines import Midline
from torchgeo_msssl.geo.vectorize.rows import link_rows, row_midlines


def piece(*points: tuple[float, float], width: float = 0.6) -> Midline:
    array = np.array(points, dtype=np.float64)
    along = array[-1] - array[0]
    return Midline(array, width, float(np.arctan2(along[1], along[0])))


def cut(line: shapely.LineString, gaps: list[tuple[float, float]], width: float = 0.6) -> list[shapely.Polygon]:
    """Canopy of a row that is missing from one metre along it to another."""
    edges = [0.0, *(edge for gap in gaps for edge in gap), line.length]
    pieces = [shapely.ops.substring(line, *span) for span in zip(edges[::2], edges[1::2], strict=True)]
    return [part.buffer(width / 2, cap_style='flat') for part in pieces]


def rows_of(polygons: list[shapely.Polygon]) -> list[tuple[float, int, float]]:
    lines = [line for found in row_midlines(polygons) for line in found]
    return [(row.length, len(row.gaps), sum(row.gaps)) for row in link_rows(lines, [0] * len(lines))]


def test_pieces_in_one_line_are_a_row() -> None:
    pieces = [piece((12, 0), (20, 0)), piece((10, 0), (4, 0)), piece((0, 0.1), (3.8, 0)), piece((0, 2), (20, 2))]
    second, first = link_rows(pieces, [0, 0, 0, 0])
    assert (second.numbers, second.gaps, second.length) == ([3], [], 20)
    assert first.numbers in ([2, 1, 0], [0, 1, 2])
    assert first.gaps == [2.0]  # the break of 0.2 m is no gap
    assert first.length == pytest.approx(8 + 6 + 3.8 + 0.2, abs=0.01)
    turned = np.concatenate(first.pieces)[:, 0]
    assert (np.diff(turned) >= 0).all() or (np.diff(turned) <= 0).all()


def test_what_is_far_aside_or_of_another_class_is_another_row() -> None:
    start = piece((0, 0), (10, 0))
    assert len(link_rows([start, piece((12, 0), (20, 0))], [1, 2])) == 2
    assert len(link_rows([start, piece((16, 0), (25, 0))], [0, 0])) == 2
    assert len(link_rows([start, piece((16, 0), (25, 0))], [0, 0], max_gap=7)) == 1
    assert len(link_rows([start, piece((11, 1.5), (20, 1.5))], [0, 0])) == 2
    assert len(link_rows([start, piece((11, 0), (17, 5))], [0, 0])) == 2
    assert link_rows([], []) == []


def test_a_ring_of_pieces_is_a_row_with_two_ends() -> None:
    corner = np.radians(np.arange(361))
    ring = 60 * np.column_stack([np.cos(corner), np.sin(corner)])
    quarters = [Midline(ring[k * 90 + 1 : k * 90 + 90], 0.6, 0.0) for k in range(4)]
    (row,) = link_rows(quarters, [0] * 4)
    assert len(row.gaps) == 3


@pytest.mark.parametrize('angle', [0.0, 0.7, 2.0])
def test_a_parcel_gives_its_rows_and_gaps(angle: float) -> None:
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    rng = np.random.default_rng(0)
    polygons, want = [], []
    for number in range(8):
        line = shapely.LineString(np.array([(0, 2.2 * number), (30 + number, 2.2 * number)]) @ turn)
        starts = np.sort(rng.choice(np.arange(2, 28, 4), number % 4, replace=False)).astype(float)
        gaps = [(start, start + 1.15) for start in starts]
        polygons += cut(line, gaps)
        want.append((line.length - 1.15 * len(gaps), len(gaps), 1.15 * len(gaps)))
    np.testing.assert_allclose(sorted(rows_of(polygons)), sorted(want), atol=0.02)


def test_a_single_plant_between_two_gaps_belongs_to_its_row() -> None:
    line = shapely.LineString([(0, 0), (30, 9)])
    ((length, count, missing),) = rows_of(cut(line, [(10, 11.15), (12, 13.15), (20, 23.0)]))
    assert (count, missing) == (3, pytest.approx(5.3, abs=0.1))
    assert length == pytest.approx(line.length - 5.3, abs=0.1)
    assert rows_of([shapely.box(0, 0, 1, 0.8)]) == []  # alone it is no row


def test_bent_rows_stay_apart() -> None:
    corner = np.radians(np.linspace(60, 120, 90))
    rows = [shapely.LineString(radius * np.column_stack([np.cos(corner), np.sin(corner)])) for radius in (40, 42, 44)]
    polygons = [part for row in rows for part in cut(row, [(8, 9.5), (20, 22.5)])]
    got = sorted(rows_of(polygons))
    assert [count for _, count, _ in got] == [2, 2, 2]
    for (length, _, missing), row in zip(got, rows, strict=True):
        assert missing == pytest.approx(4.0, abs=0.1)
        assert length == pytest.approx(row.length - 4.0, rel=0.01)


@pytest.mark.slow
def test_many_specks_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    start, angle = rng.uniform(0, 3, (800, 2)), rng.uniform(0, np.pi, 800)
    along = 0.3 * np.column_stack([np.cos(angle), np.sin(angle)])
    specks = [piece(tuple(one), tuple(other), width=0.1) for one, other in zip(start, start + along, strict=True)]
    want = [row.numbers for row in link_rows(specks, [0] * 800)]
    monkeypatch.setattr(rows, '_PORTION', 16)
    tracemalloc.start()
    got = [row.numbers for row in link_rows(specks, [0] * 800)]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got == want
    assert len(want) < 600
    assert most < 8e6  # each end lies within 5 m of the other 1,600: 1.3 million pairs of 16 bytes
