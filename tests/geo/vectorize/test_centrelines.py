"""Midlines of strips whose middle is known."""

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from shapely import affinity

from torchgeo_msssl.geo.vectorize.centrelines import elongation, main_axis, midlines


def strip(line: shapely.LineString, width: float) -> shapely.Polygon:
    return line.buffer(width / 2, cap_style='flat')


def arc(radius: float, degrees: float) -> shapely.LineString:
    angle = np.radians(np.linspace(90 - degrees / 2, 90 + degrees / 2, 80))
    return shapely.LineString(radius * np.column_stack([np.cos(angle), np.sin(angle)]))


def farthest(points: NDArray[np.float64], line: shapely.LineString) -> float:
    return float(shapely.hausdorff_distance(shapely.LineString(points), line, densify=0.01))


@pytest.mark.parametrize('angle', [0, 17, 90, 135, 179])
def test_a_straight_strip_has_its_middle(angle: float) -> None:
    line = affinity.rotate(shapely.LineString([(3, 5), (23, 5)]), angle, origin=(0, 0))
    polygon = strip(line, 0.6)
    assert np.sin(main_axis(polygon) - np.radians(angle)) == pytest.approx(0, abs=1e-6)
    assert elongation(polygon) == pytest.approx(20 / 0.6)
    (found,) = midlines(polygon)
    assert found.length == pytest.approx(20)
    assert found.width == pytest.approx(0.6)
    assert farthest(found.points, line) < 1e-6


@pytest.mark.parametrize(('radius', 'degrees'), [(100.0, 30.0), (30.0, 60.0), (12.0, 100.0)])
def test_a_bent_strip_has_a_bent_middle(radius: float, degrees: float) -> None:
    line = affinity.rotate(arc(radius, degrees), 33)
    (found,) = midlines(strip(line, 0.7))
    assert found.length == pytest.approx(line.length, rel=0.01)
    assert farthest(found.points, line) < 0.25


def test_a_hole_turns_neither_axis_nor_line() -> None:
    line = shapely.LineString([(0, 0), (30, 6)])
    polygon = strip(line, 1.0).difference(shapely.Point(10, 2).buffer(0.3))
    assert main_axis(polygon) == pytest.approx(np.arctan2(6, 30), abs=0.01)
    backwards = shapely.Polygon(polygon.exterior.coords[::-1], [ring.coords[::-1] for ring in polygon.interiors])
    assert main_axis(backwards) == pytest.approx(main_axis(polygon))
    (found,) = midlines(polygon)
    assert farthest(found.points, line) < 0.35


def test_rows_that_have_grown_together_are_two() -> None:
    rows = [shapely.LineString([(0, y), (40, y + 2)]) for y in (0.0, 2.0)]
    bridge = shapely.box(15, 0.8, 18, 2.9)
    found = midlines(shapely.union_all([strip(row, 0.6) for row in rows] + [bridge]))
    assert len(found) == 2
    for line, row in zip(sorted(found, key=lambda line: line.points[0, 1]), rows, strict=True):
        assert farthest(line.points, row) < 0.3
        assert line.width == pytest.approx(0.6, rel=0.15)


def test_side_shoots_have_no_line() -> None:
    row = shapely.LineString([(0, 0), (20, 0)])
    shoot = shapely.Polygon([(5, 0.2), (6.2, 1.2), (6.4, 1.0), (5.4, 0.1)])
    (found,) = midlines(strip(row, 0.6).union(shoot))
    assert found.length == pytest.approx(20, rel=0.01)


def test_a_short_piece_takes_the_direction_it_is_given() -> None:
    plant = shapely.box(0, 0, 1.0, 0.8)
    (found,) = midlines(plant, np.pi / 2)
    assert found.length == pytest.approx(0.8)
    np.testing.assert_allclose(found.points[:, 0], 0.5)
