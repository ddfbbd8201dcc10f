"""``vectorize``: polygons and rows from a command line."""

import json
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio

from tests.real_data import DATA
from torchgeo_msssl.__main__ import main

type MakeScene = Callable[..., str]


@pytest.fixture
def rows(make_scene: MakeScene) -> str:
    """Three rows of 20 m on pixels of 0.25 m; the middle one has a gap of 2 m."""
    array = np.zeros((60, 100), dtype=np.uint8)
    array[10:13, 10:90] = array[22:25, 10:50] = array[22:25, 58:90] = array[34:37, 10:90] = 1
    array[50:52, 10:12] = 2
    return make_scene('map.tif', array, res=0.25, nodata=255, tags={'CLASS_NAMES': json.dumps(['other', 'vine', 'x'])})


def test_rows_and_what_is_said(rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'vines.gpkg'
    command = ['vectorize', rows, '--output', str(out), '--centrelines', '--min-area', '0.5']
    assert main(command) == 0
    said = capsys.readouterr().out
    assert 'vine: 4 polygons, 43.5 m²' in said
    assert '1 areas smaller than 0.5 m² were left out' in said
    assert 'class 0 (other) was left out' in said
    assert '3 rows, 58.0 m, with 1 gaps of 2.0 m' in said
    assert f'Wrote {out}' in said
    lines = gpd.read_file(out, layer='centrelines')
    assert lines['length_m'].tolist() == pytest.approx([20, 18, 20])
    assert lines['gaps'].tolist() == [0, 1, 0]
    assert lines['gap_length_m'].tolist() == pytest.approx([0, 2, 0])
    assert lines.bounds['miny'].tolist() == pytest.approx(lines.bounds['maxy'].tolist())

    assert main(command) == 1
    assert '--overwrite' in capsys.readouterr().err
    assert main([*command, '--overwrite', '--class_names', 'x=2', '--simplify', '0.1', '--max-gap', '1']) == 0
    said = capsys.readouterr().out
    assert 'no polygons: the map holds none of the classes' in said
    assert '--simplify 0.1 changed nothing: it removes corners from 0.177 m on' in said
    assert main([*command, '--overwrite', '--max-gap', '1']) == 0
    assert '4 rows, 58.0 m, with 0 gaps' in capsys.readouterr().out


def test_what_does_not_fit_is_refused(rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, sentence in {
        ('--output', str(tmp_path / 'a.shp')): 'output: expected the path of a GeoPackage',
        ('--output', str(tmp_path / 'a.gpkg'), '--min-area', '-1'): 'min_area: expected 0 or more, got -1',
    }.items():
        assert main(['vectorize', rows, *more]) == 1
        assert sentence in capsys.readouterr().err
    assert main(['vectorize', str(tmp_path / 'none.tif'), '--output', str(tmp_path / 'a.gpkg')]) == 1
    assert 'cannot be read as a map' in capsys.readouterr().err
    assert not list(tmp_path.glob('*a.*g*'))


def test_values_above_those_of_a_mask(make_scene: MakeScene, tmp_path: Path) -> None:
    path = make_scene('map.tif', np.full((5, 5), 70_000, dtype=np.int32), res=1.0)
    assert main(['vectorize', path, '--output', str(tmp_path / 'a.gpkg'), '--class_names', 'plot=70000']) == 0
    assert gpd.read_file(tmp_path / 'a.gpkg')[['class', 'name']].to_numpy().tolist() == [[0, 'plot']]
    assert main(['vectorize', path, '--output', str(tmp_path / 'b.gpkg')]) == 0
    assert gpd.read_file(tmp_path / 'b.gpkg')['class'].tolist() == [70_000]


@pytest.mark.skipif(not DATA.is_dir(), reason='no real data next to the repository')
def test_aerial_vineyards_there_and_back(tmp_path: Path) -> None:
    truth = DATA / 'vineyard_aerial' / 'aerial0_mask.tif'
    polygons, mask = tmp_path / 'a.gpkg', tmp_path / 'a.tif'
    assert main(['vectorize', str(truth), '--output', str(polygons), '--class_names', 'vineyard=1']) == 0
    assert (
        main(
            [
                'rasterize',
                str(polygons),
                '--like',
                str(truth),
                '--output',
                str(mask),
                '--column',
                'name',
                '--class_names',
                'background,vineyard',
            ]
        )
        == 0
    )
    with rasterio.open(truth) as first, rasterio.open(mask) as second:
        np.testing.assert_array_equal(first.read(1), second.read(1))
