"""Each file that decides the pixels of chips changes the state when it changes."""

import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely

from torchgeo_msssl.geo.chipping.fingerprints import fingerprint_of_labels, fingerprint_of_scene
from torchgeo_msssl.geo.chipping.labels import open_chip_labels
from torchgeo_msssl.geo.chipping.options import ChipOptions
from torchgeo_msssl.geo.headers import find_scenes


@pytest.fixture
def scene(make_scene: Any) -> str:
    return make_scene('scenes/ortho.tif', np.ones((1, 20, 20), 'uint16'), names=['red'])


def later(path: Path) -> None:
    """Touch a file, or make it."""
    path.touch()
    os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize('name', ['ortho.tif', 'ortho.tif.msk', 'ortho.tif.aux.xml'])
def test_scenes(scene: str, make_scene: Any, name: str) -> None:
    (before,) = map(fingerprint_of_scene, find_scenes(scene))
    assert before == [[scene, os.stat(scene).st_size, os.stat(scene).st_mtime_ns]]
    if name.endswith('.msk'):
        make_scene('scenes/ortho.tif.msk', np.ones((20, 20), 'uint8'))
    if name.endswith('.xml'):
        (Path(scene).parent / name).write_text('<PAMDataset></PAMDataset>')
    later(Path(scene).parent / name)
    (after,) = map(fingerprint_of_scene, find_scenes(scene))
    assert after != before


def draw(path: Path) -> str:
    frame = gpd.GeoDataFrame({'kind': ['vine']}, geometry=[shapely.box(600000, 4999000, 602000, 5000000)])
    frame.set_crs('EPSG:32631').to_file(path)
    return str(path)


@pytest.mark.parametrize('suffix', ['.gpkg', '.shp', '.geojson'])
def test_vectors(scene: str, tmp_path: Path, suffix: str) -> None:
    scenes = find_scenes(scene)
    options = ChipOptions(labels=(draw(tmp_path / f'vines{suffix}'),), extent=draw(tmp_path / 'extent.gpkg'))
    labels = open_chip_labels(options, scenes)
    beside = {'.gpkg': ['.gpkg-wal'], '.shp': ['.dbf', '.prj'], '.geojson': []}[suffix]
    before = fingerprint_of_labels(labels)
    for file in (f'vines{suffix}', 'extent.gpkg', *(f'vines{other}' for other in beside)):
        later(tmp_path / file)
        after = fingerprint_of_labels(labels)
        assert after != before
        before = after
    assert fingerprint_of_labels(None) == []


def test_mask_rasters(scene: str, make_scene: Any, tmp_path: Path) -> None:
    for name in ('a', 'b'):
        make_scene(f'masks/{name}.tif', np.ones((20, 20), 'uint8'))
    options = ChipOptions(labels=(str(tmp_path / 'masks'),), class_names=['other', 'vine'])

    def state() -> Any:
        return fingerprint_of_labels(open_chip_labels(options, find_scenes(scene)))

    before = state()
    assert [os.path.basename(path) for path, *_ in before] == ['a.tif', 'b.tif']
    later(tmp_path / 'masks/b.tif')
    assert [old == new for old, new in zip(before, state(), strict=True)] == [True, False]
    make_scene('masks/c.tif', np.ones((20, 20), 'uint8'))
    assert len(state()) == 3
