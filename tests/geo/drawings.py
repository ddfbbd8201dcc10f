"""Vector files to burn, with a grid to burn them on."""

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry import (
    LineString,
    Point,
    Polygon,
    box,
)

from torchgeo_msssl.geo.grid import PixelGrid
from torchgeo_msssl.geo.labels.classes import ClassNames
from torchgeo_msssl.geo.labels.options import LabelSettings
from torchgeo_msssl.geo.labels.vector import VectorLabels

UTM = 'EPSG:32631'
X, Y = 600_000.0, 5_000_000.0
GRID = PixelGrid(CRS.from_user_input(UTM), Affine(0.5, 0, X, 0, -0.5, Y), 97, 131)
NAMES = ['ground', 'vine', 'tree']


def save(path: Path, geometries: list[Any], *, crs: str | None = UTM, layer: str | None = None, **columns: Any) -> str:
    """Write a vector file."""
    options = {'layer': layer} if layer else {}
    gpd.GeoDataFrame(columns, geometry=geometries, crs=crs).to_file(path, **options)
    return str(path)


def square(x: float, y: float, side: float) -> Polygon:
    """A square from metres right of and below the grid's corner."""
    return box(X + x, Y - y - side, X + x + side, Y - y)


def scattered(seed: int, count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Triangles, rings and polylines in and round the grid, with values."""
    rng = np.random.default_rng(seed)
    shapes: list[Any] = []
    for k in range(count):
        centre = rng.uniform((-10, -10), (75, 60))
        xy = centre + rng.uniform(-20, 20, (4, 2))
        xy = np.column_stack([X + xy[:, 0], Y - xy[:, 1]])
        if k % 3 == 0:
            shapes.append(LineString(xy))
        elif k % 3 == 1:
            shapes.append(Polygon(xy[:3]))
        else:
            circle = Point(xy[0]).buffer(8)
            shapes.append(circle.difference(Point(xy[0]).buffer(rng.uniform(1, 7))))
    return np.array(shapes, dtype=object), rng.integers(1, 9, count).astype(np.uint8)


def vector_labels(
    paths: Any,
    class_names: ClassNames | None = None,
    column: str | None = None,
    ignore_index: int = 255,
    **options: Any,
) -> VectorLabels:
    """Vector labels with options by name."""
    return VectorLabels(paths, LabelSettings(class_names=class_names, column=column, **options), ignore_index)
