"""Simplified polygons still meet: no gaps, no overlaps, whatever the map."""

from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage

from torchgeo_msssl.geo.vectorize.simplify import share_corners, simplify_coverage


def polygons(smooth: float, seed: int = 0) -> NDArray[Any]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(90, 110)), smooth)
    classes = np.digitize(noise, np.quantile(noise, [0.3, 0.5, 0.8])).astype(np.uint8)
    classes[:20, :30] = 255
    found = shapes(classes, mask=classes != 255, connectivity=4)
    return np.array([shapely.geometry.shape(geometry) for geometry, _ in found], dtype=object)


@pytest.mark.parametrize('smooth', [0.7, 2.0, 6.0])
def test_shared_corners_change_no_polygon_and_make_a_coverage(smooth: float) -> None:
    before = polygons(smooth)
    after = share_corners(before)
    assert shapely.equals(before, after).all()
    assert shapely.coverage_is_valid(after)
    if smooth < 6:
        assert not shapely.coverage_is_valid(before)  # so it was needed


@pytest.mark.parametrize('tolerance', [1.0, 3.0])
@pytest.mark.parametrize('smooth', [0.7, 2.0, 6.0])
def test_neither_gaps_nor_overlaps_appear(smooth: float, tolerance: float) -> None:
    before = polygons(smooth)
    after = simplify_coverage(before, tolerance)
    assert shapely.is_valid(after).all()
    assert shapely.coverage_is_valid(after)
    assert shapely.get_num_coordinates(after).sum() < 0.9 * shapely.get_num_coordinates(share_corners(before)).sum()
    area, union = shapely.area(after).sum(), shapely.union_all(after)
    assert union.area == pytest.approx(area, rel=1e-9)  # no overlap
    assert area == pytest.approx(shapely.area(before).sum(), rel=0.01)
    # nor a gap: no hole in the whole that was not there before
    holes = [sum(len(part.interiors) for part in shapely.get_parts(shapely.union_all(p))) for p in (before, after)]
    assert holes[0] == holes[1]


def test_the_tolerance_means_the_same_across_and_along() -> None:
    step = shapely.Polygon([(0, 0), (8, 0), (8, 4), (4, 4), (4, 8), (0, 8)])  # triangles of 8 pixels
    square = np.array([step], dtype=object)
    assert shapely.get_num_coordinates(simplify_coverage(square, 2.5)).tolist() == [7]
    flat = simplify_coverage(square, 2.5, (1.0, 0.5))  # where they have half of the area
    assert shapely.get_num_coordinates(flat)[0] < 7
    assert shapely.bounds(flat).max() <= 8


def test_the_staircase_of_a_slanted_edge_becomes_straight() -> None:
    rows, cols = np.indices((60, 60))
    half = (cols + rows < 60).astype(np.uint8)
    both = np.array([shapely.geometry.shape(geometry) for geometry, _ in shapes(half, connectivity=4)], dtype=object)
    assert shapely.get_num_coordinates(simplify_coverage(both, 1.0)).max() < 10
