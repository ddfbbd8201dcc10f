"""Polygons of blocks against those of the whole map at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage

from tests.marks import first_fast
from torchgeo_msssl.errors import ConfigurationError, SceneReadError
from torchgeo_msssl.geo.vectorize.options import VectorizeOptions
from torchgeo_msssl.geo.vectorize.run import vectorize

type MakeScene = Callable[..., str]

NAMES = ['background', 'vine', 'tree']


def polygonize(class_map: Any, output: Path, *, min_area: float = 0.0, class_names: Any = NAMES, **options: Any) -> int:
    """Number of polygons."""
    written = vectorize(class_map, output, VectorizeOptions(class_names, min_area), progress=False, **options)
    return sum(written.polygons.values())


def class_map(height: int, width: int, smooth: float, seed: int = 0) -> NDArray[np.uint8]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), smooth)
    classes = np.digitize(noise, np.quantile(noise, [0.4, 0.75])).astype(np.uint8)
    classes[: height // 8, : width // 3] = 255
    return classes


def of_the_whole(array: NDArray[Any], transform: Affine) -> list[tuple[int, shapely.Geometry]]:
    found = shapes(array, mask=array != 255, connectivity=4, transform=transform)
    return [(int(value), shapely.geometry.shape(geometry)) for geometry, value in found]


def by_place(pairs: list[tuple[int, Any]]) -> list[tuple[int, bytes]]:
    """Class and normalised polygon, in one order."""
    return sorted((value, shapely.to_wkb(shapely.normalize(polygon))) for value, polygon in pairs)


@pytest.mark.parametrize('smooth', [0.0, 0.7, 4.0])
@pytest.mark.parametrize('block', first_fast([37, 16, 512]))
def test_polygons_are_those_of_the_whole_map(make_scene: MakeScene, tmp_path: Path, smooth: float, block: int) -> None:
    array = class_map(83, 71, smooth)
    transform = Affine(0.25, 0, 422_772, 0, -0.25, 4_621_047.5)
    path = make_scene('map.tif', array, nodata=255, transform=transform, crs='EPSG:25830')
    count = polygonize(path, tmp_path / 'map.gpkg', block=block)
    got = gpd.read_file(tmp_path / 'map.gpkg')
    expected = of_the_whole(array, transform)
    assert count == len(got) == len(expected)
    assert by_place(list(zip(got['class'], got.geometry, strict=True))) == by_place(expected)
    assert got.is_valid.all()
    assert got.crs.to_epsg() == 25830
    np.testing.assert_allclose(got['area_m2'], got.area)
    assert got['area_m2'].sum() == pytest.approx((array != 255).sum() * 0.0625)
    assert list(got.columns) == ['class', 'name', 'area_m2', 'geometry']
    assert set(zip(got['class'], got['name'], strict=True)) == set(enumerate(NAMES))


@pytest.mark.parametrize('block', [16, 512])
def test_probabilities_are_means_over_pixels(make_scene: MakeScene, tmp_path: Path, block: int) -> None:
    array = class_map(60, 70, 2.0)
    certainty = np.random.default_rng(1).integers(100, 255, array.shape, dtype=np.uint8)
    certainty[array == 255] = 255
    path = make_scene('map.tif', array, nodata=255)
    certain = make_scene('map_confidence.tif', certainty, nodata=255)
    with rasterio.open(certain, 'r+') as dataset:
        dataset.scales = (1 / 254,)
    polygonize(path, tmp_path / 'map.gpkg', confidence=certain, block=block)
    with rasterio.open(path) as dataset:
        transform = dataset.transform
    for row in gpd.read_file(tmp_path / 'map.gpkg').itertuples():
        inside = rasterio.features.geometry_mask([row.geometry], array.shape, transform, invert=True)
        assert row.probability == pytest.approx(certainty[inside].mean() / 254)


def test_small_polygons_are_left_out_in_square_metres(make_scene: MakeScene, tmp_path: Path) -> None:
    array = np.zeros((40, 40), dtype=np.uint8)
    array[5:7, 5:7] = 1  # 4 pixels of 100 m²
    array[20, 20] = 1
    path = make_scene('map.tif', array, nodata=255, res=10)
    assert polygonize(path, tmp_path / 'map.gpkg', min_area=101, class_names={'vine': 1}) == 1
    got = gpd.read_file(tmp_path / 'map.gpkg')
    assert (got['area_m2'].tolist(), got['name'].tolist()) == ([400.0], ['vine'])


@pytest.mark.slow
def test_many_polygons_are_written_in_portions(
    make_scene: MakeScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('torchgeo_msssl.geo.vectorize.layers._AT_ONCE', 7)
    array = class_map(60, 50, 0.5)
    path = make_scene('map.tif', array, nodata=255)
    count = polygonize(path, tmp_path / 'map.gpkg', block=32)
    assert count == len(gpd.read_file(tmp_path / 'map.gpkg')) == len(of_the_whole(array, Affine.identity()))


def test_areas_are_in_square_metres_whatever_the_crs(make_scene: MakeScene, tmp_path: Path) -> None:
    array = np.ones((10, 10), dtype=np.uint8)
    feet = make_scene('feet.tif', array, nodata=255, crs='EPSG:2227', transform=Affine(1, 0, 6e6, 0, -1, 2e6))
    polygonize(feet, tmp_path / 'feet.gpkg')
    assert gpd.read_file(tmp_path / 'feet.gpkg')['area_m2'].tolist() == pytest.approx([100 * 0.3048006096**2])
    degrees = make_scene('degrees.tif', array, nodata=255, crs='EPSG:4326', transform=Affine(1e-4, 0, 13, 0, -1e-4, 54))
    polygonize(degrees, tmp_path / 'degrees.gpkg')
    frame = gpd.read_file(tmp_path / 'degrees.gpkg')
    flat = frame.to_crs(frame.estimate_utm_crs()).area
    assert frame['area_m2'].tolist() == pytest.approx(flat.tolist(), rel=2e-3)


def test_a_map_without_data_gives_an_empty_file(make_scene: MakeScene, tmp_path: Path) -> None:
    path = make_scene('map.tif', np.full((30, 20), 255, dtype=np.uint8), nodata=255)
    assert polygonize(path, tmp_path / 'map.gpkg', block=16, confidence=path) == 0
    got = gpd.read_file(tmp_path / 'map.gpkg')
    assert list(got.columns) == ['class', 'name', 'area_m2', 'probability', 'geometry']


def test_clear_errors(make_scene: MakeScene, tmp_path: Path) -> None:
    path = make_scene('map.tif', np.full((30, 20), 7, dtype=np.uint8), nodata=255)
    other = make_scene('other.tif', np.full((30, 21), 7, dtype=np.uint8), nodata=255)
    with pytest.raises(ConfigurationError, match=r'holds the value\(s\) 7, and the classes .* have 0 to 2'):
        polygonize(path, tmp_path / 'map.gpkg')
    assert not (tmp_path / 'map.gpkg').exists()
    with pytest.raises(ConfigurationError, match='expected the grid of'):
        polygonize(path, tmp_path / 'map.gpkg', confidence=other)
    with pytest.raises(SceneReadError, match='cannot be read as a map'):
        polygonize(tmp_path / 'none.tif', tmp_path / 'map.gpkg')
