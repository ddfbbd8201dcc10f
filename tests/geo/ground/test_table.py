"""Splits that a table of scenes names."""

import logging
from pathlib import Path

import numpy as np
import pytest
import shapely
from rasterio.crs import CRS

from torchgeo_msssl.errors import ConfigurationError
from torchgeo_msssl.geo.ground.area import Ground
from torchgeo_msssl.geo.ground.file import read_split

BOXES = [
    shapely.box(0, 0, 10, 10),
    shapely.box(8, 0, 18, 10),
    shapely.box(100, 0, 110, 10),
    shapely.box(200, 0, 210, 10),
]
PATHS = tuple(f'/data/images/{name}.tif' for name in 'abcd')
GROUND = Ground(CRS.from_epsg(32631), (1.0, 1.0), np.array(BOXES, dtype=np.object_), PATHS)


def table(folder: Path, text: str) -> Path:
    path = folder / 'split.csv'
    path.write_text(text, encoding='utf-8')
    return path


@pytest.mark.parametrize(
    'rows',
    [
        'id,split\na,train\nb,test\nc,val\nd,train\n',
        'file,split\na.tif,train\nb.tif,test\nc.tif,val\nd.tif,train\n',
        'split,path\ntrain,images/a.tif\ntest,/data/images/b.tif\nval,data/images/c.tif\ntrain,d\n',
    ],
)
def test_scenes_are_named_in_any_usual_way(tmp_path: Path, rows: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        regions = read_split(table(tmp_path, rows), GROUND)
    assert list(regions) == ['train', 'val', 'test']
    # a and b overlap: training yields to test
    assert regions['train'].equals(shapely.union(shapely.box(0, 0, 8, 10), BOXES[3]))
    assert regions['val'].equals(BOXES[2])
    assert regions['test'].equals(BOXES[1])
    assert '10.0 % of the ground of the train scenes lies on scenes of a later part' in caplog.text


def test_a_part_may_be_missing(tmp_path: Path) -> None:
    path = table(tmp_path, 'id,split\na,train\nc,test\n')
    regions = read_split(path, GROUND, needed=('train', 'test'))
    assert list(regions) == ['train', 'test']
    with pytest.raises(ConfigurationError, match='no scene whose column split says val'):
        read_split(path, GROUND)


@pytest.mark.parametrize(
    ('rows', 'message'),
    [
        ('id,part\na,train\n', r'has the columns id, part; expected split and one of path, file'),
        ('id,split\nz,train\n', r'names none of the scenes, such as a\.tif'),
        ('', 'has the columns ; expected split'),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_split(table(tmp_path, rows), GROUND)
