"""Synthetic flights that share no ground."""

from glob import glob
from pathlib import Path

import geopandas as gpd
import pytest
import rasterio
from shapely.geometry import box

from torchgeo_msssl.errors import ConfigurationError, OutputError
from torchgeo_msssl.evaluation.study.vineyards import write_flights
from torchgeo_msssl.geo import eviction


def test_flights_are_apart_and_have_rows_each(tmp_path: Path) -> None:
    options = write_flights(tmp_path, 2, side=200)
    rows = gpd.read_file(options['data.labels'], layer=options['data.layer'])
    grounds, pixels = [], []
    for path in sorted(tmp_path.glob('*/flight_*.tif')):
        with rasterio.open(path) as scene:
            assert scene.descriptions[-1] == 'nir'
            grounds.append(box(*scene.bounds))
            pixels.append(scene.read())
            assert rows.intersects(grounds[-1]).any()
    assert grounds[0].distance(grounds[1]) > 100
    assert (pixels[0] != pixels[1]).mean() > 0.5

    folder = Path(options['data.labels']).parent
    times = [path.stat().st_mtime_ns for path in folder.iterdir()]
    assert write_flights(tmp_path, 2, side=200) == options
    assert [path.stat().st_mtime_ns for path in folder.iterdir()] == times  # they were there
    assert not list(tmp_path.rglob('.*'))  # no lock is left
    # flights of another number or side are no scenes without vines of these
    more = write_flights(tmp_path, 3, side=200)
    assert len(glob(more['data.paths'])) == 3
    assert write_flights(tmp_path, 2, side=200) == options
    assert len(glob(options['data.paths'])) == 2
    assert more['data.paths'] != options['data.paths']
    with pytest.raises(ConfigurationError, match='2 or more'):
        write_flights(tmp_path, 1)


def test_existing_flights_need_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = write_flights(tmp_path, 2, side=200)

    def refused(*_: object) -> None:
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(eviction, 'FileLock', refused)
    assert write_flights(tmp_path, 2, side=200) == options


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(OutputError, match='cannot be written'):
        write_flights(tmp_path / 'file', 2, side=200)
