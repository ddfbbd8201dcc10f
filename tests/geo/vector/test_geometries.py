"""Widths are metres, and invalid polygons keep their ground."""

import geopandas as gpd
import numpy as np
import pytest
from shapely.geometry import (
    LineString,
    Point,
)

from tests.geo.drawings import UTM, X, Y
from torchgeo_msssl.geo.vector.geometries import buffer_metres


def test_feet_are_not_metres() -> None:
    line = gpd.GeoSeries([LineString([(0, 0), (0.001, 0.0005)])], crs='EPSG:4326').translate(-76, 40)
    metres = line.to_crs('EPSG:32618')
    feet = line.to_crs('EPSG:2272').to_numpy()  # Pennsylvania South, US survey feet
    wide = gpd.GeoSeries(buffer_metres(feet, 'EPSG:2272', 0.5), crs='EPSG:2272').to_crs('EPSG:32618')
    assert wide.area[0] == pytest.approx(metres.length[0] * 1.0, rel=2e-3)


def test_points_with_a_buffer_are_discs() -> None:
    wide = buffer_metres(np.array([Point(X, Y)], dtype=object), UTM, 2.0)
    assert wide[0].area == pytest.approx(np.pi * 4, rel=0.01)
